"""Leaves without structure as flat vectors: numbers as they are or normalised, choices as one-hots."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional

from policies.encoders.scaling import RunningScale, is_normalized

LARGEST_ONE_HOT = 64
EMBEDDING_SIZE = 32


def _flattened(x: np.ndarray) -> np.ndarray:
    """[M, ...] -> [M, K] float32."""
    return np.ascontiguousarray(x.reshape(len(x), math.prod(x.shape[1:])), np.float32)


class Flat(nn.Module):
    """Numbers and flags flattened as float32, numbers by their running moments where the rule says so."""

    def __init__(self, space: spaces.Box | spaces.MultiBinary, normalize: str) -> None:
        super().__init__()
        self.output_size = int(np.prod(space.shape))
        scaled = isinstance(space, spaces.Box) and is_normalized(space, normalize)
        self.scale = RunningScale((self.output_size,)) if scaled else None

    def forward(self, x: Tensor) -> Tensor:
        """[M, ...] -> [M, K]."""
        x = x.reshape(x.shape[0], -1).float()
        return x if self.scale is None else self.scale(x)

    def reader(self) -> Callable[[np.ndarray], np.ndarray]:
        """`forward` of arrays on a CPU, outside autograd, by the moments where they lie now."""
        if self.scale is None or self.output_size == 0:
            return _flattened
        scaled = self.scale.reader()
        return lambda x: scaled(_flattened(x))

    def observe(self, x: Tensor) -> None:
        """Move the running moments with x [M, ...]."""
        if self.scale is not None:
            self.scale.observe(x.reshape(x.shape[0], -1))


class Choices(nn.Module):
    """Choices side by side: each a one-hot, or an embedding where there are more than 64."""

    start: Tensor  # [k]

    def __init__(self, space: spaces.Discrete | spaces.MultiDiscrete) -> None:
        super().__init__()
        sizes = [space.n] if isinstance(space, spaces.Discrete) else space.nvec.reshape(-1)
        self.sizes = tuple(int(n) for n in sizes)
        start = torch.from_numpy(np.array(space.start, np.int64).reshape(-1))
        self.register_buffer("start", start, persistent=False)
        self.embedding = nn.ParameterList(
            nn.Parameter(torch.randn(n, EMBEDDING_SIZE) / EMBEDDING_SIZE**0.5)
            for n in self.sizes
            if n > LARGEST_ONE_HOT
        )
        self.output_size = sum(n if n <= LARGEST_ONE_HOT else EMBEDDING_SIZE for n in self.sizes)

    def forward(self, x: Tensor) -> Tensor:
        """[M, ...] integers -> [M, K]."""
        index = x.long().reshape(x.shape[0], -1) - self.start
        if len(set(self.sizes)) == 1 and not len(self.embedding):
            return functional.one_hot(index, self.sizes[0]).flatten(1).float()
        tables = iter(self.embedding)
        parts = [
            functional.one_hot(column, n).float()
            if n <= LARGEST_ONE_HOT
            else functional.embedding(column, next(tables))
            for column, n in zip(index.unbind(1), self.sizes, strict=True)
        ]
        return torch.cat(parts, dim=1)

    def observe(self, x: Tensor) -> None:
        """Choices have no moments."""
