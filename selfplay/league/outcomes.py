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
    """How the matches of each distinct lineup ended."""

    lineup: np.ndarray  # [L, A] int64 player ids
    counts: np.ndarray  # [L, T, 3] int64 wins, draws, losses of each team


@dataclass(frozen=True, slots=True)
class Duel:
    """Matches of one player against one other."""

    counts: Counts  # pairs of opposing teams, by whose score was higher
    mean_score: float  # of the player's team over the matches


def _team_score(returns: np.ndarray, teams: tuple[int, ...]) -> np.ndarray:
    """returns [M, A] -> [M, T] score of each team."""
    first_seat = [teams.index(k) for k in range(max(teams) + 1)]
    return score(returns, teams)[:, first_seat]


def outcomes(results: Sequence[MatchResults], ids: Mapping[str, int], teams: tuple[int, ...]) -> Outcomes:
    """Count the matches of several rollouts, each with its own numbering of players, by lineup."""
    num_teams = max(teams) + 1
    for result in results:
        unknown = sorted(set(result.players) - ids.keys())
        if unknown:
            raise LeagueError(f"results name players that the league does not know: {', '.join(unknown)}")
    played = [result for result in results if len(result.lineup)]
    if not played:
        return Outcomes(np.zeros((0, len(teams)), np.int64), np.zeros((0, num_teams, 3), np.int64))
    lineup = np.concatenate([np.array([ids[p] for p in r.players], np.int64)[r.lineup] for r in played])
    team_score = _team_score(np.concatenate([result.returns for result in played]), teams)
    distinct, index = _distinct_rows(lineup)
    ending = np.round(2 - 2 * team_score).astype(np.int64)  # [M, T] 0 win, 1 draw, 2 loss
    cell = (index[:, None] * num_teams + np.arange(num_teams)) * 3 + ending
    counts = np.bincount(cell.ravel(), minlength=len(distinct) * num_teams * 3)
    return Outcomes(distinct, counts.reshape(len(distinct), num_teams, 3))


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
    team_score = _team_score(results.returns[with_me], teams)
    opponent = np.where(mine, -1, seats).max(axis=1)  # [M]
    if (mine.sum(axis=1) != 1).any() or ((seats != opponent[:, None]) & ~mine).any():
        raise LeagueError(f"a match that rates {player} must hold it on one team, one opponent on all others")
    own = team_score[mine][:, None]  # [M, 1]
    found = {}
    for index in np.unique(opponent):
        rows = opponent == index
        other = team_score[rows][~mine[rows]].reshape(rows.sum(), -1)  # [m, T - 1]
        ahead = own[rows] - other
        counts = Counts(int((ahead > 0).sum()), int((ahead == 0).sum()), int((ahead < 0).sum()))
        found[results.players[index]] = Duel(counts, float(own[rows].mean()))
    return found
