"""From a run directory to what its report shows."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from selfplay import config as configuration
from selfplay import recording
from selfplay.errors import UserError
from selfplay.league import diagnosis
from selfplay.league.diagnosis import weight_distance
from selfplay.league.payoffs import Meeting, Payoffs
from selfplay.league.ratings import Rating
from selfplay.league.store import Player, Store
from selfplay.matches import MAIN
from selfplay.report import checks, curves, league_table
from selfplay.report.checks import Past
from selfplay.report.curves import Rows
from selfplay.report.data import Fact, Finding, Replay, ReportData
from selfplay.run_directory import METRICS, RunDirectory

MOST_REPLAYS = 20
REPLAY_BYTES = 1 << 20
"""Of all replays together: a page of some megabytes opens at once, and can be sent."""


@dataclass(frozen=True, slots=True)
class League:
    """What the league's database says."""

    players: list[Player]
    ids: dict[str, int]
    history: list[tuple[int, str, Rating]]
    payoffs: Payoffs
    meetings: dict[int, list[Meeting]]  # by iteration
    past: Past  # the main learner against past selves
    distances: list[tuple[str, str, float]]  # of the newest past selves' weights from their parents'


def read(path: Path | str) -> ReportData:
    """The report of the run in `path`; raises UserError where it cannot be read."""
    run = RunDirectory.open(path)
    rows = list(run.metrics())
    if not rows:
        raise UserError(f"{run.path / METRICS} holds no metrics yet: the first iteration writes some")
    league = _league(run)
    players = league_table.shown(league.players)
    names = [player.name for player in players]
    strength = league_table.strengths(league.players, league.payoffs)
    last = rows[-1]["iteration"]
    recent_from = last - max(last // 10, 1)
    recent = [m for iteration, met in league.meetings.items() if iteration > recent_from for m in met]
    replays, unreadable = _replays(run.replays)
    groups = curves.bins(rows)
    steps_at = _steps_at(rows)
    return ReportData(
        title=run.config.env.id,
        facts=_facts(run, rows, league),
        findings=(
            *checks.league(league.players, league.payoffs, league.past, league.distances),
            *checks.training(rows),
            *unreadable,
        ),
        checked=checks.CHECKED,
        agent_steps=tuple(group[-1]["agent_steps"] for group in groups),
        iterations=tuple(group[-1]["iteration"] for group in groups),
        panels=curves.panels(rows),
        players=league_table.rows(players, league.history, strength, steps_at),
        num_left_out=len(league.players) - len(players),
        ratings=league_table.points(players, league.history, steps_at),
        encounters=league_table.encounters(league.payoffs, recent, league.ids, players),
        recent_from=recent_from,
        payoffs=league_table.cells(league.payoffs, names),
        replays=replays,
        config=configuration.dump(run.config),
        versions=tuple(Fact(name, version) for name, version in run.versions().items()),
    )


def _league(run: RunDirectory) -> League:
    with Store(run.league, readonly=True) as store:
        players, ids, payoffs = store.players(), store.ids(), store.payoffs()
        return League(
            players,
            ids,
            store.rating_history(),
            payoffs,
            store.meetings(),
            _past(store, players, ids, payoffs),
            _distances(store, players),
        )


def _past(store: Store, players: Sequence[Player], ids: dict[str, int], payoffs: Payoffs) -> Past:
    """The main learner's results against the pool."""
    names = tuple(p.name for p in players if p.kind == "snapshot" and p.retired is None)
    late = store.counts_since(checks.lately(players), ids[MAIN])
    recent = np.array([late.get(ids[name], (0, 0, 0)) for name in names], np.int64).reshape(-1, 3)
    place = {name: k for k, name in enumerate(payoffs.players)}
    column = np.array([place[name] for name in names], np.int64)
    return Past(names, payoffs.counts[place[MAIN], column].sum(axis=1) - recent, recent)


def _distances(store: Store, players: Sequence[Player]) -> list[tuple[str, str, float]]:
    """How far the newest past self of each lineage is from its parent."""
    newest = {league_table.lineage(player): player for player in players if player.weights is not None}
    return [
        (each.name, each.parent, weight_distance(store.weights(each.name), store.weights(each.parent)))
        for each in newest.values()
        if each.parent is not None
    ]


def _steps_at(rows: Rows) -> Callable[[int], int]:
    """Agent steps at the end of an iteration; of one without a row, at the end of the last before."""
    iterations = [row["iteration"] for row in rows]

    def steps(iteration: int) -> int:
        place = bisect.bisect_right(iterations, iteration)
        return int(rows[place - 1]["agent_steps"]) if place else 0

    return steps


def _facts(run: RunDirectory, rows: Rows, league: League) -> tuple[Fact, ...]:
    last = rows[-1]
    num_past = sum(player.kind == "snapshot" for player in league.players)
    return (
        Fact("Run", run.path.resolve().name),
        _strength(rows, league),
        *_scores(rows),
        *_weakest(league.past),
        Fact("Decisions learned from", f"{last['agent_steps']:,}"),
        Fact("Iterations", f"{last['iteration']:,}"),
        Fact("Time", duration(last["seconds"]), "training, without pauses between resumptions"),
        Fact("Players", f"{len(league.players):,}", f"{num_past:,} past selves"),
    )


def _strength(rows: Rows, league: League) -> Fact:
    """The main learner's rating, with its interval; without one, what it earns."""
    rated = {name for _, name, _ in league.history}
    ratings = [p.rating for p in league.players if p.name == MAIN and p.name in rated]
    if not ratings:
        earned = curves.mean(rows[-max(len(rows) // 10, 1) :], "match/return")
        value = "unknown" if earned is None else f"{earned:.4g}"
        return Fact("Mean return", value, "a match and learning seat, in the last tenth of the run")
    own = league_table.interval(ratings[0])
    assert own.low is not None
    assert own.high is not None
    note = f"95% {own.low:.1f} to {own.high:.1f}; points above random, 8.3 points are 80% wins"
    return Fact("Strength", f"{own.mu:.1f} ± {own.high - own.mu:.1f}", note)


def _scores(rows: Rows) -> tuple[Fact, ...]:
    """The newest score, or return where the game has no winners, against each anchor."""
    newest = {name: value for row in rows for name, value in row.items() if value is not None}
    returns = {n.removeprefix(curves.RETURN): v for n, v in newest.items() if n.startswith(curves.RETURN)}
    scores = {n.removeprefix(curves.ANCHOR): v for n, v in newest.items() if n.startswith(curves.ANCHOR)}
    if returns:
        return tuple(Fact(f"Return against {name}", f"{value:.4g}") for name, value in returns.items())
    return tuple(Fact(f"Score against {name}", f"{value:.1%}") for name, value in scores.items())


def _weakest(past: Past) -> tuple[Fact, ...]:
    """The past self of the pool that the main learner scores least against lately."""
    lowest = diagnosis.lowest_score(past.names, past.recent)
    if lowest is None:
        return ()
    low, high = lowest.interval
    note = f"against {lowest.player}, 95% {low:.1%} to {high:.1%}, {lowest.games} matches"
    return (Fact("Lowest score against a past self", f"{lowest.score:.1%}", note),)


def duration(seconds: float) -> str:
    """4000 -> "1 h 06 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _replays(folder: Path) -> tuple[tuple[Replay, ...], tuple[Finding, ...]]:
    """The newest matches on record that fit the page, and a finding for each that cannot be read."""
    files = sorted(folder.glob("*.json"), key=lambda path: (path.stat().st_mtime, path.name), reverse=True)
    found: list[Replay] = []
    unreadable: list[Finding] = []
    left = REPLAY_BYTES
    for path in files:
        size = path.stat().st_size
        if len(found) == MOST_REPLAYS or size > left:
            continue
        try:
            found.append(Replay(path.stem, recording.load(path)))
            left -= size
        except UserError as error:
            unreadable.append(Finding("A replay cannot be read", str(error)))
    return tuple(found), tuple(unreadable)
