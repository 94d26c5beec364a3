"""GRU over whole lanes with exact resets: one definition for acting (T = 1) and for learning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from policies.linear import linear, matmul_t, weight_gradient


def reference_unroll(
    input_gates: Tensor, is_first: Tensor, state: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """The definition, step by step in plain torch; runs on any device, with autograd's gradients.

        h <- 0 where is_first_t;  x_r, x_z, x_n = split(x_t);  u_r, u_z, u_n = split(h W^T)
        r = sigmoid(x_r + u_r),  z = sigmoid(x_z + u_z),  n = tanh(x_n + r (u_n + b))
        h <- (1 - z) n + z h

    input_gates [T, N, 3H], is_first [T, N] bool, state [N, H], weight [3H, H], bias [H]
    -> outputs [T, N, H], state [N, H].
    Source: Cho et al. 2014, arXiv:1406.1078, with r after the product as torch.nn.GRU has it.
    """
    outputs = []
    for gates, first in zip(input_gates, is_first, strict=True):
        state = state.masked_fill(first[:, None], 0.0)
        x_r, x_z, x_n = gates.chunk(3, dim=1)
        u_r, u_z, u_n = (state @ weight.t()).chunk(3, dim=1)
        r, z = torch.sigmoid(x_r + u_r), torch.sigmoid(x_z + u_z)
        candidate = torch.tanh(x_n + r * (u_n + bias))
        state = candidate + z * (state - candidate)
        outputs.append(state)
    return torch.stack(outputs), state


class _Unroll(torch.autograd.Function):
    """`reference_unroll` on a CPU: fused cells, and one GEMM for the weight's gradient over all T.

    It uses input_gates up: the gates' activations take their place.
    """

    @staticmethod
    def forward(
        ctx: Any, input_gates: Tensor, is_first: Tensor, state: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        from policies import gru_kernels as kernels

        length, lanes, width = *input_gates.shape[:2], state.shape[1]
        hidden_in = state.new_empty(length, lanes, width)
        recalled, hiddens = torch.empty_like(hidden_in), torch.empty_like(hidden_in)
        g, h_in, u, h, first = (x.numpy() for x in (input_gates, hidden_in, recalled, hiddens, is_first))
        last = state.numpy()
        for t in range(length):
            kernels.reset(first[t], last, h_in[t])
            hidden_gates = matmul_t(hidden_in[t], weight).numpy()
            kernels.forward(g[t], hidden_gates, bias.detach().numpy(), h_in[t], u[t], h[t])
            last = h[t]
        ctx.save_for_backward(input_gates, hidden_in, recalled, is_first, weight)
        final = hiddens[-1].clone()
        ctx.mark_non_differentiable(final)
        return hiddens, final

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, Tensor, Tensor]:
        """Gradients of input_gates, weight and bias; the stored state that enters t = 0 is data."""
        from policies import gru_kernels as kernels

        gates, hidden_in, recalled, is_first, weight = ctx.saved_tensors
        output_grad = grads[0].contiguous().numpy()
        length, lanes, width = hidden_in.shape
        gate_grad, hidden_gate_grad = torch.empty_like(gates), torch.empty_like(gates)
        arrays = (gates, recalled, hidden_in, gate_grad, hidden_gate_grad, is_first)
        g, u, h_in, dg, dhg, first = (x.numpy() for x in arrays)
        # The state that leaves t = T - 1 enters no later step of this fragment.
        dh, direct = hidden_in.new_zeros(lanes, width), hidden_in.new_empty(lanes, width)
        first_next = is_first.new_zeros(lanes).numpy()
        weight_t = weight.t().contiguous()
        for t in range(length - 1, -1, -1):
            kernels.backward(
                output_grad[t], dh.numpy(), first_next, g[t], u[t], h_in[t], dg[t], dhg[t], direct.numpy()
            )
            dh = matmul_t(hidden_gate_grad[t], weight_t).add_(direct)
            first_next = first[t]
        flat = hidden_gate_grad.reshape(length * lanes, -1)
        weight_grad = weight_gradient(flat, hidden_in.reshape(length * lanes, width))
        return gate_grad, None, None, weight_grad, flat[:, 2 * width :].sum(0)


class GRU(nn.Module):
    """A stack of GRU layers. State [L, 1, N, H]."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int) -> None:
        super().__init__()
        self.state_shape = (num_layers, 1, hidden_size)
        self.output_size = hidden_size
        sizes = [input_size] + [hidden_size] * (num_layers - 1)

        def parameters(*shapes: tuple[int, ...]) -> nn.ParameterList:
            return nn.ParameterList(nn.Parameter(torch.zeros(shape)) for shape in shapes)

        self.input_weight = parameters(*((3 * hidden_size, k) for k in sizes))
        self.hidden_weight = parameters(*((3 * hidden_size, hidden_size) for _ in sizes))
        self.bias = parameters(*((3 * hidden_size,) for _ in sizes))
        self.candidate_bias = parameters(*((hidden_size,) for _ in sizes))
        for w_in, w_hid in zip(self.input_weight, self.hidden_weight, strict=True):
            nn.init.orthogonal_(w_in)
            nn.init.orthogonal_(w_hid)

    def forward(self, x: Tensor, is_first: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x [T, N, K], is_first [T, N] bool, state [L, 1, N, H] -> [T, N, H], state [L, 1, N, H]."""
        length, lanes = is_first.shape
        unroll = _Unroll.apply if x.device.type == "cpu" and x.dtype == torch.float32 else reference_unroll
        states = []
        for layer, (w_in, w_hid, bias, candidate_bias) in enumerate(
            zip(self.input_weight, self.hidden_weight, self.bias, self.candidate_bias, strict=True)
        ):
            gates = linear(x.reshape(length * lanes, -1), w_in, bias).reshape(length, lanes, -1)
            x, last = unroll(gates, is_first, state[layer, 0], w_hid, candidate_bias)
            states.append(last)
        return x, torch.stack(states)[:, None]
