"""From results to tables: how strong each player is, and which differences are more than chance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from selfplay.evaluate import Z95, elo_difference, mean_interval, score_interval
from selfplay.league.bradley_terry import ELO, Strengths, fitted
from selfplay.tournament.entrants import Entrant
from selfplay.tournament.playing import Played
from selfplay.tournament.schedule import Pair
from selfplay.worker import RANDOM

LEVEL = 0.05
"""A p-value below it is called significant."""

Interval = tuple[float | None, float | None]
"""95%, low and high; an end is None where no result bounds it."""


@dataclass(frozen=True, slots=True)
class PlayerRow:
    """A player's line; ratings are None in games that are not zero-sum, where mean returns stand for them."""

    name: str
    label: str  # also says which weights of a run these are
    identity: str
    rating: float | None  # scale of the league's
    ci95: Interval | None  # of the rating; None for the anchor, whose rating is fixed
    elo: float | None  # above the anchor
    elo_ci95: Interval | None
    games: int
    wins: int
    draws: int
    losses: int
    score: float  # mean over its matches
    score_ci95: tuple[float, float]
    mean_return: float
    return_ci95: tuple[float, float] | None
    p_next: float | None  # two-sided, of the difference to the next player's rating, or mean return
    significant: bool | None  # whether that is below LEVEL; None for the last


@dataclass(frozen=True, slots=True)
class PairRow:
    """Two players' matches, for the one that stands above."""

    a: str
    b: str
    games: int
    wins: int
    draws: int
    losses: int
    mean_score: float
    ci95: tuple[float, float]  # of the mean score
    p_value: float  # of wins and losses so uneven between equals
    significant: bool
    elo_diff: float | None
    mean_return: float  # of a
    return_ci95: tuple[float, float] | None
    opponent_return: float  # of b


@dataclass(frozen=True, slots=True)
class Standings:
    anchor: str | None  # the player whose rating is 0
    players: tuple[PlayerRow, ...]  # the strongest first
    pairs: tuple[PairRow, ...]  # by the places of the two


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p-value of wins and losses as uneven as these, were each as likely; draws do not count.

        p = min(1, 2 sum_{k <= min(w, l)} C(n, k) / 2^n),  n = w + l

    Where the seats are worth something, matches of both seats vary less than coins do, so that p is if
    anything too large.
    Source: Dixon and Mood 1946, J. Am. Stat. Assoc. 41(236).
    """
    n, log_half = wins + losses, math.log(0.5)
    tail = math.fsum(
        math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + n * log_half)
        for k in range(min(wins, losses) + 1)
    )
    return min(1.0, 2 * tail)


class _Record:
    """One player's matches, from its own side. P opponents, M matches of each."""

    def __init__(self, identity: str, played: Mapping[Pair, Played]) -> None:
        self.score: dict[Pair, np.ndarray] = {}  # [M]
        self.returns: dict[Pair, np.ndarray] = {}  # [M]
        for pair, results in played.items():
            if identity in (pair.first, pair.second):
                side = int(pair.second == identity)
                self.score[pair] = 1 - results.score if side else results.score
                self.returns[pair] = results.returns[:, side]

    @property
    def games(self) -> int:
        return sum(map(len, self.score.values()))

    def mean_return(self) -> float:
        return math.fsum(np.concatenate([*self.returns.values()])) / self.games

    def return_interval(self) -> tuple[float, float] | None:
        """Of the mean return against these opponents, who are not a sample: each pair varies by itself."""
        variance = _variance(value / self.games for value in self.returns.values())
        if variance is None:
            return None
        mean, half = self.mean_return(), Z95 * math.sqrt(variance)
        return mean - half, mean + half


def _variance(pairs: Iterable[np.ndarray]) -> float | None:
    """Of the sum of all these matches' values, an array for each pair; None where a pair played once."""
    total = 0.0
    for each in pairs:
        if len(each) < 2:
            return None
        total += len(each) * float(each.var(ddof=1))
    return total


def return_p_value(one: _Record, other: _Record) -> float:
    """Two-sided p-value of the difference of two players' mean returns, by the normal distribution.

        D = sum_p sum_m d_pm,  d_pm = own return / own matches - other's return / other's matches
        Var D = sum_p M_p var_m(d_pm)

    over pairs p of which either is one, each with its own mean; matches of the two count for both at once.
    """
    none = np.zeros(1)
    variance = _variance(
        one.returns.get(pair, none) / one.games - other.returns.get(pair, none) / other.games
        for pair in dict.fromkeys([*one.returns, *other.returns])
    )
    difference = one.mean_return() - other.mean_return()
    if variance is None or abs(difference) < 1e-12:
        return 1.0
    return math.erfc(abs(difference) / math.sqrt(2 * variance)) if variance > 0 else 0.0


def standings(entrants: Sequence[Entrant], played: Mapping[Pair, Played], *, rated: bool) -> Standings:
    """The tables. rated: by Bradley and Terry's model, `random` or else the first player being 0.

    Else players are ordered by mean return.
    """
    names = [entrant.identity for entrant in entrants]
    records = {name: _Record(name, played) for name in names}
    anchor = RANDOM if RANDOM in names else names[0]
    strengths = fitted(names, _scores(names, records), {anchor: 0.0}) if rated else None
    if strengths is None:
        worth = {name: records[name].mean_return() for name in names}
    else:
        worth = dict(zip(names, strengths.mu.tolist(), strict=True))
    order = sorted(entrants, key=lambda entrant: -worth[entrant.identity])
    rows = []
    for place, entrant in enumerate(order):
        p_next = None
        if place + 1 < len(order):
            p_next = _p_next(entrant.identity, order[place + 1].identity, records, strengths)
        rating = _Rating() if strengths is None else _rating(strengths, entrant.identity, anchor)
        rows.append(_player_row(entrant, records[entrant.identity], rating, p_next))
    pairs = tuple(
        _pair_row(a, b, records[a.identity], records[b.identity], with_elo=rated)
        for place, a in enumerate(order)
        for b in order[place + 1 :]
    )
    name_of = {entrant.identity: entrant.name for entrant in entrants}
    return Standings(name_of[anchor] if rated else None, tuple(rows), pairs)


def _scores(names: Sequence[str], records: Mapping[str, _Record]) -> np.ndarray:
    """[N, N, 3] wins, draws and losses of row against column, as `fitted` takes them.

    Draws are handed over as half a win and half a loss each, which is what they count: so that the meetings
    of one match of several teams weigh as one match.
    """
    counts = np.zeros((len(names), len(names), 3))
    for i, name in enumerate(names):
        for j, other in enumerate(names):
            if i != j:
                score = records[name].score[Pair.of(name, other)]
                counts[i, j, 0], counts[i, j, 2] = score.sum(), (1 - score).sum()
    return counts


def _p_next(
    name: str, below: str, records: Mapping[str, _Record], strengths: Strengths | None
) -> float:  # fmt: skip
    if strengths is None:
        return return_p_value(records[name], records[below])
    return strengths.difference(name, below).p_value


class _Rating(NamedTuple):
    rating: float | None = None
    ci95: Interval | None = None
    elo: float | None = None
    elo_ci95: Interval | None = None


def _rating(strengths: Strengths, name: str, anchor: str) -> _Rating:
    """In points and in Elo; an interval's end is None where no result bounds it."""
    k = strengths.players.index(name)
    mu = float(strengths.mu[k])
    if name == anchor:
        return _Rating(mu, None, mu * ELO, None)
    low, high = (float(end) if math.isfinite(end) else None for end in strengths.interval[k])
    in_elo = tuple(None if end is None else end * ELO for end in (low, high))
    return _Rating(mu, (low, high), mu * ELO, (in_elo[0], in_elo[1]))


def _counted(scores: np.ndarray) -> tuple[int, int, int]:
    """Wins, draws and losses among match scores; with more than two teams by who was ahead."""
    return int((scores > 0.5).sum()), int((scores == 0.5).sum()), int((scores < 0.5).sum())


def _player_row(entrant: Entrant, record: _Record, rating: _Rating, p_next: float | None) -> PlayerRow:
    scores = np.concatenate([*record.score.values()])
    wins, draws, losses = _counted(scores)
    score = math.fsum(scores) / len(scores)
    return PlayerRow(
        name=entrant.name,
        label=entrant.contestant.label,
        identity=entrant.identity,
        rating=rating.rating,
        ci95=rating.ci95,
        elo=rating.elo,
        elo_ci95=rating.elo_ci95,
        games=len(scores),
        wins=wins,
        draws=draws,
        losses=losses,
        score=score,
        score_ci95=score_interval(score, len(scores)),
        mean_return=record.mean_return(),
        return_ci95=record.return_interval(),
        p_next=p_next,
        significant=None if p_next is None else p_next < LEVEL,
    )


def _pair_row(a: Entrant, b: Entrant, own: _Record, other: _Record, *, with_elo: bool) -> PairRow:
    pair = Pair.of(a.identity, b.identity)
    scores = own.score[pair]
    wins, draws, losses = _counted(scores)
    mean, p_value = math.fsum(scores) / len(scores), sign_test(wins, losses)
    return PairRow(
        a=a.name,
        b=b.name,
        games=len(scores),
        wins=wins,
        draws=draws,
        losses=losses,
        mean_score=mean,
        ci95=score_interval(mean, len(scores)),
        p_value=p_value,
        significant=p_value < LEVEL,
        elo_diff=elo_difference(mean, len(scores)) if with_elo else None,
        mean_return=math.fsum(own.returns[pair]) / len(scores),
        return_ci95=mean_interval(own.returns[pair]),
        opponent_return=math.fsum(other.returns[pair]) / len(scores),
    )
