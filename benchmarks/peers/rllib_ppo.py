"""The peer: RLlib's PPO with an LSTM on its new API stack, as its own documentation builds it.

    python -m benchmarks.peers.rllib_ppo connect_four [--seconds 10] [--runners 2] [--games 64] [--batch 4096]

--runners 2 samples in two actors, --runners 0 in the driver's process. There are no action masks. It steps
one Python object for each match, but for CartPole, where it takes Gymnasium's vectorised one.

Best of four each, of one run of 5 s, thousands of decisions/s (runners, games of each, batch; 4 minibatches):
CartPole 2/64/16384 14.3, 2/64/4096 13.2, 0/128/4096 11.1, 2/256/8192 10.3. Connect Four 2/32/4096 5.5,
2/64/4096 4.9, with 8 minibatches 4.4, 2/128/8192 3.3. simple_tag 2/32/4096 6.6, 2/16/1024 5.9, 2/64/2048
5.0, 0/16/1024 4.3. Rock, paper, scissors 2/32/4096 6.9, 2/128/8192 6.3, 2/64/2048 6.2, 0/64/2048 5.4.
Batches count steps of games.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # its best setting on few cores, here and in the actors

from typing import Any

import gymnasium
import numpy as np
import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
from ray.tune.registry import register_env

from benchmarks.peers.common import Measured, Meter, main

ROUNDS = 10
PAYOFF = ((0.0, -1.0, 1.0), (1.0, 0.0, -1.0), (-1.0, 1.0, 0.0))


class RockPaperScissors(MultiAgentEnv):
    """Ours of the same name in plain Python, the quickest way to hand RLlib single matches."""

    def __init__(self) -> None:
        super().__init__()
        self.agents = self.possible_agents = [0, 1]
        self.observation_spaces = dict.fromkeys((0, 1), gymnasium.spaces.Box(0.0, 1.0, (7,), np.float32))
        self.action_spaces: dict = dict.fromkeys((0, 1), gymnasium.spaces.Discrete(3))
        self._round = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        self._round = 0
        return {seat: np.zeros(7, np.float32) for seat in (0, 1)}, {}

    def step(self, action_dict: dict) -> Any:
        self._round += 1
        obs = {}
        for seat in (0, 1):
            obs[seat] = view = np.zeros(7, np.float32)
            view[action_dict[1 - seat]] = 1
            view[3 + action_dict[seat]] = 1
            view[6] = self._round / ROUNDS
        paid = PAYOFF[action_dict[0]][action_dict[1]]
        over = self._round == ROUNDS
        return obs, {0: paid, 1: -paid}, {0: over, 1: over, "__all__": over}, {"__all__": False}, {}


class PaddedTag(ParallelPettingZooEnv):
    """PettingZoo's simple_tag, observations padded with zeros, so that all seats share one policy."""

    def __init__(self) -> None:
        from mpe2 import simple_tag_v3

        super().__init__(simple_tag_v3.parallel_env())
        spaces = [self.par_env.observation_space(seat) for seat in self.possible_agents]
        self._width = max(space.shape[0] for space in spaces)
        space = gymnasium.spaces.Box(-np.inf, np.inf, (self._width,), np.float32)
        self.observation_space = gymnasium.spaces.Dict(dict.fromkeys(self.possible_agents, space))

    def _padded(self, obs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {seat: np.pad(view, (0, self._width - len(view))) for seat, view in obs.items()}

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        obs, info = super().reset(seed=seed, options=options)
        return self._padded(obs), info

    def step(self, action_dict: dict) -> Any:
        obs, *rest = super().step(action_dict)
        return self._padded(obs), *rest


def connect_four(_: Any) -> MultiAgentEnv:
    """OpenSpiel's, in RLlib's own wrapper."""
    import pyspiel
    from ray.rllib.env.wrappers.open_spiel import OpenSpielEnv

    return OpenSpielEnv(pyspiel.load_game("connect_four"))


MULTI_AGENT = {
    "connect_four": connect_four,
    "simple_tag": lambda _: PaddedTag(),
    "rock_paper_scissors": lambda _: RockPaperScissors(),
}
# Seats that act in one step of a game.
DECISIONS = {"cartpole": 1, "connect_four": 1, "simple_tag": 4, "rock_paper_scissors": 2}


def make_config(workload: str, *, runners: int, games: int, batch: int, minibatches: int) -> PPOConfig:
    """One epoch, 128 -> LSTM-128, all seats the same policy."""
    config = (
        PPOConfig()
        .environment("CartPole-v1" if workload == "cartpole" else workload)
        .env_runners(
            num_env_runners=runners,
            num_envs_per_env_runner=games,
            gym_env_vectorize_mode="vector_entry_point" if workload == "cartpole" else "sync",
            episode_lookback_horizon=6,  # with less, an LSTM in a game of turns ends in an IndexError
        )
        .training(
            train_batch_size_per_learner=batch,
            minibatch_size=batch // minibatches,
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
        .rl_module(
            rl_module_spec=RLModuleSpec(
                model_config=DefaultModelConfig(
                    fcnet_hiddens=[128], fcnet_activation="relu", use_lstm=True, lstm_cell_size=128,
                    max_seq_len=16, head_fcnet_hiddens=[], vf_share_layers=True,
                )
            )
        )
    )  # fmt: skip
    if workload in MULTI_AGENT:
        register_env(workload, MULTI_AGENT[workload])
        config = config.multi_agent(
            policies={"main"}, policy_mapping_fn=lambda agent, episode, **kwargs: "main"
        )
    return config


def measure(workload: str, seconds: float, **settings: int) -> Measured:
    """Whole iterations of `train` after a warm-up.

    Steps of games are counted, times the seats that act in one: the learner's own count has padding in
    it, and the step that it adds to each episode to hold its last value.
    """
    ray.init(log_to_driver=False, logging_level="ERROR")
    algorithm = make_config(workload, **settings).build_algo()
    try:
        meter, before, going = Meter(seconds), 0, True
        while going:
            steps = algorithm.train()["env_runners"]["num_env_steps_sampled_lifetime"]
            going = meter.tick(round(steps - before) * DECISIONS[workload])
            before = steps
        return meter.result()
    finally:
        algorithm.stop()
        ray.shutdown()


SETTINGS = {
    "cartpole": {"runners": 2, "games": 64, "batch": 16384, "minibatches": 4},
    "connect_four": {"runners": 2, "games": 32, "batch": 4096, "minibatches": 4},
    "simple_tag": {"runners": 2, "games": 32, "batch": 4096, "minibatches": 4},
    "rock_paper_scissors": {"runners": 2, "games": 32, "batch": 4096, "minibatches": 4},
}


if __name__ == "__main__":
    main(__doc__, measure, SETTINGS)
