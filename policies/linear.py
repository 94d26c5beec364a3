"""A linear layer on the fastest float32 GEMM at hand.

MKL (what `torch.nn.functional.linear` calls) keeps to half of the vector width on other makers' processors
than Intel's: there oneDNN's GEMM is 2.2 times as fast (AMD Zen 5, one core, the shapes used here). On Intel's
MKL is 1.4 times as fast as oneDNN (Cascade Lake). `selfplay bench` prints both rates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def processor_has(word: str) -> bool:
    """A maker or a flag. By these and not by a measurement: all processes of a run must round alike."""
    cpus = Path("/proc/cpuinfo")
    return cpus.exists() and word in cpus.read_text(encoding="utf-8", errors="replace").split()


ONEDNN = (
    torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    and not (torch.backends.mkl.is_available() and processor_has("GenuineIntel"))
)


def matmul_t(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [M, K] @ weight [N, K].T + bias [N] -> [M, N], outside autograd."""
    if ONEDNN and x.device.type == "cpu" and x.dtype == torch.float32:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return functional.linear(x, weight, bias)


PIECE = 128
"""Rows of a weight's gradient summed in one product, but for oneDNN: MKL is slower with thousands."""


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """grad [M, N].T @ x [M, K] -> [N, K]; the long dimension M is summed over."""
    narrow = grad.shape[1] < x.shape[1]
    first, second = (grad, x) if narrow else (x, grad)
    if ONEDNN or x.device.type != "cpu" or x.dtype != torch.float32:
        result = matmul_t(first.t(), second.t())
    else:
        a, *more_a = first.split(PIECE)
        b, *more_b = second.split(PIECE)
        result = matmul_t(a.t(), b.t())
        for a, b in zip(more_a, more_b, strict=True):
            result.addmm_(a.t(), b)
    return result if narrow else result.t()


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    y = matmul_t(x, weight, bias)
    return y.relu_() if relu else y


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
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


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False) -> Tensor:
    """x [M, K] -> [M, N] with gradients, cut off below 0 if `relu`."""
    if x.device.type == "cpu" and x.dtype == torch.float32:
        # Where nothing is to be learned, autograd's own share of a small product is as long as the product.
        multiply = _Linear.apply if torch.is_grad_enabled() else _product
        return multiply(x, weight, bias, relu)
    y = functional.linear(x, weight, bias)
    return functional.relu(y) if relu else y
