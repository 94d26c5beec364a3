"""A decision and a minibatch's gradient as one kernel each, beside torch's way and bare products: us.

    python -m benchmarks.kernels [--seconds 10]

Connect Four's network as `connect_four` has it, one thread, in one process, all in turn. Only where kernels
can call the GEMM (`policies.gemm`). The rows are random, the batches what a worker played; products: the
matrix products within, in float32, replayed by `torch` (`selfplay.floor`).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from policies import gemm
from policies.linear import matmul_t
from selfplay import config as configuration
from selfplay import floor
from selfplay.compiled_gradients import CompiledGradients
from selfplay.engine import make_learners
from selfplay.learner import Learner
from selfplay.matches import MAIN, Lineups
from selfplay.players import PolicyPlayer
from selfplay.worker import Worker

ROWS = (4, 64, 192, 512, 1024)
LANES = (8, 16, 64, 256)


def medians(ways: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Median microseconds of each, all of them in turn."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(spent[next(iter(ways))]) < 5:
        for name, call in ways.items():
            begun = time.perf_counter()
            call()
            spent[name].append(time.perf_counter() - begun)
    return {name: statistics.median(times[2:]) * 1e6 for name, times in spent.items()}


def decisions(learner: Learner, number: int) -> dict[str, Callable[[], object]]:
    """A player's decision of so many rows, either way."""
    rng, policy = np.random.default_rng(0), learner.policy
    player, head = PolicyPlayer(policy), policy.head
    obs = {path: np.stack([space.sample()] * number) for path, space in policy.inputs.items()}
    layers, vectors, width = policy.state_shape
    state = rng.standard_normal((layers, vectors, number, width)).astype(np.float32)
    rest = obs, {"": np.ones((number, head.num_inputs), bool)}, np.zeros(number, bool), state
    uniform = rng.random((number, 1), dtype=np.float32)

    def torchs() -> None:
        with gemm.left_to_torch():
            player.decide(*rest, uniform)

    return {"kernel": lambda: player.decide(*rest, uniform), "torch": torchs, "products": products(torchs)}


def products(function: Callable[[], object]) -> Callable[[], object]:
    """The matrix products of a function, and nothing else."""
    pairs = floor.drawn(floor.count(function).gemms)

    @torch.inference_mode()
    def replay() -> None:
        for x, weight in pairs:
            matmul_t(x, weight)

    return replay


def gradients(learner: Learner, lanes: int, worker: Worker) -> dict[str, Callable[[], object]]:
    """The gradient of so many lanes, either way, and by the kernel in bfloat16 where there are units."""
    (fragment,), _ = worker.rollout.collect()
    assert fragment is not None
    batch, _ = learner._prepare(fragment, torch.from_numpy(fragment.reward))
    index, grads = torch.arange(lanes), learner.grad_views[0]
    part, arrays, compiled = batch.lanes(index), learner._arrays(batch), learner.compiled
    assert arrays is not None
    assert compiled is not None

    def torchs() -> None:
        with gemm.left_to_torch():
            learner._gradients(part, 0.01, grads)

    ways = {"kernel": lambda: compiled(arrays, index.numpy(), 0.01, grads), "torch": torchs}
    if gemm.HALF:
        config = learner.config.model_copy(update={"autocast": True})
        half = CompiledGradients.of(learner.policy, config)
        assert half is not None
        ways["bfloat16"] = lambda: half(arrays, index.numpy(), 0.01, grads)
    return ways | {"products": products(torchs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each line (default: 10)")
    options = parser.parse_args()
    if not gemm.AVAILABLE:
        raise SystemExit("kernels cannot call the GEMM that is used here")
    torch.set_num_threads(1)
    config = configuration.load("connect_four", {"rollout.num_workers": 0, "rollout.num_games": max(LANES)})
    worker, learners = Worker(config, 0, 1), make_learners(config, "cpu", 1)
    worker.load(learners.weights(), 0)
    worker.rollout.assign(Lineups((MAIN,), np.zeros((max(LANES), len(worker.env.teams)), np.int32)), {})
    learner = next(iter(learners.learners.values()))
    lines = [(f"decisions of {n} rows", decisions(learner, n)) for n in ROWS]
    lines += [(f"gradient of {n} lanes", gradients(learner, n, worker)) for n in LANES]
    for name, ways in lines:
        found = medians(ways, options.seconds)
        print(f"{name:24}", *(f"  {way} {microseconds:9,.0f}" for way, microseconds in found.items()))


if __name__ == "__main__":
    main()
