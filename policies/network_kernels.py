"""Linear layers with ReLU, LSTMs and an output layer on a CPU, forward and backward, without autograd.

What it does with `policies.encoders.mlp`, `policies.lstm` and `policies.linear`, where kernels can call the
GEMM. All weights and all their gradients come by address, in this order: weight and bias of each encoder
layer; input weight, hidden weight and bias of each LSTM; weight and bias of the output. T steps, N lanes,
M = T * N.
"""

from __future__ import annotations

import numba
import numpy as np

from policies import activations, gemm, lstm_kernels, unroll_kernels
from policies.activations import F32, JIT, forget_stale

forget_stale(__file__, activations, gemm, lstm_kernels, unroll_kernels)


@numba.njit(**JIT)
def dense(x, weight, bias, y):  # type: ignore[no-untyped-def]
    """y [M, N] = x [M, K] @ weight.T + bias."""
    rows, width = y.shape
    added = gemm.floats(bias, width)
    for r in range(rows):
        for j in range(width):
            y[r, j] = added[j]
    gemm.matmul_t(x, weight, y, True)


@numba.njit(**JIT)
def relu(y):  # type: ignore[no-untyped-def]
    """In place; as a comparison, which lets NaN through."""
    for r in range(y.shape[0]):
        for j in range(y.shape[1]):
            y[r, j] = F32(0.0) if y[r, j] < F32(0.0) else y[r, j]


@numba.njit(**JIT)
def forward(x, is_first, state, address, widths, y):  # type: ignore[no-untyped-def]
    """x [M, F], is_first [T, N], state [L, 2, N, H] -> y [M, K], written, and what `backward` needs.

    inputs: of every layer, [M, ...] each; of every LSTM: gates [T, N, 4H], hidden state before and cell
    after each step [T, N, H].
    """
    (length, lanes), units, at = is_first.shape, state.shape[3], 0
    inputs = [x]
    for k in range(widths.shape[0]):
        out = np.empty((x.shape[0], widths[k]), np.float32)
        dense(inputs[-1], address[at], address[at + 1], out)
        relu(out)
        inputs.append(out)
        at += 2
    layers = range(state.shape[0])
    gates = [np.empty((length, lanes, 4 * units), np.float32) for _ in layers]
    entering = [np.empty((length, lanes, units), np.float32) for _ in layers]
    cells = [np.empty((length, lanes, units), np.float32) for _ in layers]
    for layer in layers:
        hidden = np.empty((length, lanes, units), np.float32)
        gemm.matmul_t(inputs[-1], address[at], gates[layer].reshape(x.shape[0], 4 * units), False)
        unroll_kernels.forward(
            gates[layer], is_first, state[layer, 0], state[layer, 1], address[at + 1],
            gemm.floats(address[at + 2], 4 * units), entering[layer], hidden, cells[layer],
        )  # fmt: skip
        inputs.append(hidden.reshape(x.shape[0], units))
        at += 3
    dense(inputs[-1], address[at], address[at + 1], y)
    return inputs, gates, entering, cells


@numba.njit(**JIT)
def _dense_backward(grad, x, weight, weight_grad, bias_grad, grad_x):  # type: ignore[no-untyped-def]
    """grad [M, N] of `dense` to weight and bias and, if it has columns, grad_x [M, K]."""
    rows, width = grad.shape
    total = np.zeros(width, np.float64)
    for r in range(rows):
        for j in range(width):
            total[j] += grad[r, j]
    written = gemm.floats(bias_grad, width)
    for j in range(width):
        written[j] = total[j]
    gemm.weight_gradient(grad, x, weight_grad)
    if grad_x.shape[1]:
        gemm.matmul(grad, weight, grad_x)


@numba.njit(**JIT)
def backward(  # type: ignore[no-untyped-def]
    grad, is_first, state, inputs, gates, entering, cells, address, widths, grad_address
):
    """From grad [M, K] of `forward`'s y to all weights' gradients, which are written; x, state get none."""
    (length, lanes), units = is_first.shape, state.shape[3]
    rows, at = grad.shape[0], grad_address.shape[0] - 2
    grad_x = np.empty((rows, inputs[-1].shape[1] if len(inputs) > 1 else 0), np.float32)
    _dense_backward(grad, inputs[-1], address[at], grad_address[at], grad_address[at + 1], grad_x)
    place = len(inputs) - 2  # of the input of the layer at hand
    for layer in range(state.shape[0] - 1, -1, -1):
        at -= 3
        grad_gates = np.empty((length, lanes, 4 * units), np.float32)
        grad_bias = gemm.floats(grad_address[at + 2], 4 * units)
        for j in range(4 * units):
            grad_bias[j] = F32(0.0)
        unroll_kernels.backward(
            grad_x.reshape(length, lanes, units), gates[layer], is_first, state[layer, 1], cells[layer],
            address[at + 1], grad_gates, grad_bias,
        )  # fmt: skip
        flat, x = grad_gates.reshape(rows, 4 * units), inputs[place]
        gemm.weight_gradient(flat, entering[layer].reshape(rows, units), grad_address[at + 1])
        gemm.weight_gradient(flat, x, grad_address[at])
        grad_x = np.empty((rows, x.shape[1] if place else 0), np.float32)
        if place:
            gemm.matmul(flat, address[at], grad_x)
        place -= 1
    for _ in range(widths.shape[0]):
        at -= 2
        y, x = inputs[place + 1], inputs[place]
        for r in range(rows):
            for j in range(y.shape[1]):
                grad_x[r, j] = grad_x[r, j] if y[r, j] > F32(0.0) else F32(0.0)
        below = np.empty((rows, x.shape[1] if place else 0), np.float32)
        _dense_backward(grad_x, x, address[at], grad_address[at], grad_address[at + 1], below)
        grad_x = below
        place -= 1
