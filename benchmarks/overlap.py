"""Training that takes turns, that overlaps, and `auto`: decisions a second and staleness, round by round.

    python -m benchmarks.overlap connect_four --seconds 10 --rounds 3 [--section.key value ...]

Each measurement is a run of its own in a temporary folder, after the warm-up of `selfplay bench`, in which
`auto` makes its choice.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence

from selfplay import bench
from selfplay import config as configuration
from selfplay.options import ConfigParser

CHOICES = (0, 1, "auto")


def main(argv: Sequence[str]) -> None:
    parser = ConfigParser(prog="python -m benchmarks.overlap", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="measurements of each choice")
    parsed = parser.parse(argv)
    rows: dict[object, list[tuple[float, float, float, float]]] = {choice: [] for choice in CHOICES}
    for _ in range(parsed.options.rounds):
        for choice in CHOICES:
            overrides = parsed.overrides | {"rollout.staleness": choice}
            config = configuration.load(parsed.config or "connect_four", overrides)
            rows[choice].append(measure(config, parsed.options.seconds))
            print(f"staleness {choice}: {rows[choice][-1][0]:,.0f} decisions/s", flush=True)
    print("\n| `rollout.staleness` | decisions a second | lowest to highest | staleness | max | overlapped |")
    print("| --- | --- | --- | --- | --- | --- |")
    for choice, measured in rows.items():
        speed, mean, most, overlap = zip(*measured)
        print(
            f"| {choice} | {statistics.median(speed):,.0f} | {min(speed):,.0f} to {max(speed):,.0f} | "
            f"{statistics.fmean(mean):.2f} | {max(most):.0f} | {statistics.fmean(overlap):.0%} |"
        )


def measure(config: configuration.Config, seconds: float) -> tuple[float, float, float, float]:
    """Decisions a second, mean and greatest staleness, and the share of iterations that overlapped."""
    measured = bench.measure(config, seconds)
    rows = [row for _, row in measured.rows]
    steps = rows[-1]["agent_steps"] - measured.steps_before
    return (
        steps / (measured.ended - measured.begun),
        statistics.fmean(row["data/staleness"] for row in rows),
        max(row["data/staleness_max"] for row in rows),
        statistics.fmean(row["data/overlap"] for row in rows),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
