"""`selfplay bench CONFIG`: decisions per second of a run as it is, and how far they are from the floor."""

from __future__ import annotations

import contextlib
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from selfplay import config as configuration
from selfplay.config import Config, StopConfig, num_cores, resolve_num_workers
from selfplay.errors import UserError
from selfplay.options import ConfigParser

if TYPE_CHECKING:
    from rich.table import Table

    from selfplay.engine import Engine
    from selfplay.floor import Floor
    from selfplay.training import Training
    from selfplay.worker import Collected

WARM_UP_ITERATIONS = 3
"""Iterations among all opponents before the measurement: compilation, allocations, matches mixed."""


PARTS = 4
"""Of the measurement in turns, the floor in between: machines change their speed from minute to minute."""


class Measured(NamedTuple):
    """What was seen of a run between two instants of `time.perf_counter`."""

    begun: float
    ended: float
    steps_before: int  # decisions learned from before `begun`
    rows: list[tuple[float, Mapping[str, Any]]]  # of each iteration: when it was reported, and its metrics
    collected: list[list[Collected]]  # of each iteration, of each worker


class Span(NamedTuple):
    """A part of the measured time."""

    seconds: float
    share: float  # of all of it


@dataclass(frozen=True, slots=True)
class Report:
    """What `--json` prints, key by key."""

    env: str
    num_workers: int  # 0: all in one process
    num_games: int
    cores: int
    seconds: float  # measured
    iterations: int
    agent_steps: int  # decisions learned from
    decisions_per_s: float  # agent_steps / seconds, everything included
    decisions_per_s_median: float  # over the iterations
    acted_per_s: float  # decisions made, those of past selves too
    floor_decisions_per_s: float  # see `selfplay.floor`
    floor_share: float  # decisions_per_s / floor_decisions_per_s
    flops_per_decision: dict[str, float]  # act, learn: multiply-adds times two
    gemm_gflops: dict[str, float]  # one_thread, all_cores
    gemm_gflops_mkl: dict[str, float]
    split: dict[str, Span]  # acting, game, bookkeeping, learning, transfer, other: together the whole
    floor_split: dict[str, float]  # of acting and learning, the share that their matrix products would take


def main(argv: Sequence[str]) -> int:
    parser = ConfigParser(
        prog="selfplay bench",
        usage="selfplay bench CONFIG [--json] [--seconds S] [--section.key value ...]",
        description="Measure agent decisions per second of training as CONFIG says, from lineups to "
        "published weights, after a warm-up and in a temporary run directory. stop.* does not count.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--seconds", type=float, default=20.0, metavar="S", help="measure for so long (default: 20)"
    )
    parsed = parser.parse(argv)
    if parsed.config is None:
        names = ", ".join(configuration.bundled_names())
        raise UserError(f"bench what? Give CONFIG, a TOML file or one of {names}")
    seconds = parsed.options.seconds
    if not 0 < seconds < float("inf"):
        raise UserError(f"--seconds {seconds:g} is not allowed; it must be a number > 0")
    config = configuration.load(parsed.config, parsed.overrides)
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the result alone
        report = bench(config, seconds)
    if parsed.options.json:
        print(json.dumps(as_json(report)))
    else:
        from rich.console import Console

        Console().print(table(report))
    return 0


def bench(config: Config, seconds: float) -> Report:
    """Train in a temporary run directory, measure that for about so many seconds, and the floor in turn."""
    from selfplay.floor import Ruler
    from selfplay.train import check

    check(config)
    cores = num_cores()
    num_workers = resolve_num_workers(config)
    ruler = Ruler(config, max(1, num_workers), cores)
    with warmed_up(config) as go_on:
        _say(f"measuring for {seconds:g} s, and the floor in between")
        parts: list[Measured] = []
        ruler.note()
        # To stop a run that plays ahead costs it what it was ahead: once.
        number = PARTS if config.rollout.staleness == 0 else 1
        while sum(part.ended - part.begun for part in parts) < seconds:
            parts.append(go_on(seconds / number))
            ruler.note()
    return make_report(
        joined(parts),
        ruler.floor(),
        env=config.env.id,
        num_workers=num_workers,
        num_games=config.rollout.num_games,
        cores=cores,
    )


def joined(parts: Sequence[Measured]) -> Measured:
    """One after the other, without the time between them."""
    whole, *others = parts
    for part in others:
        later = whole.ended - part.begun
        rows = [(clock + later, metrics) for clock, metrics in part.rows]
        whole = Measured(
            whole.begun, part.ended + later, whole.steps_before, whole.rows + rows,
            whole.collected + part.collected,
        )  # fmt: skip
    return whole


def measure(config: Config, seconds: float) -> Measured:
    """Train for about so many seconds after a warm-up; whole iterations, at least one."""
    with warmed_up(config) as go_on:
        return go_on(seconds)


class GoOn(Protocol):
    """Goes on with a run for about so many seconds, or for so many iterations; one at least."""

    def __call__(self, seconds: float | None = None, iterations: int | None = None) -> Measured: ...


@contextlib.contextmanager
def warmed_up(config: Config) -> Iterator[GoOn]:
    """A run after its warm-up, which goes on whenever it is told to."""
    from selfplay.run_directory import RunDirectory
    from selfplay.training import Training

    watch = _Watch()
    with tempfile.TemporaryDirectory(prefix="selfplay-bench-") as folder, contextlib.ExitStack() as stack:
        run = RunDirectory.create(Path(folder) / "run", config)
        stack.callback(run.close)
        training = Training(config, run, watch)
        stack.callback(training.close)
        engine = _Listening(training.main.engine)
        training.main.engine = cast(Any, engine)

        def go_on(seconds: float | None = None, iterations: int | None = None) -> Measured:
            assert (seconds is None) != (iterations is None)
            watch.rows, engine.collected = [], []
            stop = StopConfig(
                seconds=None if seconds is None else training.seconds + seconds,
                iterations=None if iterations is None else training.iteration + iterations,
            )
            steps_before, begun = training.agent_steps, time.perf_counter()
            _train(training, stop)
            return Measured(begun, time.perf_counter(), steps_before, watch.rows, engine.collected)

        _say("warming up")
        _warm_up(training)
        yield go_on


def _warm_up(training: Training) -> None:
    """Until as many past selves exist as a worker meets at once, and some iterations among them."""
    training.begin()
    for _ in range(training.config.league.opponents - 1):
        known = training.league.newest
        _train(training, StopConfig(iterations=training.iteration + 1))
        if training.league.newest == known:
            training.snapshot(training.main)
            training.league.commit(training.iteration)
    iterations = max(WARM_UP_ITERATIONS, training.overlap.trial_left())
    _train(training, StopConfig(iterations=training.iteration + iterations))


def _train(training: Training, stop: StopConfig) -> None:
    """Go on with the run until this end in place of the configured one."""
    training.config = training.config.model_copy(update={"stop": stop})
    training.loop()


class _Watch:
    """A view of the run that keeps the metrics and when they came."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, Mapping[str, Any]]] = []

    def update(self, metrics: Mapping[str, Any]) -> None:
        self.rows.append((time.perf_counter(), metrics))

    def message(self, text: str) -> None:
        _say(text)

    def close(self) -> None: ...


class _Listening:
    """An engine that keeps what came with each batch of fragments."""

    def __init__(self, engine: Engine) -> None:
        self.collected: list[list[Collected]] = []
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def collect(self) -> list[Collected]:
        parts = self._engine.collect()
        self.collected.append(parts)
        return parts


def make_report(
    measured: Measured, floor: Floor, *, env: str, num_workers: int, num_games: int, cores: int
) -> Report:
    """What was measured, beside the floor."""
    seconds = measured.ended - measured.begun
    clocks = [measured.begun, *(clock for clock, _ in measured.rows)]
    steps = [measured.steps_before, *(row["agent_steps"] for _, row in measured.rows)]
    speeds = [
        (later - earlier) / (end - start)
        for (start, end), (earlier, later) in zip(itertools.pairwise(clocks), itertools.pairwise(steps))
    ]
    learned = steps[-1] - steps[0]
    acted = sum(part.decisions for parts in measured.collected for part in parts)
    return Report(
        env=env,
        num_workers=num_workers,
        num_games=num_games,
        cores=cores,
        seconds=seconds,
        iterations=len(measured.rows),
        agent_steps=learned,
        decisions_per_s=learned / seconds,
        decisions_per_s_median=statistics.median(speeds),
        acted_per_s=acted / seconds,
        floor_decisions_per_s=floor.decisions_per_s,
        floor_share=learned / seconds / floor.decisions_per_s,
        flops_per_decision={"act": floor.work.act_flops, "learn": floor.work.learn_flops},
        gemm_gflops=floor.gemm._asdict(),
        gemm_gflops_mkl=floor.mkl._asdict(),
        split=_split(measured),
        floor_split={
            "acting": acted * floor.work.act_flops / floor.act_gflops / 1e9 / seconds,
            "learning": learned * floor.work.learn_flops / floor.learn_gflops / 1e9 / seconds,
        },
    )


def _split(measured: Measured) -> dict[str, Span]:
    """Where the time went. Workers play side by side, so that a phase of theirs is their mean.

    bookkeeping is what is left of a worker's time, recording above all, and the league's. transfer is what
    the driver waits while nobody works: fragments and weights on their way, the slower of two workers. Where
    rollouts play while the learner learns, they share the cores, so that phases would sum to more than the
    whole: each then counts as much less.
    """
    spent = dict.fromkeys(("acting", "game", "bookkeeping", "learning", "transfer"), 0.0)
    for (_, row), parts in zip(measured.rows, measured.collected, strict=True):
        playing = statistics.fmean(part.seconds for part in parts)
        acting = statistics.fmean(part.acting_seconds for part in parts)
        game = statistics.fmean(part.game_seconds for part in parts)
        spent["acting"] += acting
        spent["game"] += game
        spent["bookkeeping"] += playing - acting - game + row["time/league"]
        spent["learning"] += row["time/update"]
        spent["transfer"] += row["time/learn"] - row["time/update"]
        if not row["data/overlap"]:
            spent["transfer"] += row["time/sample"] - playing
    seconds, busy = measured.ended - measured.begun, sum(spent.values())
    if busy > seconds and any(row["data/overlap"] for _, row in measured.rows):
        spent = {name: value * seconds / busy for name, value in spent.items()}
        busy = seconds
    spent["other"] = seconds - busy
    return {name: Span(value, value / seconds) for name, value in spent.items()}


def as_json(report: Report) -> dict[str, Any]:
    """Fields by name, spans as objects."""
    return asdict(report) | {"split": {name: span._asdict() for name, span in report.split.items()}}


def table(report: Report) -> Table:
    """The report for people."""
    from rich.table import Table

    workers = f"{report.num_workers} workers" if report.num_workers else "one process"
    shown = Table(
        title=f"{report.env}: {report.num_games} games, {workers}, {report.cores} cores",
        title_justify="left",
        show_header=False,
    )
    shown.add_column()
    shown.add_column(justify="right")
    shown.add_column(style="dim")
    act, learn = report.flops_per_decision["act"], report.flops_per_decision["learn"]
    gemm, mkl = report.gemm_gflops, report.gemm_gflops_mkl
    for row in (
        ("decisions/s", f"{report.decisions_per_s:,.0f}", f"learned from, over {report.seconds:.1f} s"),
        ("median", f"{report.decisions_per_s_median:,.0f}", f"over {report.iterations} iterations"),
        ("acted/s", f"{report.acted_per_s:,.0f}", "past selves' decisions too"),
        ("floor", f"{report.floor_decisions_per_s:,.0f}", "decisions/s of the matrix products alone"),
        ("share of the floor", f"{report.floor_share:.1%}", ""),
        ("FLOPs a decision", f"{act + learn:,.0f}", f"act {act:,.0f}, learn {learn:,.0f}"),
        ("GEMM, all cores", f"{gemm['all_cores']:,.0f} GFLOP/s", f"torch.mm {mkl['all_cores']:,.0f}"),
        ("GEMM, one thread", f"{gemm['one_thread']:,.0f} GFLOP/s", f"torch.mm {mkl['one_thread']:,.0f}"),
    ):  # fmt: skip
        shown.add_row(*row)
    shown.add_section()
    for name, span in report.split.items():
        floor = report.floor_split.get(name)
        within = "" if floor is None else f"; products alone {floor:.1%}"
        shown.add_row(name, f"{span.share:.1%}", f"{span.seconds:.2f} s{within}")
    return shown


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
