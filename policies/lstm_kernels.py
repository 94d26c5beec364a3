"""The pointwise half of an LSTM step on a CPU: one pass over memory each way.

torch computes the cell as nine passes with a slow tanh; these kernels take one, about ten times
faster. Each lane is worked through in several short loops, whose arrays stay in the first cache: one
long loop would touch more arrays than the compiler will check for overlap, and stay scalar. So would one
that counts from 2H to 3H: loops begin at 0.

The gates' order is i, f, g, o, as in torch.nn.LSTM. Their definition is `policies.lstm.reference_unroll`.
"""

from __future__ import annotations

import numba
import numpy as np

from policies import activations
from policies.activations import F32, JIT, forget_stale, sigmoid, tanh

forget_stale(__file__, activations)


@numba.njit(**JIT)
def forward(gates, hidden_gates, bias, is_first, cell_in, hidden, cell):  # type: ignore[no-untyped-def]
    """One step of N lanes: hidden [N, H] and cell [N, H] are written.

    gates [N, 4H] holds the input's share of the gates, and gets their activations. bias [4H]. Where an
    episode opens (is_first [N]) neither hidden_gates [N, 4H] nor cell_in [N, H] is looked at.
    """
    lanes, width = cell.shape
    for n in range(lanes):
        if is_first[n]:
            for j in range(4 * width):
                gates[n, j] += bias[j]
        else:
            for j in range(4 * width):
                gates[n, j] += hidden_gates[n, j] + bias[j]
        for j in range(2 * width):
            gates[n, j] = sigmoid(gates[n, j])
        for j in range(width):
            gates[n, 2 * width + j] = tanh(gates[n, 2 * width + j])
        for j in range(width):
            gates[n, 3 * width + j] = sigmoid(gates[n, 3 * width + j])
        if is_first[n]:
            for j in range(width):
                cell[n, j] = gates[n, j] * gates[n, 2 * width + j]
        else:
            for j in range(width):
                cell[n, j] = gates[n, width + j] * cell_in[n, j] + gates[n, j] * gates[n, 2 * width + j]
        for j in range(width):
            hidden[n, j] = tanh(cell[n, j])
        for j in range(width):
            hidden[n, j] *= gates[n, 3 * width + j]


@numba.njit(**JIT)
def reset(is_first, hidden, hidden_in):  # type: ignore[no-untyped-def]
    """The hidden state that enters a step: a copy of hidden [N, H], zero where an episode opens."""
    lanes, width = hidden.shape
    for n in range(lanes):
        if is_first[n]:
            hidden_in[n, :] = F32(0.0)
        else:
            for j in range(width):
                hidden_in[n, j] = hidden[n, j]


@numba.njit(**JIT)
def backward(  # type: ignore[no-untyped-def]
    grad_output, grad_next, is_first_next, gates, is_first, cell_in, cell, grad_cell, grad_gates, grad_bias
):
    """The step's gradient: grad_gates [N, 4H] is written, grad_cell [N, H] goes from c_t to c_{t-1}.

    grad_bias [4H] is added to, while what it sums lies in the cache.

    grad_next [N, H] is d loss / d(state that entered t + 1); where an episode opened there
    (is_first_next) neither it nor grad_cell reaches this step. is_first: where one opened at t itself.
    """
    lanes, width = cell.shape
    one = F32(1.0)
    grad_hidden = np.empty(width, np.float32)
    tanh_cell = np.empty(width, np.float32)
    total = np.zeros(4 * width, np.float32)  # of this step: shorter sums round less
    for n in range(lanes):
        keep = F32(0.0) if is_first_next[n] else one
        for j in range(width):
            tanh_cell[j] = tanh(cell[n, j])
        for j in range(width):
            grad_hidden[j] = grad_output[n, j] + keep * grad_next[n, j]
        for j in range(width):
            o = gates[n, 3 * width + j]
            grad_gates[n, 3 * width + j] = grad_hidden[j] * tanh_cell[j] * o * (one - o)
        for j in range(width):
            through_cell = grad_hidden[j] * gates[n, 3 * width + j] * (one - tanh_cell[j] * tanh_cell[j])
            grad_cell[n, j] = keep * grad_cell[n, j] + through_cell
        for j in range(width):
            i = gates[n, j]
            grad_gates[n, j] = grad_cell[n, j] * gates[n, 2 * width + j] * i * (one - i)
        for j in range(width):
            g = gates[n, 2 * width + j]
            grad_gates[n, 2 * width + j] = grad_cell[n, j] * gates[n, j] * (one - g * g)
        if is_first[n]:
            for j in range(width):
                grad_gates[n, width + j] = F32(0.0)
        else:
            for j in range(width):
                f = gates[n, width + j]
                grad_gates[n, width + j] = grad_cell[n, j] * cell_in[n, j] * f * (one - f)
        for j in range(width):
            grad_cell[n, j] *= gates[n, width + j]
        for j in range(4 * width):
            total[j] += grad_gates[n, j]
    for j in range(4 * width):
        grad_bias[j] += total[j]
