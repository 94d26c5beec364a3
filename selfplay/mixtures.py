"""Several strategies as one: one of them is drawn for each match and kept to its end.

I information states, n actions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from selfplay.game_tree import NONE, InformationStates

Strategy = Callable[[InformationStates], np.ndarray]
"""Every player's play: probabilities [I, n] of the actions, 0 for illegal ones."""


def mixed(strategies: Sequence[Strategy]) -> Strategy:
    """The strategy that does as an even draw among these does, to whoever does not see the draw.

        sigma(I, a) = sum_k r_k(I) sigma_k(I, a) / sum_k r_k(I),  r_k(I) the product of what sigma_k gives the
        player's own decisions before I

    Players draw apart from each other. Source: Kuhn 1953, realization equivalence under perfect recall.
    """

    def strategy(states: InformationStates) -> np.ndarray:
        probability = np.stack([each(states) for each in strategies])  # [K, I, n]
        reach = np.ones(probability.shape[:2])
        for depth in range(1, int(states.depth.max(initial=0)) + 1):
            rows = np.flatnonzero(states.depth == depth)
            before, action = states.parent[rows], states.action[rows]
            assert (before != NONE).all()
            reach[:, rows] = reach[:, before] * probability[:, before, action]
        total = reach.sum(axis=0)
        # Where nobody comes any play will do: that of the first.
        share = np.where(total > 0, reach / np.where(total > 0, total, 1.0), np.eye(len(reach))[:, :1])
        return (share[..., None] * probability).sum(axis=0)

    return strategy
