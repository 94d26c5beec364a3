"""From finished matches to counts. M matches, A seats, T teams, L distinct lineups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from selfplay.league.errors import LeagueError
from selfplay.league.ratings import Counts
from selfplay.matches import MatchResults, score


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How the matches of each distinct lineup ended.

    In games without winners counts, placements and pairs stay 0: returns are all there is to tell.
    """

    lineup: np.ndarray  # [L, A] int64 player ids
    matches: np.ndarray  # [L] int64
    counts: np.ndarray  # [L, T, 3] int64 wins, draws, losses of each team, against all the others at once
    placement: np.ndarray  # [L, T] float64 sum of the places, 1 the best; teams that tie share the mean
    returns: np.ndarray  # [L, T] float64 sum of the mean returns of each team's seats
    pairs: np.ndarray  # [L, T, T, 3] int64 wins, draws, losses of the first team against the second
    seeds: tuple[np.ndarray, ...]  # of each lineup's matches, uint64


@dataclass(frozen=True, slots=True)
class Duel:
    """Matches of one player against one other."""

    counts: Counts  # pairs of opposing teams, by whose score was higher
    mean_score: float  # of the player's team over the matches
    mean_return: float  # of the player's team over the matches


def _team_score(returns: np.ndarray, teams: tuple[int, ...]) -> np.ndarray:
    """returns [M, A] -> [M, T] score of each team."""
    first_seat = [teams.index(k) for k in range(max(teams) + 1)]
    return score(returns, teams)[:, first_seat]


def team_returns(returns: np.ndarray, teams: tuple[int, ...]) -> np.ndarray:
    """returns [M, A] -> [M, T] float64 mean over the seats of each team."""
    team = np.asarray(teams)
    columns = [returns[:, team == k].mean(axis=1, dtype=np.float64) for k in range(max(teams) + 1)]
    return np.stack(columns, axis=1)


def _ahead(returns: np.ndarray) -> np.ndarray:
    """Team returns [M, T] -> [M, T, T] 1 where the first team did better than the second, 0 if even, -1."""
    first, second = returns[:, :, None], returns[:, None, :]
    return np.where(np.isclose(first, second), 0, np.sign(first - second)).astype(np.int64)


def placements(ahead: np.ndarray) -> np.ndarray:
    """[M, T, T] as `_ahead` gives -> [M, T] place of each team: 1 + teams ahead + half of those even."""
    num_teams = ahead.shape[1]
    return 1 + ((1 - ahead).sum(axis=2) - 1) / 2 if num_teams > 1 else np.ones(ahead.shape[:2])


def outcomes(
    results: Sequence[MatchResults],
    ids: Mapping[str, int],
    teams: tuple[int, ...],
    *,
    winners: bool = True,
) -> Outcomes:
    """Count the matches of several rollouts, each with its own numbering of players, by lineup.

    winners: whether the better return wins; else only returns are kept.
    """
    num_teams = max(teams) + 1
    for result in results:
        unknown = sorted(set(result.players) - ids.keys())
        if unknown:
            raise LeagueError(f"results name players that the league does not know: {', '.join(unknown)}")
    played = [result for result in results if len(result.lineup)]
    if not played:
        return _none(len(teams), num_teams)
    lineup = np.concatenate([np.array([ids[p] for p in r.players], np.int64)[r.lineup] for r in played])
    returns = np.concatenate([result.returns for result in played])
    seed = np.concatenate([result.seed for result in played]).astype(np.uint64)
    distinct, index = _distinct_rows(lineup)
    size = len(distinct)
    counts = np.zeros((size, num_teams, 3), np.int64)
    placement = np.zeros((size, num_teams))
    pairs = np.zeros((size, num_teams, num_teams, 3), np.int64)
    by_team = team_returns(returns, teams)
    if winners:
        ending = np.round(2 - 2 * _team_score(returns, teams)).astype(
            np.int64
        )  # [M, T] 0 win, 1 draw, 2 loss
        counts = _counted(index, ending, size)
        ahead = _ahead(by_team)
        placement = _summed(index, placements(ahead), size)
        pairs = _counted(index, 1 - ahead, size)
        pairs[:, np.arange(num_teams), np.arange(num_teams)] = 0
    order = np.argsort(index, kind="stable")
    matches = np.bincount(index, minlength=size)
    seeds = tuple(np.split(seed[order], np.cumsum(matches)[:-1]))
    return Outcomes(distinct, matches, counts, placement, _summed(index, by_team, size), pairs, seeds)


def _none(num_seats: int, num_teams: int) -> Outcomes:
    return Outcomes(
        np.zeros((0, num_seats), np.int64),
        np.zeros(0, np.int64),
        np.zeros((0, num_teams, 3), np.int64),
        np.zeros((0, num_teams)),
        np.zeros((0, num_teams)),
        np.zeros((0, num_teams, num_teams, 3), np.int64),
        (),
    )


def _counted(index: np.ndarray, ending: np.ndarray, size: int) -> np.ndarray:
    """index [M] of the lineup, ending [M, ...] in 0..2 -> how often each ended so: [size, ..., 3]."""
    shape = ending.shape[1:]
    width = int(np.prod(shape))
    cell = (index[:, None] * width + np.arange(width)) * 3 + ending.reshape(len(index), width)
    return np.bincount(cell.ravel(), minlength=size * width * 3).reshape(size, *shape, 3)


def _summed(index: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """values [M, T] -> their sums [size, T] by lineup."""
    columns = [np.bincount(index, weights=column, minlength=size) for column in values.T]
    return np.stack(columns, axis=1)


def _distinct_rows(row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows of [M, A] and the index of each row among them, one column at a time.

    Much faster than np.unique(axis=0), which sorts whole rows as opaque bytes.
    """
    code = np.zeros(len(row), np.int64)
    for column in row.T:
        _, digit = np.unique(column, return_inverse=True)
        _, code = np.unique(code * (int(digit.max()) + 1) + digit, return_inverse=True)
    _, first, index = np.unique(code, return_index=True, return_inverse=True)
    return row[first], index


def duels(results: MatchResults, player: str, teams: tuple[int, ...]) -> dict[str, Duel]:
    """The player's matches by opponent; it holds one team of each and one opponent all the others.

    Each other team gives one pair: won, drawn or lost by the score of the two teams. With two teams that is
    the match itself; with more it keeps players of equal strength at equal ratings, while the score alone
    would call one win in three a weakness. Matches without the player are left out.
    """
    if player not in results.players or max(teams) == 0:
        return {}
    me = results.players.index(player)
    seats = results.lineup[:, [teams.index(k) for k in range(max(teams) + 1)]]  # [M, T]
    if not np.array_equal(seats[:, list(teams)], results.lineup):
        raise LeagueError(f"a match that rates {player} has a team of several players")
    mine = seats == me
    with_me = mine.any(axis=1)
    seats, mine = seats[with_me], mine[with_me]
    returns = team_returns(results.returns[with_me], teams)
    opponent = np.where(mine, -1, seats).max(axis=1)  # [M]
    if (mine.sum(axis=1) != 1).any() or ((seats != opponent[:, None]) & ~mine).any():
        raise LeagueError(f"a match that rates {player} must hold it on one team, one opponent on all others")
    own = _team_score(results.returns[with_me], teams)[mine]  # [M]
    ahead = _ahead(returns)[mine]  # [M, T], 0 against itself
    found = {}
    for index in np.unique(opponent):
        rows = opponent == index
        even = int((ahead[rows] == 0).sum()) - int(rows.sum())
        counts = Counts(int((ahead[rows] > 0).sum()), even, int((ahead[rows] < 0).sum()))
        found[results.players[index]] = Duel(
            counts, float(own[rows].mean()), float(returns[mine][rows].mean())
        )
    return found
