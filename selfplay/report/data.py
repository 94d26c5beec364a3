"""What a report shows, as plain data: `reader` makes it from a run, `page` makes HTML of it.

N players, X points of the training curves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selfplay.recording import Recording


@dataclass(frozen=True, slots=True)
class Fact:
    """A thing to know about the run, such as its number of iterations."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something suspicious."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Series:
    """One curve of a panel."""

    name: str
    value: tuple[float | None, ...]  # [X]


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves that share an axis."""

    title: str
    note: str
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class Interval:
    """A rating in points, and its 95% interval; None where nothing bounds it."""

    mu: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class PlayerRow:
    """A member of the league."""

    name: str
    kind: str  # learning, snapshot or bot
    lineage: str  # the learner that it is or was a past self of; "bots"
    parent: str | None
    is_reset: bool  # whether the lineage began anew with it
    iteration: int  # in which it joined
    joined: int  # the main learner's decisions until then
    agent_steps: int | None  # its own learner's
    retired: int | None
    rating: Interval | None  # against the anchors, when it was rated
    strength: Interval | None  # Bradley-Terry, from all matches


@dataclass(frozen=True, slots=True)
class RatingPoint:
    """A rating that a past self was given."""

    player: int  # index
    iteration: int
    agent_steps: int
    rating: Interval


@dataclass(frozen=True, slots=True)
class Encounters:
    """How often a learning player met each other player."""

    player: str
    matches: tuple[int, ...]  # [N]
    recent: tuple[int, ...]  # [N] the same in the last iterations


@dataclass(frozen=True, slots=True)
class PayoffCells:
    """How each player fared against each, all teams together; 0 matches where they never met."""

    counts: np.ndarray  # [N, N, 3] int64 wins, draws, losses of the row
    matches: np.ndarray  # [N, N] int64
    returns: np.ndarray  # [N, N] float64 mean return of the row; NaN where they never met
    has_winners: bool  # else the returns are all there is


@dataclass(frozen=True, slots=True)
class Replay:
    """A match on record."""

    name: str
    recording: Recording


@dataclass(frozen=True, slots=True)
class ReportData:
    """All that the page shows."""

    title: str
    facts: tuple[Fact, ...]
    findings: tuple[Finding, ...]
    checked: tuple[str, ...]  # what was looked for
    agent_steps: tuple[int, ...]  # [X]
    iterations: tuple[int, ...]  # [X]
    panels: tuple[Panel, ...]
    players: tuple[PlayerRow, ...]  # [N] in the order in which they joined
    num_left_out: int  # players of the league that are not among them
    ratings: tuple[RatingPoint, ...]
    encounters: tuple[Encounters, ...]
    recent_from: int  # iteration after which an encounter is recent
    payoffs: PayoffCells
    replays: tuple[Replay, ...]
    config: str  # TOML
    versions: tuple[Fact, ...]
