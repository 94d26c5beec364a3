"""Our games as RLlib environments: the way from `envs.registry` to `MultiAgentEnv`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from envs.registry import make
from envs.vector import Group, Tree
from policies.spaces import leaves, previous_rows, previous_space
from selfplay.rllib.module import ACTION_MASK, LAST_ACTION, LAST_REWARD, OBSERVATIONS, module_space


class GameEnv(MultiAgentEnv):
    """One match of any game at a time. env_config: "game" is its id, the rest its kwargs.

    Agents are the seats: "seat_0", ..., or the names that the game gives them. Where the game tells the
    legal actions, an observation is {"observations": ..., "action_mask": MultiBinary(n)}, and an agent's
    module must heed the mask, as an exported policy does: an illegal action raises GameError. With
    "previous": True in env_config the agent's own last action and its reward stand beside them, for
    policies that read them. What a seat earns after its own end is lost: RLlib's episodes take nothing for
    agents that are done.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        kwargs = dict(config)
        self._shows_previous = bool(kwargs.pop("previous", False))
        self._env = make(kwargs.pop("game"), 1, **kwargs)
        num_seats = len(self._env.teams)
        names = getattr(self._env, "seat_names", None) or [f"seat_{seat}" for seat in range(num_seats)]
        self.agents = self.possible_agents = list(names)
        self._place: dict[int, tuple[int, int]] = {  # seat -> group, and place in it
            seat: (index, place)
            for index, group in enumerate(self._env.groups)
            for place, seat in enumerate(group.seats)
        }
        groups = [self._env.groups[self._place[seat][0]] for seat in range(num_seats)]
        self.observation_spaces = {name: self._space(group) for name, group in zip(names, groups)}
        self.action_spaces = {name: group.action_space for name, group in zip(names, groups)}
        self._ended = np.zeros(num_seats, np.bool_)  # whose episodes are over
        self._actions = [_rows(group.action_space, group) for group in self._env.groups]
        self._last_action = [_rows(previous_space(group.action_space), group) for group in self._env.groups]
        self._earned = np.zeros((num_seats, 1), np.float32)  # since the seat's last decision
        super().__init__()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        draw = self.np_random.integers(2**64, size=1, dtype=np.uint64)
        self._env.restart(np.zeros(1, np.int64), draw)
        self._ended[:], self._earned[:] = False, 0
        for tree in self._last_action:
            for leaf in tree.values():
                leaf[:] = 0
        return self._shown(self._env.to_act[0]), {}

    def step(self, action_dict: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
        """Actions of the seats that were to act -> what those see that are now, and those cut off."""
        for name, action in action_dict.items():
            self._take(self.possible_agents.index(name), action)
        env, before = self._env, self._ended.copy()
        env.step(tuple({path: leaf[None] for path, leaf in tree.items()} for tree in self._actions))
        self._earned += env.reward[0][:, None]
        terminated, truncated = env.terminated[0], env.truncated[0]
        self._ended |= terminated | truncated
        over, cut = bool(env.over[0]), bool(truncated.any())
        obs = self._shown(env.to_act[0] | truncated)
        if over and cut:
            # RLlib ends all agents alike and asks each that is cut off for a view: this one is not used.
            obs |= {self.possible_agents[seat]: self._blank(seat) for seat in _true(terminated)}
        return (
            obs,
            {name: float(env.reward[0, k]) for k, name in enumerate(self.possible_agents) if not before[k]},
            dict(zip(self.possible_agents, terminated.tolist())) | {"__all__": over and not cut},
            dict(zip(self.possible_agents, truncated.tolist())) | {"__all__": over and cut},
            {},
        )

    def render(self) -> str:
        return self._env.render(0)

    def _take(self, seat: int, action: Any) -> None:
        """Note a seat's action, for the game and for what the seat sees next."""
        index, place = self._place[seat]
        for path, leaf in self._actions[index].items():
            leaf[place] = _descend(action, path)
        row = {path: leaf[place : place + 1] for path, leaf in self._actions[index].items()}
        for path, leaf in previous_rows(self._env.groups[index].action_space, row).items():
            self._last_action[index][path][place] = leaf[0]
        self._earned[seat] = 0

    def _space(self, group: Group) -> gymnasium.Space:
        return module_space(
            group.observation_space,
            group.action_space,
            mask_size=sum(leaf.shape[2] for leaf in group.mask.values()),
            previous=self._shows_previous,
        )

    def _shown(self, seats: np.ndarray) -> dict[str, Any]:
        """What these seats [A] bool see, copied."""
        return {self.possible_agents[seat]: self._view(seat) for seat in _true(seats)}

    def _view(self, seat: int) -> Any:
        """What a seat sees, as its space has it."""
        index, place = self._place[seat]
        group = self._env.groups[index]
        seen = _nest(group.observation_space, {path: leaf[0, place] for path, leaf in group.obs.items()})
        beside: dict[str, Any] = {}
        if group.mask:
            mask = np.concatenate([leaf[0, place] for leaf in group.mask.values()])
            beside[ACTION_MASK] = mask.astype(np.int8)
        if self._shows_previous:
            last = {path: leaf[place] for path, leaf in self._last_action[index].items()}
            beside[LAST_ACTION] = _nest(previous_space(group.action_space), last)
            beside[LAST_REWARD] = self._earned[seat].copy()
        return {OBSERVATIONS: seen, **beside} if beside else seen

    def _blank(self, seat: int) -> Any:
        """A view of zeros."""
        space = self.observation_spaces[self.possible_agents[seat]]
        zeros = {path: np.zeros(leaf.shape or (), leaf.dtype) for path, leaf in leaves(space).items()}
        return _nest(space, zeros)


def _true(flags: np.ndarray) -> list[int]:
    return [int(seat) for seat in np.flatnonzero(flags)]


def _rows(space: gymnasium.Space, group: Group) -> Tree:
    """Zeros for each seat of the group: leaves [S, ...] of the space."""
    return {
        path: np.zeros((len(group.seats), *(leaf.shape or ())), leaf.dtype)
        for path, leaf in leaves(space).items()
    }


def _nest(space: gymnasium.Space, found: Tree, path: str = "") -> Any:
    """Leaves by path -> a value of the space as RLlib batches it: dicts, tuples and arrays, copied."""
    if isinstance(space, spaces.Dict):
        return {key: _nest(child, found, _join(path, key)) for key, child in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_nest(child, found, _join(path, str(k))) for k, child in enumerate(space))
    return np.array(found[path])


def _join(path: str, key: str) -> str:
    return f"{path}/{key}" if path else key


def _descend(value: Any, path: str) -> Any:
    """The leaf at a path of a nested value."""
    for key in path.split("/") if path else ():
        value = value[key] if isinstance(value, Mapping) else value[int(key)]
    return value
