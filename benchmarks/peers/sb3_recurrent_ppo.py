"""sb3-contrib's RecurrentPPO, one VecEnv that steps all rows in a batch.

    python -m benchmarks.peers.sb3_recurrent_ppo WORKLOAD [--seconds 10]

Its LSTM has no action masks: an illegal action is replaced by a legal one drawn uniformly. Rows of a seat
that waits are rows like others to it, so that in Connect Four half of what it learns from is a decision.
Policy and value share encoder and LSTM (`shared_lstm`, whose value does not train the LSTM).

The settings are the best of those tried, in thousands of decisions a second in runs of 3 to 5 s (matches /
minibatches): cartpole 64/4 23, 256/4 53, 256/1 62, 512/1 77, 512/4 60, 1024/4 57, 1024/16 61, 2048/32 52;
connect_four 256/1 37, 256/4 24, 512/1 39, 1024/4 32, 1024/16 30; rock_paper_scissors 256/1 75, 256/2 72,
512/1 70, 1024/8 71; simple_tag 64/1 12 (9 with all copies in one process), 128/1 15, 256/1 18, 512/1 10.
One thread was slower.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

from typing import Any

import gymnasium
import numpy as np
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from benchmarks.peers import common, rows

T = 16
SETTINGS = {
    "cartpole": {"num_games": 512, "minibatches": 1, "threads": 2, "game_processes": 1},
    "connect_four": {"num_games": 512, "minibatches": 1, "threads": 2, "game_processes": 1},
    "simple_tag": {"num_games": 256, "minibatches": 1, "threads": 2, "game_processes": 2},
    "rock_paper_scissors": {"num_games": 256, "minibatches": 1, "threads": 2, "game_processes": 1},
}


class Encoder(BaseFeaturesExtractor):
    """One layer of 128."""

    def __init__(self, observation_space: gymnasium.spaces.Box) -> None:
        super().__init__(observation_space, 128)
        self._layers = nn.Sequential(nn.Linear(observation_space.shape[0], 128), nn.ReLU())

    def forward(self, obs: Tensor) -> Tensor:
        """obs [N, F] -> [N, 128]."""
        return self._layers(obs)


class RowsVecEnv(VecEnv):
    """Rows as its environments."""

    def __init__(self, game: rows.Rows) -> None:
        self.game = game
        self.decisions = 0  # since the counter was last set to 0
        self._infos: list[dict[str, Any]] = [{} for _ in range(game.num_rows)]
        space = gymnasium.spaces.Box(-np.inf, np.inf, game.obs.shape[1:], np.float32)
        super().__init__(game.num_rows, space, gymnasium.spaces.Discrete(game.num_actions))

    def reset(self) -> np.ndarray:
        return self.game.obs.copy()

    def step_async(self, actions: np.ndarray) -> None:
        self.decisions += int(self.game.acting.sum())
        self.game.step(actions)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        game = self.game
        return game.obs.copy(), game.reward.copy(), game.terminated | game.truncated, self._infos

    def close(self) -> None: ...

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


class Watch(BaseCallback):
    """Reads the clock when a rollout begins, after the update on the one before."""

    def __init__(self, env: RowsVecEnv, meter: common.Meter) -> None:
        super().__init__()
        self._env = env
        self._meter = meter
        self.going = True

    def _on_rollout_start(self) -> None:
        if self._env.decisions:  # none before the first rollout
            self.going = self._meter.tick(self._env.decisions, T * self._env.num_envs)
            self._env.decisions = 0

    def _on_step(self) -> bool:
        return self.going


def measure(
    workload: str, seconds: float, *, num_games: int, minibatches: int, threads: int, game_processes: int
) -> common.Measured:
    """`learn`, until the clock says that it is enough."""
    game = rows.make(workload, num_games, processes=game_processes)
    torch.set_num_threads(threads)
    env = RowsVecEnv(game)
    model = RecurrentPPO(
        "MlpLstmPolicy",
        env,
        n_steps=T,
        batch_size=T * env.num_envs // minibatches,
        n_epochs=1,
        ent_coef=0.01,
        device="cpu",
        seed=0,
        policy_kwargs={
            "net_arch": [],  # heads straight on the LSTM's output
            "lstm_hidden_size": 128,
            "shared_lstm": True,
            "enable_critic_lstm": False,
            "features_extractor_class": Encoder,
        },
    )
    meter = common.Meter(seconds)
    model.learn(10**12, callback=Watch(env, meter), log_interval=None)
    return meter.result()


if __name__ == "__main__":
    common.main(__doc__, measure, SETTINGS)
