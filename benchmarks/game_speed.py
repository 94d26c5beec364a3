"""How fast a game alone runs: `python -m benchmarks.game_speed connect_four [--num-games 1024 4096]`.

Uniformly random legal actions, drawn outside the timed part; step and restart are timed.
`--kwargs 'observation = "image"'` gives arguments of the game's constructor, as TOML.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from time import perf_counter

import numpy as np

from envs.random_play import random_actions
from envs.registry import make
from envs.vector import VectorEnv
from selfplay.cli import guarded
from selfplay.errors import UserError


def measure(env: VectorEnv, seconds: float) -> float:
    """Decisions per second of step and restart, over at least `seconds` of them."""
    rng = np.random.default_rng(0)
    seeds = rng.integers(2**63, size=env.num_games, dtype=np.uint64)
    env.restart(np.arange(env.num_games), seeds)
    for _ in range(3):  # compile and warm up
        env.step(random_actions(env, rng))
    num_decisions, spent = 0, 0.0
    while spent < seconds:
        actions = random_actions(env, rng)
        num_decisions += int(env.to_act.sum())
        start = perf_counter()
        env.step(actions)
        over = np.flatnonzero(env.over)
        env.restart(over, seeds[over])
        spent += perf_counter() - start
    return num_decisions / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("game")
    parser.add_argument("--num-games", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--kwargs", type=tomllib.loads, default={}, metavar="TOML")
    args = parser.parse_args()
    for num_games in args.num_games:
        try:
            env = make(args.game, num_games, **args.kwargs)
        except ValueError as error:
            raise UserError(str(error)) from error
        rate = measure(env, args.seconds)
        print(f"{args.game}  num_games={num_games}  {rate / 1e6:.1f} million decisions/s")


if __name__ == "__main__":
    sys.exit(guarded(main))
