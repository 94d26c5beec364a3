"""Running mean and variance of all data ever seen.

The moments are buffers in float64, so they travel in a state_dict and sums of any length stay exact enough.
Keep them out of a network that is cast to half precision (autocast leaves buffers alone).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class RunningMoments(nn.Module):
    """Mean and variance of every feature over all samples so far.

    Two sets A and B of counts n, means and sums of squared deviations m2 are one set with

        n = n_A + n_B,    d = mean_B - mean_A
        mean = mean_A + d n_B / n,    m2 = m2_A + m2_B + d^2 n_A n_B / n

    shape is one sample's; () for plain numbers. Before the first sample mean is 0 and std 1, so that
    normalising changes nothing; later std is at least min_std, so that it never divides by 0.
    Source: Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise algorithm".
    """

    count: Tensor  # [] samples so far
    mean: Tensor  # [*shape]
    m2: Tensor  # [*shape] sum of squared deviations from the mean

    def __init__(self, shape: Sequence[int] = (), *, min_std: float = 1e-4) -> None:
        super().__init__()
        self.min_std = min_std
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(tuple(shape), dtype=torch.float64))
        self.register_buffer("m2", torch.zeros(tuple(shape), dtype=torch.float64))

    @property
    def var(self) -> Tensor:
        """[*shape] variance of the samples as a population; 1 before the first."""
        return torch.where(self.count > 0, self.m2 / self.count.clamp(min=1), 1.0)

    @property
    def std(self) -> Tensor:
        """[*shape] square root of `var`, at least min_std."""
        return self.var.sqrt().clamp(min=self.min_std)

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Add samples x [..., *shape]; none is fine."""
        shape = self.mean.shape
        assert x.shape[x.dim() - len(shape) :] == shape, (tuple(x.shape), tuple(shape))
        if x.numel() == 0:
            return
        samples = x.to(torch.float64).reshape(-1, *shape)
        var, mean = torch.var_mean(samples, dim=0, correction=0)
        share = len(samples) / (self.count + len(samples))
        distance = mean - self.mean
        # In place, since a recorded CUDA graph reads them where they lay.
        self.m2.add_(var * len(samples)).add_(distance.square() * self.count * share)
        self.mean.add_(distance * share)
        self.count.add_(len(samples))

    def normalize(self, x: Tensor, *, clip: float | None = None) -> Tensor:
        """(x - mean) / std, held to +-clip where given; x [..., *shape] floating, and so the result."""
        result = (x - self.mean.to(x.dtype)) / self.std.to(x.dtype)
        return result if clip is None else result.clamp(-clip, clip)
