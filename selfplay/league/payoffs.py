"""How players fared against each other: counts of finished matches, old ones fading beside all of them.

N players, T teams. A match of more than two teams counts as one meeting for every pair of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple

import numpy as np

from selfplay.league.outcomes import Outcomes

START = 64
"""Players that a table has room for at first; it doubles."""


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
        return _score(self.counts.sum(axis=2))


def _score(counts: np.ndarray) -> np.ndarray:
    """counts [..., 3] -> mean score [...], NaN where there are none."""
    with np.errstate(invalid="ignore"):
        return (counts[..., 0] + counts[..., 1] / 2) / counts.sum(axis=-1)


class Meeting(NamedTuple):
    """Meetings of one player with another in one iteration, by the first one's team."""

    player: int
    opponent: int
    team: int
    wins: int
    draws: int
    losses: int
    matches: int
    returns: float


class Cell(NamedTuple):
    """What a table holds of a player, its opponent and the team that it held."""

    player: int
    opponent: int
    team: int
    wins: int
    draws: int
    losses: int
    matches: int
    returns: float
    decayed_wins: float
    decayed_draws: float
    decayed_losses: float


class _Facing(NamedTuple):
    """A team that faced another in the matches of a lineup, number k."""

    k: int
    team: int
    other: int
    own: frozenset[int]  # players that held the team
    theirs: frozenset[int]  # and the other
    mixed: bool  # whether a team of these matches was held by several


def _facing(outcomes: Outcomes, teams: tuple[int, ...]) -> Iterator[_Facing]:
    """Every ordered pair of teams of every lineup; not of those that one player holds alone."""
    num_teams = max(teams) + 1
    for k, seats in enumerate(outcomes.lineup.tolist()):
        held = [frozenset(p for team, p in zip(teams, seats) if team == t) for t in range(num_teams)]
        if len(frozenset().union(*held)) == 1:
            continue
        mixed = any(len(players) > 1 for players in held)
        for team, other in permutations(range(num_teams), 2):
            yield _Facing(k, team, other, held[team], held[other], mixed)


def meetings(outcomes: Outcomes, teams: tuple[int, ...], learner: int | None = None) -> list[Meeting]:
    """Who met whom; nobody meets itself.

    A team of several players counts for each of them. Such a team of a learner and its past selves says
    little of these: of its matches only what the learner met counts.
    """
    found: dict[tuple[int, int, int], list[float]] = {}
    for each in _facing(outcomes, teams):
        pairs = outcomes.pairs[each.k, each.team, each.other].tolist()
        numbers = [*pairs, int(outcomes.matches[each.k]), float(outcomes.returns[each.k, each.team])]
        met = [(p, q) for p in each.own for q in each.theirs if p != q]
        if each.mixed and learner is not None:
            met = [pair for pair in met if learner in pair]
        for p, q in met:
            key = p, q, each.team
            found[key] = [x + y for x, y in zip(found.get(key, [0] * 5), numbers)]
    return [
        Meeting._make([*key, *map(int, numbers[:4]), float(numbers[4])])
        for key, numbers in sorted(found.items())
    ]


def together(met: Iterable[Meeting]) -> list[Meeting]:
    """The meetings of the same two and team as one, in the order of their numbers."""
    found: dict[tuple[int, int, int], Meeting] = {}
    for each in met:
        key = each[:3]
        before = found.get(key)
        if before is not None:
            each = Meeting._make([*key, *(x + y for x, y in zip(before[3:], each[3:]))])
        found[key] = each
    return [found[key] for key in sorted(found)]


def wins_over(outcomes: Outcomes, teams: tuple[int, ...], player: int) -> dict[int, float]:
    """How often a player's team left each other player behind: 1 for a whole match that it won.

    That is shared among the other teams, and in each among the players that held it.
    """
    found: dict[int, float] = {}
    for each in _facing(outcomes, teams):
        beaten = each.theirs - {player}
        if player in each.own and beaten:
            share = float(outcomes.pairs[each.k, each.team, each.other, 0]) / max(teams) / len(beaten)
            found |= {other: found.get(other, 0.0) + share for other in beaten}
    return found


class PayoffTable:
    """The payoffs of a league while it grows. P players by their ids, T teams."""

    def __init__(self, num_teams: int, decay: float) -> None:
        """decay: what a match's weight falls to with each later one between the same two, team by team."""
        self._decay = decay
        shape = (START, START, num_teams)
        self._counts = np.zeros((*shape, 3), np.int64)
        self._decayed = np.zeros((*shape, 3))
        self._matches = np.zeros(shape, np.int64)
        self._returns = np.zeros(shape)
        self._touched: set[tuple[int, int, int]] = set()

    def _grow(self, highest: int) -> None:
        size = len(self._counts)
        if highest < size:
            return
        larger = max(2 * size, highest + 1)
        for name in ("_counts", "_decayed", "_matches", "_returns"):
            old = getattr(self, name)
            new = np.zeros((larger, larger, *old.shape[2:]), old.dtype)
            new[:size, :size] = old
            setattr(self, name, new)

    def add(self, met: Iterable[Meeting]) -> None:
        """The meetings of an iteration, all kinds of matches together.

            decayed <- decayed * d^M + counts / M * (1 - d^M) / (1 - d)

        for M matches in no order that means anything: each kind of outcome is spread evenly among them.
        Source of the decay: AlphaStar (Vinyals et al. 2019), pseudocode of the payoff.
        """
        for meeting in met:
            player, opponent, team, *counts, matches, returns = meeting
            self._grow(max(player, opponent))
            cell = player, opponent, team
            self._counts[cell] += counts
            self._matches[cell] += matches
            self._returns[cell] += returns
            number = sum(counts)
            if number:
                left = self._decay**number
                weight = (1 - left) / (1 - self._decay) if self._decay < 1 else number
                self._decayed[cell] = self._decayed[cell] * left + np.array(counts) / number * weight
            self._touched.add(cell)

    def load(self, cells: Iterable[Cell]) -> None:
        """Take over what was stored."""
        for player, opponent, team, wins, draws, losses, matches, returns, *decayed in cells:
            self._grow(max(player, opponent))
            cell = player, opponent, team
            self._counts[cell] = wins, draws, losses
            self._matches[cell], self._returns[cell], self._decayed[cell] = matches, returns, decayed

    def changed(self) -> Iterator[Cell]:
        """What was added since the last call."""
        for cell in sorted(self._touched):
            counts, decayed = self._counts[cell].tolist(), self._decayed[cell].tolist()
            numbers = [*counts, int(self._matches[cell]), float(self._returns[cell]), *decayed]
            yield Cell._make([*cell, *numbers])
        self._touched.clear()

    def counts(self, player: int, opponents: list[int]) -> np.ndarray:
        """[N, 3] wins, draws, losses of the player against these, all matches."""
        return self._row("_counts", player, opponents)

    def recent_counts(self, player: int, opponents: list[int]) -> np.ndarray:
        """[N, 3] the same, old matches fading."""
        return self._row("_decayed", player, opponents)

    def _row(self, name: str, player: int, opponents: list[int]) -> np.ndarray:
        self._grow(max([player, *opponents]))
        row: np.ndarray = getattr(self, name)[player, opponents].sum(axis=1)
        return row

    def recent_score(self, player: int, opponents: list[int]) -> np.ndarray:
        """[N] score of the player against these, old matches fading; 1/2 where they never met."""
        return np.nan_to_num(_score(self.recent_counts(player, opponents)), nan=0.5)

    def recent_scores(self, ids: list[int]) -> np.ndarray:
        """[N, N] score of row against column among these, old matches fading; NaN where they never met."""
        self._grow(max(ids, default=0))
        return _score(self._decayed[np.ix_(ids, ids)].sum(axis=2))

    def meetings(self, ids: list[int]) -> np.ndarray:
        """[N, N] matches of row against column among these, over the row's teams."""
        self._grow(max(ids, default=0))
        return self._matches[np.ix_(ids, ids)].sum(axis=2)

    def pair_counts(self, ids: list[int]) -> np.ndarray:
        """[N, N, 3] wins, draws, losses of row against column among these."""
        self._grow(max(ids, default=0))
        return self._counts[np.ix_(ids, ids)].sum(axis=2)

    def payoffs(self, players: dict[str, int]) -> Payoffs:
        """As one table of these players, given with their ids."""
        ids = list(players.values())
        self._grow(max(ids, default=0))
        pick = np.ix_(ids, ids)
        return Payoffs(
            tuple(players),
            self._counts[pick],
            self._decayed[pick].sum(axis=2),
            self._matches[pick],
            self._returns[pick],
        )
