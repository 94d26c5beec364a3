"""The pointwise half of an LSTM step on a CPU: one pass over memory each way.

torch computes the cell as nine passes with a slow tanh; these kernels take one, about seven times
faster. The gates' order is i, f, g, o, as in torch.nn.LSTM. `policies.lstm` checks them against
the plain definition in its tests.
"""

from __future__ import annotations

import numba
import numpy as np

_F32 = np.float32
_JIT = {
    "nogil": True,
    "cache": True,
    "fastmath": {"contract", "nsz", "arcp", "reassoc"},
    "error_model": "numpy",
}


@numba.njit(inline="always", **_JIT)
def _tanh(x):  # type: ignore[no-untyped-def]
    """Rational approximation of degree 13 over 6, within 4e-7 of tanh; it vectorises, libm's does not."""
    x = min(max(x, _F32(-7.90531110763549805)), _F32(7.90531110763549805))
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
def forward(input_gates, hidden_gates, cell_in, gates, hidden, cell):  # type: ignore[no-untyped-def]
    """One step of N lanes: the activated gates [N, 4H], hidden [N, H] and cell [N, H] are written."""
    lanes, width = cell.shape
    for n in range(lanes):
        for j in range(width):
            i = _sigmoid(input_gates[n, j] + hidden_gates[n, j])
            f = _sigmoid(input_gates[n, width + j] + hidden_gates[n, width + j])
            g = _tanh(input_gates[n, 2 * width + j] + hidden_gates[n, 2 * width + j])
            o = _sigmoid(input_gates[n, 3 * width + j] + hidden_gates[n, 3 * width + j])
            c = f * cell_in[n, j] + i * g
            gates[n, j] = i
            gates[n, width + j] = f
            gates[n, 2 * width + j] = g
            gates[n, 3 * width + j] = o
            cell[n, j] = c
            hidden[n, j] = o * _tanh(c)


@numba.njit(**_JIT)
def reset(is_first, hidden, cell, hidden_in, cell_in):  # type: ignore[no-untyped-def]
    """The state that enters a step: a copy of hidden and cell [N, H], zero where an episode opens."""
    lanes, width = cell.shape
    for n in range(lanes):
        if is_first[n]:
            for j in range(width):
                hidden_in[n, j] = _F32(0.0)
                cell_in[n, j] = _F32(0.0)
        else:
            for j in range(width):
                hidden_in[n, j] = hidden[n, j]
                cell_in[n, j] = cell[n, j]


@numba.njit(**_JIT)
def backward(grad_output, grad_next, is_first_next, gates, cell_in, cell, grad_cell, grad_gates):  # type: ignore[no-untyped-def]
    """The step's gradient: grad_gates [N, 4H] is written, grad_cell [N, H] goes from c_t to c_{t-1}.

    grad_next [N, H] is d loss / d(state that entered t + 1); where an episode opened there
    (is_first_next) neither it nor grad_cell reaches this step.
    """
    lanes, width = cell.shape
    one = _F32(1.0)
    for n in range(lanes):
        keep = _F32(0.0) if is_first_next[n] else one
        for j in range(width):
            i = gates[n, j]
            f = gates[n, width + j]
            g = gates[n, 2 * width + j]
            o = gates[n, 3 * width + j]
            tanh_c = _tanh(cell[n, j])
            dh = grad_output[n, j] + keep * grad_next[n, j]
            dc = keep * grad_cell[n, j] + dh * o * (one - tanh_c * tanh_c)
            grad_gates[n, j] = dc * g * i * (one - i)
            grad_gates[n, width + j] = dc * cell_in[n, j] * f * (one - f)
            grad_gates[n, 2 * width + j] = dc * i * (one - g * g)
            grad_gates[n, 3 * width + j] = dh * tanh_c * o * (one - o)
            grad_cell[n, j] = dc * f
