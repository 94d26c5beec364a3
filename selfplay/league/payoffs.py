"""How players fared against each other: counts of finished matches, old ones fading beside all of them.

N players, T teams. A match of more than two teams counts as one meeting for every pair of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Payoffs:
    """The row player met the column player, holding team t. Games without winners have returns alone."""

    players: tuple[str, ...]  # [N]
    counts: np.ndarray  # [N, N, T, 3] int64 wins, draws, losses of the row
    decayed: np.ndarray  # [N, N, 3] float64 the same over all teams, old matches fading
    matches: np.ndarray  # [N, N, T] int64 meetings
    returns: np.ndarray  # [N, N, T] float64 sum over the meetings of the row's return, the mean of its seats

    def score(self) -> np.ndarray:
        """[N, N] mean score of row against column, win 1 and draw 1/2; NaN where they never met."""
        counts = self.counts.sum(axis=2)
        total = counts.sum(axis=2)
        with np.errstate(invalid="ignore"):
            return (counts[..., 0] + counts[..., 1] / 2) / total
