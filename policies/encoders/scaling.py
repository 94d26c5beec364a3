"""Observations of any size brought to about 1: running moments, as OpenAI Five has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from gymnasium import spaces
from torch import Tensor, nn

from policies.moments import RunningMoments
from policies.spaces import dtype_of

CLIP = 5.0


class RunningScale(nn.Module):
    """(x - mean) / std over all data ever seen, held to +-5 (Berner et al. 2019, arXiv:1912.06680).

    The moments move in `observe` alone, which the learner calls between updates: acting and learning
    with the same weights see the same numbers.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.moments = RunningMoments(shape)

    def forward(self, x: Tensor) -> Tensor:
        """[..., *shape] float32 -> the same."""
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
