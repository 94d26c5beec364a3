"""The peer: RLlib's PPO with an LSTM in self-play on the same game, as its own documentation builds it.

    python -m benchmarks.rllib_ppo [--seconds 30] [--num-runners 2] [--games-per-runner 64] [--batch 4096]

One process measures once and prints one JSON object: agent decisions learned from per second, learning
included, after a warm-up. Connect Four comes from OpenSpiel through RLlib's own wrapper, new API stack.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # its best setting on few cores, here and in the actors

import argparse
import json
import statistics
import time
from typing import Any

import pyspiel
import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.wrappers.open_spiel import OpenSpielEnv
from ray.tune.registry import register_env

WARM_UP_ITERATIONS = 3


def make_config(arguments: argparse.Namespace) -> PPOConfig:
    """PPO, one epoch, 128 -> LSTM-128, both seats the same policy."""
    register_env("connect_four", lambda _: OpenSpielEnv(pyspiel.load_game("connect_four")))
    return (
        PPOConfig()
        .environment("connect_four")
        .env_runners(
            num_env_runners=arguments.num_runners,
            num_envs_per_env_runner=arguments.games_per_runner,
            episode_lookback_horizon=6,  # with less, an LSTM in a game of turns ends in an IndexError
        )
        .training(
            train_batch_size_per_learner=arguments.batch,
            minibatch_size=arguments.batch // 4,
            num_epochs=1,
            lr=5e-4,
            gamma=0.99,
            lambda_=0.95,
            clip_param=0.2,
            entropy_coeff=0.03,
            vf_loss_coeff=0.5,
            grad_clip=0.5,
            use_kl_loss=False,
        )
        .multi_agent(policies={"main"}, policy_mapping_fn=lambda agent, episode, **kwargs: "main")
        .rl_module(
            rl_module_spec=RLModuleSpec(
                model_config=DefaultModelConfig(
                    fcnet_hiddens=[128], fcnet_activation="relu", use_lstm=True, lstm_cell_size=128,
                    max_seq_len=16, head_fcnet_hiddens=[], vf_share_layers=True,
                )
            )
        )
    )  # fmt: skip


def measure(algorithm: Any, seconds: float) -> dict[str, float]:
    """Whole iterations of `train` for about so many seconds after a warm-up.

    One step of this game is one decision; padding and the step that the learner adds to each episode to
    hold its last value are none, so that num_module_steps_trained would count too many.
    """

    def decisions(result: dict[str, Any]) -> float:
        return result["env_runners"]["num_env_steps_sampled_lifetime"]

    for _ in range(WARM_UP_ITERATIONS):
        result = algorithm.train()
    first = before = decisions(result)
    begun = last = time.perf_counter()
    speeds = []
    while last - begun < seconds:
        result = algorithm.train()
        now = time.perf_counter()
        speeds.append((decisions(result) - before) / (now - last))
        before, last = decisions(result), now
    return {
        "decisions_per_s": (before - first) / (last - begun),
        "decisions_per_s_median": statistics.median(speeds),
        "agent_steps": before - first,
        "seconds": last - begun,
        "iterations": len(speeds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--num-runners", type=int, default=2)
    parser.add_argument("--games-per-runner", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4096, help="decisions of one iteration")
    arguments = parser.parse_args()
    ray.init(log_to_driver=False, logging_level="ERROR")
    algorithm = make_config(arguments).build_algo()
    try:
        print(json.dumps(measure(algorithm, arguments.seconds)))
    finally:
        algorithm.stop()
        ray.shutdown()


if __name__ == "__main__":
    main()
