"""What native games share at their edge: checks of what they are given, and their state as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from envs.vector import GameError, Tree


def check_int(id: str, name: str, value: Any, low: int, high: int | None) -> None:
    """Raises ValueError unless value is an integer from low to high (None: no end)."""
    sound = isinstance(value, int) and not isinstance(value, bool)
    if not sound or value < low or (high is not None and value > high):
        allowed = f"from {low} to {high}" if high is not None else f"of at least {low}"
        raise ValueError(f"{id}: {name}={value!r} must be an integer {allowed}")


def check_choice(id: str, name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raises ValueError unless value is one of the choices (and of its type: 1 is not True)."""
    if not any(value == choice and type(value) is type(choice) for choice in choices):
        allowed = ", ".join(map(repr, choices))
        raise ValueError(f"{id}: {name}={value!r} must be one of {allowed}")


def check_restart(
    id: str, num_games: int, games: np.ndarray, seeds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """games [K] int64 and seeds [K] uint64 for kernels; GameError unless they are slots and seeds."""
    if games.ndim != 1 or games.shape != seeds.shape:
        raise GameError(f"{id}: restart takes games [K] and seeds [K], not {games.shape} and {seeds.shape}")
    if games.size and (games.min() < 0 or games.max() >= num_games):
        raise GameError(f"{id}: restart of a match outside 0..{num_games - 1}: {games}")
    return games.astype(np.int64, copy=False), seeds.astype(np.uint64, copy=False)


def check_array(id: str, name: str, array: np.ndarray, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """Raises GameError unless the array has this shape and dtype."""
    if array.shape != shape or array.dtype != dtype:
        expected = f"{np.dtype(dtype)} {shape}"
        raise GameError(f"{id}: {name} must be {expected}, not {array.dtype} {array.shape}")


def copy_state(own: Mapping[str, np.ndarray]) -> Tree:
    """A copy of the arrays that the matches consist of."""
    return {name: array.copy() for name, array in own.items()}


def load_state(id: str, own: Mapping[str, np.ndarray], state: Tree) -> None:
    """Overwrite these arrays in place by what `copy_state` gave; one that does not fit changes nothing."""
    if state.keys() != own.keys():
        raise GameError(f"{id}: the state must hold {sorted(own)}, not {sorted(state)}")
    for name, array in own.items():
        check_array(id, f"state {name!r}", state[name], array.shape, array.dtype)
    for name, array in own.items():
        array[...] = state[name]
