"""Lineups of the next matches: how draws become tables. Q lineups, A seats, N past selves."""

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


def past_rows(num_rows: int, num_opponents: int, first_team: int, teams: np.ndarray) -> np.ndarray:
    """Rows with player 0 on one team and one of players 1..num_opponents on all the others: [num_rows, A].

    The rows are split evenly among the opponents, and player 0 goes round the teams from `first_team`, so
    that it holds every team equally often (within one row), against each opponent too.
    """
    row = np.arange(num_rows)
    opponent = 1 + row * num_opponents // max(num_rows, 1)
    team = (first_team + row) % (int(teams.max()) + 1)
    return np.where(teams[None, :] == team[:, None], 0, opponent[:, None]).astype(np.int32)


def mixed_rows(num_rows: int, num_opponents: int, first_team: int, teams: np.ndarray) -> np.ndarray:
    """As `past_rows`, but every other team has the next of the opponents: the same where teams are two."""
    rows = past_rows(num_rows, num_opponents, first_team, teams)
    own = np.where(rows == 0, teams, -1).max(axis=1, keepdims=True)  # [Q, 1] team of player 0
    num_teams = int(teams.max()) + 1
    place = (teams - own) % num_teams - 1  # of the team among the others
    return np.where(rows == 0, 0, 1 + (rows - 1 + place) % max(num_opponents, 1)).astype(np.int32)
