"""An LSTM's whole unroll on a CPU as one kernel each way, where kernels can call the GEMM.

N lanes, T steps. The pointwise half is `policies.lstm_kernels`, the definition `lstm.reference_unroll`.
"""

from __future__ import annotations

import numba
import numpy as np

from policies import activations, gemm, linear, lstm_kernels, simd
from policies.activations import JIT, forget_stale

forget_stale(__file__, activations, gemm, linear, lstm_kernels, simd)


@numba.njit(**JIT)
def forward(  # type: ignore[no-untyped-def]
    gates, is_first, hidden, cell, weight, bias, half, hidden_in, hiddens, cells
):
    """hiddens and cells [T, N, H] after each step, and hidden_in [T, N, H] before it, are written.

    gates [T, N, 4H]: the input's share, whose place the activations take; hidden, cell [N, H] enter t = 0.
    weight: the address of [4H, H]; half: `gemm.Half`.
    """
    for t in range(gates.shape[0]):
        lstm_kernels.reset(is_first[t], hidden, hidden_in[t])
        gemm.matmul_t(gemm.factor(hidden_in[t], half), weight, gates[t], True)
        lstm_kernels.forward(gates[t], None, bias, is_first[t], cell, hiddens[t], cells[t])
        hidden, cell = hiddens[t], cells[t]


@numba.njit(**JIT)
def backward(  # type: ignore[no-untyped-def]
    grad_output, gates, is_first, first_cell, cells, weight, grad_gates, factors, grad_bias
):
    """grad_gates [T, N, 4H], maybe gates, is written, grad_bias [4H] added to; grad_output [T, N, H].

    factors: `gemm.place` of grad_gates, written; weight: the address of [4H, H], in the same precision.
    """
    length, lanes, width = cells.shape
    # The state that leaves t = T - 1 enters no later step of this fragment.
    grad_hidden, grad_cell = np.zeros((lanes, width), np.float32), np.zeros((lanes, width), np.float32)
    first_next = np.zeros(lanes, np.bool_)
    for t in range(length - 1, -1, -1):
        cell_in = cells[t - 1] if t else first_cell
        lstm_kernels.backward(
            grad_output[t], grad_hidden, first_next, gates[t], is_first[t], cell_in, cells[t], grad_cell,
            grad_gates[t], grad_bias,
        )  # fmt: skip
        gemm.round_to(grad_gates[t], factors[t])
        gemm.matmul(factors[t], weight, grad_hidden)
        first_next = is_first[t]
