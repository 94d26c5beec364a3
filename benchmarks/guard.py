"""Ours against a fixed plain loop in torch's own modules, in one run on one thread: what CI watches.

    python -m benchmarks.guard

The plain loop plays and learns the same Connect Four with the same network, batch and minibatches, by
`nn.LSTMCell` step by step, `Categorical`, autograd and Adam, as a tutorial has it. Both are timed in turn by
their own CPU time, and the ratio of the medians is what matters: a machine's speed cancels out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from envs.registry import make
from envs.vector import VectorEnv
from selfplay import config as configuration
from selfplay.engine import make_learners
from selfplay.fragments import Fragment
from selfplay.matches import MAIN, Lineups
from selfplay.worker import Worker

GAMES, LENGTH, MINIBATCHES, ROUNDS = 256, 16, 4, 5


class Ratios(NamedTuple):
    """How many times as fast as the plain loop, per decision."""

    acting: float  # game, network, sampling, recording
    learning: float  # one epoch


class Plain(nn.Module):
    """128 ReLU units, an LSTM cell of 128, seven logits and a value."""

    def __init__(self, inputs: int, actions: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(inputs, 128)
        self.cell = nn.LSTMCell(128, 128)
        self.actor, self.critic = nn.Linear(128, actions), nn.Linear(128, 1)

    def forward(
        self, x: Tensor, legal: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Categorical, Tensor, tuple[Tensor, Tensor]]:
        """x [N, K], legal [N, A], state two of [N, 128]."""
        hidden, cell = self.cell(torch.relu(self.encoder(x)), state)
        logits = self.actor(hidden).masked_fill(~legal, -1e9)
        return Categorical(logits=logits), self.critic(hidden)[:, 0], (hidden, cell)


def plain_acting(net: Plain, env: VectorEnv, ticks: int) -> int:
    """Play on, both seats by one forward of the rows to act; gives the decisions made."""
    group, decisions = env.groups[0], 0
    state = torch.zeros(2, env.num_games, len(group.seats), 128)
    stored = []
    for _ in range(ticks):
        over = np.flatnonzero(env.over)
        if len(over):
            env.restart(over, np.arange(len(over), dtype=np.uint64))
            state[:, over] = 0.0
        rows = torch.from_numpy(env.to_act.copy())
        x = torch.from_numpy(group.obs[""]).float()[rows].flatten(1)
        legal = torch.from_numpy(group.mask[""])[rows]
        with torch.no_grad():
            choice, value, after = net(x, legal, (state[0][rows], state[1][rows]))
            action = choice.sample()
            stored.append((x, legal, action, choice.log_prob(action), value))
        for part, new in zip(state, after, strict=True):
            part[rows] = new
        actions = np.zeros(env.to_act.shape, group.action_space.dtype)
        actions[env.to_act] = action.numpy()
        env.step(({"": actions},))
        decisions += len(action)
    return decisions


def plain_update(net: Plain, adam: torch.optim.Optimizer, fragment: Fragment) -> None:
    """One epoch of PPO over whole lanes, minibatches of lanes."""
    x = torch.from_numpy(fragment.obs[""]).float().flatten(2)
    legal, action = torch.from_numpy(fragment.mask[""]), torch.from_numpy(fragment.action[""])
    keep = (~torch.from_numpy(fragment.is_first)).float()[..., None]
    old, advantage = torch.from_numpy(fragment.logp), torch.from_numpy(fragment.reward)
    first = torch.from_numpy(fragment.initial_state)[0]
    for lanes in torch.randperm(fragment.num_lanes).chunk(MINIBATCHES):
        state, terms = (first[0, lanes], first[1, lanes]), []
        for t in range(len(x)):
            state = (state[0] * keep[t, lanes], state[1] * keep[t, lanes])
            choice, value, state = net(x[t, lanes], legal[t, lanes], state)
            ratio = (choice.log_prob(action[t, lanes]) - old[t, lanes]).exp()
            gain = advantage[t, lanes]
            policy = -torch.minimum(ratio * gain, ratio.clamp(0.8, 1.2) * gain)
            terms.append((policy + 0.5 * (value - gain).square() - 0.01 * choice.entropy()).mean())
        adam.zero_grad()
        torch.stack(terms).mean().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        adam.step()


def measure() -> Ratios:
    """Both ways, in turn."""
    torch.set_num_threads(1)
    config = configuration.load(
        "connect_four",
        {
            "rollout.num_games": GAMES,
            "rollout.num_workers": 0,
            "rollout.fragment_length": LENGTH,
            "ppo.num_minibatches": MINIBATCHES,
        },
    )
    worker, learners = Worker(config, 0, 1), make_learners(config, "cpu", 1)
    weights = learners.weights()
    lineups = Lineups((MAIN,), np.zeros((GAMES, 2), np.int32))
    env = make("connect_four", GAMES, **config.env.train_kwargs)
    net = Plain(int(np.prod(env.groups[0].obs[""].shape[2:])), env.groups[0].mask[""].shape[2])
    adam = torch.optim.Adam(net.parameters(), fused=True)
    batch = worker.collect(weights, 0, lineups, _no_past_self)[0]
    fragment = batch[0]
    assert fragment is not None

    size = fragment.is_first.size

    def acting() -> int:
        before = worker.rollout.matches.decisions
        worker.collect(weights, 0, lineups, _no_past_self)
        return worker.rollout.matches.decisions - before

    def learning() -> int:
        learners.update([batch])
        return size

    def plain_learning() -> int:
        plain_update(net, adam, fragment)
        return size

    return Ratios(
        _ratio(lambda: plain_acting(net, env, 2 * LENGTH), acting), _ratio(plain_learning, learning)
    )


def _no_past_self(name: str) -> dict[str, np.ndarray]:
    """Weights of a past self: nobody meets any here."""
    raise AssertionError(name)


def _ratio(plain: Callable[[], int], ours: Callable[[], int]) -> float:
    """Seconds of a decision, theirs over ours: medians of calls in turn, after one of each."""
    seconds: dict[Callable[[], int], list[float]] = {plain: [], ours: []}
    for _ in range(1 + ROUNDS):
        for function, spent in seconds.items():
            start = time.process_time()
            decisions = function()
            spent.append((time.process_time() - start) / decisions)
    theirs, own = (statistics.median(spent[1:]) for spent in seconds.values())
    return theirs / own


if __name__ == "__main__":
    acting, learning = measure()
    print(f"times as fast as the plain loop: acting {acting:.2f}, learning {learning:.2f}")
