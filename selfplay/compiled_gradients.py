"""The loss of a minibatch and its gradient on a CPU as one kernel, from encoded observations to all weights.

What `selfplay.learner.Learner` else has of autograd, for a network of linear layers and LSTMs and one choice
of n. The interpreter has no part in it, so that a small minibatch costs little more than its products, and
threads do not wait for each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from policies import activations, gemm, head_kernels, lstm_kernels, network_kernels, unroll_kernels
from policies.activations import forget_stale
from policies.categorical_head import CategoricalHead
from policies.compiled import Compiled
from policies.policy import Policy
from selfplay import loss_kernels
from selfplay.config import PPOConfig

forget_stale(
    __file__, activations, gemm, head_kernels, loss_kernels, lstm_kernels, network_kernels, unroll_kernels
)


class CompiledGradients:
    """Gradients of PPO's loss for one policy."""

    def __init__(self, policy: Policy, layers: Compiled, head: CategoricalHead, config: PPOConfig) -> None:
        """`of` makes them, where they can be."""
        self._policy, self._layers, self._head, self._config = policy, layers, head, config
        dual = math.inf if config.dual_clip is None else math.log(config.dual_clip)
        self._bounds = np.array((math.log1p(-config.clip), math.log1p(config.clip), dual), np.float32)
        place = {id(param): k for k, param in enumerate(policy.parameters())}
        self._order = [place[id(param)] for param in layers.params]

    @classmethod
    def of(cls, policy: Policy, config: PPOConfig) -> CompiledGradients | None:
        """None where something in the loss, or of what is to be learned, is more than the kernel has."""
        layers, head = policy.compiled, policy.head
        if layers is None or type(head) is not CategoricalHead or config.magnet_coef or config.autocast:
            return None
        whole = len(layers.params) == len(list(policy.parameters()))
        return cls(policy, layers, head, config) if whole else None

    @property
    def usable(self) -> bool:
        """Whether it may be called now."""
        return self._layers.usable

    def __call__(self, batch: Any, entropy_coef: float, grads: Sequence[Tensor]) -> Tensor:
        """Write the mean loss's gradients, as the policy's parameters; the means [5] of `losses.ppo_loss`."""
        policy, (length, lanes) = self._policy, batch.is_first.shape
        rows = length * lanes

        def flat(x: Tensor) -> np.ndarray:
            return x.contiguous().view(rows, *x.shape[2:]).numpy()

        with torch.no_grad():
            x = self._layers.encoded({path: flat(leaf) for path, leaf in batch.obs.items()}, rows)
            legal = batch.mask.get("")
            choice = flat(batch.action[""]).astype(np.int64) - self._head.start
            mean, std = np.float32(policy.value_mean), np.float32(policy.value_std)
        sums = np.empty(5)
        _gradients(
            x,
            batch.is_first.contiguous().numpy(),
            batch.state.contiguous().numpy(),
            np.ones((rows, self._head.num_inputs), bool) if legal is None else flat(legal),
            choice,
            *map(flat, (batch.logp, batch.advantage, batch.target)),
            self._layers.addresses(),
            self._layers.widths,
            np.array([grads[k].data_ptr() for k in self._order], np.int64),
            mean,
            std,
            self._bounds,
            np.float32(self._config.value_coef),
            np.float32(entropy_coef),
            sums,
        )
        return torch.from_numpy((sums / rows).astype(np.float32))


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _gradients(  # type: ignore[no-untyped-def]
    x, is_first, state, legal, choice, old_logp, advantage, target, address, widths, grad_address, value_mean,
    value_std, bounds, value_coef, entropy_coef, sums,
):  # fmt: skip
    """Gradients of the mean loss over M = T * N elements, to grad_address, and `loss_kernels.ppo`'s sums [5].

    x [M, F], is_first [T, N], state [L, 2, N, H] entering t = 0, legal [M, n], all others [M]. Addresses and
    widths as `policies.network_kernels` has them; bounds: of `loss_kernels.ppo`.
    """
    threads = gemm.set_num_threads(np.int32(1))
    rows, choices = legal.shape
    output, grad = np.empty((rows, choices + 1), np.float32), np.empty((rows, choices + 1), np.float32)
    inputs, gates, entering, cells = network_kernels.forward(x, is_first, state, address, widths, output)
    logits, prob = output[:, :choices], np.empty((rows, choices), np.float32)
    value, logp, entropy, log_total = np.empty((4, rows), np.float32)
    grad_value, grad_logp, grad_entropy = np.empty((3, rows), np.float32)
    head_kernels.evaluate(logits, legal, choice, prob, log_total, logp, entropy)
    for m in range(rows):
        value[m] = output[m, choices] * value_std + value_mean
    loss_kernels.ppo(
        logp, entropy, value, old_logp, advantage, target, value_std, bounds, sums, grad_logp, grad_value
    )
    share = np.float32(1.0 / rows)
    for m in range(rows):
        grad_logp[m] *= share
        grad_entropy[m] = -entropy_coef * share
        grad[m, choices] = grad_value[m] * value_coef * share * value_std
    head_kernels.evaluate_backward(
        logits, legal, choice, prob, log_total, entropy, grad_logp, grad_entropy, grad[:, :choices]
    )
    network_kernels.backward(
        grad, is_first, state, inputs, gates, entering, cells, address, widths, grad_address
    )
    gemm.set_num_threads(threads)
