"""Legal actions as other libraries give them: under "action_mask", in the observation or beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.leaves import leaf_spaces
from envs.rows import num_choices

MASK = "action_mask"


def takes_mask(action_space: spaces.Space) -> bool:
    """Whether any part of an action is a choice, of which a mask may forbid some."""
    return any(num_choices(leaf) for leaf in leaf_spaces(action_space).values())


def has_own_mask(space: spaces.Space, action_space: spaces.Space) -> bool:
    """Whether observations of this space bring the mask of the actions."""
    return isinstance(space, spaces.Dict) and MASK in space.spaces and takes_mask(action_space)


def without_mask(space: spaces.Dict) -> spaces.Space:
    """What is seen beside the mask: "observation" if that is all, else all other keys."""
    rest = {key: child for key, child in space.items() if key != MASK}
    return rest["observation"] if [*rest] == ["observation"] else spaces.Dict(rest)


def divided(obs: Mapping[str, Any]) -> tuple[Any, Any]:
    """An observation that brings its mask as what is seen, divided as `without_mask` says, and the mask."""
    rest = {key: value for key, value in obs.items() if key != MASK}
    return (rest["observation"] if [*rest] == ["observation"] else rest), obs[MASK]


def all_legal(space: spaces.Space) -> Any:
    """A mask that allows everything, nested as the action space is."""
    if isinstance(space, spaces.Dict):
        return {key: all_legal(child) for key, child in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(all_legal(child) for child in space)
    return np.ones(sum(num_choices(space)), np.bool_)
