"""A policy's layers on a CPU with the interpreter out of the way: arrays in, arrays out.

What `policies.policy.Policy.unroll` does with linear layers and LSTMs, number for number, as one kernel. In
small batches all between its products took several times as long as they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from policies import gemm, head_kernels, lstm_kernels, network_kernels
from policies.activations import JIT
from policies.encoders.mlp import MLP
from policies.encoders.observation import ObservationInput
from policies.lstm import LSTM


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
    """A policy's layers from observation to output; they may move, and their numbers change."""

    def __init__(
        self,
        inputs: ObservationInput,
        encoder: MLP,
        core: LSTM,
        output: tuple[Tensor, Tensor],
        value: tuple[Tensor, Tensor],
    ) -> None:
        """output: weight and bias of its layer; value: mean and std of its last number's units."""
        self._input, self._core, self._value = inputs, core, value
        layers = zip(core.input_weight, core.hidden_weight, core.bias, strict=True)
        hidden = zip(encoder.weight, encoder.bias, strict=True)
        self.params = [
            x for layer in (*hidden, *layers, output) for x in layer
        ]  # as `network_kernels` has them
        self.widths = np.array([len(bias) for bias in encoder.bias], np.int64)

    @property
    def usable(self) -> bool:
        """Whether it may be called now: on a CPU whose GEMM kernels can call."""
        bias = self.params[-1]
        return gemm.AVAILABLE and not self._core.plain and bias.is_cpu and bias.dtype == torch.float32

    def encoded(self, obs: Mapping[str, np.ndarray]) -> np.ndarray:
        """What the first layer reads, x [M, F], of obs leaves [M, ...]."""
        return self._input.encoded(obs)

    def addresses(self) -> np.ndarray:
        """Where the parameters lie now, and mean and std of the value."""
        return np.array([x.data_ptr() for x in (*self.params, *self._value)], np.int64)

    def step(self, obs: Mapping[str, np.ndarray], is_first: np.ndarray, state: np.ndarray) -> Stepped:
        """obs leaves [R, ...], is_first [R] bool, state [L, 2, R, H]."""
        x, state = self.encoded(obs), np.ascontiguousarray(state)
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
        """`step` and `policies.categorical.drawn` of it; legal [R, n] bool, uniform [R] in [0, 1)."""
        x, state, rows = self.encoded(obs), np.ascontiguousarray(state), len(is_first)
        choices = len(self.params[-1]) - 1
        if legal is None:
            legal = np.ones((rows, choices), bool)
        logp, value = np.empty((2, rows), np.float32)
        drawn = Drawn(np.empty(rows, np.int64), logp, value, np.empty_like(state))
        _draw(x, is_first, state, self.addresses(), self.widths, legal, uniform, choices, *drawn)
        return drawn


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
