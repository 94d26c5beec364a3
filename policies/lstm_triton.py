"""The LSTM's unroll on a CUDA device: two launches a step each way, one GEMM and one kernel.

The structure is that of the CPU's (`policies.lstm._Unroll`); the definition is `reference_unroll`. The
gates' order is i, f, g, o. Gates, outputs and GEMMs are of the gates' type (bfloat16 under autocast), cells
and all sums float32. A lane's reset is inside: what the GEMM made of a state from before `is_first` is not
read. `TRITON_INTERPRET=1`, set before this module is imported, runs the kernels on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 512
"""Elements [N, H] that a program works on."""


@triton.jit
def _sigmoid(x):  # type: ignore[no-untyped-def]
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _tanh(x):  # type: ignore[no-untyped-def]
    return 2.0 * _sigmoid(2.0 * x) - 1.0


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    gates, hidden_gates, bias, is_first, cell_in, hidden, cell, size, width: tl.constexpr, block: tl.constexpr
):
    """One step of N lanes, size = N * H: hidden [N, H] and cell [N, H] are written.

    gates [N, 4H] holds the input's share of the gates, and gets their activations. bias [4H].
    """
    at = tl.program_id(0) * block + tl.arange(0, block)
    inside = at < size
    lane = at // width
    gate = lane * 4 * width + at % width  # of i; f, g and o follow at distances of width
    keep = inside & (tl.load(is_first + lane, inside, other=1) == 0)
    i = tl.load(gates + gate, inside).to(tl.float32) + tl.load(hidden_gates + gate, keep, other=0.0)
    gate_f, gate_g, gate_o = gate + width, gate + 2 * width, gate + 3 * width
    f = tl.load(gates + gate_f, inside).to(tl.float32) + tl.load(hidden_gates + gate_f, keep, other=0.0)
    g = tl.load(gates + gate_g, inside).to(tl.float32) + tl.load(hidden_gates + gate_g, keep, other=0.0)
    o = tl.load(gates + gate_o, inside).to(tl.float32) + tl.load(hidden_gates + gate_o, keep, other=0.0)
    unit = bias + at % width
    i = _sigmoid(i + tl.load(unit, inside, other=0.0))
    f = _sigmoid(f + tl.load(unit + width, inside, other=0.0))
    g = _tanh(g + tl.load(unit + 2 * width, inside, other=0.0))
    o = _sigmoid(o + tl.load(unit + 3 * width, inside, other=0.0))
    c = f * tl.load(cell_in + at, keep, other=0.0) + i * g
    tl.store(cell + at, c, inside)
    tl.store(hidden + at, o * _tanh(c), inside)
    tl.store(gates + gate, i, inside)
    tl.store(gates + gate_f, f, inside)
    tl.store(gates + gate_g, g, inside)
    tl.store(gates + gate_o, o, inside)


@triton.jit
def _backward(  # type: ignore[no-untyped-def]
    grad_output, grad_next, is_first_next, is_first, gates, cell_in, cell, grad_cell, grad_gates,
    size, width: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """The step's gradient: grad_gates [N, 4H] is written, grad_cell [N, H] goes from c_t to c_{t-1}.

    grad_next [N, H] is d loss / d(state that entered t + 1); where an episode opened there
    (is_first_next) neither it nor grad_cell reaches this step.
    """
    at = tl.program_id(0) * block + tl.arange(0, block)
    inside = at < size
    lane = at // width
    gate = lane * 4 * width + at % width
    keep = inside & (tl.load(is_first_next + lane, inside, other=1) == 0)
    carried = inside & (tl.load(is_first + lane, inside, other=1) == 0)
    i = tl.load(gates + gate, inside, other=0.0).to(tl.float32)
    f = tl.load(gates + gate + width, inside, other=0.0).to(tl.float32)
    g = tl.load(gates + gate + 2 * width, inside, other=0.0).to(tl.float32)
    o = tl.load(gates + gate + 3 * width, inside, other=0.0).to(tl.float32)
    tanh_cell = _tanh(tl.load(cell + at, inside, other=0.0))
    from_next = tl.load(grad_next + at, keep, other=0.0).to(tl.float32)
    dh = tl.load(grad_output + at, inside, other=0.0).to(tl.float32) + from_next
    dc = tl.load(grad_cell + at, keep, other=0.0) + dh * o * (1.0 - tanh_cell * tanh_cell)
    before = tl.load(cell_in + at, carried, other=0.0)
    tl.store(grad_gates + gate, dc * g * i * (1.0 - i), inside)
    tl.store(grad_gates + gate + width, dc * before * f * (1.0 - f), inside)
    tl.store(grad_gates + gate + 2 * width, dc * i * (1.0 - g * g), inside)
    tl.store(grad_gates + gate + 3 * width, dh * tanh_cell * o * (1.0 - o), inside)
    tl.store(grad_cell + at, dc * f, inside)


class _Unroll(torch.autograd.Function):
    """It uses input_gates up: the gates' activations take their place."""

    @staticmethod
    def forward(
        ctx: Any, input_gates: Tensor, is_first: Tensor, state: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        length, lanes, width = *input_gates.shape[:2], state.shape[2]
        input_gates, first = input_gates.contiguous(), is_first.contiguous().view(torch.uint8)
        hiddens = input_gates.new_empty(length, lanes, width)
        cells = state.new_empty(length, lanes, width)
        weight_t = weight.to(input_gates.dtype).t()
        size = lanes * width
        grid = (triton.cdiv(size, BLOCK),)
        hidden, cell = state.to(input_gates.dtype)[0], state[1].contiguous()
        for t in range(length):
            made = torch.mm(hidden, weight_t)
            _forward[grid](
                input_gates[t], made, bias, first[t], cell, hiddens[t], cells[t], size, width, BLOCK
            )
            hidden, cell = hiddens[t], cells[t]
        ctx.save_for_backward(input_gates, hiddens, cells, first, state, weight)
        last = torch.stack((hidden.to(state.dtype), cell))
        ctx.mark_non_differentiable(last)
        return hiddens, last

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, Tensor, Tensor]:
        """Gradients of input_gates, weight and bias; the stored state that enters t = 0 is data."""
        gates, hiddens, cells, first, state, weight = ctx.saved_tensors
        output_grad = grads[0].contiguous()
        length, lanes, width = hiddens.shape
        gate_grad = torch.empty_like(gates)
        own = weight.to(gates.dtype)
        size = lanes * width
        grid = (triton.cdiv(size, BLOCK),)
        # The state that leaves t = T - 1 enters no later step of this fragment.
        dh, dc = hiddens.new_zeros(lanes, width), cells.new_zeros(lanes, width)
        first_next, cell_in = first.new_ones(lanes), state[1].contiguous()
        for t in range(length - 1, -1, -1):
            before = cells[t - 1] if t else cell_in
            _backward[grid](
                output_grad[t], dh, first_next, first[t], gates[t], before, cells[t], dc, gate_grad[t],
                size, width, BLOCK,
            )  # fmt: skip
            first_next = first[t]
            if t:
                dh = torch.mm(gate_grad[t], own)
        hidden_in = torch.cat((state[:1].to(hiddens.dtype), hiddens[:-1]))
        hidden_in.masked_fill_(first[:, :, None].bool(), 0.0)
        flat = gate_grad.reshape(length * lanes, -1)
        weight_grad = torch.mm(flat.t(), hidden_in.reshape(length * lanes, width))
        bias_grad = flat.sum(0, dtype=torch.float32)
        return gate_grad, None, None, weight_grad.to(weight.dtype), bias_grad


def unroll(
    input_gates: Tensor, is_first: Tensor, state: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """`policies.lstm.reference_unroll` but for the gradient of state; uses input_gates up."""
    outputs, last = _Unroll.apply(input_gates, is_first, state, weight, bias)
    return outputs, last
