"""Speed and costs against the size of a run, one thing varied at a time.

    python -m benchmarks.scale [--axis AXIS ...] [--values N ...] [--seconds 5] [--rounds 2] [--json FILE]

AXIS: cores, weak, workers, learners, opponents, length, hidden, games: `selfplay bench connect_four` in a
process of its own for every measurement, two Ray workers unless they are what varies, in rounds. pool: the
league's bookkeeping with many past selves and rollouts, results made up. costs: bytes and seconds of what
an iteration moves, and their extrapolation to many cores. Measurements are added to those in FILE, so that a
long set can be taken in pieces; the tables are of all in FILE.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.scale import costs, league, sweeps

AXES = (*sweeps.AXES, "pool", "costs")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--axis", nargs="+", choices=AXES, default=AXES, metavar="AXIS")
    parser.add_argument("--values", nargs="+", type=int, metavar="N", help="only these of the axis")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement, beside its warm-up")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every measurement there")
    options = parser.parse_args(argv)
    file: Path | None = options.json
    found: dict[str, Any] = json.loads(file.read_text()) if file and file.exists() else {}
    for axis in options.axis:
        for _ in range(options.rounds):
            measure(axis, options.values, options.seconds, found)
            if file:
                file.write_text(json.dumps(found, indent=1) + "\n")
        print(table(axis, found[axis]), flush=True)
    return 0


def measure(axis: str, values: Sequence[int] | None, seconds: float, found: dict[str, Any]) -> None:
    """One round, added to what was found."""
    if axis == "costs":
        found.setdefault(axis, []).append(costs.measure(seconds))
    elif axis == "pool":
        found.setdefault(axis, []).append([league.measure(*size) for size in league.SIZES])
    else:
        sweeps.sweep(axis, values or sweeps.AXES[axis].values, seconds, found)


def table(axis: str, found: Any) -> str:
    """Markdown of an axis."""
    if axis == "costs":
        return costs.table(costs.middle([costs.Costs(*each) for each in found]))
    if axis == "pool":
        return league.table(
            [league.middle([league.Spent(*each) for each in of_size]) for of_size in zip(*found)]
        )
    return sweeps.table(axis, found)


if __name__ == "__main__":
    sys.exit(main())
