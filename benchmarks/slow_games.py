"""What training costs beside a game in Python: the game alone, our adapter, and training with it.

    python -m benchmarks.slow_games [GAME ...] [--seconds 8] [--rounds 5] [--set rollout.num_games=256]

Four contestants, each on every core, each in processes of its own, which are warmed up once and then
take turns, so that a machine whose speed changes is about as fast for one as for the others:

- library: one match in each process, as the game's library makes it and played by the library's own
  interface, its actions random and drawn beforehand where no mask forbids any (OpenSpiel wraps nothing,
  so that its games are bare);
- bare: the same without wrappers that only check, a faster game than anyone is handed;
- adapter: our vector game with its checks, as many matches as `default` gives a worker, random actions
  drawn outside the timed part;
- training: `default` on this game, an LSTM of 128 units, from lineups to published weights.

A turn takes `--seconds`, but one of training goes from a snapshot of the policy to the next, its rating
included, or on to a later one if that is sooner: as in a run, rollouts rest once between two snapshots.
Counted are decisions a second of all seats, in training those of past selves too, but not those of ratings. A
step is one move of the game: of one seat, or of all at once. Rates are medians of all turns, ratios medians
over the rounds of the rate to that of the game's turns before and after. Loss is the share of the game's rate
that training lacks; `ratings` is the time's share of snapshots, ratings and results of matches.

A second table says where training's time goes, by CPU time of all its processes and what they leave idle,
a decision of the bare game being 1: means over the rounds, which add up to the last column. In rollouts,
CPU time is divided as their clocks say; the game there is the adapter with all its matches.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from time import perf_counter, process_time
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks import game_speed
from benchmarks.cpu_time import CpuTime, cpu_time
from benchmarks.games_alone import PLAY
from benchmarks.process_tree import ProcessTree
from benchmarks.variants import ratios
from envs.registry import make
from selfplay import bench, train
from selfplay import config as configuration
from selfplay.cli import guarded
from selfplay.config import Config, num_cores
from selfplay.errors import UserError
from selfplay.memory import collect_seldom
from selfplay.options import Parser, whole

GAMES = (
    "pettingzoo:pettingzoo.sisl.pursuit_v5",
    "pettingzoo:mpe2.simple_tag_v3",
    "pettingzoo:pettingzoo.classic.tictactoe_v3",
    "openspiel:yacht",
    "openspiel:leduc_poker",
    "gymnasium:Acrobot-v1",
    "gymnasium:CartPole-v1",
)
WARM_UP = 0.5
"""Seconds of play before a game alone is measured."""
ALONE = ("library", "bare")
"""What is the game and nothing else."""


class Rate(NamedTuple):
    """What one process measured in one turn."""

    decisions: float  # a second
    steps: float = 0.0  # a second; 0: not counted
    ratings: float = 0.0  # seconds for snapshots, their ratings and results of matches
    seconds: float = 0.0  # of the turn
    cpu: float = 0.0  # CPU seconds for a decision, of the game alone
    number: int = 0  # decisions, in training
    game: float = 0.0  # seconds of all rollouts in the game, in training
    acting: float = 0.0  # in players
    collecting: float = 0.0  # in both, in recording and all else of a batch


Turn = Callable[[float], Rate]
"""Goes on for about so many seconds."""


@contextlib.contextmanager
def alone(config: Config, bare: bool) -> Iterator[Turn]:
    """The game alone, in this process."""
    source, _, rest = config.env.id.partition(":")
    play = PLAY[source](rest, bare)
    _count(play, WARM_UP)
    yield lambda seconds: _count(play, seconds)


def _count(play: Iterator[int], seconds: float) -> Rate:
    decisions = steps = 0
    start, cpu = perf_counter(), process_time()
    while (spent := perf_counter() - start) < seconds:
        for number in itertools.islice(play, 8):
            decisions += number
            steps += 1
    return Rate(decisions / spent, steps / spent, cpu=(process_time() - cpu) / decisions)


@contextlib.contextmanager
def adapter(config: Config) -> Iterator[Turn]:
    """A worker's share of the matches, in this process."""
    collect_seldom()  # as every worker does
    env = make(config.env.id, config.rollout.num_games // num_cores())
    yield lambda seconds: Rate(game_speed.measure(env, seconds))


@contextlib.contextmanager
def training(config: Config) -> Iterator[Turn]:
    """Acted decisions of a run, whose workers are processes of their own."""
    period = config.league.snapshot_iterations
    with bench.warmed_up(config) as go_on:
        _, metrics = go_on(iterations=1).rows[-1]
        if left := -metrics["iteration"] % period:
            go_on(iterations=left)

        def turn(seconds: float) -> Rate:
            periods = [go_on(iterations=period)]
            while sum(measured.ended - measured.begun for measured in periods) < seconds:
                periods.append(go_on(iterations=period))
            measured = bench.joined(periods)
            played = [part for parts in measured.collected for part in parts]
            acted = sum(part.decisions for part in played)
            spent = measured.ended - measured.begun
            return Rate(
                acted / spent,
                ratings=sum(row["time/league"] for _, row in measured.rows),
                seconds=spent,
                number=acted,
                game=sum(part.game_seconds for part in played),
                acting=sum(part.acting_seconds for part in played),
                collecting=sum(part.seconds for part in played),
            )

        yield turn


CONTESTANTS: dict[str, Callable[[Config], contextlib.AbstractContextManager[Turn]]] = {
    "library": partial(alone, bare=False),
    "bare": partial(alone, bare=True),
    "adapter": adapter,
    "training": training,
}


def serve(name: str, config: Config) -> None:
    """Be one process of a contestant: a turn of so many seconds for each line that comes."""
    with contextlib.redirect_stdout(sys.stderr), CONTESTANTS[name](config) as turn:
        print(json.dumps("ready"), file=sys.__stdout__, flush=True)
        for line in sys.stdin:
            print(json.dumps(turn(float(line))), file=sys.__stdout__, flush=True)


class Contestant:
    """A contestant on every core: as many processes, or one that has them all for itself."""

    def __init__(self, name: str, game: str, arguments: Sequence[str]) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._command = [sys.executable, "-m", "benchmarks.slow_games", game, "--only", name, *arguments]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the processes)
        self._processes = [
            subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env=environment,
            )
            for _ in range(1 if name == "training" else num_cores())
        ]
        self._hear()  # that they are ready
        self._first = self._processes[0].pid
        self._tree = ProcessTree(self._first)

    def turn(self, seconds: float) -> Rate:
        """All processes at once, their rates added."""
        for process in self._processes:
            assert process.stdin is not None
            print(seconds, file=process.stdin, flush=True)
        return Rate(*map(sum, zip(*self._hear())))

    def cpu_time(self) -> CpuTime:
        """Of its first process, as a run's, and of what that has begun."""
        return cpu_time(self._tree, self._first)

    def _hear(self) -> list[Any]:
        """A line of each process."""
        lines = []
        for process in self._processes:
            assert process.stdout is not None
            if not (line := process.stdout.readline()):
                process.wait()
                self._errors.seek(0)
                sys.exit(f"{' '.join(self._command)} failed:\n{self._errors.read()}")
            lines.append(json.loads(line))
        return lines

    def close(self) -> None:
        for process in self._processes:
            process.communicate()
        self._errors.close()


class Turns(NamedTuple):
    """What every contestant's turns measured."""

    rates: dict[str, list[Rate]]  # the game's alone in one round more than the others'
    cpu: list[CpuTime]  # of each turn of training


def compare(game: str, options: argparse.Namespace, arguments: Sequence[str]) -> Turns:
    """Let them take turns."""
    own = ("bare",) if game.startswith("openspiel:") else ALONE
    names = (*own, "adapter", "training")
    turns = Turns({name: [] for name in names}, [])
    with contextlib.ExitStack() as stack:
        contestants = {}
        for name in names:
            contestants[name] = Contestant(name, game, arguments)
            stack.callback(contestants[name].close)

        def turn(name: str) -> None:
            begun = contestants[name].cpu_time()
            rate = contestants[name].turn(options.seconds)
            turns.rates[name].append(rate)
            if name == "training":
                turns.cpu.append(contestants[name].cpu_time().since(begun))
            print(f"{game} {name} {rate.decisions:,.0f}", file=sys.stderr, flush=True)

        for _, name in itertools.product(range(options.rounds), names):
            turn(name)
        for name in own:
            turn(name)
    return turns


def account(rates: dict[str, list[Rate]], cpu: Sequence[CpuTime]) -> list[float]:
    """Means over the rounds of what a decision takes where the bare game's takes 1, by `ACCOUNTED`."""
    bare = [statistics.fmean(pair) / num_cores() for pair in itertools.pairwise(r.cpu for r in rates["bare"])]
    rounds = []
    for rate, spent, unit in zip(rates["training"], cpu, bare, strict=True):
        others = (spent.learners, spent.driver, spent.ray)
        idle = num_cores() * rate.seconds - spent.rollouts - sum(others)
        clocks = (
            rate.game,
            rate.acting,
            rate.collecting - rate.game - rate.acting,
            num_cores() * rate.ratings,
        )
        own = [clock / sum(clocks) * spent.rollouts for clock in clocks]
        parts = [*own, *others, idle]
        rounds.append([part / rate.number / unit for part in (*parts, sum(parts))])
    return [statistics.fmean(column) for column in zip(*rounds)]


def row(title: str, alone: str, rates: dict[str, list[Rate]]) -> list[str]:
    """A line: the medians of what is the game alone (of `ALONE`), and how the others compare with it."""
    own = [rate.decisions for rate in rates[alone]]
    ratings = sum(rate.ratings for rate in rates["training"]) / sum(r.seconds for r in rates["training"])
    wrapped, trained = (
        sorted(ratios(own, [rate.decisions for rate in rates[name]])) for name in ("adapter", "training")
    )
    rate, ratio = statistics.median(own), statistics.median(trained)
    step = num_cores() / statistics.median(each.steps for each in rates[alone])
    seats = statistics.median(each.decisions / each.steps for each in rates[alone])
    return [
        title,
        f"{step * 1e6:,.0f}",
        f"{seats:.1f}",
        f"{rate:,.0f}",
        f"{statistics.median(wrapped):.2f}",
        f"{ratio:.2f}",
        f"{trained[0]:.2f} to {trained[-1]:.2f}",
        f"{ratings:.1%}",
        f"{1 - ratio:.0%}",
        f"{num_cores() / rate * (1 / ratio - 1) * 1e6:,.1f}",
    ]


COLUMNS = (
    "", "us a step", "decisions a step", "game, decisions/s", "adapter / game", "training / game",
    "lowest to highest", "ratings", "loss", "us a decision beside the game",
)  # fmt: skip


ACCOUNTED = (
    "CPU time of a decision, bare game 1:", "game", "players", "recording", "ratings", "learners", "driver",
    "Ray", "idle", "all",
)  # fmt: skip


def overrides_of(settings: Sequence[str]) -> dict[str, Any]:
    """What `--set KEY=VALUE` says, values as in TOML."""
    overrides = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        try:
            overrides[key] = tomllib.loads(f"x={value}")["x"]
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"--set {setting}: give KEY=VALUE, the value as in TOML") from error
    return overrides


def check(config: Config) -> None:
    """UserError where there is no such game, or it cannot be trained so."""
    game = config.env.id
    if game.partition(":")[0] not in PLAY:
        raise UserError(
            f"game {game!r}: it must be of a library, {', '.join(f'{name}:...' for name in PLAY)}"
        )
    train.check(config)


def show(columns: Sequence[str], title: str, rows: Iterable[Sequence[str]], width: int) -> None:
    """Print a table, its first column words and the others numbers."""
    shown = Table(*columns, title=title, title_justify="left")
    for column in shown.columns[1:]:
        column.justify = "right"
    for cells in rows:
        shown.add_row(*cells)
    Console(width=width).print(shown)


def main(argv: Sequence[str]) -> int:
    parser = Parser(prog="python -m benchmarks.slow_games", description=__doc__)
    parser.add_argument("games", nargs="*", metavar="GAME", default=GAMES)
    parser.add_argument("--seconds", type=whole(1), default=8, help="of each turn, of training at least")
    parser.add_argument("--rounds", type=whole(1), default=5)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="beside `default`")
    parser.add_argument("--only", choices=CONTESTANTS, help="be a process of this, told by standard input")
    options = parser.parse_args(argv)
    overrides = overrides_of(options.set)
    configs = [configuration.load("default", {"env.id": game, **overrides}) for game in options.games]
    if options.only:
        serve(options.only, configs[0])
        return 0
    for config in configs:
        check(config)
    arguments = [f"--set={each}" for each in options.set]
    title = f"{options.rounds} rounds of {options.seconds} s, {num_cores()} cores"
    for game in options.games:
        turns = compare(game, options, arguments)
        own = [name for name in ALONE if name in turns.rates]
        show(COLUMNS, title, [row(f"{game}, {name}", name, turns.rates) for name in own], 220)
        show(ACCOUNTED, "", [[game, *(f"{part:.3f}" for part in account(*turns))]], 220)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
