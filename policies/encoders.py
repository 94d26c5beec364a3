"""From observation leaves to one vector per decision."""

from __future__ import annotations

import itertools

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional

from policies.linear import linear
from policies.spaces import leaves


def _leaf_size(path: str, space: gymnasium.Space) -> int:
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.sum())
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        return int(np.prod(space.shape))
    raise ValueError(f"no encoder for observation {path or 'space'} {space}; use Box, Discrete, Multi*")


class VectorInput(nn.Module):
    """Leaves flattened side by side as float32: Box and MultiBinary as they are, the rest one-hot."""

    def __init__(self, space: gymnasium.Space) -> None:
        super().__init__()
        self.leaves = leaves(space)
        self.output_size = sum(_leaf_size(path, leaf) for path, leaf in self.leaves.items())

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        """Leaves [M, ...] -> [M, F]."""
        parts = [self._flatten(space, obs[path]) for path, space in self.leaves.items()]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    @staticmethod
    def _flatten(space: gymnasium.Space, x: Tensor) -> Tensor:
        rows = x.shape[0]
        if isinstance(space, spaces.Discrete):
            return functional.one_hot(x.long() - int(space.start), int(space.n)).float()
        if isinstance(space, spaces.MultiDiscrete):
            columns = x.long().reshape(rows, -1).unbind(1)
            sizes = space.nvec.reshape(-1)
            return torch.cat(
                [functional.one_hot(c, int(n)) for c, n in zip(columns, sizes, strict=True)], dim=1
            ).float()
        return x.reshape(rows, -1).float()


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
            x = functional.relu(linear(x, weight, bias))
        return x
