"""Rows of leaf arrays from and to nested values of a space, for games that show one match at a time.

B games, S seats of a group. Mistakes are ValueErrors that name the leaf; the caller says which match.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from envs.leaves import leaf_spaces
from envs.vector import Tree

_LEAVES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def check_space(space: spaces.Space) -> None:
    """Raises ValueError unless a vector game can hold the space's values as arrays."""
    for path, leaf in leaf_spaces(space).items():
        if not isinstance(leaf, _LEAVES):
            raise ValueError(
                f"{_named('the space', path)} is {leaf}; allowed are Box, Discrete, MultiDiscrete, "
                "MultiBinary, and Dict and Tuple of them"
            )
        if 0 in (leaf.shape or ()):
            raise ValueError(f"{_named('the space', path)} is {leaf}, which holds nothing; leave it out")


def num_choices(space: spaces.Space) -> list[int]:
    """Number of values of each discrete part of a leaf; none for a Box."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiBinary):
        return [2] * int(np.prod(space.shape))
    return space.nvec.ravel().tolist() if isinstance(space, spaces.MultiDiscrete) else []


def empty_rows(space: spaces.Space, num_games: int, num_seats: int) -> Tree:
    """Zeros for each leaf of a space: [B, S, ...] in its dtype."""
    return {
        path: np.zeros((num_games, num_seats, *(leaf.shape or ())), leaf.dtype)
        for path, leaf in leaf_spaces(space).items()
    }


def empty_mask(space: spaces.Space, num_games: int, num_seats: int) -> Tree:
    """All false for each discrete leaf of an action space: [B, S, n], n values of all its parts."""
    return {
        path: np.zeros((num_games, num_seats, sum(choices)), np.bool_)
        for path, leaf in leaf_spaces(space).items()
        if (choices := num_choices(leaf))
    }


class _Leaf(NamedTuple):
    """A leaf of a space, and where its values go."""

    path: str
    rows: list[np.ndarray]  # views, counted over the leading indices: writing by index takes twice as long
    shape: tuple[int, ...]  # of a row
    dtype: np.dtype


def _leaf(path: str, array: np.ndarray, shape: tuple[int, ...]) -> _Leaf:
    """array: [..., *shape], in one piece."""
    rows = array.view()
    rows.shape = (-1, *shape)
    return _Leaf(path, [rows[k, ...] for k in range(len(rows))], shape, array.dtype)


class RowWriter:
    """Writes nested observations of one space into its leaves' arrays."""

    def __init__(self, space: spaces.Space, rows: Tree, word: str) -> None:
        """rows: leaf -> [..., *shape of the leaf]; word: what messages call the value, such as "obs"."""
        self._space = space
        self._word = word
        self._leaves = [
            _leaf(path, rows[path], leaf.shape or ()) for path, leaf in leaf_spaces(space).items()
        ]
        self._is_leaf = [leaf.path for leaf in self._leaves] == [""]
        only = self._leaves[0]
        # One vector: a memory view takes it if shape and dtype are the same, and finds out at once.
        is_vector = self._is_leaf and len(only.shape) == 1 and only.dtype.isnative
        self._vectors = [row.data for row in only.rows] if is_vector else None

    def write(self, value: Any, row: int) -> None:
        """Overwrite a row, counted over the leading indices, with a value of the space."""
        if self._vectors is not None:
            try:
                self._vectors[row][:] = value
                return
            except (TypeError, ValueError):
                pass  # it may still fit
        values = (value,) if self._is_leaf else self._parts(value)
        for (path, rows, shape, dtype), leaf in zip(self._leaves, values):
            if not (isinstance(leaf, np.ndarray) and leaf.dtype == dtype and leaf.shape == shape):
                leaf = _fit(leaf, shape, dtype, _named(self._word, path))
            rows[row][...] = leaf

    def _parts(self, value: Any) -> list[Any]:
        parts: list[Any] = []
        _split(self._space, value, "", self._word, parts)
        return parts


class MaskWriter:
    """Writes masks of one action space into the arrays of its discrete leaves."""

    def __init__(self, rows: Tree) -> None:
        """rows as from `empty_mask`."""
        self._leaves = [_leaf(path, mask, mask.shape[-1:]) for path, mask in rows.items()]

    def write(self, value: Any, row: int) -> None:
        """value: legal choices [n] of a leaf (or its parts' masks in a tuple), nested as the space is."""
        for path, rows, shape, _ in self._leaves:
            given = value
            for key in path.split("/") if path else ():
                try:
                    given = given[int(key) if isinstance(given, tuple | list) else key]
                except (KeyError, IndexError, TypeError, ValueError):
                    raise ValueError(f"the mask has no part {path!r}: {value!r:.80}") from None
            if isinstance(given, tuple | list) and len(given) and np.ndim(given[0]) > 0:
                given = np.concatenate([np.asarray(part).ravel() for part in given])
            if not (isinstance(given, np.ndarray) and given.dtype == np.bool_ and given.shape == shape):
                given = _fit(given, shape, np.dtype(np.bool_), _named("mask", path))
            rows[row][...] = given


def _split(space: spaces.Space, value: Any, path: str, word: str, parts: list[Any]) -> None:
    """Append the leaves of a nested value, in the order of `leaf_spaces`."""
    if isinstance(space, spaces.Dict):
        if not isinstance(value, Mapping) or value.keys() != space.keys():
            keys = str([*value]) if isinstance(value, Mapping) else f"none ({type(value).__name__})"
            raise ValueError(f"{_named(word, path)} has the keys {keys}, not {[*space.keys()]}")
        for key, child in space.items():
            _split(child, value[key], f"{path}/{key}" if path else str(key), word, parts)
    elif isinstance(space, spaces.Tuple):
        if not isinstance(value, tuple | list) or len(value) != len(space):
            size = len(value) if isinstance(value, tuple | list) else f"no ({type(value).__name__})"
            raise ValueError(f"{_named(word, path)} has {size} parts, not {len(space)}")
        for index, child in enumerate(space):
            _split(child, value[index], f"{path}/{index}" if path else str(index), word, parts)
    else:
        parts.append(value)


def _fit(value: Any, shape: tuple[int, ...], dtype: np.dtype, name: str) -> np.ndarray:
    """The value as an array of this shape and dtype; floats may lose digits, nothing else may change."""
    try:
        array = np.asarray(value)
        if array.dtype.kind in "biu":
            cast = array.astype(dtype)
        else:
            with np.errstate(invalid="ignore", over="ignore"):
                cast = array.astype(dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is {value!r:.80}, not {dtype} {shape}: {error}") from error
    if array.shape != shape:
        raise ValueError(f"{name} is {array.dtype} {array.shape}, not {dtype} {shape}")
    if array.dtype.kind not in "biuf" or not (dtype.kind == "f" or (cast == array).all()):
        raise ValueError(f"{name} is {array.dtype} {array.shape}, which {dtype} cannot hold: {value!r:.80}")
    return cast


def _named(word: str, path: str) -> str:
    return f"{word} {path!r}" if path else word


class IllegalAction(NamedTuple):
    """The first of the actions that may not be taken."""

    game: int
    place: int  # of the seat within its group
    message: str


class ActionReader:
    """Checks the actions of one group of seats, and gives each in its space."""

    def __init__(self, space: spaces.Space, mask: Tree) -> None:
        """mask: leaf -> [B, S, n], the group's own arrays."""
        self._leaves = leaf_spaces(space)
        self._mask = mask
        self._space = space

    def illegal(self, actions: Tree, acts: np.ndarray) -> IllegalAction | None:
        """The first action outside its space or mask, of those that act [B, S]; leaves [B, S, ...]."""
        for path, space in self._leaves.items():
            self._check_array(path, space, actions, acts.shape)
            leaf, mask = actions[path], self._mask.get(path)
            bad = acts & ~_fine(space, leaf, mask)
            if bad.any():
                game, place = (int(index) for index in np.argwhere(bad)[0])
                value = f"{_named('action', path)} {_plain(leaf[game, place])}"
                allowed = _allowed(space, None if mask is None else mask[game, place])
                return IllegalAction(game, place, f"{value} is illegal; legal are {allowed}")
        return None

    def action(self, actions: Tree, game: int, place: int) -> Any:
        """The action of one seat as a value of its space."""
        return self.actions(actions, np.array([game]), np.array([place]))[0]

    def actions(self, actions: Tree, games: np.ndarray, places: np.ndarray) -> list[Any]:
        """The actions of the seats at games [K] and places [K], each a value of its space."""
        return _values(self._space, actions, games, places, "")

    def _check_array(self, path: str, space: spaces.Space, actions: Tree, rows: tuple[int, ...]) -> None:
        shape = (*rows, *(space.shape or ()))
        given = actions.get(path)
        if given is None or given.shape != shape or given.dtype != space.dtype:
            what = "missing" if given is None else f"{given.dtype} {given.shape}"
            raise ValueError(f"{_named('the action', path)} must be {space.dtype} {shape}, not {what}")


def _fine(space: spaces.Space, leaf: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """[B, S] bool: the action lies in the leaf's space, and its mask [B, S, n] allows every part of it."""
    rows = leaf.shape[:2]
    if isinstance(space, spaces.Box):
        within = (leaf >= space.low) & (leaf <= space.high)
        return np.all(within.reshape(*rows, -1), axis=2)
    choices = np.array(num_choices(space))
    start = np.ravel(getattr(space, "start", 0))
    index = leaf.reshape(*rows, -1).astype(np.int64) - start
    inside = (index >= 0) & (index < choices)
    if mask is not None:
        offset = np.cumsum(choices) - choices  # the parts' masks lie side by side
        inside &= np.take_along_axis(mask, np.where(inside, index, 0) + offset, axis=2)
    return np.all(inside, axis=2)


def _allowed(space: spaces.Space, mask: np.ndarray | None) -> str:
    if mask is None:
        return str(space)
    if isinstance(space, spaces.Discrete):
        return str((np.flatnonzero(mask) + int(space.start)).tolist())
    parts = np.split(mask, np.cumsum(num_choices(space))[:-1])
    starts = np.broadcast_to(np.ravel(getattr(space, "start", 0)), len(parts)).tolist()
    return str([(np.flatnonzero(part) + int(start)).tolist() for start, part in zip(starts, parts)])


def _plain(value: Any) -> Any:
    return value.tolist()


def _values(space: spaces.Space, leaves: Tree, games: np.ndarray, places: np.ndarray, path: str) -> list[Any]:
    """Values of the space from leaves [B, S, ...], copied, as a game may keep or change them."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        named = space.items() if isinstance(space, spaces.Dict) else enumerate(space)
        below = {
            key: _values(child, leaves, games, places, f"{path}/{key}" if path else str(key))
            for key, child in named
        }
        rows = [{key: values[k] for key, values in below.items()} for k in range(len(games))]
        return rows if isinstance(space, spaces.Dict) else [tuple(row.values()) for row in rows]
    return [*leaves[path][games, places]]
