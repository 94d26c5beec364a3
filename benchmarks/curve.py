"""Draw the win rates of runs against agent steps: `python -m benchmarks.curve RUN... --output FILE.png`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from selfplay.cli import guarded
from selfplay.run_directory import RunDirectory

PREFIX = "league/win_rate/"


def main() -> None:
    """One line for each anchor: the mean over the runs, and the range between them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="+", type=Path, help="run directories of one configuration, a seed each")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--title", default="")
    options = parser.parse_args()

    runs = [list(RunDirectory.open(path).metrics()) for path in options.run]
    figure, (rates, entropy) = plt.subplots(1, 2, figsize=(9, 3.2), constrained_layout=True)
    anchors = sorted({name for rows in runs for name in rows[-1] if name.startswith(PREFIX)}, reverse=True)
    for name in anchors:
        draw(rates, runs, name, name.removeprefix(PREFIX))
    rates.set(ylim=(0, 1.02), ylabel="mean score (win 1, draw ½)", title="against fixed opponents")
    rates.legend(loc="lower right")
    draw(entropy, runs, "loss/entropy", "entropy")
    entropy.set(ylabel="nats", title="entropy of the policy")
    for axes in (rates, entropy):
        axes.set_xlabel("agent steps, millions")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(options.title)
    figure.savefig(options.output, dpi=130)


def draw(axes: Axes, runs: list[list[dict]], name: str, label: str) -> None:
    """Mean and range of one metric over the runs, on the steps of the shortest."""
    length = min(len(rows) for rows in runs)
    steps = np.array([row["agent_steps"] for row in runs[0][:length]]) / 1e6
    values = np.array([[row.get(name, np.nan) for row in rows[:length]] for rows in runs], float)
    (line,) = axes.plot(steps, values.mean(axis=0), label=label)
    if len(runs) > 1:
        axes.fill_between(
            steps, values.min(axis=0), values.max(axis=0), color=line.get_color(), alpha=0.2, linewidth=0
        )


if __name__ == "__main__":
    sys.exit(guarded(main))
