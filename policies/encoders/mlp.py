"""Linear layers with ReLU."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from policies.linear import linear


class MLP(nn.Module):
    """Linear layers with ReLU after each; no layers: the identity."""

    def __init__(self, input_size: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        sizes = (input_size, *widths)
        self.output_size = sizes[-1]
        self.weight = nn.ParameterList(
            nn.Parameter(nn.init.orthogonal_(torch.empty(n, k), gain=2**0.5))
            for k, n in itertools.pairwise(sizes)
        )
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(n)) for n in widths)

    def forward(self, x: Tensor) -> Tensor:
        """[M, F] -> [M, widths[-1]]."""
        for weight, bias in zip(self.weight, self.bias, strict=True):
            x = linear(x, weight, bias, relu=True)
        return x
