"""Taking turns against playing on while learning, in one run that changes between the two.

    python -m benchmarks.overlap connect_four --seconds 8 --rounds 3 [--section.key value ...]

First comes the trial of `rollout.staleness = "auto"`, whose choice is told; then both ways alternate. Each
measurement begins and ends with idle rollouts.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from selfplay import bench
from selfplay import config as configuration
from selfplay.cli import guarded
from selfplay.config import StopConfig
from selfplay.options import ConfigParser
from selfplay.run_directory import RunDirectory
from selfplay.training import Training


class Measured(NamedTuple):
    speed: float  # decisions a second
    staleness: float
    staleness_max: float
    overlapped: float  # share of the iterations


def main(argv: Sequence[str]) -> None:
    parser = ConfigParser(prog="python -m benchmarks.overlap", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, metavar="S", help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="measurements of each way")
    parsed = parser.parse(argv)
    config = configuration.load(
        parsed.config or "connect_four", parsed.overrides | {"rollout.staleness": "auto"}
    )
    watch = bench._Watch()
    found: dict[int, list[Measured]] = {0: [], 1: []}
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory.create(Path(folder) / "run", config)
        training = Training(config, run, watch)
        try:
            bench._warm_up(training)
            for _ in range(parsed.options.rounds):
                for staleness in (0, 1):
                    training.overlap.chosen = bool(staleness)
                    found[staleness].append(measure(training, watch, parsed.options.seconds))
        finally:
            training.close()
            run.close()
    print("| staleness | decisions a second | lowest to highest | measured staleness | max | overlapped |")
    print("| --- | --- | --- | --- | --- | --- |")
    for staleness, rows in found.items():
        speed, mean, most, share = zip(*rows, strict=True)
        print(
            f"| {staleness} | {statistics.median(speed):,.0f} | {min(speed):,.0f} to {max(speed):,.0f} | "
            f"{statistics.fmean(mean):.2f} | {max(most):.0f} | {statistics.fmean(share):.0%} |"
        )


def measure(training: Training, watch: bench._Watch, seconds: float) -> Measured:
    watch.rows.clear()
    steps, begun = training.agent_steps, training.seconds
    bench._train(training, StopConfig(seconds=begun + seconds))
    rows = [row for _, row in watch.rows]
    return Measured(
        (training.agent_steps - steps) / (training.seconds - begun),
        statistics.fmean(row["data/staleness"] for row in rows),
        max(row["data/staleness_max"] for row in rows),
        statistics.fmean(row["data/overlap"] for row in rows),
    )


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
