"""Our games as RLlib environments: the way from `envs.registry` to `MultiAgentEnv`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from envs.one_match import OneMatch
from envs.vector import GameError, Tree
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
        self._match = OneMatch(kwargs.pop("game"), kwargs)
        self.agents = self.possible_agents = list(self._match.seat_names)
        self._masks: list[list[np.ndarray]] = [[] for _ in self.agents]  # of each seat, views of the game's
        for group in self._match.env.groups:
            for place, seat in enumerate(group.seats):
                self._masks[seat] = [mask[0, place] for mask in group.mask.values()]
        self._previous_spaces = [previous_space(space) for space in self._match.action_spaces]
        named = list(zip(self.agents, self._match.observation_spaces, self._match.action_spaces, self._masks))
        self.observation_spaces = {
            name: module_space(space, action, mask_size=sum(map(len, masks)), previous=self._shows_previous)
            for name, space, action, masks in named
        }
        self.action_spaces = {name: action for name, _, action, _ in named}
        super().__init__()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self._match.restart(self.np_random)
        self._ended = np.zeros(len(self.agents), np.bool_)  # [A] whose episodes are over
        self._last_action = [_zeros(space) for space in self._previous_spaces]
        self._earned = np.zeros((len(self.agents), 1), np.float32)  # [A, 1] since the seat's last decision
        return self._shown(self._match.env.to_act[0]), {}

    def step(self, action_dict: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
        """Actions of the seats that were to act -> what those see that are now, and those cut off."""
        for name, action in action_dict.items():
            self._take(self.possible_agents.index(name), action)
        env, before = self._match.env, self._ended.copy()
        self._match.step()
        self._earned += env.reward[0][:, None]
        terminated, truncated = env.terminated[0], env.truncated[0]
        self._ended |= terminated | truncated
        over, cut = bool(env.over[0]), bool(truncated.any())
        # RLlib ends all agents alike and asks each that is cut off for a view. Where some are, those whose
        # episode ended by the rules show their last one again; nothing is learned from it.
        shown = env.to_act[0] | truncated | (terminated if over and cut else False)
        return (
            self._shown(shown),
            {name: float(env.reward[0, k]) for k, name in enumerate(self.possible_agents) if not before[k]},
            dict(zip(self.possible_agents, terminated.tolist())) | {"__all__": over and not cut},
            dict(zip(self.possible_agents, truncated.tolist())) | {"__all__": over and cut},
            {},
        )

    def render(self) -> str:
        return self._match.env.render(0)

    def _take(self, seat: int, action: Any) -> None:
        """Note a seat's action, for the game and for what the seat sees next."""
        if refusal := self._match.put(seat, action):
            raise GameError(refusal)
        space = self._match.action_spaces[seat]
        row = {path: np.asarray(_descend(action, path))[None] for path in leaves(space)}
        self._last_action[seat] = {path: leaf[0] for path, leaf in previous_rows(space, row).items()}
        self._earned[seat] = 0

    def _shown(self, seats: np.ndarray) -> dict[str, Any]:
        """What these seats [A] bool see."""
        return {self.possible_agents[seat]: self._view(int(seat)) for seat in np.flatnonzero(seats)}

    def _view(self, seat: int) -> Any:
        """What a seat sees, as its space has it; a copy."""
        seen = self._match.observation(seat)
        beside: dict[str, Any] = {}
        if self._masks[seat]:
            beside[ACTION_MASK] = np.concatenate(self._masks[seat]).astype(np.int8)
        if self._shows_previous:
            beside[LAST_ACTION] = _nest(self._previous_spaces[seat], self._last_action[seat])
            beside[LAST_REWARD] = self._earned[seat].copy()
        return {OBSERVATIONS: seen, **beside} if beside else seen


def _zeros(space: gymnasium.Space) -> Tree:
    return {path: np.zeros(leaf.shape or (), leaf.dtype) for path, leaf in leaves(space).items()}


def _nest(space: gymnasium.Space, found: Tree, path: str = "") -> Any:
    """Leaves by path -> a value of the space as RLlib batches it: dicts, tuples and arrays."""
    if isinstance(space, spaces.Dict):
        return {key: _nest(child, found, _join(path, key)) for key, child in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_nest(child, found, _join(path, str(k))) for k, child in enumerate(space))
    return found[path]


def _join(path: str, key: str) -> str:
    return f"{path}/{key}" if path else key


def _descend(value: Any, path: str) -> Any:
    """The leaf at a path of a nested value."""
    for key in path.split("/") if path else ():
        value = value[key] if isinstance(value, Mapping) else value[int(key)]
    return value
