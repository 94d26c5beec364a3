"""Gymnasium spaces as flat trees, and what a policy sees beside the game's observation."""

from __future__ import annotations

from collections.abc import Mapping

import gymnasium
import numpy as np
from gymnasium import spaces

PREVIOUS_ACTION, PREVIOUS_REWARD, PRIVILEGED = "@action", "@reward", "@state"
"""Leaves beside the game's observation; those of several leaves go on with /PATH."""

REWARD_SPACE = spaces.Box(-np.inf, np.inf, (1,), np.float32)


def leaves(space: gymnasium.Space, path: str = "") -> dict[str, gymnasium.Space]:
    """The leaf spaces by path: "" for a leaf itself, "a/b" inside Dicts, "0/1" inside Tuples."""
    if isinstance(space, spaces.Dict):
        children = list(space.spaces.items())
    elif isinstance(space, spaces.Tuple):
        children = [(str(k), child) for k, child in enumerate(space.spaces)]
    else:
        return {path: space}
    return {
        leaf: child_space
        for name, child in children
        for leaf, child_space in leaves(child, f"{path}/{name}" if path else name).items()
    }


def dtype_of(space: gymnasium.Space) -> np.dtype:
    """The dtype of a leaf that has one."""
    assert space.dtype is not None
    return np.dtype(space.dtype)


def describe(path: str, space: gymnasium.Space) -> str:
    """A leaf by its path and its kind, on one line whatever its bounds."""
    where = f" {path!r}" if path else ""
    kind = f"{type(space).__name__}{list(space.shape) if space.shape else ''}"
    return f"{where} {kind}" + (f" of {space.dtype}" if isinstance(space, spaces.Box) else "")


def previous_space(space: gymnasium.Space) -> gymnasium.Space:
    """The space of a seat's previous action, where zeros are "none yet" (before the first decision).

    A choice of n becomes one of n + 1, 0 for none; flags and numbers stay, and are zeros for none.
    """
    if isinstance(space, spaces.Dict):
        return spaces.Dict([(name, previous_space(child)) for name, child in space.spaces.items()])
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple([previous_space(child) for child in space.spaces])
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(int(space.n) + 1)
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(space.nvec + 1, dtype=dtype_of(space).type)
    if isinstance(space, spaces.MultiBinary):
        return space
    if isinstance(space, spaces.Box):
        low, high = np.minimum(space.low, 0), np.maximum(space.high, 0)
        return spaces.Box(low, high, dtype=dtype_of(space).type)
    raise ValueError(
        f"no previous action for{describe('', space)}; allowed: Discrete, MultiDiscrete, MultiBinary, "
        "Box, and Dict or Tuple of these"
    )


def previous_rows(space: gymnasium.Space, action: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Actions taken, leaves [R, ...] of `space`, as leaves [R, ...] of `previous_space(space)`."""
    kinds = leaves(space)
    return {path: _previous_leaf(kinds[path], leaf) for path, leaf in action.items()}


def _previous_leaf(space: gymnasium.Space, action: np.ndarray) -> np.ndarray:
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return (action - space.start + 1).astype(dtype_of(space), copy=False)
    return action
