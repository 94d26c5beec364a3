"""What training costs beside a game in Python, by CPU time of one core: for machines that others use too.

    python -m benchmarks.slow_games_one_core GAME ... [--rounds 12] [--set rollout.num_games=128]

The bare game, our adapter and whole iterations of training take turns within one process, pinned to one
core, each turn a fraction of a second; so a machine that slows down does so for all. Training is what one
of two workers and its learner do: `default` in one process, with half of its matches, from lineups to
weights. What is missing is what only processes have: fragments and weights on their way, and waiting for
each other (`benchmarks.slow_games`). Ratios are medians over the rounds, to the mean of the bare game's
turns before and after. Snapshots, which are rated, are made in the warm-up alone.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
from collections.abc import Iterator
from itertools import islice
from time import perf_counter, process_time
from typing import Any, NamedTuple

import numpy as np

from benchmarks.slow_games import BARE, overrides_of, show
from envs.random_play import random_actions
from envs.registry import make
from envs.vector import VectorEnv
from selfplay import bench
from selfplay import config as configuration

TURN = 0.15
"""CPU seconds of a turn of the bare game or the adapter."""
PYTHONS = gc.get_threshold()
"""When Python searches for cycles, unless a worker has it otherwise (`selfplay.memory`)."""
NEVER = 10**9
"""Iterations between snapshots, where there are to be none."""


class Round(NamedTuple):
    """CPU seconds a decision: training's, of which in the game, in acting, in learning, and the others'."""

    bare: float
    step: float  # of the bare game's move
    adapter: float
    training: float
    game: float
    acting: float
    learning: float


def bare(play: Iterator[int]) -> tuple[float, float]:
    """CPU seconds for a decision, and for a step, of the library's own loop, with Python's own thresholds."""
    workers = gc.get_threshold()
    gc.set_threshold(*PYTHONS)
    decisions, steps, begun = 0, 0, process_time()
    while (spent := process_time() - begun) < TURN:
        for number in islice(play, 8):
            decisions += number
            steps += 1
    gc.set_threshold(*workers)
    return spent / decisions, spent / steps


def adapter(env: VectorEnv, rng: np.random.Generator) -> float:
    """CPU seconds for a decision of the vector game with its checks."""
    decisions, spent = 0, 0.0
    while spent < TURN:
        actions = random_actions(env, rng)
        decisions += int(env.to_act.sum())
        begun = process_time()
        env.step(actions)
        over = np.flatnonzero(env.over)
        env.restart(over, rng.integers(2**63, size=len(over), dtype=np.uint64))
        spent += process_time() - begun
    return spent / decisions


def training(go_on: bench.GoOn) -> tuple[float, float, float, float]:
    """CPU seconds for a decision of an iteration; and as shares of them: game, acting, learning."""
    wall, begun = perf_counter(), process_time()
    measured = go_on(1e-9)  # one iteration
    spent, wall = process_time() - begun, perf_counter() - wall
    played = [part for parts in measured.collected for part in parts]
    decisions = sum(part.decisions for part in played)
    clocks = (
        sum(part.game_seconds for part in played),
        sum(part.acting_seconds for part in played),
        sum(row["time/update"] for _, row in measured.rows),
    )
    game, acting, learning = (clock / wall * spent / decisions for clock in clocks)
    return spent / decisions, game, acting, learning


def measure(game: str, rounds: int, overrides: dict[str, Any]) -> list[Round]:
    """Rounds of a game in this process."""
    fixed = {"env.id": game, "rollout.num_workers": 0, "league.snapshot_iterations": NEVER}
    fixed["league.rating_games"] = 2  # of the warm-up
    config = configuration.load("default", fixed)
    fixed["rollout.num_games"] = config.rollout.num_games // 2
    config = configuration.load("default", fixed | overrides)
    source, _, rest = game.partition(":")
    play, env, rng = BARE[source](rest), make(game, config.rollout.num_games), np.random.default_rng(0)
    env.restart(np.arange(env.num_games), rng.integers(2**63, size=env.num_games, dtype=np.uint64))
    measured = []
    with bench.warmed_up(config) as go_on:
        bare(play), adapter(env, rng)
        for number in range(rounds):
            before, wrapped, trained, after = bare(play), adapter(env, rng), training(go_on), bare(play)
            alone, step = (statistics.fmean(pair) for pair in zip(before, after))
            measured.append(Round(alone, step, wrapped, *trained))
            print(f"{game} {number} {trained[0] / alone:.2f}", file=sys.stderr, flush=True)
    return measured


def row(game: str, rounds: list[Round]) -> list[str]:
    """A game's line: medians over the rounds."""

    def middle(name: str) -> float:
        return statistics.median(getattr(each, name) / each.bare for each in rounds)

    ratios = sorted(each.training / each.bare for each in rounds)
    low, high = statistics.quantiles(ratios, n=4)[::2] if len(ratios) > 1 else ratios * 2
    alone = statistics.median(each.bare for each in rounds)
    return [
        game,
        f"{statistics.median(each.step for each in rounds) * 1e6:,.0f}",
        f"{alone * 1e6:,.0f}",
        *(f"{middle(name):.2f}" for name in ("adapter", "game", "acting", "learning", "training")),
        f"{1 - 1 / middle('training'):.0%}",
        f"{1 - 1 / low:.0%} to {1 - 1 / high:.0%}",
    ]


COLUMNS = (
    "of the bare game's time:", "us a step", "us a decision", "adapter", "game in training", "acting",
    "learning", "training", "loss", "quartiles",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("games", nargs="+", metavar="GAME")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="beside `default`")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    overrides = overrides_of(options.set)
    rows = (row(game, measure(game, options.rounds, overrides)) for game in options.games)
    show(COLUMNS, f"{options.rounds} rounds, one core", rows, 200)


if __name__ == "__main__":
    main()
