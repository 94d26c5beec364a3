"""What the league's bookkeeping takes: no training, players and results made up."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from selfplay.config import LeagueConfig
from selfplay.league import League
from selfplay.matches import Lineups, MatchResults
from selfplay.training import LINEUPS_PER_GAME

TEAMS = (0, 1)
GAMES = 512
"""Of a rollout."""

MATCHES = 500
"""That a rollout finishes in an iteration."""

POOLS = (10, 100, 500, 2000)
ROLLOUTS = (2, 100, 10_000)
SIZES = tuple((pool, 2) for pool in POOLS) + tuple((100, rollouts) for rollouts in ROLLOUTS[1:])
"""(past selves, rollouts)."""


class Spent(NamedTuple):
    """Seconds of an iteration."""

    draw: float
    record: float
    commit: float


@contextmanager
def opened(pool: int) -> Iterator[League]:
    """A league of so many past selves, all with the same weights."""
    with tempfile.TemporaryDirectory(prefix="selfplay-scale-") as folder:
        league = League.open(Path(folder), LeagueConfig(opponents=1), TEAMS, 0)
        for version in range(pool):
            league.add_snapshot({"w": np.zeros(1)}, version=version, iteration=0, agent_steps=0)
        league.commit(0)
        try:
            yield league
        finally:
            league.close()


def finished(lineups: Lineups, rng: np.random.Generator) -> MatchResults:
    """A rollout's matches, which either team wins."""
    lineup = lineups.table[:MATCHES]
    first = rng.choice([-1.0, 1.0], len(lineup)).astype(np.float32)
    return MatchResults(
        lineups.players,
        lineup,
        np.stack([first, -first], axis=1),
        np.full(len(lineup), 30, np.int32),
        np.arange(len(lineup), dtype=np.uint64),
    )


def measure(pool: int, rollouts: int) -> Spent:
    """The median over a few iterations, after one that is not counted."""
    iterations = 20 if rollouts <= 100 else 3
    rng, spent = np.random.default_rng(0), []
    with opened(pool) as league:
        for iteration in range(1, iterations + 2):
            start = time.perf_counter()
            lineups = league.draw(rollouts, LINEUPS_PER_GAME * GAMES)
            drawn = time.perf_counter()
            results = [finished(each, rng) for each in lineups]
            played = time.perf_counter()
            league.record(results, iteration=iteration)
            recorded = time.perf_counter()
            league.commit(iteration)
            spent.append(Spent(drawn - start, recorded - played, time.perf_counter() - recorded))
    return middle(spent[1:])


def middle(found: Sequence[Spent]) -> Spent:
    """The median of each."""
    return Spent(*map(statistics.median, zip(*found)))


def table(rows: Sequence[Spent]) -> str:
    """Markdown; what an iteration took at each of SIZES."""
    lines = [
        "**League, an iteration of made-up results**",
        "",
        "| past selves | rollouts | matches | draw, ms | record, ms | commit, ms | µs a match |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (pool, rollouts), spent in zip(SIZES, rows):
        matches = rollouts * MATCHES
        milliseconds = [f"{1e3 * seconds:,.1f}" for seconds in spent]
        cells = [
            f"{pool:,}",
            f"{rollouts:,}",
            f"{matches:,}",
            *milliseconds,
            f"{1e6 * sum(spent) / matches:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])
