"""One decision of many rows on a CPU with the interpreter out of the way: arrays in, arrays out.

What `policies.policy.Policy.unroll` does at T = 1 with linear layers and LSTMs, number for number, as one
kernel. In small batches all between its products took several times as long as they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from policies import gemm, lstm_kernels
from policies.activations import F32, JIT
from policies.encoders.mlp import MLP
from policies.encoders.observation import ObservationInput
from policies.lstm import LSTM


class Stepped(NamedTuple):
    """R rows after one decision."""

    output: np.ndarray  # [R, K] of the output layer
    state: np.ndarray  # [L, 2, R, H]


class CompiledStep:
    """A policy's layers from observation to output; they may move, and their numbers change."""

    def __init__(
        self, inputs: ObservationInput, encoder: MLP, core: LSTM, output_weight: Tensor, output_bias: Tensor
    ) -> None:
        self._input, self._core = inputs, core
        layers = zip(core.input_weight, core.hidden_weight, core.bias, strict=True)
        hidden = zip(encoder.weight, encoder.bias, strict=True)
        self._params = [x for layer in (*hidden, *layers, (output_weight, output_bias)) for x in layer]
        self._widths = np.array([len(bias) for bias in encoder.bias], np.int64)

    @property
    def usable(self) -> bool:
        """Whether it may be called now: outside autograd, on a CPU whose GEMM kernels can call."""
        if torch.is_grad_enabled() or self._core.plain or not gemm.AVAILABLE:
            return False
        bias = self._params[-1]
        return bias.is_cpu and bias.dtype == torch.float32

    def __call__(self, obs: Mapping[str, np.ndarray], is_first: np.ndarray, state: np.ndarray) -> Stepped:
        """obs leaves [R, ...], is_first [R] bool, state [L, 2, R, H]."""
        x, state = self._input.encoded(obs), np.ascontiguousarray(state)
        stepped = Stepped(np.empty((len(x), len(self._params[-1])), np.float32), np.empty_like(state))
        address = np.array([param.data_ptr() for param in self._params], np.int64)
        _step(x, is_first, state, address, self._widths, *stepped)
        return stepped


@numba.njit(**JIT)
def _dense(x, weight, bias, y):  # type: ignore[no-untyped-def]
    """y [R, N] = x [R, K] @ weight.T + bias, these two by address."""
    rows, width = y.shape
    added = gemm.floats(bias, width)
    for r in range(rows):
        for j in range(width):
            y[r, j] = added[j]
    gemm.matmul_t(x, weight, y, True)


@numba.njit(**JIT)
def _step(x, is_first, state, address, widths, y, after):  # type: ignore[no-untyped-def]
    """x [R, F], is_first [R], state [L, 2, R, H] -> y [R, K] and the state after it, both written.

    address: of weight and bias of the encoder's layers, which are `widths` wide, then of the LSTM layers'
    input weight, hidden weight and bias, then of the output's weight and bias.
    """
    threads = gemm.set_num_threads(np.int32(1))
    rows, units, at = x.shape[0], state.shape[3], 0
    for k in range(widths.shape[0]):
        out = np.empty((rows, widths[k]), np.float32)
        _dense(x, address[at], address[at + 1], out)
        for r in range(rows):
            for j in range(widths[k]):
                out[r, j] = F32(0.0) if out[r, j] < F32(0.0) else out[r, j]  # which lets NaN through
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
    _dense(x, address[at], address[at + 1], y)
    gemm.set_num_threads(threads)
