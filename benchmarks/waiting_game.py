"""A game that costs what it is told to: `pettingzoo:benchmarks.waiting_game`, for `benchmarks.slow_games`.

Two agents act at once, 25 times; each step takes 200 us of a core, and touches no memory to speak of, so
that all that comes on top of it is what plays and learns.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

LENGTH = 25


class WaitingGame(ParallelEnv[str, np.ndarray, int]):
    """Whoever takes action 0 earns 1 of the other."""

    metadata = {"name": "waiting_game_v0"}  # noqa: RUF012 (PettingZoo's way)

    def __init__(self, seconds: float) -> None:
        """seconds: of a core, for a step."""
        self._seconds = seconds
        self.possible_agents = ["first", "second"]
        self.agents: list[str] = []
        self._obs = {agent: np.zeros(16, np.float32) for agent in self.possible_agents}
        self._infos: dict[str, dict[str, Any]] = {agent: {} for agent in self.possible_agents}
        self._obs_space = spaces.Box(-np.inf, np.inf, (16,), np.float32)
        self._action_space: spaces.Discrete = spaces.Discrete(5)
        self._steps = 0

    def observation_space(self, agent: str) -> spaces.Box:
        return self._obs_space

    def action_space(self, agent: str) -> spaces.Discrete:
        return self._action_space

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
        self.agents, self._steps = [*self.possible_agents], 0
        return self._obs, self._infos

    def step(self, actions: dict[str, int]) -> tuple[dict[str, Any], ...]:
        end = time.thread_time() + self._seconds  # of this thread: what runs in between is no part of it
        while time.thread_time() < end:
            pass
        self._steps += 1
        first = float(actions["first"] == 0) - float(actions["second"] == 0)
        cut = self._steps == LENGTH
        if cut:
            self.agents = []
        flags = [dict.fromkeys(self.possible_agents, flag) for flag in (False, cut)]
        return self._obs, {"first": first, "second": -first}, *flags, self._infos


def parallel_env(seconds: float = 200e-6) -> WaitingGame:
    return WaitingGame(seconds)
