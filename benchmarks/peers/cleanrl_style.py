"""PPO with an LSTM in one file of plain torch, in CleanRL's manner.

    python -m benchmarks.peers.cleanrl_style WORKLOAD [--seconds 10]

Vectorised games, storage [T, N] in tensors, an LSTM stepped through time with its state zeroed at every
first observation, minibatches of whole rows: what CleanRL's ppo_atari_lstm does, with its loss and Adam, at
one epoch. Two additions in its favour: illegal actions are masked, and rows of a seat that waits are left out
of the loss. Both seats of Connect Four are stepped on every move, so that half of its rows are decisions.

The settings are the best of those tried, in thousands of decisions a second in runs of 3 to 5 s (matches /
minibatches): cartpole 256/4 61, 1024/4 97, 1024/1 100, 4096/4 108, 4096/8 100, 4096/16 88; connect_four
256/4 44, 512/1 52, 1024/1 54, 1024/4 52, 1024/16 36, 2048/4 51, 2048/16 45; rock_paper_scissors 1024/2 100,
1024/4 100, 2048/2 96; simple_tag, its copies in two processes, 64/4 11, 64/1 12, 128/2 15, 256/4 18,
256/2 19, 512/4 21. nn.LSTMCell is stepped where CleanRL steps nn.LSTM.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from benchmarks.peers import common, rows

T = 16
GAMMA, LAMBDA, CLIP, ENTROPY, VALUE = 0.99, 0.95, 0.2, 0.01, 0.5
SETTINGS = {
    "cartpole": {"num_games": 4096, "minibatches": 4, "threads": 2, "game_processes": 1},
    "connect_four": {"num_games": 1024, "minibatches": 1, "threads": 2, "game_processes": 1},
    "simple_tag": {"num_games": 512, "minibatches": 4, "threads": 2, "game_processes": 2},
    "rock_paper_scissors": {"num_games": 1024, "minibatches": 2, "threads": 2, "game_processes": 1},
}

State = tuple[Tensor, Tensor]  # h and c, [N, 128] each


class Agent(nn.Module):
    """Encoder 128, LSTM 128, one linear layer each for the action and the value."""

    def __init__(self, obs_size: int, num_actions: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(_layer(obs_size, 128, 2**0.5), nn.ReLU())
        self.lstm = nn.LSTMCell(128, 128)
        self.actor = _layer(128, num_actions, 0.01)
        self.critic = _layer(128, 1, 1.0)

    def unroll(self, obs: Tensor, is_first: Tensor, state: State) -> tuple[Tensor, State]:
        """obs [T, N, F], is_first [T, N] -> the LSTM's outputs [T, N, 128] and its last state."""
        outputs = []
        for hidden, first in zip(self.encoder(obs), is_first):
            keep = (1 - first).unsqueeze(-1)
            state = self.lstm(hidden, (keep * state[0], keep * state[1]))
            outputs.append(state[0])
        return torch.stack(outputs), state

    def actions(self, hidden: Tensor, mask: Tensor) -> Categorical:
        """The distribution over the legal actions."""
        logits = self.actor(hidden).masked_fill(~mask, -1e8)
        return Categorical(logits=logits, validate_args=False)


def _layer(inputs: int, outputs: int, gain: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class Batch(NamedTuple):
    """T steps of N rows."""

    obs: Tensor  # [T, N, F]
    mask: Tensor  # [T, N, n] bool
    is_first: Tensor  # [T, N] 0 or 1
    acting: Tensor  # [T, N] bool
    action: Tensor  # [T, N] int64
    logp: Tensor  # [T, N]
    value: Tensor  # [T, N]
    reward: Tensor  # [T, N]

    @classmethod
    def empty(cls, game: rows.Rows) -> Batch:
        """Storage, to be overwritten in each iteration."""
        shape = (T, game.num_rows)
        floats = (torch.zeros(shape) for _ in range(4))
        is_first, logp, value, reward = floats
        return cls(
            obs=torch.zeros(*shape, game.obs.shape[1]),
            mask=torch.zeros(*shape, game.num_actions, dtype=torch.bool),
            is_first=is_first,
            acting=torch.zeros(shape, dtype=torch.bool),
            action=torch.zeros(shape, dtype=torch.int64),
            logp=logp,
            value=value,
            reward=reward,
        )


class Loop:
    """Rollout and update in turn."""

    def __init__(self, game: rows.Rows, minibatches: int) -> None:
        self.game = game
        self.agent = Agent(game.obs.shape[1], game.num_actions)
        self.optimizer = torch.optim.Adam(self.agent.parameters(), lr=2.5e-4, eps=1e-5)
        self.batch = Batch.empty(game)
        self.state: State = (torch.zeros(game.num_rows, 128), torch.zeros(game.num_rows, 128))
        self.is_first = torch.ones(game.num_rows)
        self.minibatches = minibatches

    @torch.no_grad()
    def rollout(self) -> tuple[Tensor, Tensor]:
        """Fill the batch; advantages and returns [T, N] (GAE; a match that is cut off counts as over)."""
        game, batch = self.game, self.batch
        for t in range(T):
            batch.obs[t] = obs = torch.from_numpy(game.obs)
            batch.mask[t] = mask = torch.from_numpy(game.mask)
            batch.acting[t] = torch.from_numpy(game.acting)
            batch.is_first[t] = self.is_first
            hidden, self.state = self.agent.unroll(obs[None], self.is_first[None], self.state)
            chosen = self.agent.actions(hidden[0], mask)
            batch.action[t] = action = chosen.sample()
            batch.logp[t] = chosen.log_prob(action)
            batch.value[t] = self.agent.critic(hidden[0]).flatten()
            game.step(action.numpy())
            batch.reward[t] = torch.from_numpy(game.reward)
            self.is_first = torch.from_numpy((game.terminated | game.truncated).astype(np.float32))
        obs = torch.from_numpy(game.obs)
        hidden, _ = self.agent.unroll(obs[None], self.is_first[None], self.state)
        return self._gae(self.agent.critic(hidden[0]).flatten())

    def _gae(self, next_value: Tensor) -> tuple[Tensor, Tensor]:
        batch = self.batch
        advantage, last = torch.zeros_like(batch.reward), torch.zeros_like(next_value)
        goes_on = 1 - self.is_first
        for t in reversed(range(T)):
            delta = batch.reward[t] + GAMMA * goes_on * next_value - batch.value[t]
            advantage[t] = last = delta + GAMMA * LAMBDA * goes_on * last
            next_value, goes_on = batch.value[t], 1 - batch.is_first[t]
        return advantage, advantage + batch.value

    def update(self, state: State, advantage: Tensor, returns: Tensor) -> None:
        """One epoch over minibatches of rows; state is the LSTM's before the batch."""
        for chosen in torch.randperm(self.game.num_rows).chunk(self.minibatches):
            part = Batch(*(field[:, chosen] for field in self.batch))
            hidden, _ = self.agent.unroll(part.obs, part.is_first, (state[0][chosen], state[1][chosen]))
            loss = self._loss(hidden, part, advantage[:, chosen], returns[:, chosen])
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.agent.parameters(), 0.5)
            self.optimizer.step()

    def _loss(self, hidden: Tensor, part: Batch, advantage: Tensor, returns: Tensor) -> Tensor:
        """PPO's loss over the rows that act."""
        acting = part.acting
        chosen = self.agent.actions(hidden[acting], part.mask[acting])
        ratio = (chosen.log_prob(part.action[acting]) - part.logp[acting]).exp()
        advantage = advantage[acting]
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        policy = -torch.min(advantage * ratio, advantage * ratio.clamp(1 - CLIP, 1 + CLIP)).mean()
        value = self.agent.critic(hidden[acting]).flatten()
        error = 0.5 * (value - returns[acting]).square().mean()
        return policy - ENTROPY * chosen.entropy().mean() + VALUE * error


def measure(
    workload: str, seconds: float, *, num_games: int, minibatches: int, threads: int, game_processes: int
) -> common.Measured:
    """Whole iterations of rollout and update for so many seconds."""
    game = rows.make(workload, num_games, processes=game_processes)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    loop = Loop(game, minibatches)
    meter = common.Meter(seconds)
    going = True
    while going:
        state = loop.state
        loop.update(state, *loop.rollout())
        going = meter.tick(int(loop.batch.acting.sum()), loop.batch.acting.numel())
    return meter.result()


if __name__ == "__main__":
    common.main(__doc__, measure, SETTINGS)
