"""Speed of training along one axis at a time: every measurement is a `selfplay bench` of its own."""

from __future__ import annotations

import itertools
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from benchmarks.compare import run
from selfplay.config import num_cores

BASE = ("connect_four", "--json", "--rollout.staleness", "0")
"""Play and learning take turns, so that the parts of an iteration add up to the whole."""

PATIENCE = 1800.0
"""Seconds that a measurement may take beside what is measured: wide networks warm up by whole iterations."""

LANES = 128
"""Of a minibatch, at every number of games."""

PHASES = ("acting", "game", "bookkeeping", "learning", "transfer", "other")

Found = dict[str, dict[str, list[dict[str, Any]]]]
"""Reports of `selfplay bench` by axis and value."""


class Point(NamedTuple):
    """What is measured at one value of an axis."""

    options: tuple[str, ...]
    cores: int = 0  # for the efficiency of a step: speed / cores, against the point before; 0: none
    pinned: bool = False  # to its first `cores` cores


@dataclass(frozen=True, slots=True)
class Axis:
    """One thing that varies, and everything else as in `configs/connect_four.toml`."""

    title: str
    values: tuple[int, ...]
    point: Callable[[int], Point]


def doublings(first: int, last: int) -> tuple[int, ...]:
    """first, 2 first, 4 first, ... as far as last."""
    return tuple(itertools.takewhile(lambda n: n <= last, (first << k for k in itertools.count())))


def _workers(number: int) -> tuple[str, str]:
    return "--rollout.num-workers", str(number)


def _opponents(number: int) -> Point:
    if number == 0:
        return Point((*_workers(2), "--league.self-play", "1"))
    return Point((*_workers(2), "--league.opponents", str(number)))


def _hidden(size: int) -> Point:
    width = str(size)
    return Point((*_workers(2), "--policy.encoder", width, "--policy.hidden-size", width))


def _games(number: int) -> Point:
    minibatches = str(max(1, 2 * number // LANES))
    return Point((*_workers(2), "--rollout.num-games", str(number), "--ppo.num-minibatches", minibatches))


AXES = {
    "cores": Axis(
        "cores, one rollout worker on each, the learner on all",
        doublings(1, num_cores()),
        lambda n: Point(_workers(n), n, pinned=True),
    ),
    "weak": Axis(
        f"cores, 1,024 matches and {LANES} lanes of a minibatch on each",
        doublings(1, num_cores()),
        lambda n: Point((*_workers(n), "--rollout.num-games", str(1024 * n)), n, pinned=True),
    ),
    "workers": Axis(
        f"rollout workers, the learner on all {num_cores()} cores",
        doublings(1, num_cores()),
        lambda n: Point(_workers(n), n),
    ),
    "learners": Axis(
        "learners, which share the cores; two workers",
        (1, 2),
        lambda n: Point((*_workers(2), "--num-learners", str(n)), num_cores()),
    ),
    "opponents": Axis("past selves at once for each worker", (0, 1, 2, 4, 8), _opponents),
    "length": Axis(
        "fragment length T, 1,024 games",
        (4, 16, 64, 128),
        lambda n: Point((*_workers(2), "--rollout.fragment-length", str(n))),
    ),
    "hidden": Axis("H of the LSTM and of the encoder", doublings(64, 1024), _hidden),
    "games": Axis(f"B matches at once, {LANES} lanes a minibatch", (64, 256, 1024, 4096), _games),
}


def measure(point: Point, seconds: float) -> dict[str, Any]:
    """What `selfplay bench --json` prints, and `memory`: the most bytes that all its processes held."""
    pin = ["taskset", "--cpu-list", f"0-{point.cores - 1}"] if point.pinned else []
    command = [sys.executable, "-m", "selfplay", "bench", *BASE, "--seconds", str(seconds), *point.options]
    printed, memory = run([*pin, *command], seconds + PATIENCE)
    return {**json.loads(printed.splitlines()[-1]), "memory": memory}


def sweep(name: str, values: Sequence[int], seconds: float, found: Found) -> None:
    """Every point once, added to what was found."""
    reports = found.setdefault(name, {})
    for value in values:
        report = measure(AXES[name].point(value), seconds)
        reports.setdefault(str(value), []).append(report)
        print(f"{name} {value}: {report['decisions_per_s']:,.0f}", file=sys.stderr, flush=True)


def table(name: str, reports: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Markdown: medians over the rounds, milliseconds of an iteration."""
    points = {value: AXES[name].point(value) for value in AXES[name].values if str(value) in reports}
    speeds = {v: statistics.median(r["decisions_per_s"] for r in reports[str(v)]) for v in points}
    shares = {v: speeds[v] / (point.cores or 1) for v, point in points.items()}
    before = dict(zip(list(shares)[1:], shares.values()))
    head = ["", "decisions/s", "lowest – highest", "ms", *PHASES, "of the floor", "step", "GiB"]
    rows = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for value, point in points.items():
        of_value = reports[str(value)]
        found = [report["decisions_per_s"] for report in of_value]
        step = f"{shares[value] / before[value]:.0%}" if point.cores and value in before else ""
        spent = [_milliseconds(of_value, partial(_spent, phase)) for phase in PHASES]
        rows.append(
            [
                f"{value:,}",
                f"{speeds[value]:,.0f}",
                f"{min(found):,.0f} – {max(found):,.0f}",
                _milliseconds(of_value, lambda report: report["seconds"]),
                *spent,
                f"{statistics.median(report['floor_share'] for report in of_value):.0%}",
                step,
                f"{statistics.median(report['memory'] for report in of_value) / 2**30:.1f}",
            ]
        )  # fmt: skip
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"**{AXES[name].title}**", "", *lines, ""])


def _spent(phase: str, report: Mapping[str, Any]) -> float:
    """Seconds of a phase."""
    return float(report["split"][phase]["seconds"])


def _milliseconds(reports: Sequence[Mapping[str, Any]], seconds: Callable[[Mapping[str, Any]], float]) -> str:
    """Of an iteration, the median over the rounds."""
    value = 1e3 * statistics.median(seconds(report) / report["iterations"] for report in reports)
    return f"{value:,.0f}" if abs(value) >= 9.95 else f"{value:.1f}"
