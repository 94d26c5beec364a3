"""A linear layer on the fastest float32 GEMM at hand.

On a CPU, oneDNN's GEMM runs at the full vector width of every x86-64 machine, where MKL (what
`torch.nn.functional.linear` calls) keeps to half of it on other makers' processors: 2.2 times
faster on an AMD Zen 5 core at the shapes used here (`selfplay bench` prints both rates).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def matmul_t(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [M, K] @ weight [N, K].T + bias [N] -> [M, N], outside autograd."""
    if _ONEDNN and x.device.type == "cpu" and x.dtype == torch.float32:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return functional.linear(x, weight, bias)


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """grad [M, N].T @ x [M, K] -> [N, K]; the long dimension M is summed over."""
    if grad.shape[1] < x.shape[1]:
        return matmul_t(grad.t(), x.t())
    return matmul_t(x.t(), grad.t()).t()


def _product(x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
    y = matmul_t(x, weight, bias)
    return y.relu_() if relu else y


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
        y = _product(x, weight, bias, relu)
        ctx.relu = relu
        ctx.save_for_backward(x, weight, *((y,) if relu else ()))
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        x, weight, *y = ctx.saved_tensors
        grad = grads[0].contiguous()
        if ctx.relu:
            grad = torch.ops.aten.threshold_backward(grad, y[0], 0.0)
        grad_x = matmul_t(grad, weight.t()) if ctx.needs_input_grad[0] else None
        return grad_x, weight_gradient(grad, x), grad.sum(0) if ctx.needs_input_grad[2] else None, None


def linear(x: Tensor, weight: Tensor, bias: Tensor, *, relu: bool = False) -> Tensor:
    """x [M, K] -> [M, N] with gradients, cut off below 0 if `relu`."""
    if x.device.type == "cpu" and x.dtype == torch.float32:
        # Where nothing is to be learned, autograd's own share of a small product is as long as the product.
        multiply = _Linear.apply if torch.is_grad_enabled() else _product
        return multiply(x, weight, bias, relu)
    y = functional.linear(x, weight, bias)
    return functional.relu(y) if relu else y
