"""Learning alone by one learner of two threads, and by two of one thread each: decisions a second.

    python -m benchmarks.learners connect_four --seconds 10 --rounds 3 [--section.key value ...]

Two workers play one batch; the learners learn from it again and again, each from its worker's share, while
nobody plays. What one update costs beside its arithmetic is in it: actor calls, fragments from the object
store, gradients added up by gloo once for each minibatch.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence

import numpy as np
import ray

from selfplay import config as configuration
from selfplay.cli import guarded
from selfplay.config import Config
from selfplay.engine.cluster import RayEngine
from selfplay.matches import MAIN, Lineups
from selfplay.options import ConfigParser
from selfplay.worker import make_game


def main(argv: Sequence[str]) -> None:
    parser = ConfigParser(prog="python -m benchmarks.learners", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="measurements of each number")
    parsed = parser.parse(argv)
    own = {"rollout.num_workers": 2}
    configs = {
        number: configuration.load(
            parsed.config or "connect_four", parsed.overrides | own | {"num_learners": number}
        )
        for number in (1, 2)
    }
    ray.init(num_cpus=4, include_dashboard=False)  # two engines, of which one always rests
    engines = {number: begun(config) for number, config in configs.items()}
    speeds: dict[int, list[float]] = {number: [] for number in engines}
    for _ in range(parsed.options.rounds):
        for number, engine in engines.items():
            speeds[number].append(measure(engine, parsed.options.seconds))
    print("| learners | decisions a second | lowest to highest |")
    print("| --- | --- | --- |")
    for number, found in speeds.items():
        print(f"| {number} | {statistics.median(found):,.0f} | {min(found):,.0f} to {max(found):,.0f} |")
    for engine in engines.values():
        engine.close()


def begun(config: Config) -> RayEngine:
    """An engine with a batch of self-play to learn from."""
    engine = RayEngine(config, lambda name: {}, print)
    num_seats = len(make_game(config, 1).teams)
    alone = Lineups((MAIN,), np.zeros((config.rollout.num_games, num_seats), np.int32))
    engine.begin([alone] * 2)
    engine.collect()
    return engine


def measure(engine: RayEngine, seconds: float) -> float:
    """Decisions learned from in a second, after one update that is not counted."""
    batches = list(engine._batches)

    def learn() -> int:
        engine._batches = list(batches)
        return engine.learn().agent_steps

    before, start = learn(), time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        after = learn()
    engine._batches = batches
    return (after - before) / elapsed


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
