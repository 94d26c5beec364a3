"""The loss of a minibatch and its gradient on a CPU as one kernel, from encoded observations to all weights.

What `selfplay.learner.Learner` else has of autograd, for a network of linear layers and LSTMs and one choice
of n. The interpreter has no part in it, so that a small minibatch costs little more than its products, and
threads do not wait for each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from policies import (
    activations,
    gemm,
    head_kernels,
    linear,
    lstm_kernels,
    network_kernels,
    simd,
    unroll_kernels,
)
from policies.activations import JIT, forget_stale
from policies.categorical_head import CategoricalHead
from policies.compiled import Compiled
from policies.policy import Policy
from selfplay import loss_kernels
from selfplay.config import PPOConfig

forget_stale(
    __file__,
    activations,
    gemm,
    head_kernels,
    linear,
    loss_kernels,
    lstm_kernels,
    network_kernels,
    simd,
    unroll_kernels,
)


class Arrays(NamedTuple):
    """A batch of N lanes as the kernel reads it."""

    x: np.ndarray  # [T, N, F] encoded observations
    is_first: np.ndarray  # [T, N]
    state: np.ndarray  # [L, 2, N, H] entering t = 0
    legal: np.ndarray  # [T, N, n] bool
    choice: np.ndarray  # [T, N] int64, from 0
    elements: np.ndarray  # [3, T, N] logp of who acted, advantage, target of the value


class CompiledGradients:
    """Gradients of PPO's loss for one policy."""

    def __init__(self, policy: Policy, layers: Compiled, head: CategoricalHead, config: PPOConfig) -> None:
        """`of` makes them, where they can be."""
        self._policy, self._layers, self._head, self._config = policy, layers, head, config
        dual = math.inf if config.dual_clip is None else math.log(config.dual_clip)
        self._half: gemm.Half = True if config.autocast else None
        self._bounds = np.array((math.log1p(-config.clip), math.log1p(config.clip), dual), np.float32)
        place = {id(param): k for k, param in enumerate(policy.parameters())}
        self._order = [place[id(param)] for param in layers.params]

    @classmethod
    def of(cls, policy: Policy, config: PPOConfig) -> CompiledGradients | None:
        """None where there is an `obstacle`."""
        if obstacle(policy, config) is not None:
            return None
        assert policy.compiled is not None
        assert isinstance(policy.head, CategoricalHead)
        return cls(policy, policy.compiled, policy.head, config)

    @property
    def usable(self) -> bool:
        """Whether it may be called now."""
        return self._layers.usable

    def arrays(self, batch: Any) -> Arrays:
        """Of a `selfplay.learner.Batch`, as the policy's inputs are normalised now."""
        length, lanes = batch.is_first.shape
        obs = {path: leaf.contiguous().numpy() for path, leaf in batch.obs.items()}
        flat = {path: leaf.reshape(length * lanes, *leaf.shape[2:]) for path, leaf in obs.items()}
        x, legal = self._layers.encoded(flat, length * lanes), batch.mask.get("")
        everything = np.ones((length, lanes, self._head.num_inputs), bool)
        return Arrays(
            x.reshape(length, lanes, x.shape[1]),
            batch.is_first.contiguous().numpy(),
            batch.state.contiguous().numpy(),
            everything if legal is None else legal.contiguous().numpy(),
            batch.action[""].contiguous().numpy().astype(np.int64) - self._head.start,
            torch.stack((batch.logp, batch.advantage, batch.target)).numpy(),
        )

    def __call__(
        self, arrays: Arrays, lanes: np.ndarray, entropy_coef: float, grads: Sequence[Tensor]
    ) -> Tensor:
        """Write the mean loss's gradients over these lanes [K], as the policy's parameters.

        Gives the means [5] of `losses.ppo_loss` and of a magnet's, 0.
        """
        sums = np.zeros(6)
        address, _kept = self._layers.addresses(self._half)
        _gradients(
            *arrays,
            lanes,
            address,
            self._layers.widths,
            self._half,
            np.array([grads[k].data_ptr() for k in self._order], np.int64),
            np.float32(self._policy.value_mean),
            np.float32(self._policy.value_std),
            self._bounds,
            np.float32(self._config.value_coef),
            np.float32(entropy_coef),
            sums,
        )
        return torch.from_numpy((sums / (len(lanes) * len(arrays.x))).astype(np.float32))


def obstacle(policy: Policy, config: PPOConfig) -> str | None:
    """What in the loss, or of what is to be learned, is more than the kernel has."""
    if config.magnet_coef:
        return f"ppo.magnet_coef={config.magnet_coef:g}"
    if policy.spec.core != "lstm":
        return f"policy.core={policy.spec.core!r}"
    if policy.spec.critic != "shared":
        return f"policy.critic={policy.spec.critic!r}"
    if type(policy.head) is not CategoricalHead:
        return "actions of other kinds than one choice"
    if policy.compiled is None or len(policy.compiled.params) < len(list(policy.parameters())):
        return "observations of images, sets or many choices"
    return None


EXACT = {"nogil": True, "cache": True, "error_model": "numpy"}  # sums as they are written

ROWS = 1024
"""Elements learned from at a time, about: what lies between the layers stays in the last cache."""


@numba.njit(**JIT)
def _pick(x, lanes):  # type: ignore[no-untyped-def]
    """x [A, N, B] -> [A, K, B] of these lanes [K]."""
    picked = np.empty((x.shape[0], len(lanes), x.shape[2]), x.dtype)
    for a in range(x.shape[0]):
        for k in range(len(lanes)):
            for b in range(x.shape[2]):
                picked[a, k, b] = x[a, lanes[k], b]
    return picked


@numba.njit(**EXACT)
def _gradients(  # type: ignore[no-untyped-def]
    x, is_first, state, legal, choice, elements, lanes, address, widths, half, grad_address, value_mean,
    value_std, bounds, value_coef, entropy_coef, sums,
):  # fmt: skip
    """Gradients of the mean loss over these lanes [K], to grad_address; sums [6] get the loss's added.

    `Arrays` of N lanes; addresses, widths and half as `policies.network_kernels` has them; bounds: of
    `loss_kernels.ppo`.
    """
    threads = gemm.set_num_threads(np.int32(1))
    (length, count, choices), (layers, _, _, units), inputs = legal.shape, state.shape, x.shape[2]
    coefficients = value_coef, entropy_coef, np.float32(1.0 / (length * len(lanes)))
    weights, biases = network_kernels.sums(inputs, widths, units, layers, choices + 1)
    # Of wide layers the weights themselves are much to read: more lanes at a time.
    pieces = max(1, len(lanes) // max(1, ROWS // length, units // 2))
    for piece in range(pieces):
        part = lanes[piece * len(lanes) // pieces : (piece + 1) * len(lanes) // pieces]
        rows = length * len(part)
        opens = _pick(is_first.reshape(length, count, 1), part).reshape(length, len(part))
        entering = _pick(state.reshape(layers * 2, count, units), part).reshape(layers, 2, len(part), units)
        output = np.empty((rows, choices + 1), np.float32)
        kept = network_kernels.forward(
            _pick(x, part).reshape(rows, inputs), opens, entering, address, widths, half, output
        )
        allowed = _pick(legal, part).reshape(rows, choices)
        chosen = _pick(choice.reshape(length, count, 1), part).reshape(rows)
        old_logp, advantage, target = _pick(elements.reshape(3 * length, count, 1), part).reshape(3, rows)
        grad = _loss(
            output, allowed, chosen, old_logp, advantage, target, value_mean, value_std, bounds, coefficients,
            sums,
        )  # fmt: skip
        network_kernels.backward(grad, opens, entering, *kept, address, half, weights, biases)
    network_kernels.write(weights, biases, widths, units, grad_address)
    gemm.set_num_threads(threads)


@numba.njit(**EXACT)
def _loss(  # type: ignore[no-untyped-def]
    output, legal, choice, old_logp, advantage, target, value_mean, value_std, bounds, coefficients, sums
):
    """The gradient [M, n + 1] of the network's output; sums [6] are added to.

    coefficients: of value and entropy, and what one element counts.
    """
    rows, choices = legal.shape
    value_coef, entropy_coef, share = coefficients
    grad, part = np.empty_like(output), np.empty(5)
    logits, prob = output[:, :choices], np.empty((rows, choices), np.float32)
    value, logp, entropy, log_total = np.empty((4, rows), np.float32)
    grad_value, grad_logp, grad_entropy = np.empty((3, rows), np.float32)
    head_kernels.evaluate(logits, legal, choice, prob, log_total, logp, entropy)
    for m in range(rows):
        value[m] = output[m, choices] * value_std + value_mean
    loss_kernels.ppo(
        logp, entropy, value, old_logp, advantage, target, value_std, bounds, part, grad_logp, grad_value
    )
    for m in range(rows):
        grad_logp[m] *= share
        grad_entropy[m] = -entropy_coef * share
        grad[m, choices] = grad_value[m] * value_coef * share * value_std
    head_kernels.evaluate_backward(
        logits, legal, choice, prob, log_total, entropy, grad_logp, grad_entropy, grad[:, :choices]
    )
    for k in range(5):
        sums[k] += part[k]
    return grad
