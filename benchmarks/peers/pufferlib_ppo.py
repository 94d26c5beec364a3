"""The peer: PufferLib 3's trainer (`pufferlib.pufferl`) with its LSTM wrapper; rows are a native env to it.

    python -m benchmarks.peers.pufferlib_ppo WORKLOAD [--seconds 10]

Its LSTM is `nn.LSTM` over T = 16 from a zero state at the beginning of each segment, in acting too, and it
is not reset where an episode ends: less work than what the others do. It has no action masks. Adam instead
of its Muon, and segments drawn uniformly instead of by priority, as the others have it. How it is built:
`benchmarks.peers.extras`.

Tried on two cores, thousands of decisions a second, one short run each; "games x minibatches": Connect Four
256x4 72, 512x4 77 (compiled 71), 512x2 59, 512x8 63, 512x16 57, 256x8 55, 384x4 65, 128x2 60, 1024x4 60
(compiled 60, one thread 35, two env processes 17), 1024x1 52; cart-pole 512x4 136, 1024x4 170, 2048x4 130;
simple_tag 64x4 11.0 (one thread 10.8, two env processes 5.9), 128x4 11.3 (two env processes and one thread
10.6). Its env processes wait by spinning, which costs more than they bring where cores are few.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pufferlib
import pufferlib.models
import pufferlib.pufferl
import pufferlib.vector
import torch

from benchmarks.peers import rows as workloads
from benchmarks.peers.common import Measured, Meter, main

UNROLL = 16
ELSE = {"minibatches": 4, "threads": 2, "workers": 0, "compiled": False}
SETTINGS: dict[str, dict[str, Any]] = {
    "cartpole": {"games": 1024, **ELSE},
    "connect_four": {"games": 512, **ELSE},
    "simple_tag": {"games": 128, **ELSE},
    "rock_paper_scissors": {"games": 512, **ELSE},
}


class PufferRows(pufferlib.PufferEnv):
    """Rows in PufferLib's buffers."""

    def __init__(self, workload: str, num_games: int, buf: Any = None, seed: int = 0) -> None:
        self._rows = rows = workloads.make(workload, num_games, seed)
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, rows.obs.shape[1:], np.float32)
        self.single_action_space: gymnasium.Space = gymnasium.spaces.Discrete(rows.num_actions)
        self.num_agents = rows.num_rows
        super().__init__(buf)

    def reset(self, seed: int | None = None) -> tuple[np.ndarray, list[Any]]:
        """obs [N, F]: the matches are open already."""
        self._show()
        return self.observations, []

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[Any]]:
        """actions [N] -> obs [N, F], reward [N], terminated [N], truncated [N]."""
        self._rows.step(actions)
        self._show()
        return self.observations, self.rewards, self.terminals, self.truncations, []

    def close(self) -> None:
        """Rows hold nothing that must be closed."""

    def _show(self) -> None:
        rows = self._rows
        self.observations[:] = rows.obs
        self.rewards[:] = rows.reward
        self.terminals[:] = rows.terminated
        self.truncations[:] = rows.truncated
        self.masks[:] = rows.acting


class Trainer(pufferlib.pufferl.PuffeRL):
    """Its trainer without the dashboard and without checkpoints."""

    def print_dashboard(self, *arguments: Any, **options: Any) -> None:
        """Nothing."""

    def save_checkpoint(self) -> str:
        """Nothing."""
        return ""


def trainer(vecenv: Any, minibatches: int, compiled: bool) -> Trainer:
    """Encoder 128, LSTM 128, one linear layer each for policy and value."""
    env = vecenv.driver_env
    policy = pufferlib.models.LSTMWrapper(env, pufferlib.models.Default(env, hidden_size=128), 128, 128)
    batch = vecenv.num_agents * UNROLL
    config = {
        "env": "rows", "data_dir": "", "seed": 0, "total_timesteps": 10**12, "checkpoint_interval": 10**9,
        "device": "cpu", "cpu_offload": False, "precision": "float32", "torch_deterministic": False,
        "use_rnn": True, "compile": compiled, "compile_mode": "default", "compile_fullgraph": False,
        "batch_size": batch, "bptt_horizon": UNROLL, "update_epochs": 1,
        "minibatch_size": batch // minibatches, "max_minibatch_size": batch,
        "optimizer": "adam", "learning_rate": 5e-4, "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_eps": 1e-5,
        "anneal_lr": False, "max_grad_norm": 0.5, "gamma": 0.99, "gae_lambda": 0.95, "clip_coef": 0.2,
        "vf_coef": 0.5, "vf_clip_coef": 0.2, "ent_coef": 0.01, "vtrace_rho_clip": 1.0, "vtrace_c_clip": 1.0,
        "prio_alpha": 0.0, "prio_beta0": 1.0,
    }  # fmt: skip
    return Trainer(config, vecenv, policy)


def measure(
    workload: str, seconds: float, *, games: int, minibatches: int, threads: int, workers: int, compiled: bool
) -> Measured:
    """One run; workers: processes that step the games (0: in the trainer's own)."""
    torch.set_num_threads(threads)
    envs = max(workers, 1)
    backend = {"backend": "Multiprocessing", "num_workers": workers} if workers else {"backend": "Serial"}
    kwargs = {"workload": workload, "num_games": games // envs}
    vecenv = pufferlib.vector.make(PufferRows, env_kwargs=kwargs, num_envs=envs, **backend)
    puffer = trainer(vecenv, minibatches, compiled)
    meter = Meter(seconds)
    going = True
    while going:
        before = puffer.global_step  # counts rows whose mask is set: those that act
        puffer.evaluate()
        puffer.train()
        going = meter.tick(puffer.global_step - before, vecenv.num_agents * UNROLL)
    puffer.utilization.stop()
    vecenv.close()
    return meter.result()


if __name__ == "__main__":
    main(__doc__, measure, SETTINGS)
