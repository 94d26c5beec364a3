"""The pointwise half of an LSTM step on a CPU: one pass over memory each way.

torch computes the cell as nine passes with a slow tanh; these kernels take one, about ten times
faster. Each lane is worked through in several short loops, whose arrays stay in the first cache: one
long loop would touch more arrays than the compiler will check for overlap, and stay scalar.

The gates' order is i, f, g, o, as in torch.nn.LSTM. Their definition is `policies.lstm.reference_unroll`.
"""

from __future__ import annotations

import numba
import numpy as np

_F32 = np.float32
_LIMIT = _F32(7.90531110763549805)  # where the approximation reaches 1
_FAST = {"contract", "nsz", "arcp", "reassoc"}  # not the flags that assume away NaN
_JIT = {"nogil": True, "cache": True, "fastmath": _FAST, "error_model": "numpy"}


@numba.njit(inline="always", **_JIT)
def _tanh(x):  # type: ignore[no-untyped-def]
    """Rational approximation of degree 13 over 6, within 4e-7 of tanh; it vectorises, libm's does not."""
    x = _LIMIT if x > _LIMIT else x  # as comparisons, which let NaN through
    x = -_LIMIT if x < -_LIMIT else x
    s = x * x
    p = _F32(-2.76076847742355e-16)
    p = p * s + _F32(2.00018790482477e-13)
    p = p * s + _F32(-8.60467152213735e-11)
    p = p * s + _F32(5.12229709037114e-08)
    p = p * s + _F32(1.48572235717979e-05)
    p = p * s + _F32(6.37261928875436e-04)
    p = p * s + _F32(4.89352455891786e-03)
    q = _F32(1.19825839466702e-06)
    q = q * s + _F32(1.18534705686654e-04)
    q = q * s + _F32(2.26843463243900e-03)
    q = q * s + _F32(4.89352518554385e-03)
    return x * p / q


@numba.njit(inline="always", **_JIT)
def _sigmoid(x):  # type: ignore[no-untyped-def]
    return _F32(0.5) * _tanh(_F32(0.5) * x) + _F32(0.5)


@numba.njit(**_JIT)
def forward(gates, hidden_gates, cell_in, hidden, cell):  # type: ignore[no-untyped-def]
    """One step of N lanes: hidden [N, H] and cell [N, H] are written.

    gates [N, 4H] holds the input's share of the gates, and gets their activations.
    """
    lanes, width = cell.shape
    for n in range(lanes):
        for j in range(2 * width):
            gates[n, j] = _sigmoid(gates[n, j] + hidden_gates[n, j])
        for j in range(2 * width, 3 * width):
            gates[n, j] = _tanh(gates[n, j] + hidden_gates[n, j])
        for j in range(3 * width, 4 * width):
            gates[n, j] = _sigmoid(gates[n, j] + hidden_gates[n, j])
        for j in range(width):
            cell[n, j] = gates[n, width + j] * cell_in[n, j] + gates[n, j] * gates[n, 2 * width + j]
        for j in range(width):
            hidden[n, j] = gates[n, 3 * width + j] * _tanh(cell[n, j])


@numba.njit(**_JIT)
def reset(is_first, hidden, cell, hidden_in, cell_in):  # type: ignore[no-untyped-def]
    """The state that enters a step: a copy of hidden and cell [N, H], zero where an episode opens."""
    lanes, width = cell.shape
    for n in range(lanes):
        if is_first[n]:
            hidden_in[n, :] = _F32(0.0)
            cell_in[n, :] = _F32(0.0)
        else:
            for j in range(width):
                hidden_in[n, j] = hidden[n, j]
            for j in range(width):
                cell_in[n, j] = cell[n, j]


@numba.njit(**_JIT)
def backward(  # type: ignore[no-untyped-def]
    grad_output, grad_next, is_first_next, gates, cell_in, cell, grad_cell, grad_gates
):
    """The step's gradient: grad_gates [N, 4H] is written, grad_cell [N, H] goes from c_t to c_{t-1}.

    grad_next [N, H] is d loss / d(state that entered t + 1); where an episode opened there
    (is_first_next) neither it nor grad_cell reaches this step.
    """
    lanes, width = cell.shape
    one = _F32(1.0)
    grad_hidden = np.empty(width, np.float32)
    tanh_cell = np.empty(width, np.float32)
    for n in range(lanes):
        keep = _F32(0.0) if is_first_next[n] else one
        for j in range(width):
            tanh_cell[j] = _tanh(cell[n, j])
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
        for j in range(width):
            f = gates[n, width + j]
            grad_gates[n, width + j] = grad_cell[n, j] * cell_in[n, j] * f * (one - f)
        for j in range(width):
            grad_cell[n, j] *= gates[n, width + j]
