"""How strong is A? Matches in which it takes every team's seats equally often, and their score.

M matches, A seats. Players are numbered from 0, one for each team, or for each role or seat of a team; 0 is
the one that is judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from envs.vector import VectorEnv
from selfplay.matches import Lineups, MatchResults, score
from selfplay.part_play import Seated
from selfplay.parts import Part
from selfplay.rollout import Matches

SLOTS = 512
"""Matches played at once at most."""

Watch = Callable[[Matches], None]
"""Looks on after every tick."""

Z95 = 1.959963984540054  # 97.5% quantile of the standard normal


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What player 0 achieved; None where no match was finished."""

    games: int
    wins: int
    draws: int
    losses: int
    mean_score: float | None  # win 1, draw 1/2, loss 0
    score_ci95: tuple[float, float] | None
    mean_return: float | None  # of player 0, mean over its seats
    elo_diff: float | None  # None also where the game has not two teams
    seed: int
    return_ci95: tuple[float, float] | None  # of the mean return, from the matches' spread


def rotations(units: Sequence[int], games: int, num_players: int | None = None) -> Lineups:
    """Match q seats player (u + q) mod units on unit u, so that each holds every unit equally often.

    Equally, that is, where the number of units divides `games`. Units, numbered from 0, are what one player
    holds: teams, roles in them, or seats (`selfplay.parts.units`). With fewer players than units the last
    one holds whatever is left. units [A] -> table [games, A].
    """
    unit = np.asarray(units)
    num_units = int(unit.max()) + 1
    num_players = num_units if num_players is None else num_players
    table = np.minimum((unit + np.arange(games)[:, None]) % num_units, num_players - 1)
    return Lineups(tuple(map(str, range(num_players))), table.astype(np.int32))


def match_seeds(seed: int, games: int) -> np.ndarray:
    """[games] uint64, the seeds of an evaluation's matches; of fewer games they are the first ones."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed).spawn(2)[1]))
    return rng.integers(0, 2**64, games, dtype=np.uint64)


def play_lineups(
    env: VectorEnv,
    parts: Sequence[Part],
    lineups: Lineups,
    players: Mapping[str, Seated],
    seeds: np.ndarray,
    *,
    watch: Watch | None = None,
) -> MatchResults:
    """Play each lineup to its end, on env's slots: as many at once as there are, the rest as room comes.

    seeds [Q] uint64 of the matches. Results come in the order of the lineups. What a match is, actions
    included, follows from its lineup and seed alone; not from the other matches, their order or the number
    of slots, but for rounding: a network's forward may differ in the last bit between batches of different
    sizes, which changes an action where a draw falls, or two likeliest actions lie, that close together.
    """
    matches = Matches(env, parts, np.random.SeedSequence(0), cyclic=False)
    matches.assign(lineups, players, seeds)
    return matches.play_all(watch)


def evaluate(
    env: VectorEnv,
    parts: Sequence[Part],
    players: Sequence[Seated],
    *,
    games: int,
    seed: int,
    units: Sequence[int] | None = None,
    watch: Watch | None = None,
) -> Evaluation:
    """Play `games` matches; the same players, games and seed give the same result.

    units [A]: what each player holds, as for `rotations`; None: a team. Of a part of a team there is no Elo.
    """
    assert units is not None or len(players) == max(env.teams) + 1
    lineups = rotations(units or env.teams, games, len(players))
    seated = dict(zip(lineups.players, players, strict=True))
    results = play_lineups(env, parts, lineups, seated, match_seeds(seed, games), watch=watch)
    return summary(results, env.teams, seed)


def compare(
    env: VectorEnv,
    parts: Sequence[Part],
    players: Sequence[Seated],
    *,
    games: int,
    seed: int,
    watch: Watch | None = None,
) -> Evaluation:
    """Two players in a game of one team: each plays the same `games` matches alone, the better return wins.

    The same match is the same seed, of the game's chance and the players' draws; returns are the mean over
    the seats.
    """
    assert max(env.teams) == 0
    lineups = Lineups(("it",), np.zeros((games, len(env.teams)), np.int32))
    seeds = match_seeds(seed, games)
    own, other = (  # [M]
        play_lineups(env, parts, lineups, {"it": player}, seeds, watch=watch).returns.mean(axis=1)
        for player in players
    )
    even = np.isclose(own, other)
    wins, draws = int((~even & (own > other)).sum()), int(even.sum())
    mean = (wins + draws / 2) / games
    return Evaluation(
        games=games,
        wins=wins,
        draws=draws,
        losses=games - wins - draws,
        mean_score=mean,
        score_ci95=score_interval(mean, games),
        mean_return=float(own.mean(dtype=np.float64)),
        elo_diff=None,
        seed=seed,
        return_ci95=mean_interval(own),
    )


def summary(results: MatchResults, teams: Sequence[int], seed: int) -> Evaluation:
    """The score of the player named "0" in finished matches; of part of a team there is no Elo."""
    games = len(results.lineup)
    if games == 0:
        return Evaluation(0, 0, 0, 0, None, None, None, None, seed, None)
    own = results.lineup == results.players.index("0")  # [M, A], its seats
    team = np.asarray(teams)
    whole = all((own[:, team == t].all(axis=1) | ~own[:, team == t].any(axis=1)).all() for t in set(teams))
    scores = np.where(own, score(results.returns, tuple(teams)), 0.0).max(axis=1)  # [M]
    returns = results.returns.mean(axis=1, where=own)  # [M]
    mean = float(scores.mean(dtype=np.float64))
    return Evaluation(
        games=games,
        wins=int((scores == 1.0).sum()),
        draws=int((scores == 0.5).sum()),
        losses=int((scores == 0.0).sum()),
        mean_score=mean,
        score_ci95=score_interval(mean, games),
        mean_return=float(returns.mean(dtype=np.float64)),
        elo_diff=elo_difference(mean, games) if max(teams) == 1 and whole else None,
        seed=seed,
        return_ci95=mean_interval(returns),
    )


def score_interval(mean: float, games: int) -> tuple[float, float]:
    """95% interval of the expected score, from the mean score of `games` independent matches.

        centre = (m + z^2 / 2n) / (1 + z^2 / n)
        half   = z / (1 + z^2 / n) * sqrt(m (1 - m) / n + z^2 / 4n^2)

    Wilson's interval, which has a width even at m = 0 and m = 1. It is made for wins and losses, of
    variance m (1 - m); no score within [0, 1] of that mean varies more, so that with draws the interval
    is if anything too wide.
    Source: Wilson 1927, J. Am. Stat. Assoc. 22(158), equation for p.
    """
    z2 = Z95**2 / games
    centre = (mean + z2 / 2) / (1 + z2)
    half = Z95 / (1 + z2) * math.sqrt(mean * (1 - mean) / games + z2 / (4 * games))
    return (0.0 if mean == 0 else max(centre - half, 0.0)), (1.0 if mean == 1 else min(centre + half, 1.0))


def mean_interval(values: np.ndarray) -> tuple[float, float] | None:
    """95% interval of the mean of M independent values, mean -+ z s / sqrt(M); None for less than two."""
    if len(values) < 2:
        return None
    mean, half = (
        values.mean(dtype=np.float64),
        Z95 * values.std(ddof=1, dtype=np.float64) / len(values) ** 0.5,
    )
    return float(mean - half), float(mean + half)


def elo_difference(mean: float, games: int) -> float:
    """Elo of player 0 above its opponent that would make this mean score the expected one.

        D = 400 log10(s / (1 - s)),  s = m held within [1 / 2n, 1 - 1 / 2n]

    Half a match short of all or nothing keeps it finite; beyond that, n matches cannot tell.
    Source: Elo 1978, The Rating of Chessplayers; logistic form as in chess servers.
    """
    share = min(max(mean, 0.5 / games), 1 - 0.5 / games)
    return 400 * math.log10(share / (1 - share))
