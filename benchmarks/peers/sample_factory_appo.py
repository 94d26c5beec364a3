"""The peer: Sample Factory's APPO with an LSTM, batched sampling; rows are one env of many agents to it.

    python -m benchmarks.peers.sample_factory_appo WORKLOAD [--seconds 10]

Counted is what the learner has learned from. Its batched sampler knows neither action masks nor agents that
wait, so that both seats of Connect Four are stepped and learned from at every move; its other sampler goes
through agents in Python.

Tried on two cores, thousands of decisions a second, one short run each; "games x minibatches", mode serial:
Connect Four 128x1 29, 256x1 35, 256x4 34, 512x1 26, 2048x1 25 (async: 512 16, with two workers 19, 1024 in
two splits 18; sync with two workers 256 21); cart-pole 512x1 83, 512x2 68, 1024x1 50; rock, paper, scissors
256x1 83; simple_tag serial 64x1 11, async with two workers 32x1 17, 64x1 18 (two splits 18), 128x1 18.
"""

from __future__ import annotations

import functools
import logging
import tempfile
from typing import Any

import gymnasium
import numpy as np
import torch
from sample_factory.algo.runners.runner import AlgoObserver, Runner
from sample_factory.cfg.arguments import parse_full_cfg, parse_sf_args
from sample_factory.envs.env_utils import register_env
from sample_factory.train import make_runner

from benchmarks.peers import rows as workloads
from benchmarks.peers.common import Measured, Meter, main

UNROLL = 16
SERIAL = {"minibatches": 1, "mode": "serial", "workers": 1, "splits": 1, "threads": 2}
SETTINGS: dict[str, dict[str, Any]] = {
    "cartpole": {"games": 512, **SERIAL},
    "connect_four": {"games": 256, **SERIAL},
    "simple_tag": {"games": 64, **SERIAL, "mode": "async", "workers": 2},
    "rock_paper_scissors": {"games": 256, **SERIAL},
}
ROWS_OF_A_DECISION = {"connect_four": 2}  # else 1: every row acts at every step


class BatchedRows(gymnasium.Env):
    """Rows as Sample Factory's batched sampler takes them: one env of N agents, arrays in and out."""

    is_multiagent = True

    def __init__(self, workload: str, num_games: int, seed: int) -> None:
        self._rows = rows = workloads.make(workload, num_games, seed)
        self.num_agents = rows.num_rows
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, rows.obs.shape[1:], np.float32)
        self.action_space = gymnasium.spaces.Discrete(rows.num_actions)

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """obs [N, F]: the matches are open already."""
        return self._rows.obs, {}

    def step(self, action: np.ndarray) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """action [N] -> obs [N, F], reward [N], terminated [N], truncated [N]."""
        rows = self._rows
        rows.step(action)
        return rows.obs, rows.reward, rows.terminated, rows.truncated, {}


def make_env(name: str, cfg: Any, env_config: Any, render_mode: Any = None, *, num_games: int) -> BatchedRows:
    return BatchedRows(name, num_games, env_config.env_id if env_config else 0)


class Clock(AlgoObserver):
    """Counts what the learner has learned from, and ends the run."""

    def __init__(self, meter: Meter, rows_of_a_decision: int) -> None:
        self._meter = meter
        self._rows_of_a_decision = rows_of_a_decision
        self._seen = 0

    def on_training_step(self, runner: Runner, training_iteration_since_resume: int) -> None:
        learned = sum(runner.env_steps.values())
        rows, self._seen = learned - self._seen, learned
        if not self._meter.tick(rows // self._rows_of_a_decision, rows):
            runner.cfg.train_for_env_steps = 0


def arguments(
    workload: str, folder: str, num_agents: int, minibatches: int, mode: str, workers: int, splits: int
) -> list[str]:
    """Sample Factory's command line; num_agents: rows of one env."""
    batch = num_agents * workers * splits * UNROLL
    options = {
        "env": workload, "experiment": "speed", "train_dir": folder, "device": "cpu", "seed": 0,
        "serial_mode": mode == "serial", "async_rl": mode == "async", "batched_sampling": True,
        "num_workers": workers, "num_envs_per_worker": splits, "worker_num_splits": splits,
        "rollout": UNROLL, "recurrence": UNROLL, "num_epochs": 1,
        "batch_size": batch // minibatches, "num_batches_per_epoch": minibatches,
        "use_rnn": True, "rnn_type": "lstm", "rnn_size": 128, "encoder_mlp_layers": 128,
        "nonlinearity": "relu",
        "ppo_clip_ratio": 0.2, "learning_rate": 5e-4, "exploration_loss_coeff": 0.01,
        "normalize_input": False, "normalize_returns": False,
        "decorrelate_experience_max_seconds": 0, "decorrelate_envs_on_one_worker": False,
        "save_every_sec": 100_000, "save_best_every_sec": 100_000, "env_gpu_observations": False,
    }  # fmt: skip
    return [f"--{name}={value}" for name, value in options.items()]


def measure(
    workload: str,
    seconds: float,
    *,
    games: int,
    minibatches: int,
    mode: str,
    workers: int,
    splits: int,
    threads: int,
) -> Measured:
    """One run; games: of all workers and splits together."""
    torch.set_num_threads(threads)
    logging.getLogger("rl").setLevel(logging.ERROR)
    games //= workers * splits
    num_agents = workloads.make(workload, games).num_rows
    register_env(workload, functools.partial(make_env, num_games=games))
    with tempfile.TemporaryDirectory() as folder:
        line = arguments(workload, folder, num_agents, minibatches, mode, workers, splits)
        parser, _ = parse_sf_args(line)
        _, runner = make_runner(parse_full_cfg(parser, line))
        meter = Meter(seconds)
        runner.register_observer(Clock(meter, ROWS_OF_A_DECISION.get(workload, 1)))
        runner.init()
        runner.run()
    return meter.result()


if __name__ == "__main__":
    main(__doc__, measure, SETTINGS)
