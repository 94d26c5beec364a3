"""A workload as most frames see one: N rows that all step together, each an agent of its own.

A row is a seat of a match. Rows of a seat that waits for its turn are stepped too: they show the match, and
have one legal action, 0, which is ignored. A match that is over begins anew within the same step.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np

from envs import registry
from envs.vector import VectorEnv

SHOWN = ("obs", "mask", "acting", "reward", "terminated", "truncated")
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


def make(workload: str, num_games: int, seed: int = 0, processes: int = 1) -> Rows:
    """The workload with so many matches, the first of them open, shared equally among processes."""
    if processes > 1:
        return SplitRows(workload, num_games, seed, processes)
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
            np.logical_and(self._legal.reshape(self.mask.shape), self.acting[:, None], out=self.mask)
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


class SplitRows:
    """Equal parts of the matches, each stepped by a process of its own; this one has the last part.

    Worth it for games whose steps are Python. The others are forked: make it before any thread starts.
    """

    obs: np.ndarray
    mask: np.ndarray
    acting: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray

    def __init__(self, workload: str, num_games: int, seed: int, processes: int) -> None:
        if num_games % processes:
            raise ValueError(f"{num_games} matches cannot be shared equally among {processes} processes")
        part_games = num_games // processes
        self._own = own = make(workload, part_games, seed)
        self.seats, self.num_actions = own.seats, own.num_actions
        self.num_rows = own.num_rows * processes
        for name in SHOWN:
            setattr(self, name, self._shared(getattr(own, name)))
        self._action = self._shared(np.zeros(0, np.int64))
        context = multiprocessing.get_context("fork")
        self._pipes = []
        for part in range(processes - 1):
            here, there = context.Pipe()
            arguments = (here, there, workload, part_games, seed + 1 + part, part)
            context.Process(target=self._serve, args=arguments, daemon=True).start()
            self._pipes.append(here)
        self._own_part = processes - 1
        self._show(own, self._own_part)
        for pipe in self._pipes:
            pipe.recv_bytes()

    def step(self, action: np.ndarray) -> None:
        self._action[:] = action
        for pipe in self._pipes:
            pipe.send_bytes(b"")
        self._step_part(self._own, self._own_part)
        for pipe in self._pipes:
            pipe.recv_bytes()

    def _shared(self, part: np.ndarray) -> np.ndarray:
        """Zeros in shared memory for all parts like this one, [N, ...]."""
        shape = (self.num_rows, *part.shape[1:])
        memory = multiprocessing.RawArray("b", int(np.prod(shape)) * part.itemsize)
        return np.frombuffer(memory, part.dtype).reshape(shape)

    def _serve(
        self, theirs: Connection, pipe: Connection, workload: str, num_games: int, seed: int, part: int
    ) -> None:
        theirs.close()  # else the end of their process would not be seen here
        game = make(workload, num_games, seed)
        self._show(game, part)
        with contextlib.suppress(EOFError, BrokenPipeError):
            while True:
                pipe.send_bytes(b"")
                pipe.recv_bytes()
                self._step_part(game, part)

    def _step_part(self, game: Rows, part: int) -> None:
        game.step(self._action[part * game.num_rows : (part + 1) * game.num_rows])
        self._show(game, part)

    def _show(self, game: Rows, part: int) -> None:
        for name in SHOWN:
            getattr(self, name)[part * game.num_rows : (part + 1) * game.num_rows] = getattr(game, name)


def _made_legal(action: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """action [N] with the illegal ones, by mask [N, n], replaced by legal ones drawn uniformly."""
    illegal = np.flatnonzero(~mask[np.arange(len(action)), action])
    if len(illegal):
        action = action.copy()
        action[illegal] = (rng.random((len(illegal), mask.shape[1])) * mask[illegal]).argmax(axis=1)
    return action
