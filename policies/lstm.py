"""LSTM over whole lanes with exact resets: one definition for acting (T = 1) and for learning."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from policies import gemm, unroll_kernels
from policies import lstm_kernels as kernels
from policies.linear import linear, matmul_t, weight_gradient


def reference_unroll(
    input_gates: Tensor, is_first: Tensor, state: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """The definition, step by step in plain torch; runs on any device, with autograd's gradients.

        (h, c) <- 0 where is_first_t;  i, f, g, o = split(x_t + h W^T + b)
        c <- sigmoid(f) c + sigmoid(i) tanh(g);  h <- sigmoid(o) tanh(c)

    input_gates [T, N, 4H], is_first [T, N] bool, state (h, c) [2, N, H], weight [4H, H], bias [4H]
    -> outputs [T, N, H], state [2, N, H].
    Source: Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """
    outputs = []
    hidden, cell = state
    for gates, first in zip(input_gates, is_first, strict=True):
        hidden = hidden.masked_fill(first[:, None], 0.0)
        cell = cell.masked_fill(first[:, None], 0.0)
        i, f, g, o = (gates + hidden @ weight.t() + bias).chunk(4, dim=1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        outputs.append(hidden)
    return torch.stack(outputs), torch.stack((hidden, cell))


def _forward(
    gates: Tensor, is_first: Tensor, state: Tensor, weight: Tensor, bias: Tensor, hidden_in: Tensor | None
) -> Tensor:
    """`reference_unroll` on a CPU by fused cells -> [2, T, N, H] hidden and cell after each step.

    The gates' activations take the place of `gates`. hidden_in [T, N, H], if wanted, is written: the hidden
    state that enters each step, after resets.
    """
    assert gates.is_contiguous(), "it is written"
    assert gates.dtype == state.dtype, (gates.dtype, state.dtype)
    states = state.new_empty(2, *gates.shape[:2], state.shape[2])
    if gemm.AVAILABLE:
        entering = torch.empty_like(states[0]) if hidden_in is None else hidden_in
        g, first, h, c, b, *written = _arrays(gates, is_first, *state, bias, entering, *states)
        assert weight.is_contiguous()
        unroll_kernels.forward(g, first, h, c, weight.data_ptr(), b, None, *written)
        return states

    g, first, b, (h, c) = gates.numpy(), is_first.numpy(), bias.detach().numpy(), states.numpy()
    hidden, last_cell = state[0], state[1].contiguous().numpy()
    for t in range(len(gates)):
        if hidden_in is not None:
            kernels.reset(first[t], hidden.numpy(), hidden_in[t].numpy())
            hidden = hidden_in[t]
        kernels.forward(g[t], matmul_t(hidden, weight).numpy(), b, first[t], last_cell, h[t], c[t])
        hidden, last_cell = states[0, t], c[t]
    return states


def _unroll(
    input_gates: Tensor, is_first: Tensor, state: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """`reference_unroll` on a CPU, which uses input_gates up."""
    if torch.is_grad_enabled():
        return _Unroll.apply(input_gates, is_first, state, weight, bias)
    states = _forward(input_gates, is_first, state, weight, bias, None)
    return states[0], states[:, -1]


class _Unroll(torch.autograd.Function):
    """`_forward` with gradients, one GEMM for the weight's over all T."""

    @staticmethod
    def forward(
        ctx: Any, input_gates: Tensor, is_first: Tensor, state: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        hidden_in = state.new_empty(*input_gates.shape[:2], state.shape[2])
        states = _forward(input_gates, is_first, state, weight, bias, hidden_in)
        ctx.save_for_backward(input_gates, hidden_in, state[1], states[1], is_first, weight)
        last = states[:, -1]
        ctx.mark_non_differentiable(last)
        return states[0], last

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, Tensor, Tensor]:
        """Gradients of input_gates, weight and bias; the stored state that enters t = 0 is data."""
        gates, hidden_in, first_cell, cells, is_first, weight = ctx.saved_tensors
        gate_grad, bias_grad = torch.empty_like(gates), gates.new_zeros(gates.shape[2])
        _backward(grads[0], gates, is_first, first_cell, cells, weight, gate_grad, bias_grad)
        flat = gate_grad.flatten(0, 1)
        return gate_grad, None, None, weight_gradient(flat, hidden_in.flatten(0, 1)), bias_grad


def _backward(
    output_grad: Tensor, gates: Tensor, is_first: Tensor, first_cell: Tensor, cells: Tensor, weight: Tensor,
    gate_grad: Tensor, bias_grad: Tensor,
) -> None:  # fmt: skip
    """Write gate_grad [T, N, 4H] and add to bias_grad [4H]; output_grad [T, N, H]."""
    if gemm.AVAILABLE:
        *read, dg, db = _arrays(output_grad, gates, is_first, first_cell, cells, gate_grad, bias_grad)
        assert weight.is_contiguous()
        unroll_kernels.backward(*read, weight.data_ptr(), dg, dg, db)
        return

    length, lanes, width = cells.shape
    dout, g, first, c_first, c, dg, db = _arrays(
        output_grad, gates, is_first, first_cell, cells, gate_grad, bias_grad
    )
    # The state that leaves t = T - 1 enters no later step of this fragment.
    dh, dc = cells.new_zeros(lanes, width), cells.new_zeros(lanes, width).numpy()
    first_next = is_first.new_zeros(lanes).numpy()
    for t in range(length - 1, -1, -1):
        c_in = c[t - 1] if t else c_first
        kernels.backward(dout[t], dh.numpy(), first_next, g[t], first[t], c_in, c[t], dc, dg[t], db)
        dh, first_next = matmul_t(gate_grad[t], weight.t()), first[t]


def _arrays(*tensors: Tensor) -> list[Any]:
    """Of tensors on a CPU, contiguous, without a copy where they are."""
    return [x.detach().contiguous().numpy() for x in tensors]


def unroll_for(device: torch.device, dtype: torch.dtype) -> Callable[..., tuple[Tensor, Tensor]]:
    """The fastest unroll there; on CUDA, Triton's comes with torch."""
    if device.type == "cpu" and dtype == torch.float32:
        return _unroll
    if device.type == "cuda" and dtype != torch.float64 and find_spec("triton"):
        from policies import lstm_triton

        return lstm_triton.unroll
    return reference_unroll


class LSTM(nn.Module):
    """A stack of LSTM layers. State [L, 2, N, H]: hidden at [:, 0], cell at [:, 1]."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int) -> None:
        super().__init__()
        self.plain = False  # whether to unroll by the definition, in torch's own functions
        self.state_shape = (num_layers, 2, hidden_size)
        self.output_size = hidden_size
        sizes = [input_size] + [hidden_size] * (num_layers - 1)
        self.input_weight = nn.ParameterList(nn.Parameter(torch.empty(4 * hidden_size, k)) for k in sizes)
        self.hidden_weight = nn.ParameterList(
            nn.Parameter(torch.empty(4 * hidden_size, hidden_size)) for _ in sizes
        )
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(4 * hidden_size)) for _ in sizes)
        for layer in range(num_layers):
            nn.init.orthogonal_(self.input_weight[layer])
            nn.init.orthogonal_(self.hidden_weight[layer])
            # Remember by default: forget gate bias 1 (Jozefowicz et al. 2015, section 4).
            nn.init.ones_(self.bias[layer].data[hidden_size : 2 * hidden_size])

    def forward(self, x: Tensor, is_first: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x [T, N, K], is_first [T, N] bool, state [L, 2, N, H] -> [T, N, H], state [L, 2, N, H]."""
        length, lanes = is_first.shape
        unroll = reference_unroll if self.plain else unroll_for(x.device, x.dtype)
        states = []
        for layer, (w_in, w_hid, bias) in enumerate(
            zip(self.input_weight, self.hidden_weight, self.bias, strict=True)
        ):
            gates = linear(x.reshape(length * lanes, -1), w_in).reshape(length, lanes, -1)
            x, last = unroll(gates, is_first, state[layer], w_hid, bias)
            states.append(last)
        return x, states[0][None] if len(states) == 1 else torch.stack(states)
