"""Gymnasium's tasks as games of one seat: `gymnasium:ID`, also "module:ID", whose module is imported first.

One object for each match: the vectorised versions that Gymnasium has of its own (CartPole's, as of 1.2)
reset their matches by themselves, with chance from one generator for all, so that no match has a seed.
"""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import os
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.modules import import_module, one_line
from envs.python_games import Match, Moment, PythonGames, Seat
from envs.vector import VectorEnv

MASK = "action_mask"
_PACKAGES = ("popgym",)
"""Packages whose ids begin with their name, "popgym-...", and are known once they are imported."""

_LEAVES_TRACES = ("BipedalWalker*",)
"""Tasks whose reset does not undo everything: what was played before shows in the next episode."""


def load(id: str, name: str) -> Callable[..., VectorEnv]:
    """The factory (num_games, **kwargs) of the task; kwargs go to `gymnasium.make`."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # it goes to stdout
    module, colon, task = name.rpartition(":")
    package = module if colon else next((p for p in _PACKAGES if name.startswith(f"{p}-")), "")
    if package:
        import_module(id, package)
    _check_known(id, task)

    def make(num_games: int, *, fresh: bool | None = None, **kwargs: Any) -> VectorEnv:
        """fresh: a new object for each match; None: where it is known to be needed."""
        anew = any(fnmatch.fnmatchcase(task, name) for name in _LEAVES_TRACES) if fresh is None else fresh
        return _make(id, task, num_games, anew, kwargs)

    return make


def _check_known(id: str, task: str) -> None:
    """Raises ValueError with the nearest names unless Gymnasium's registry has the task."""
    try:
        gymnasium.spec(task)
    except gymnasium.error.Error as error:
        near = difflib.get_close_matches(task, gymnasium.registry, n=3)
        hint = f"; near is {', '.join(near)}" if near else ""
        if isinstance(error, gymnasium.error.NamespaceNotFound):
            hint += "; the package that registers it goes before its id: gymnasium:MODULE:ID"
        raise ValueError(f"game {id!r}: {one_line(error)}{hint}") from error


def _make(id: str, task: str, num_games: int, fresh: bool, kwargs: dict[str, Any]) -> PythonGames:
    env = _construct(id, task, kwargs)
    if "render_mode" not in kwargs and "ansi" in env.metadata.get("render_modes", ()):
        kwargs = kwargs | {"render_mode": "ansi"}
    try:
        obs, info = env.reset(seed=0)
    except Exception as error:  # a task may fail in any way
        raise ValueError(f"game {id!r}: its reset fails: {one_line(error)}") from error
    has_mask = MASK in info and isinstance(env.action_space, spaces.Discrete)
    seats = [Seat("agent", env.observation_space, env.action_space, has_mask)]
    with contextlib.suppress(Exception):  # it was made for a look only
        env.close()
    return PythonGames(
        id, lambda: _Task(_construct(id, task, kwargs), has_mask), num_games, seats, [0], fresh=fresh
    )


def _construct(id: str, task: str, kwargs: dict[str, Any]) -> gymnasium.Env:
    """One object of the task, without the wrappers that repeat our checks at every step."""
    if kwargs.get("render_mode") != "human":
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame must not look for a screen
    try:
        return gymnasium.make(task, **{"disable_env_checker": True} | kwargs)
    except Exception as error:  # a constructor may fail in any way
        raise ValueError(f"game {id!r}: cannot be made: {one_line(error)}") from error


class _Task(Match):
    """One episode of a task."""

    def __init__(self, env: gymnasium.Env, has_mask: bool) -> None:
        self._env = env
        self._has_mask = has_mask
        self._last = "nothing"

    def reset(self, seed: int) -> Moment:
        obs, info = self._env.reset(seed=seed % 2**31)  # some tasks take no larger seeds
        self._last = "nothing"
        return Moment([0], {0: obs}, self._mask(info))

    def step(self, actions: dict[int, Any]) -> Moment:
        obs, reward, terminated, truncated, info = self._env.step(actions[0])
        self._last = f"{actions[0]}, reward {float(reward):g}"
        return Moment(
            [] if terminated or truncated else [0],
            {0: obs},
            self._mask(info),
            {0: float(reward)},
            [0] if terminated else [],
            [0] if truncated else [],
        )

    def _mask(self, info: dict[str, Any]) -> dict[int, Any]:
        if not self._has_mask:
            return {}
        mask = info.get(MASK)
        return {0: np.ones(self._env.action_space.n, np.bool_) if mask is None else mask}  # type: ignore[attr-defined]

    def render(self) -> str:
        """The task's own text where it has one, else what was done last."""
        drawn = self._env.render() if self._env.render_mode == "ansi" else None
        return drawn if isinstance(drawn, str) else f"last action: {self._last}"

    def close(self) -> None:
        self._env.close()
