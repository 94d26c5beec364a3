"""Payoffs as a picture: how every player fares against every other, one square for each pair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from selfplay.league.payoffs import Payoffs

UNKNOWN = (128, 128, 128)
LOSS, EVEN, WIN = (178, 24, 43), (255, 255, 255), (33, 102, 172)
"""Red, white and blue, which the colour-blind tell apart (ColorBrewer's RdBu)."""
SIZE = 256
"""Pixels of a side at least, where the players are fewer: a picture of 5 pixels cannot be looked at."""


def payoff_image(payoffs: Payoffs, order: Sequence[str]) -> np.ndarray:
    """The payoffs as colours, [H, W, 3] uint8: rows and columns are players in `order`, H = W.

    Row against column: a score of 1 is blue, 1/2 white, 0 red; grey where the two never met. Where nobody
    won or lost because the game has no winners, the mean return takes the score's place, its least value
    red and its greatest blue.
    """
    index = [payoffs.players.index(name) for name in order]
    value = _values(payoffs)[np.ix_(index, index)]  # [N, N] in [0, 1], NaN where unknown
    known = ~np.isnan(value)
    # -1 red .. 0 white .. 1 blue
    side = 2 * np.where(known, value, 0.5)[..., None] - 1
    end = np.where(side >= 0, WIN, LOSS)
    colour = np.where(known[..., None], EVEN + np.abs(side) * (end - np.array(EVEN)), UNKNOWN)
    pixels = np.round(colour).astype(np.uint8)
    repeats = -(-SIZE // max(len(index), 1))
    return pixels.repeat(repeats, axis=0).repeat(repeats, axis=1)


def _values(payoffs: Payoffs) -> np.ndarray:
    """[N, N] in [0, 1]: the scores, or the mean returns between their extremes."""
    if payoffs.counts.any():
        return payoffs.score()
    matches = payoffs.matches.sum(axis=2)
    mean = np.full(matches.shape, np.nan)
    np.divide(payoffs.returns.sum(axis=2), matches, out=mean, where=matches > 0)
    if not (matches > 0).any():
        return mean
    low, high = np.nanmin(mean), np.nanmax(mean)
    return (mean - low) / (high - low) if high > low else np.where(np.isnan(mean), np.nan, 0.5)
