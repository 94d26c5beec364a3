"""Two runs of a configuration that differ in some settings, in turn: how much faster the second is.

    python -m benchmarks.variants connect_four --rounds 16 --seconds 5 --against --ppo.autocast true

What comes after `--against` holds in the second run alone; with nothing there the two show the noise. Each is
a process with workers of its own, warmed up once; a turn of the second is compared with the first's before
and after it, since machines change their speed.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection

from selfplay import bench, train
from selfplay import config as configuration
from selfplay.cli import guarded
from selfplay.config import Config
from selfplay.options import ConfigParser, whole

AGAINST = "--against"


def serve(told: Connection, config: Config) -> None:
    """Be a run: go on for so many seconds as come, and tell decisions learned from a second."""
    with contextlib.redirect_stdout(sys.stderr), bench.warmed_up(config) as go_on:
        told.send(None)
        while (seconds := told.recv()) is not None:
            measured = go_on(seconds)
            steps = measured.rows[-1][1]["agent_steps"] - measured.steps_before
            told.send(steps / (measured.ended - measured.begun))


@contextlib.contextmanager
def running(config: Config) -> Iterator[Callable[[float], float]]:
    """A run of its own process; gives what goes on with it for so many seconds."""
    spawned = multiprocessing.get_context("spawn")
    told, theirs = spawned.Pipe()
    process = spawned.Process(target=serve, args=(theirs, config))
    process.start()
    theirs.close()

    def turn(seconds: float) -> float:
        told.send(seconds)
        return float(told.recv())

    try:
        told.recv()
        yield turn
    except EOFError:
        sys.exit("a run has failed")
    finally:
        with contextlib.suppress(BrokenPipeError):
            told.send(None)
        process.join()


def ratios(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Of each turn of the second to the mean of the first's before and after it."""
    around = itertools.pairwise(first)
    return [2 * speed / sum(pair) for speed, pair in zip(second, around, strict=True)]


def main(argv: Sequence[str]) -> None:
    split = argv.index(AGAINST) if AGAINST in argv else len(argv)
    parser = ConfigParser(prog="python -m benchmarks.variants", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="of each turn")
    parser.add_argument("--rounds", type=whole(2), default=16, metavar="N", help="turns of the second run")
    parsed = parser.parse(argv[:split])
    other = ConfigParser(prog=f"python -m benchmarks.variants ... {AGAINST}").parse(argv[split + 1 :])
    if other.config is not None:
        parser.error(f"{other.config}: settings come after {AGAINST}, the configuration before it")
    name, seconds = parsed.config or "connect_four", parsed.options.seconds
    configs = [configuration.load(name, parsed.overrides | more) for more in ({}, other.overrides)]
    for config in configs:
        train.check(config)
    with running(configs[0]) as first, running(configs[1]) as second:
        speeds: tuple[list[float], list[float]] = ([first(seconds)], [])
        for _ in range(parsed.options.rounds):
            speeds[1].append(second(seconds))
            speeds[0].append(first(seconds))
    for title, found in zip(("first", "second"), speeds, strict=True):
        print(
            f"{title}: {statistics.median(found):,.0f} decisions/s ({min(found):,.0f} to {max(found):,.0f})"
        )
    found = ratios(*speeds)
    low, middle, high = statistics.quantiles(found, n=4)
    print(f"second / first: {middle:.2f} (quartiles {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
