"""The league of a report: its players, their ratings, and who fared how against whom. N players."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from selfplay.evaluate import Z95
from selfplay.league import bradley_terry
from selfplay.league.payoffs import Meeting, Payoffs
from selfplay.league.ratings import Rating
from selfplay.league.store import Player
from selfplay.report.data import Encounters, Interval, PayoffCells, PlayerRow, RatingPoint

MOST = 500
"""Players that are shown; of more past selves a part, evenly spread over the run."""
BOTS = "bots"

History = Sequence[tuple[int, str, Rating]]


def shown(players: Sequence[Player]) -> list[Player]:
    """At most MOST players: all that learn, all bots, and past selves evenly spread, the newest too."""
    past = [player for player in players if player.kind == "snapshot"]
    room = max(MOST - (len(players) - len(past)), 1)
    if len(past) <= room:
        return list(players)
    places = (np.arange(1, room + 1) * len(past) // room - 1).tolist()
    kept = {past[place].name for place in places}
    return [player for player in players if player.kind != "snapshot" or player.name in kept]


def interval(rating: Rating) -> Interval:
    """A rating's 95% interval."""
    return Interval(rating.mu, rating.mu - Z95 * rating.sigma, rating.mu + Z95 * rating.sigma)


def rows(
    players: Sequence[Player],
    history: History,
    strength: Mapping[str, Interval],
    steps_at: Callable[[int], int],
) -> tuple[PlayerRow, ...]:
    """The players as the page shows them; steps_at: the main learner's decisions until an iteration.

    An anchor that never was rated is the origin, random.
    """
    rated = {name for _, name, _ in history}
    lineages = {player.name: lineage(player) for player in players}
    left = _left(players)
    begun: set[str] = set()
    found = []
    for player in players:
        own = lineages[player.name]
        from_others = player.parent is None or lineages.get(player.parent, own) != own
        fixed = player.kind == "bot" and player.rating.sigma == 0
        found.append(
            PlayerRow(
                name=player.name,
                kind=player.kind,
                lineage=own,
                parent=player.parent,
                is_reset=player.kind == "snapshot" and own in begun and from_others,
                iteration=player.iteration,
                joined=steps_at(player.iteration),
                agent_steps=player.agent_steps,
                retired=left.get(player.name),
                rating=interval(player.rating) if fixed or player.name in rated else None,
                strength=strength.get(player.name),
            )
        )
        if player.kind == "snapshot":
            begun.add(own)
    return tuple(found)


def _left(players: Sequence[Player]) -> dict[str, int]:
    """The iteration in which a past self left the pool, or a learner gave way to a fresh one; by name."""
    left = {player.name: player.retired for player in players if player.retired is not None}
    learning = [player for player in players if player.kind == "learning"]
    newest: dict[str, Player] = {}
    for player in learning:
        own = lineage(player)
        if own in newest:
            left[newest[own].name] = player.iteration
        newest[own] = player
    return left


def lineage(player: Player) -> str:
    """The learner's slot that a past self comes from: its name without version and life."""
    if player.kind == "bot":
        return BOTS
    stem, dash, version = player.name.rpartition("-")
    learner = stem if player.kind == "snapshot" and dash and version.isdigit() else player.name
    return learner.partition(".")[0]


def points(
    players: Sequence[Player], history: History, steps_at: Callable[[int], int]
) -> tuple[RatingPoint, ...]:
    """Ratings of past selves over the run; steps_at: the main learner's decisions until an iteration."""
    index = {player.name: k for k, player in enumerate(players) if player.kind == "snapshot"}
    return tuple(
        RatingPoint(index[name], iteration, steps_at(iteration), interval(rating))
        for iteration, name, rating in history
        if name in index
    )


def strengths(players: Sequence[Player], payoffs: Payoffs) -> dict[str, Interval]:
    """Bradley-Terry ratings of players that do not learn, from all their matches; by name.

    Anchors are the bots whose rating is fixed. Empty where nobody won or there are none.
    """
    anchors = {p.name: p.rating.mu for p in players if p.kind == "bot" and p.rating.sigma == 0}
    frozen = [p.name for p in players if p.kind != "learning"]
    if not anchors or not payoffs.counts.any():
        return {}
    pick = _picked(payoffs, frozen)
    fit = bradley_terry.fitted(frozen, payoffs.counts[pick].sum(axis=2), anchors)
    return {
        name: Interval(float(mu), _finite(low), _finite(high))
        for name, mu, (low, high) in zip(fit.players, fit.mu, fit.interval.tolist())
        if math.isfinite(mu) and name not in anchors
    }


def cells(payoffs: Payoffs, names: Sequence[str]) -> PayoffCells:
    """The payoffs of these players, all teams together."""
    pick = _picked(payoffs, names)
    matches = payoffs.matches[pick].sum(axis=2)
    returns = np.full(matches.shape, np.nan)
    np.divide(payoffs.returns[pick].sum(axis=2), matches, out=returns, where=matches > 0)
    return PayoffCells(payoffs.counts[pick].sum(axis=2), matches, returns, bool(payoffs.counts.any()))


def encounters(
    payoffs: Payoffs, recent: Sequence[Meeting], ids: Mapping[str, int], players: Sequence[Player]
) -> tuple[Encounters, ...]:
    """Whom every learning player met, and how often; ids: the players' numbers in `recent`."""
    column = [payoffs.players.index(player.name) for player in players]
    found = []
    for player in players:
        if player.kind != "learning":
            continue
        row = payoffs.players.index(player.name)
        met: Counter[int] = Counter()
        for meeting in recent:
            if meeting.player == ids[player.name]:
                met[meeting.opponent] += meeting.matches
        found.append(
            Encounters(
                player.name,
                tuple(payoffs.matches[row, column].sum(axis=1).tolist()),
                tuple(met[ids[other.name]] for other in players),
            )
        )
    return tuple(found)


def _picked(payoffs: Payoffs, names: Sequence[str]) -> tuple[np.ndarray, ...]:
    """Index of these players' rows and columns."""
    index = [payoffs.players.index(name) for name in names]
    return np.ix_(index, index)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
