"""A policy's layers on a CPU with the interpreter out of the way: arrays in, arrays out.

What `policies.policy.Policy.unroll` does with linear layers and LSTMs as one kernel, to rounding. In small
batches all between its products took several times as long as they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from policies import activations, gemm, head_kernels, lstm_kernels, network_kernels
from policies.activations import JIT, forget_stale
from policies.lstm import LSTM

if TYPE_CHECKING:
    from policies.policy import Policy


forget_stale(__file__, activations, gemm, head_kernels, lstm_kernels, network_kernels)


class Stepped(NamedTuple):
    """R rows after one step."""

    output: np.ndarray  # [R, K] of the output layer, the value's as it is
    value: np.ndarray  # [R] in units of reward
    state: np.ndarray  # [L, 2, R, H]


class Drawn(NamedTuple):
    """R decisions, each a choice of n."""

    choice: np.ndarray  # [R] int64, -1 where nothing is legal
    logp: np.ndarray  # [R]
    value: np.ndarray  # [R] in units of reward
    state: np.ndarray  # [L, 2, R, H]


class Compiled:
    """The layers of a policy with one LSTM core and a shared critic, from observation to output."""

    def __init__(self, policy: Policy, core: LSTM) -> None:
        """core: the policy's."""
        self._policy, self._core = policy, core
        self.widths = np.array([len(bias) for bias in policy.encoder.bias], np.int64)
        self._params: list[Tensor] = []

    @property
    def params(self) -> list[Tensor]:
        """The policy's, in the order in which `network_kernels` has them."""
        core, policy = self._core, self._policy
        if not self._params or self._params[-1] is not policy.output_bias:  # others have taken their place
            layers = zip(core.input_weight, core.hidden_weight, core.bias, strict=True)
            hidden = zip(policy.encoder.weight, policy.encoder.bias, strict=True)
            output = (policy.output_weight, policy.output_bias)
            self._params = [x for layer in (*hidden, *layers, output) for x in layer]
        return self._params

    @property
    def usable(self) -> bool:
        """Whether it may be called now: on a CPU whose GEMM kernels can call."""
        bias = self._policy.output_bias
        return gemm.AVAILABLE and not self._core.plain and bias.is_cpu and bias.dtype == torch.float32

    def encoded(self, obs: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
        """What the first layer reads, x [M, F], of obs leaves [M, ...]."""
        x = self._policy.input.encoded(obs)
        assert x.shape == (rows, self._policy.input.output_size), (x.shape, rows)
        return x

    def addresses(self) -> np.ndarray:
        """Where the parameters lie now, and mean and std of the value."""
        tensors = (*self.params, self._policy.value_mean, self._policy.value_std)
        assert all(x.is_contiguous() for x in tensors)
        return np.array([x.data_ptr() for x in tensors], np.int64)

    def step(self, obs: Mapping[str, np.ndarray], is_first: np.ndarray, state: np.ndarray) -> Stepped:
        """obs leaves [R, ...], is_first [R] bool, state [L, 2, R, H]."""
        x, state = self._entering(obs, is_first, state)
        output = np.empty((len(x), len(self.params[-1])), np.float32)
        stepped = Stepped(output, np.empty(len(x), np.float32), np.empty_like(state))
        _step(x, is_first, state, self.addresses(), self.widths, *stepped)
        return stepped

    def draw(
        self,
        obs: Mapping[str, np.ndarray],
        legal: np.ndarray | None,
        is_first: np.ndarray,
        state: np.ndarray,
        uniform: np.ndarray,
    ) -> Drawn:
        """`step` and `policies.categorical.draw` of it; legal [R, n] bool, uniform [R] in [0, 1)."""
        x, state = self._entering(obs, is_first, state)
        rows, choices = len(x), len(self.params[-1]) - 1
        legal = np.ones((rows, choices), bool) if legal is None else np.ascontiguousarray(legal)
        uniform = np.ascontiguousarray(uniform)
        assert legal.shape == (rows, choices), (legal.shape, rows, choices)
        assert uniform.shape == (rows,), (uniform.shape, rows)
        logp, value = np.empty((2, rows), np.float32)
        drawn = Drawn(np.empty(rows, np.int64), logp, value, np.empty_like(state))
        _draw(x, is_first, state, self.addresses(), self.widths, legal, uniform, choices, *drawn)
        return drawn

    def _entering(
        self, obs: Mapping[str, np.ndarray], is_first: np.ndarray, state: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the kernels read beside is_first; they look at no shape."""
        rows, (layers, vectors, width) = len(is_first), self._core.state_shape
        assert state.shape == (layers, vectors, rows, width), (state.shape, rows, self._core.state_shape)
        return self.encoded(obs, rows), np.ascontiguousarray(state)


@numba.njit(**JIT)
def _step(x, is_first, state, address, widths, y, value, after):  # type: ignore[no-untyped-def]
    """x [R, F], is_first [R], state [L, 2, R, H] -> y [R, K], value [R] and the state after it, all written.

    address: of weights, as in `policies.network_kernels`; widths: of the encoder's layers.
    """
    threads = gemm.set_num_threads(np.int32(1))
    rows, units, at = x.shape[0], state.shape[3], 0
    for k in range(widths.shape[0]):
        out = np.empty((rows, widths[k]), np.float32)
        network_kernels.dense(x, address[at], address[at + 1], out)
        network_kernels.relu(out)
        x, at = out, at + 2
    # Allocated one by one: the cell's loops stay scalar where two arrays are parts of one.
    gates, hidden_gates = np.empty((rows, 4 * units), np.float32), np.empty((rows, 4 * units), np.float32)
    for layer in range(state.shape[0]):
        gemm.matmul_t(x, address[at], gates, False)
        gemm.matmul_t(state[layer, 0], address[at + 1], hidden_gates, False)
        bias = gemm.floats(address[at + 2], 4 * units)
        cells = state[layer, 1], after[layer, 0], after[layer, 1]
        lstm_kernels.forward(gates, hidden_gates, bias, is_first, *cells)
        x, at = after[layer, 0], at + 3
    network_kernels.dense(x, address[at], address[at + 1], y)
    mean, std = gemm.floats(address[at + 2], 1)[0], gemm.floats(address[at + 3], 1)[0]
    for r in range(rows):
        value[r] = y[r, y.shape[1] - 1] * std + mean
    gemm.set_num_threads(threads)


@numba.njit(**JIT)
def _draw(  # type: ignore[no-untyped-def]
    x, is_first, state, address, widths, legal, uniform, choices, choice, logp, value, after
):
    """`_step` and a choice by its first numbers: choice, logp and value [R] are written."""
    output = np.empty((x.shape[0], choices + 1), np.float32)
    _step(x, is_first, state, address, widths, output, value, after)
    head_kernels.sample(output[:, :choices], legal, uniform, choice, logp)
