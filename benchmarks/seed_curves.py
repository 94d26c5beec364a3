"""Draw what `benchmarks.seeds` trained, one panel for each comparison, a line for each variant.

python -m benchmarks.seed_curves --panel "cart-pole" runs/cartpole match/return --output FILE.png
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from benchmarks.seeds import interval
from selfplay.cli import guarded
from selfplay.run_directory import RunDirectory

POINTS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--panel", nargs=3, action="append", metavar=("TITLE", "FOLDER", "METRIC"))
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    count = len(options.panel)
    figure, axes = plt.subplots(1, count, figsize=(3.6 * count, 3), squeeze=False, constrained_layout=True)
    for axis, (title, folder, metric) in zip(axes[0], options.panel, strict=True):
        draw(axis, Path(folder), metric)
        axis.set(title=title, xlabel="agent steps, thousands", ylabel=metric)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].legend()
    figure.savefig(options.output, dpi=130)


def draw(axis: Axes, folder: Path, metric: str) -> None:
    """Mean over the seeds and its 95% interval, interpolated to the same steps."""
    runs = json.loads((folder / "summary.json").read_text())["runs"]
    for variant in sorted({run["variant"] for run in runs}):  # a colour means the same in every panel
        paths = [folder / f"{variant}-{run['seed']}" for run in runs if run["variant"] == variant]
        curves = [read(path, metric) for path in paths]
        steps = np.linspace(0, min(curve[0][-1] for curve in curves), POINTS + 1)[1:]
        values = np.stack([np.interp(steps, *curve) for curve in curves])  # [seeds, points]
        low, high = np.array([interval(column) for column in values.T]).T
        (line,) = axis.plot(steps / 1e3, values.mean(axis=0), label=variant)
        axis.fill_between(steps / 1e3, low, high, color=line.get_color(), alpha=0.2, linewidth=0)


def read(path: Path, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a run, where it has the metric."""
    rows = [row for row in RunDirectory.open(path).metrics() if row.get(metric) is not None]
    return np.array([row["agent_steps"] for row in rows]), np.array([row[metric] for row in rows])


if __name__ == "__main__":
    sys.exit(guarded(main))
