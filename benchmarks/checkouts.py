"""Two checkouts of this project in turn: how much faster one plays and learns than the other.

    git worktree add ../before REVISION
    python -m benchmarks.checkouts ../before . [--rounds 30] [--config connect_four]

Each is a process of one thread, which plays a batch and learns from it whenever it is told to. A turn of the
second lies between two of the first, so that a machine whose speed drifts is as fast for one as for the
other; the ratio is of the first one's mean time to the second one's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from selfplay import config as configuration
from selfplay.engine import make_learners
from selfplay.matches import MAIN, Lineups
from selfplay.worker import Worker

WARM_UP = 4
SIZES = {"rollout.num_workers": 1, "rollout.num_games": 1024, "ppo.num_minibatches": 8}


def serve(name: str) -> None:
    """Seconds of play and of learning as a line of JSON, for each line that comes."""
    torch.set_num_threads(1)
    config = configuration.load(name, SIZES)
    worker = Worker(config, 0, 1)
    learners = make_learners(config, "cpu", 1)
    lineups = Lineups((MAIN,), np.zeros((1, len(worker.env.teams)), np.int32))
    for version, _ in enumerate(sys.stdin):
        begun = time.perf_counter()
        batch, _ = worker.collect(learners.weights(), version, lineups, lambda name: {})
        played = time.perf_counter()
        learners.update([batch])
        print(json.dumps([played - begun, time.perf_counter() - played]), flush=True)


def turn(process: subprocess.Popen[str]) -> np.ndarray:
    """[3] seconds: play, learning, both."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    play, learning = json.loads(process.stdout.readline())
    return np.array([play, learning, play + learning])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkouts", nargs="*", metavar="DIR", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--config", default="connect_four")
    options = parser.parse_args()
    if not options.checkouts:
        serve(options.config)
        return
    if len(options.checkouts) != 2:
        parser.error("two checkouts are compared")
    command = [sys.executable, str(Path(__file__).resolve()), "--config", options.config]
    processes = [
        subprocess.Popen(
            command, cwd=each, env=os.environ | {"PYTHONPATH": str(each.resolve())}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for each in options.checkouts
    ]  # fmt: skip
    first, second = processes
    for _ in range(WARM_UP):
        turn(first), turn(second)
    ratios = []
    for _ in range(options.rounds):
        before, between, after = turn(first), turn(second), turn(first)
        ratios.append((before + after) / 2 / between)
    for name, column in zip(("play", "learning", "both"), np.array(ratios).T, strict=True):
        low, middle, high = statistics.quantiles(column.tolist(), n=4)
        print(f"{name}: {middle:.3f} times as fast, quartiles {low:.3f} to {high:.3f}")
    for process in processes:
        process.kill()


if __name__ == "__main__":
    main()
