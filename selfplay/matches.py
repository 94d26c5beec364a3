"""What passes between the league and the rollouts: lineups one way, match results the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MAIN = "main"
"""The name of the learning player: of the league's main one, and in its own rollouts of every other too."""

LIVE = "@"
"""main@VERSION is the main learner as it was then, where exploiters meet it; it is no past self."""


@dataclass(frozen=True, slots=True)
class Lineups:
    """Who sits where in the next matches. K players, Q lineups, A seats."""

    players: tuple[str, ...]  # [K] names; every one is known to the rollout or comes with its weights
    table: np.ndarray  # [Q, A] int32 index into players; rows are taken in turn, cyclically


@dataclass(frozen=True, slots=True)
class MatchResults:
    """Finished matches. M matches, A seats."""

    players: tuple[str, ...]  # names that lineup indexes
    lineup: np.ndarray  # [M, A] int32
    returns: np.ndarray  # [M, A] float32, sum of the rewards of each seat
    length: np.ndarray  # [M] int32, decisions made in the match by all seats
    seed: np.ndarray  # [M] uint64, with the lineup it reproduces the match
    row: np.ndarray | None = None  # [M] int64 of the lineups' table, ascending; None: in the order of ending


def joined(parts: Sequence[MatchResults]) -> MatchResults:
    """The matches of one table after those of another, whose rows come before."""
    players = tuple(dict.fromkeys(name for part in parts for name in part.players))
    place = {name: k for k, name in enumerate(players)}
    lineups = [np.array([place[name] for name in part.players], np.int32)[part.lineup] for part in parts]
    names = ("returns", "length", "seed") + (() if parts[0].row is None else ("row",))
    columns = [[getattr(part, name) for part in parts] for name in names]
    return MatchResults(players, *map(np.concatenate, [lineups, *columns]))


def score(returns: np.ndarray, teams: tuple[int, ...]) -> np.ndarray:
    """Score of every seat's team: 1 for the only best mean return, .5 for a shared best, else 0.

    returns [M, A], teams [A] -> [M, A] float32. With one team there is no opponent: all .5.
    """
    team = np.asarray(teams)
    num_teams = int(team.max()) + 1
    mean = np.stack([returns[:, team == k].mean(axis=1) for k in range(num_teams)], axis=1)  # [M, teams]
    best = np.isclose(mean, mean.max(axis=1, keepdims=True))
    shared = (best.sum(axis=1, keepdims=True) > 1) | (num_teams == 1)
    return np.where(best, np.where(shared, 0.5, 1.0), 0.0).astype(np.float32)[:, team]
