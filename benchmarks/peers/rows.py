"""A workload as most frames see one: N rows that all step together, each an agent of its own.

A row is a seat of a match. Rows of a seat that waits for its turn are stepped too: they show the match, and
have one legal action, 0, which is ignored. A match that is over begins anew within the same step.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from envs import registry
from envs.vector import VectorEnv

NATIVE = ("cartpole", "connect_four", "rock_paper_scissors")


class Rows(Protocol):
    """N rows; arrays are overwritten in place by `step`."""

    num_rows: int  # N = matches * seats, seats of one match side by side
    seats: int
    num_actions: int
    obs: np.ndarray  # [N, F] float32
    mask: np.ndarray  # [N, n] bool, legal; never all false
    acting: np.ndarray  # [N] bool, the seat is to act: the row is a decision
    reward: np.ndarray  # [N] float32, of the last step
    terminated: np.ndarray  # [N] bool, the last step ended the row's match; obs is a new one's first
    truncated: np.ndarray  # [N] bool, the last step cut the row's match off; likewise

    def step(self, action: np.ndarray) -> None:
        """action [N] of any integer type; one that is illegal becomes a legal one drawn uniformly."""


def make(workload: str, num_games: int, seed: int = 0) -> Rows:
    """The workload with so many matches, the first of them open."""
    if workload in NATIVE:
        return NativeRows(registry.make(workload, num_games), seed)
    return TagRows(num_games, seed)


class NativeRows:
    """A native game of one group of seats and one discrete action."""

    def __init__(self, env: VectorEnv, seed: int) -> None:
        group = env.groups[0]
        self._env = env
        self._rng = np.random.default_rng(seed)
        self._shown = group.obs[""]  # [B, S, ...]
        self._legal = group.mask.get("")  # [B, S, n]
        self.seats = len(group.seats)
        self.num_rows = rows = env.num_games * self.seats
        self.num_actions = int(group.action_space.n)  # type: ignore[attr-defined]
        self.obs = np.zeros((rows, self._shown[0, 0].size), np.float32)
        self.mask = np.ones((rows, self.num_actions), np.bool_)
        self.acting = env.to_act.reshape(rows)
        self.reward = np.zeros(rows, np.float32)
        self.terminated = np.zeros(rows, np.bool_)
        self.truncated = np.zeros(rows, np.bool_)
        self._restart()

    def step(self, action: np.ndarray) -> None:
        env = self._env
        action = _made_legal(np.asarray(action, np.int64), self.mask, self._rng)
        env.step(({"": action.reshape(env.to_act.shape)},))
        self.reward[:] = env.reward.reshape(-1)
        self.terminated[:] = env.terminated.reshape(-1)
        self.truncated[:] = env.truncated.reshape(-1)
        self._restart()

    def _restart(self) -> None:
        games = np.flatnonzero(self._env.over)
        self._env.restart(games, self._rng.integers(2**64, size=len(games), dtype=np.uint64))
        self.obs[:] = self._shown.reshape(self.obs.shape)
        if self._legal is not None:
            self.mask[:] = self._legal.reshape(self.mask.shape)
            self.mask[:, 0] |= ~self.acting


class TagRows:
    """PettingZoo's simple_tag, as many copies as matches; observations padded with zeros to one width."""

    seats = 4

    def __init__(self, num_games: int, seed: int) -> None:
        from mpe2 import simple_tag_v3

        self._games: list[Any] = [simple_tag_v3.parallel_env() for _ in range(num_games)]
        self._seats = self._games[0].possible_agents
        widths = [self._games[0].observation_space(seat).shape[0] for seat in self._seats]
        self.num_rows = rows = num_games * self.seats
        self.num_actions = int(self._games[0].action_space(self._seats[0]).n)
        self.obs = np.zeros((rows, max(widths)), np.float32)
        self.mask = np.ones((rows, self.num_actions), np.bool_)
        self.acting = np.ones(rows, np.bool_)
        self.reward = np.zeros(rows, np.float32)
        self.terminated = np.zeros(rows, np.bool_)
        self.truncated = np.zeros(rows, np.bool_)
        for index, game in enumerate(self._games):
            self._show(index, game.reset(seed=seed * num_games + index)[0])

    def step(self, action: np.ndarray) -> None:
        actions = action.reshape(-1, self.seats).tolist()
        for index, game in enumerate(self._games):
            obs, reward, terminated, truncated, _ = game.step(dict(zip(self._seats, actions[index])))
            for row, seat in enumerate(self._seats, index * self.seats):
                self.reward[row] = reward[seat]
                self.terminated[row] = terminated[seat]
                self.truncated[row] = truncated[seat]
            if not game.agents:
                obs, _ = game.reset()
            self._show(index, obs)

    def _show(self, game: int, obs: dict[str, np.ndarray]) -> None:
        for row, seat in enumerate(self._seats, game * self.seats):
            view = obs[seat]
            self.obs[row, : len(view)] = view


def _made_legal(action: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """action [N] with the illegal ones, by mask [N, n], replaced by legal ones drawn uniformly."""
    illegal = np.flatnonzero(~mask[np.arange(len(action)), action])
    if len(illegal):
        action = action.copy()
        action[illegal] = (rng.random((len(illegal), mask.shape[1])) * mask[illegal]).argmax(axis=1)
    return action
