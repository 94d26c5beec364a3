"""What native games share: their arrays, checks of what they are given, and their state.

B games, A seats. Kernels here take plain arrays, not a game's named tuple: Numba files what it compiles under
the types of its arguments, and to read that cache would import every game that ever used the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import DTypeLike

from envs.vector import GameError, Tree


def shown(num_games: int, num_seats: int) -> Tree:
    """The arrays of the vector protocol that every game overwrites, all matches being over."""
    return {
        "to_act": np.zeros((num_games, num_seats), np.bool_),
        "reward": np.zeros((num_games, num_seats), np.float32),
        "terminated": np.zeros((num_games, num_seats), np.bool_),
        "over": np.ones(num_games, np.bool_),
    }


@njit(cache=True, nogil=True)
def clear(game: int, reward: np.ndarray, terminated: np.ndarray, over: np.ndarray) -> None:
    """Reward [B, A] and endings of one slot as a new match has them."""
    reward[game] = 0
    terminated[game] = False
    over[game] = False


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


def check_turn(id: str, action: np.ndarray, over: np.ndarray, to_act: np.ndarray, legal: np.ndarray) -> None:
    """In games of two seats in turn: GameError unless the one to act asks for what is legal.

    action [B, 2] int64, over [B] bool, to_act [B, 2] bool, legal [B, 2, n] bool.
    """
    check_array(id, "the action", action, to_act.shape, np.int64)
    game = _first_illegal(action, over, to_act, legal)
    if game >= 0:
        seat = int(to_act[game, 1])
        raise illegal_action(id, game, seat, action[game, seat], np.flatnonzero(legal[game, seat]).tolist())


@njit(cache=True, nogil=True)
def _first_illegal(action: np.ndarray, over: np.ndarray, to_act: np.ndarray, legal: np.ndarray) -> int:
    """The first match in play whose seat to act asks for what is not legal; -1 if none does."""
    for game in range(over.shape[0]):
        if over[game]:
            continue
        seat = int(to_act[game, 1])  # no branch: whose turn it is cannot be predicted
        asked = action[game, seat]
        if asked < 0 or asked >= legal.shape[2] or not legal[game, seat, asked]:
            return game
    return -1


def illegal_action(id: str, game: int, seat: int, action: Any, legal: str | list[int]) -> GameError:
    """The error that says who asked for what, and what is legal: in words, or all such actions."""
    allowed = f": {legal}" if isinstance(legal, str) else f" are {legal}"
    return GameError(f"{id}, match {game}, seat {seat}: action {action} is illegal; legal{allowed}")


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


def hidden(card: str, holder: int, seat: int | None) -> str:
    """A card as a seat may see it: its own only; None: everybody's."""
    return card if seat in (None, holder) else "?"
