"""The pointwise half of an LSTM step on a CPU: one pass over memory each way, in whole vectors.

torch computes the cell as nine passes with a slow tanh. Rows may lie apart; the numbers of one lie side by
side. The gates' order is i, f, g, o, as in torch.nn.LSTM. Their definition is
`policies.lstm.reference_unroll`.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from policies import activations, simd
from policies.activations import F32, JIT, LIMIT, forget_stale
from policies.simd import Block, Vector, over

forget_stale(__file__, activations, simd)


def _quotient(x: Vector) -> tuple[Vector, Vector]:
    """`policies.activations.quotient`, as vectors."""
    return activations.quotient.py_func(x.clamped(LIMIT))


def _tanh(x: Vector) -> Vector:
    p, q = _quotient(x)
    return p / q


def _activated(i: Vector, f: Vector, g: Vector, o: Vector) -> tuple[Vector, Vector, Vector, Vector]:
    """sigmoid(i), sigmoid(f), tanh(g), sigmoid(o), with one division: it is slower than all the products."""
    (pi, qi), (pf, qf), (pg, qg), (po, qo) = (_quotient(x) for x in (i * 0.5, f * 0.5, g, o * 0.5))
    first, second = qi * qf, qg * qo
    inverse = 1.0 / (first * second)
    of_first, of_second = inverse * second, inverse * first
    i, f, o = (x * 0.5 + 0.5 for x in (pi * (of_first * qf), pf * (of_first * qi), po * (of_second * qg)))
    return i, f, pg * (of_second * qo), o


def _by_gate(builder: Any, width: Any) -> tuple[Any, Any, Any, Any]:
    """Where in a row of gates each of them begins."""
    two = builder.add(width, width)
    return width.type(0), width, two, builder.add(two, width)


def _forward_row(opens: bool, more: bool) -> Any:
    """A lane's step. opens: an episode does; more: the hidden state's share of the gates lies apart."""

    @intrinsic
    def row(typing_context, gates, hidden_gates, bias, cell_in, hidden, cell, width):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            gates, hidden_gates, bias, cell_in, hidden, cell, width = arguments
            places = _by_gate(builder, width)

            def body(block: Block) -> None:
                def gate(place: Any) -> Vector:
                    x = block.load(gates, place) + block.load(bias, place)
                    return x + block.load(hidden_gates, place) if more else x

                i, f, g, o = activated = _activated(*map(gate, places))
                c = i * g if opens else f * block.load(cell_in) + i * g
                for x, place in zip(activated, places, strict=True):
                    block.store(x, gates, place)
                block.store(c, cell)
                block.store(_tanh(c) * o, hidden)

            over(builder, width, body)
            return context.get_dummy_value()

        return types.none(*[types.intp] * 7), generate

    return row


_open, _go_on, _go_on_with = _forward_row(True, False), _forward_row(False, False), _forward_row(False, True)


@numba.njit(**JIT)
def forward(gates, hidden_gates, bias, is_first, cell_in, hidden, cell):  # type: ignore[no-untyped-def]
    """One step of N lanes: hidden [N, H] and cell [N, H] are written.

    gates [N, 4H] holds the input's share of the gates, and gets their activations; hidden_gates [N, 4H]:
    the hidden state's, None where `gates` has it already. bias [4H]. Where an episode opens (is_first [N])
    neither hidden_gates nor cell_in [N, H] is looked at.
    """
    lanes, width = cell.shape
    b = bias.ctypes.data
    for n in range(lanes):
        g, c_in = gates.ctypes.data + n * gates.strides[0], cell_in.ctypes.data + n * cell_in.strides[0]
        h, c = hidden.ctypes.data + n * hidden.strides[0], cell.ctypes.data + n * cell.strides[0]
        if is_first[n]:
            _open(g, g, b, c_in, h, c, width)
        elif hidden_gates is None:
            _go_on(g, g, b, c_in, h, c, width)
        else:
            more = hidden_gates.ctypes.data + n * hidden_gates.strides[0]
            _go_on_with(g, more, b, c_in, h, c, width)


@numba.njit(**JIT)
def forward_at(gates, bias, is_first, rows, hidden, cell):  # type: ignore[no-untyped-def]
    """`forward` of lanes whose states are these rows [N] of hidden and cell [R, H], in place."""
    width = cell.shape[1]
    b = bias.ctypes.data
    for n in range(rows.shape[0]):
        g, row = gates.ctypes.data + n * gates.strides[0], rows[n]
        h, c = hidden.ctypes.data + row * hidden.strides[0], cell.ctypes.data + row * cell.strides[0]
        if is_first[n]:
            _open(g, g, b, c, h, c, width)
        else:
            _go_on(g, g, b, c, h, c, width)


@numba.njit(**JIT)
def reset(is_first, hidden, hidden_in):  # type: ignore[no-untyped-def]
    """The hidden state that enters a step: a copy of hidden [N, H], zero where an episode opens."""
    lanes, width = hidden.shape
    for n in range(lanes):
        if is_first[n]:
            for j in range(width):
                hidden_in[n, j] = F32(0.0)
        else:
            for j in range(width):
                hidden_in[n, j] = hidden[n, j]


def _backward_row(opens: bool) -> Any:
    """A lane's step back. opens: an episode does, at this step."""

    @intrinsic
    def row(  # type: ignore[no-untyped-def]
        typing_context,
        grad_output,
        grad_next,
        keep,
        gates,
        cell_in,
        cell,
        grad_cell,
        grad_gates,
        total,
        width,
    ):
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            grad_output, grad_next, keep, gates, cell_in, cell, grad_cell, grad_gates, total, width = (
                arguments
            )
            places = _by_gate(builder, width)

            def body(block: Block) -> None:
                i, f, g, o = (block.load(gates, place) for place in places)
                tanh_cell, kept = _tanh(block.load(cell)), block.splat(keep)
                grad_hidden = block.load(grad_output) + kept * block.load(grad_next)
                through_cell = grad_hidden * o * (1.0 - tanh_cell * tanh_cell)
                grad_c = kept * block.load(grad_cell) + through_cell
                grads = (
                    grad_c * g * i * (1.0 - i),
                    block.zero() if opens else grad_c * block.load(cell_in) * f * (1.0 - f),
                    grad_c * i * (1.0 - g * g),
                    grad_hidden * tanh_cell * o * (1.0 - o),
                )
                for grad, place in zip(grads, places, strict=True):
                    block.store(grad, grad_gates, place)
                    block.store(block.load(total, place) + grad, total, place)
                block.store(grad_c * f, grad_cell)

            over(builder, width, body)
            return context.get_dummy_value()

        size = types.intp
        return types.none(size, size, types.float32, *[size] * 7), generate

    return row


_open_backward, _go_on_backward = _backward_row(True), _backward_row(False)


@numba.njit(**JIT)
def backward(  # type: ignore[no-untyped-def]
    grad_output, grad_next, is_first_next, gates, is_first, cell_in, cell, grad_cell, grad_gates, grad_bias
):
    """The step's gradient: grad_gates [N, 4H] is written, grad_cell [N, H] goes from c_t to c_{t-1}.

    grad_bias [4H] is added to, while what it sums lies in the cache. grad_gates may be gates themselves.

    grad_next [N, H] is d loss / d(state that entered t + 1); where an episode opened there
    (is_first_next) neither it nor grad_cell reaches this step. is_first: where one opened at t itself.
    """
    lanes, width = cell.shape
    total = np.zeros(4 * width, np.float32)  # of this step: shorter sums round less
    add = total.ctypes.data
    for n in range(lanes):
        keep = F32(0.0) if is_first_next[n] else F32(1.0)
        out = grad_output.ctypes.data + n * grad_output.strides[0]
        following = grad_next.ctypes.data + n * grad_next.strides[0]
        g, grad_g = (
            gates.ctypes.data + n * gates.strides[0],
            grad_gates.ctypes.data + n * grad_gates.strides[0],
        )
        c, c_in = cell.ctypes.data + n * cell.strides[0], cell_in.ctypes.data + n * cell_in.strides[0]
        grad_c = grad_cell.ctypes.data + n * grad_cell.strides[0]
        if is_first[n]:
            _open_backward(out, following, keep, g, c_in, c, grad_c, grad_g, add, width)
        else:
            _go_on_backward(out, following, keep, g, c_in, c, grad_c, grad_g, add, width)
    for j in range(4 * width):
        grad_bias[j] += total[j]
