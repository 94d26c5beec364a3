"""Play the matches of one pair: what runs in this process, or in Ray's. M matches, A seats, T teams."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from envs.vector import VectorEnv
from selfplay import contestants
from selfplay.config import EnvConfig
from selfplay.contestants import Contestant
from selfplay.matches import Lineups, MatchResults, score
from selfplay.part_play import Seated
from selfplay.parts import Part
from selfplay.rollout import Matches
from selfplay.tournament.schedule import Piece, match_seed, seats
from selfplay.views import Meeting

FIRST, SECOND = "first", "second"

MOST_PLAYERS = 16
"""Policies that a process holds for each size of piece, at most."""


@dataclass(frozen=True, slots=True)
class Game:
    """What a pair plays, and how."""

    id: str
    kwargs: tuple[str, str]  # of the first and the second player, who may see it in their own ways; JSON
    seed: int
    greedy: bool

    @property
    def envs(self) -> list[EnvConfig]:
        return [EnvConfig(id=self.id, kwargs=json.loads(text)) for text in self.kwargs]


def encoded(kwargs: Mapping[str, Any]) -> str:
    """A game's arguments as `Game` holds them."""
    return json.dumps(kwargs, sort_keys=True)


class Played(NamedTuple):
    """How matches of a pair ended, for its first player."""

    number: np.ndarray  # [M] int64
    score: np.ndarray  # [M] float64: 1 won, 0 lost, 1/2 drawn; with more than two teams also between
    returns: np.ndarray  # [M, 2] float64 of first and second, the mean over the seats of each
    length: np.ndarray  # [M] int64 decisions


def play(game: Game, piece: Piece, first: Contestant, second: Contestant) -> Played:
    """Play a piece; the same piece gives the same result in every process."""
    torch.set_num_threads(1)  # matches are played side by side by processes, not by threads
    number = np.array(piece.numbers, np.int64)
    seeds = np.array([match_seed(game.seed, piece.pair, n) for n in piece.numbers], np.uint64)
    table = _table(game, len(number))
    env = table.meeting.env
    parts = contestants.common_parts((first, second), env)
    players = {
        FIRST: table.seat(0, piece.pair.first, first, parts),
        SECOND: table.seat(1, piece.pair.second, second, parts),
    }
    if max(env.teams) == 0:
        return _alone(env, parts, players, number, seeds)
    lineup = seats(number, env.teams)
    results = _results(env, parts, players, lineup, seeds)
    own = lineup == 0
    returns = [results.returns.mean(axis=1, where=mine, dtype=np.float64) for mine in (own, ~own)]
    return Played(
        number,
        meeting_score(results.returns, lineup, env.teams),
        np.stack(returns, axis=1),
        results.length.astype(np.int64),
    )


def meeting_score(returns: np.ndarray, lineup: np.ndarray, teams: tuple[int, ...]) -> np.ndarray:
    """Score [M] of player 0 against player 1, one of whom holds one team and the other all the others.

    Each other team is one meeting, won, drawn or lost by whose team scored more in the match; the mean over
    them. With two teams that is the match's score; with more it keeps players of equal strength at 1/2.
    returns [M, A], lineup [M, A] of 0 and 1.
    """
    team_seat = [teams.index(k) for k in range(max(teams) + 1)]
    team_score = score(returns, teams)[:, team_seat]  # [M, T]
    holder = lineup[:, team_seat]
    own = holder == 0
    alone = np.where(own.sum(axis=1, keepdims=True) == 1, own, ~own)  # [M, T] the team held alone
    ahead = np.sign(team_score[alone][:, None] - team_score)  # [M, T], 0 against itself
    of_single = (1 + ahead.sum(axis=1) / (team_score.shape[1] - 1)) / 2
    single_is_first = holder[alone] == 0
    return np.where(single_is_first, of_single, 1 - of_single).astype(np.float64)


def _alone(
    env: VectorEnv, parts: tuple[Part, ...], players: dict[str, Seated], number: np.ndarray, seeds: np.ndarray
) -> Played:
    """A game of one team: each plays the same matches by itself, and the better return wins."""
    nobody = np.zeros((len(number), len(env.teams)), np.int32)
    each = [
        _results(env, parts, {FIRST: players[name], SECOND: players[name]}, nobody, seeds)
        for name in (FIRST, SECOND)
    ]
    returns = np.stack([r.returns.mean(axis=1, dtype=np.float64) for r in each], axis=1)  # [M, 2]
    even = np.isclose(returns[:, 0], returns[:, 1])
    points = np.where(even, 0.5, returns[:, 0] > returns[:, 1])
    return Played(number, points, returns, each[0].length.astype(np.int64) + each[1].length)


def _results(
    env: VectorEnv, parts: tuple[Part, ...], players: dict[str, Seated], lineup: np.ndarray, seeds: np.ndarray
) -> MatchResults:
    """Play these matches, and give the results in their order."""
    matches = Matches(env, parts, np.random.SeedSequence(0), cyclic=False)  # all seeds are given
    matches.assign(Lineups((FIRST, SECOND), lineup), players, seeds)
    return matches.play_all()


class _Table:
    """A game whose matches are all over, ready for the next ones, and the players that played there last."""

    def __init__(self, game: Game, num_games: int) -> None:
        self.meeting = Meeting(game.envs, num_games)
        self._greedy = game.greedy
        self._seated: dict[tuple[str, ...], Seated] = {}  # newest last

    def seat(self, side: int, identity: str, contestant: Contestant, parts: tuple[Part, ...]) -> Seated:
        """A player; making a policy takes as long as some dozens of matches, so that it is kept."""
        key = (identity, str(self.meeting.views[side]), *(part.name for part in parts))
        players = self._seated.pop(key, None)
        if players is None:
            _, env = self.meeting.game(side)
            own = contestants.seat(contestant, env, parts, greedy=self._greedy)
            players = self.meeting.seated(side, own)
        self._seated[key] = players
        if len(self._seated) > MOST_PLAYERS:
            del self._seated[next(iter(self._seated))]
        return players


@functools.lru_cache(maxsize=2)  # whole pieces and those at the end of a pair
def _table(game: Game, num_games: int) -> _Table:
    return _Table(game, num_games)
