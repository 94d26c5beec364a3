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

from policies import gemm, lstm_kernels, network_kernels
from policies.activations import JIT
from policies.encoders.mlp import MLP
from policies.encoders.observation import ObservationInput
from policies.lstm import LSTM


class Stepped(NamedTuple):
    """R rows after one decision."""

    output: np.ndarray  # [R, K] of the output layer
    state: np.ndarray  # [L, 2, R, H]


class Compiled:
    """A policy's layers from observation to output; they may move, and their numbers change."""

    def __init__(
        self, inputs: ObservationInput, encoder: MLP, core: LSTM, output_weight: Tensor, output_bias: Tensor
    ) -> None:
        self._input, self._core = inputs, core
        layers = zip(core.input_weight, core.hidden_weight, core.bias, strict=True)
        hidden = zip(encoder.weight, encoder.bias, strict=True)
        output = (output_weight, output_bias)
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
        """Where the parameters lie now."""
        return np.array([param.data_ptr() for param in self.params], np.int64)

    def step(self, obs: Mapping[str, np.ndarray], is_first: np.ndarray, state: np.ndarray) -> Stepped:
        """One decision: obs leaves [R, ...], is_first [R] bool, state [L, 2, R, H]."""
        x, state = self.encoded(obs), np.ascontiguousarray(state)
        stepped = Stepped(np.empty((len(x), len(self.params[-1])), np.float32), np.empty_like(state))
        _step(x, is_first, state, self.addresses(), self.widths, *stepped)
        return stepped


@numba.njit(**JIT)
def _step(x, is_first, state, address, widths, y, after):  # type: ignore[no-untyped-def]
    """x [R, F], is_first [R], state [L, 2, R, H] -> y [R, K] and the state after it, both written.

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
    gemm.set_num_threads(threads)
