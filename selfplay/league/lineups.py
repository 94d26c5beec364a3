"""Lineups of the next matches: how draws become tables. Q lineups, A seats, N past selves.

Units are what one player holds: teams, or roles in them, or seats (`selfplay.parts.units`).
"""

from __future__ import annotations

import numpy as np


def spread_draws(
    probabilities: np.ndarray, num_rollouts: int, each: int, rng: np.random.Generator
) -> np.ndarray:
    """Past selves for every rollout, drawn by systematic sampling: [num_rollouts, each] indices into N.

    One uniform number turns an even grid round the cumulative probabilities (in a random order of the past
    selves). Every draw has exactly the distribution `probabilities`, which the 1 / p_i of the quality rule
    relies on, and draws of one rollout lie 1 / each apart, hence differ wherever no p_i exceeds 1 / each.
    Drawing without replacement would be distinct throughout, but meets rare opponents more often than
    p_i says, so that the rule pushes them out.
    """
    num_draws = num_rollouts * each
    order = rng.permutation(len(probabilities))
    edges = np.cumsum(probabilities[order])
    grid = (np.arange(num_draws) / num_draws + rng.random()) % 1 * edges[-1]
    drawn = order[np.minimum(np.searchsorted(edges, grid, side="right"), len(order) - 1)]
    return drawn.reshape(each, num_rollouts).T


def past_rows(num_rows: int, num_opponents: int, first_unit: int, units: np.ndarray) -> np.ndarray:
    """Rows with player 0 on one unit and one of players 1..num_opponents on all the others: [num_rows, A].

    The rows are split evenly among the opponents, and player 0 goes round the units from `first_unit`, so
    that it holds every unit equally often (within one row), against each opponent too. units [A].
    """
    row = np.arange(num_rows)
    opponent = 1 + row * num_opponents // max(num_rows, 1)
    unit = (first_unit + row) % (int(units.max()) + 1)
    return np.where(units[None, :] == unit[:, None], 0, opponent[:, None]).astype(np.int32)


def mixed_rows(num_rows: int, num_opponents: int, first_unit: int, units: np.ndarray) -> np.ndarray:
    """As `past_rows`, but every other unit has the next of the opponents: the same where units are two."""
    rows = past_rows(num_rows, num_opponents, first_unit, units)
    own = np.where(rows == 0, units, -1).max(axis=1, keepdims=True)  # [Q, 1] unit of player 0
    num_units = int(units.max()) + 1
    place = (units - own) % num_units - 1  # of the unit among the others
    return np.where(rows == 0, 0, 1 + (rows - 1 + place) % max(num_opponents, 1)).astype(np.int32)
