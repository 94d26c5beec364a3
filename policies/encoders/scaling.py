"""Observations of any size brought to about 1: running moments, as OpenAI Five has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numba
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from policies.moments import RunningMoments
from policies.spaces import dtype_of

CLIP = 5.0


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _normalize(x, count, mean, m2, min_std, y):  # type: ignore[no-untyped-def]
    """y [M, K] of x [M, K] float32, as `RunningScale._normalized` has it, number for number.

    In small batches torch's dozen calls took a sixth of a whole forward.
    """
    rows, width = x.shape
    middle, spread = np.empty(width, np.float32), np.empty(width, np.float32)
    for k in range(width):
        var = m2[k] / max(count[0], 1.0) if count[0] > 0 else 1.0
        middle[k], spread[k] = mean[k], max(np.sqrt(var), min_std)
    low, high = np.float32(-CLIP), np.float32(CLIP)
    for m in range(rows):
        for k in range(width):
            z = (x[m, k] - middle[k]) / spread[k]
            z = high if z > high else z  # as comparisons, which let NaN through
            z = low if z < low else z
            y[m, k] = z + x[m, k] * np.float32(0)


class RunningScale(nn.Module):
    """(x - mean) / std over all data ever seen, held to +-5 (Berner et al. 2019, arXiv:1912.06680).

    The moments move in `observe` alone, which the learner calls between updates: acting and learning
    with the same weights see the same numbers.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.plain = False  # whether to keep to torch's own functions
        self.moments = RunningMoments(shape)

    def forward(self, x: Tensor) -> Tensor:
        """[..., *shape] float32 -> the same."""
        if self.plain or x.device.type != "cpu" or x.dtype != torch.float32 or not x.numel():
            return self._normalized(x)
        return torch.from_numpy(self.reader()(x.numpy()))

    def reader(self) -> Callable[[np.ndarray], np.ndarray]:
        """`forward` of arrays on a CPU, outside autograd, by the moments where they lie now."""
        moments = self.moments
        count, mean, m2 = (buffer.view(-1).numpy() for buffer in (moments.count, moments.mean, moments.m2))
        min_std, width = moments.min_std, len(mean)

        def read(x: np.ndarray) -> np.ndarray:
            y = np.empty(x.shape, x.dtype)
            _normalize(x.reshape(-1, width), count, mean, m2, min_std, y.reshape(-1, width))
            return y

        return read

    def _normalized(self, x: Tensor) -> Tensor:
        # Times 0, infinity is not a number: it passes no clip unseen, and whoever plays refuses it.
        return self.moments.normalize(x, clip=CLIP) + x * 0

    def observe(self, x: Tensor) -> None:
        """Count x [..., *shape]."""
        self.moments.update(x)


def is_normalized(space: spaces.Box, rule: str) -> bool:
    """Whether a Box has its running moments taken.

    "auto": where its bounds reach beyond +-1; "on": always; "off": never. Booleans never.
    """
    if rule == "off" or dtype_of(space).kind == "b":
        return False
    return rule == "on" or bool(np.any(space.low < -1) or np.any(space.high > 1))
