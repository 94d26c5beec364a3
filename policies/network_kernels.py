"""Linear layers with ReLU, LSTMs and an output layer on a CPU, forward and backward, without autograd.

What it does with `policies.encoders.mlp`, `policies.lstm` and `policies.linear`, where kernels can call the
GEMM. All weights and all their gradients come by address, in this order: weight and bias of each encoder
layer; input weight, hidden weight and bias of each LSTM; weight and bias of the output. T steps, N lanes,
M = T * N; few enough for all that lies between to stay in a cache. half (`gemm.Half`): weights are
bfloat16, and so are all other factors of products then, but nothing else.
"""

from __future__ import annotations

import numba
import numpy as np

from policies import activations, gemm, linear, lstm_kernels, simd, unroll_kernels
from policies.activations import F32, JIT, forget_stale

forget_stale(__file__, activations, gemm, linear, lstm_kernels, simd, unroll_kernels)


# A slice of a whole row's width, below, is for Numba, to which arrays with and without gaps are two types.


@numba.njit(inline="always", **JIT)
def _row(x, r):  # type: ignore[no-untyped-def]
    """Row r of x [M, N], whose rows may lie apart; the compiler sees that its numbers do not."""
    return gemm.floats(x.ctypes.data + r * x.strides[0], x.shape[1])


@numba.njit(**JIT)
def shift(y, bias):  # type: ignore[no-untyped-def]
    """y [M, N] += bias, an address."""
    added = gemm.floats(bias, y.shape[1])
    for r in range(y.shape[0]):
        row = _row(y, r)
        for j in range(y.shape[1]):
            row[j] += added[j]


@numba.njit(**JIT)
def shift_and_cut(y, bias):  # type: ignore[no-untyped-def]
    """y [M, N] = ReLU(y + bias), an address; as a comparison, which lets NaN through."""
    added = gemm.floats(bias, y.shape[1])
    for r in range(y.shape[0]):
        row = _row(y, r)
        for j in range(y.shape[1]):
            z = row[j] + added[j]
            row[j] = F32(0.0) if z < F32(0.0) else z


@numba.njit(**JIT)
def copy(x, y):  # type: ignore[no-untyped-def]
    """y [M, N] = x."""
    for r in range(x.shape[0]):
        source, target = _row(x, r), _row(y, r)
        for j in range(x.shape[1]):
            target[j] = source[j]


@numba.njit(**JIT)
def encode(x, address, widths, half, y):  # type: ignore[no-untyped-def]
    """x [M, F] through the encoder's layers to y [M, K]; gives x and what each of them put out [M, ...]."""
    rows, layers = x.shape[0], widths.shape[0]
    inputs = [x[:, : x.shape[1]]]
    for k in range(layers):
        out = y if k == layers - 1 else np.empty((rows, widths[k]), np.float32)[:, : widths[k]]
        gemm.matmul_t(gemm.factor(inputs[-1], half), address[2 * k], out, False)
        shift_and_cut(out, address[2 * k + 1])
        inputs.append(out)
    if layers == 0:
        copy(inputs[0], y)
    return inputs


@numba.njit(**JIT)
def forward(x, is_first, state, address, widths, half, y):  # type: ignore[no-untyped-def]
    """x [M, F], is_first [T, N], state [L, 2, N, H] -> y [M, K], written, and what `backward` needs.

    x and the outputs of the encoder's layers. Of every LSTM: what enters it, its input and its hidden state
    side by side [T, N, K + H]; gates [T, N, 4H] and cells [T, N, H] after each step. The hidden states
    [T, N, H] of the last one.
    """
    (length, lanes), rows, layers, units = is_first.shape, x.shape[0], state.shape[0], state.shape[3]
    width = widths[-1] if len(widths) else x.shape[1]
    entering = [np.empty((length, lanes, (units if k else width) + units), np.float32) for k in range(layers)]
    gates = [np.empty((length, lanes, 4 * units), np.float32) for _ in range(layers)]
    cells = [np.empty((length, lanes, units), np.float32) for _ in range(layers)]
    top = np.empty((length, lanes, units), np.float32)
    inputs = encode(x, address, widths, half, entering[0].reshape(rows, width + units)[:, :width])
    at = 2 * widths.shape[0]
    for layer in range(layers):
        both, out = entering[layer], top if layer == layers - 1 else entering[layer + 1]
        below, flat = both.reshape(rows, width + units)[:, :width], gates[layer].reshape(rows, 4 * units)
        gemm.matmul_t(gemm.factor(below, half), address[at], flat, False)
        unroll_kernels.forward(
            gates[layer], is_first, state[layer, 0][:, :units], state[layer, 1], address[at + 1],
            gemm.floats(address[at + 2], 4 * units), half, both[:, :, width:], out[:, :, :units],
            cells[layer],
        )  # fmt: skip
        width, at = units, at + 3
    gemm.matmul_t(gemm.factor(top.reshape(rows, units), half), address[at], y, False)
    shift(y, address[at + 1])
    return inputs, entering, gates, cells, top


@numba.njit(**JIT)
def sums(inputs, widths, units, layers, outputs):  # type: ignore[no-untyped-def]
    """Zeros for what `backward` adds to: of each layer's weights, an LSTM's side by side, and of its biases.

    inputs: F; units: H; outputs: K. Weights as `gemm.add_weight_gradient` has them.
    """
    weights, biases, width = [np.zeros((0, 0), np.float32)], [np.zeros(0, np.float64)], inputs
    for out in widths:
        weights.append(_zeros(out, width))
        biases.append(np.zeros(out, np.float64))
        width = out
    for _ in range(layers):
        weights.append(_zeros(4 * units, width + units))
        biases.append(np.zeros(4 * units, np.float64))
        width = units
    weights.append(_zeros(outputs, units))
    biases.append(np.zeros(outputs, np.float64))
    return weights[1:], biases[1:]


@numba.njit(**JIT)
def _zeros(outputs, inputs):  # type: ignore[no-untyped-def]
    return np.zeros((outputs, inputs) if outputs < inputs else (inputs, outputs), np.float32)


@numba.njit(**JIT)
def _add(grad, x, half, weights, bias):  # type: ignore[no-untyped-def]
    """A linear layer's share, of grad [M, N] and its input x [M, K], to the sums of weights and bias.

    Gives grad as a factor.
    """
    for r in range(grad.shape[0]):
        row = _row(grad, r)
        for j in range(grad.shape[1]):
            bias[j] += row[j]
    grad_factor = gemm.factor(grad, half)
    gemm.add_weight_gradient(grad_factor, gemm.factor(x, half), weights)
    return grad_factor


@numba.njit(**JIT)
def backward(  # type: ignore[no-untyped-def]
    grad, is_first, state, inputs, entering, gates, cells, top, address, half, weights, biases
):
    """From grad [M, K] of `forward`'s y to all weights' gradients, which are added to `sums`.

    x and state get none. What `forward` gave is used up.
    """
    (length, lanes), rows, layers, units = is_first.shape, grad.shape[0], state.shape[0], state.shape[3]
    at, encoders = address.shape[0] - 4, len(inputs) - 1  # after the output come mean and std of the value
    grad_factor = _add(grad, top.reshape(rows, units), half, weights[-1], biases[-1])
    below = top.reshape(rows, units)  # what stood there is not needed any more
    gemm.matmul(grad_factor, address[at], below)
    for layer in range(layers - 1, -1, -1):
        at -= 3
        width = entering[layer].shape[2] - units
        factors = gemm.place(gates[layer], half)
        unroll_kernels.backward(  # the gates' gradient takes their place
            below.reshape(length, lanes, units), gates[layer], is_first, state[layer, 1], cells[layer],
            address[at + 1], gates[layer], factors, biases[encoders + layer],
        )  # fmt: skip
        flat, both = factors.reshape(rows, 4 * units), entering[layer].reshape(rows, width + units)
        gemm.add_weight_gradient(flat, gemm.factor(both, half), weights[encoders + layer])
        if layer or encoders:
            below = np.empty((rows, width), np.float32)
            gemm.matmul(flat, address[at], below)
    for k in range(encoders - 1, -1, -1):
        y, x = inputs[k + 1], inputs[k]
        for r in range(rows):
            passed, row = _row(y, r), _row(below, r)
            for j in range(y.shape[1]):
                row[j] = row[j] if passed[j] > F32(0.0) else F32(0.0)
        grad_factor = _add(below, x, half, weights[k], biases[k])
        if k:
            grad_x = np.empty((rows, x.shape[1]), np.float32)
            gemm.matmul(grad_factor, address[2 * k], grad_x)
            below = grad_x


@numba.njit(**JIT)
def write(weights, biases, widths, units, grad_address):  # type: ignore[no-untyped-def]
    """`sums` to where the gradients belong."""
    at, encoders = 0, widths.shape[0]
    for k in range(len(weights)):
        number, (rows, columns) = biases[k].shape[0], weights[k].shape
        width = rows + columns - number
        turned = number >= width
        within = units if encoders <= k < len(weights) - 1 else 0  # of the inputs, an LSTM's own state
        gemm.write_gradient(weights[k], turned, 0, width - within, grad_address[at])
        at += 1
        if within:
            gemm.write_gradient(weights[k], turned, width - within, within, grad_address[at])
            at += 1
        written = gemm.floats(grad_address[at], number)
        for j in range(number):
            written[j] = biases[k][j]
        at += 1
