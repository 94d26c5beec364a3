"""Ours and RLlib's PPO with an LSTM, in turn on the same machine in the same minutes.

    python -m benchmarks.compare [--seconds 30] [--rounds 3]

Both learn Connect Four by self-play with encoder 128, LSTM 128 and one epoch, each with the settings that
are best for it. Counted are agent decisions learned from per second, learning included, after a
warm-up; every measurement is a process of its own, and the two alternate. RLlib's side plays only
itself; ours keeps past selves, plays a fifth of its matches against them, rates them and writes its metrics.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

from rich.console import Console
from rich.table import Table

CONTESTANTS = {
    "selfplay": ["-m", "selfplay", "bench", "connect_four", "--json"],
    "RLlib PPO + LSTM": ["-m", "benchmarks.rllib_ppo"],
}


def measure(arguments: list[str], seconds: float) -> float:
    """Decisions per second that a process of its own prints as JSON in its last line."""
    command = [sys.executable, *arguments, "--seconds", str(seconds)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{ended.stderr}")
    return json.loads(ended.stdout.splitlines()[-1])["decisions_per_s"]


def table(speeds: dict[str, list[float]]) -> Table:
    """Medians, ranges, and each contestant's median as a multiple of the last one's."""
    rounds = len(next(iter(speeds.values())))
    shown = Table("", "decisions/s", "min – max", "ratio", title=f"median of {rounds}", title_justify="left")
    for column in shown.columns[1:]:
        column.justify = "right"
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    base = list(medians.values())[-1]
    for name, values in speeds.items():
        extent = f"{min(values):,.0f} – {max(values):,.0f}"
        shown.add_row(name, f"{medians[name]:,.0f}", extent, f"{medians[name] / base:.1f}")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each measurement, beside its warm-up")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    speeds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for number in range(1, options.rounds + 1):
        for name, arguments in CONTESTANTS.items():
            speed = measure(arguments, options.seconds)
            speeds[name].append(speed)
            print(f"round {number}: {name} {speed:,.0f}", file=sys.stderr, flush=True)
    Console().print(table(speeds))


if __name__ == "__main__":
    main()
