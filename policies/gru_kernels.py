"""The pointwise half of a GRU step on a CPU, as `policies.lstm_kernels` has it for the LSTM.

The gates' order is r, z, n, as in torch.nn.GRU. Their definition is `policies.gru.reference_unroll`.
"""

from __future__ import annotations

import numba

from policies import activations
from policies.activations import F32, JIT, forget_stale, sigmoid, tanh
from policies.lstm_kernels import reset as reset

forget_stale(__file__, activations)


@numba.njit(**JIT)
def forward(gates, hidden_gates, bias, hidden_in, recalled, hidden):  # type: ignore[no-untyped-def]
    """One step of N lanes: hidden [N, H] and recalled [N, H] (the state's share of n) are written.

    gates [N, 3H] holds the input's share of the gates, and gets their activations.
    """
    lanes, width = hidden.shape
    for n in range(lanes):
        for j in range(2 * width):
            gates[n, j] = sigmoid(gates[n, j] + hidden_gates[n, j])
        for j in range(width):
            recalled[n, j] = hidden_gates[n, 2 * width + j] + bias[j]
        for j in range(width):
            gates[n, 2 * width + j] = tanh(gates[n, 2 * width + j] + gates[n, j] * recalled[n, j])
        for j in range(width):
            candidate = gates[n, 2 * width + j]
            hidden[n, j] = candidate + gates[n, width + j] * (hidden_in[n, j] - candidate)


@numba.njit(**JIT)
def backward(  # type: ignore[no-untyped-def]
    grad_output,
    grad_next,
    is_first_next,
    gates,
    recalled,
    hidden_in,
    grad_gates,
    grad_hidden_gates,
    grad_hidden,
):
    """The step's gradient, to grad_gates and grad_hidden_gates [N, 3H], both written.

    grad_next [N, H] is d loss / d(state that entered t + 1); where an episode opened there
    (is_first_next) it does not reach this step. grad_hidden [N, H] gets the part of d loss / d(state that
    entered this step) that does not go through the gates.
    """
    lanes, width = hidden_in.shape
    one = F32(1.0)
    for n in range(lanes):
        keep = F32(0.0) if is_first_next[n] else one
        for j in range(width):
            grad_hidden[n, j] = grad_output[n, j] + keep * grad_next[n, j]
        for j in range(width):
            z, candidate = gates[n, width + j], gates[n, 2 * width + j]
            grad_gates[n, width + j] = grad_hidden[n, j] * (hidden_in[n, j] - candidate) * z * (one - z)
        for j in range(width):
            z, candidate = gates[n, width + j], gates[n, 2 * width + j]
            grad_gates[n, 2 * width + j] = grad_hidden[n, j] * (one - z) * (one - candidate * candidate)
        for j in range(width):
            r = gates[n, j]
            grad_gates[n, j] = grad_gates[n, 2 * width + j] * recalled[n, j] * r * (one - r)
        for j in range(2 * width):
            grad_hidden_gates[n, j] = grad_gates[n, j]
        for j in range(width):
            grad_hidden_gates[n, 2 * width + j] = grad_gates[n, 2 * width + j] * gates[n, j]
        for j in range(width):
            grad_hidden[n, j] *= gates[n, width + j]
