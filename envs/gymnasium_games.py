"""Gymnasium's tasks as games of one seat: `gymnasium:ID`, also "module:ID", whose module is imported first.

One object for each match: the vectorised versions that Gymnasium has of its own (CartPole's, as of 1.2)
reset their matches by themselves, with chance from one generator for all, so that no match has a seed.
"""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import os
from collections.abc import Callable, Mapping
from typing import Any, Literal

import gymnasium
import numpy as np

from envs.failures import RAISED, parts
from envs.masks import MASK, all_legal, divided, has_own_mask, takes_mask, without_mask
from envs.modules import import_module, one_line
from envs.python_games import Match, Moment, PythonGames, Seat
from envs.vector import GameError, VectorEnv

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
    space, source = env.observation_space, _mask_source(id, env)
    if source == "obs":
        assert isinstance(space, gymnasium.spaces.Dict)
        space = without_mask(space)
    seats = [Seat("agent", space, env.action_space, source is not None)]
    with contextlib.suppress(Exception):  # it was made for a look only
        env.close()
    return PythonGames(
        id, lambda: _Task(_construct(id, task, kwargs), source), num_games, seats, [0], fresh=fresh
    )


Source = Literal["obs", "info"] | None
"""Where a task's masks come from."""


def _mask_source(id: str, env: gymnasium.Env) -> Source:
    """Where the masks of the task come from, as its spaces and its first reset show."""
    try:
        _, info = _reset_parts(env.reset(seed=0))
    except GameError as error:
        raise ValueError(f"game {id!r}: {error}") from error
    except RAISED as error:
        raise ValueError(f"game {id!r}: its reset fails: {one_line(error)}") from error
    if has_own_mask(env.observation_space, env.action_space):
        return "obs"
    return "info" if MASK in info and takes_mask(env.action_space) else None


def _reset_parts(result: Any) -> tuple[Any, Mapping[str, Any]]:
    """Observation and info; an observation alone, as in Gym's old interface, is refused."""
    obs, info = parts("reset", result, ("observation", "info"))
    if not isinstance(info, Mapping):
        raise GameError(f"reset must return (observation, info), info being a dict, not {info!r:.80}")
    return obs, info


def _construct(id: str, task: str, kwargs: dict[str, Any]) -> gymnasium.Env:
    """One object of the task, without the wrappers that repeat our checks at every step."""
    if kwargs.get("render_mode") != "human":
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame must not look for a screen
    try:
        return gymnasium.make(task, **{"disable_env_checker": True} | kwargs)
    except RAISED as error:
        raise ValueError(f"game {id!r}: cannot be made: {one_line(error)}") from error


_STEP = ("observation", "reward", "terminated", "truncated", "info")


class _Task(Match):
    """One episode of a task."""

    def __init__(self, env: gymnasium.Env, masks: Source) -> None:
        self._env = env
        self._masks = masks
        self._takes_mask = takes_mask(env.action_space)
        self._all_legal = all_legal(env.action_space) if masks == "info" else None
        self._last: tuple[Any, Any] | None = None  # action and reward

    def reset(self, seed: int) -> Moment:
        obs, info = _reset_parts(self._env.reset(seed=seed % 2**31))  # some tasks take no larger seeds
        self._last = None
        return self._shown(Moment([0], {}), obs, info)

    def step(self, actions: dict[int, Any]) -> Moment:
        obs, reward, terminated, truncated, info = parts("step", self._env.step(actions[0]), _STEP)
        self._last = actions[0], reward
        moment = Moment(
            [] if terminated or truncated else [0],
            {},
            reward={0: reward},
            terminated=[0] if terminated else [],
            truncated=[0] if truncated else [],
        )
        return self._shown(moment, obs, info)

    def _shown(self, moment: Moment, obs: Any, info: Any) -> Moment:
        """The moment with what the agent sees and may do."""
        given = info.get(MASK) if isinstance(info, Mapping) else None
        if self._masks == "obs":
            if not isinstance(obs, Mapping) or MASK not in obs:
                raise GameError(f"seat 0: the observation has no {MASK!r}, though its space has one")
            obs, mask = divided(obs)
            moment.mask = {0: mask}
        elif self._masks == "info":
            moment.mask = {0: self._all_legal if given is None else given}
        elif given is not None and self._takes_mask:
            raise GameError(f"step's info has an {MASK!r}, but that of reset has none; give it in both")
        moment.obs = {0: obs}
        return moment

    def render(self) -> str:
        """The task's own text where it has one, else what was done last."""
        drawn = self._env.render() if self._env.render_mode == "ansi" else None
        return drawn if isinstance(drawn, str) else f"last action: {self._done()}"

    def _done(self) -> str:
        if self._last is None:
            return "nothing"
        action, reward = self._last
        return f"{action}, reward {np.ravel(reward)[0]:g}"

    def has_board(self) -> bool:
        return self._env.render_mode == "ansi"

    def close(self) -> None:
        self._env.close()
