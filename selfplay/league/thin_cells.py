"""Which pairs of frozen players to evaluate next: those whose score is known least. N players."""

from __future__ import annotations

import numpy as np


def uncertainty(counts: np.ndarray) -> np.ndarray:
    """Variance of the score of row against column, [N, N], from counts [N, N, 3] of wins, draws, losses.

        a = wins + draws / 2 + 1,  b = losses + draws / 2 + 1,  variance = a b / ((a + b)^2 (a + b + 1))

    That of a Beta posterior from an even prior: 1/12 where they never met, and soon small where one of them
    always wins, so that the next match goes where it tells most.
    """
    a = counts[..., 0] + counts[..., 1] / 2 + 1.0
    b = counts[..., 2] + counts[..., 1] / 2 + 1.0
    return a * b / ((a + b) ** 2 * (a + b + 1))


def thinnest(uncertain: np.ndarray, number: int) -> list[tuple[int, int]]:
    """The `number` most uncertain pairs i < j of a symmetric [N, N]; of equals the newest players'."""
    first, second = np.triu_indices(len(uncertain), 1)
    value = uncertain[first, second]
    # Sorted by value, then by the younger, then by the older of the pair, all descending.
    order = np.lexsort((-first, -second, -value))[:number]
    return list(zip(first[order].tolist(), second[order].tolist()))
