"""One match of a vector game seen seat by seat, in values of the seats' own spaces.

What `as_pettingzoo` and `as_gymnasium` share. A seats of the game, S seats of a group.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.leaves import leaf_spaces
from envs.registry import EnvFactory, make
from envs.rows import ActionReader, RowWriter, empty_rows, num_choices
from envs.vector import GameError, Group, Tree

NUM_SEEDS = 2**64


def check_illegal(illegal: str) -> None:
    """Raises ValueError unless `illegal` says what an illegal action does."""
    if illegal not in ("terminate", "raise"):
        raise ValueError(f"illegal={illegal!r} must be 'terminate' or 'raise'")


def check_render_mode(render_mode: str | None) -> None:
    """Raises ValueError unless there is such a mode."""
    if render_mode not in (None, "ansi"):
        raise ValueError(f"render_mode={render_mode!r} must be None or 'ansi'")


class OneMatch:
    """A vector game with one match, whose seats are asked one by one."""

    def __init__(self, game: str | EnvFactory, kwargs: Mapping[str, Any]) -> None:
        """game: an id of `envs.registry`, or (num_games, **kwargs) -> VectorEnv."""
        self.env = make(game, 1, **kwargs) if isinstance(game, str) else game(1, **kwargs)
        num_seats = len(self.env.teams)
        names = getattr(self.env, "seat_names", None)
        self.seat_names: tuple[str, ...] = names or tuple(f"seat_{seat}" for seat in range(num_seats))
        self._groups = [_SeatedGroup(group) for group in self.env.groups]
        places = {seat: (group, place) for group in self._groups for place, seat in enumerate(group.seats)}
        self._places = [places[seat] for seat in range(num_seats)]
        self.observation_spaces, self.action_spaces = (
            [copy.deepcopy(getattr(group, kind)) for group, _ in self._places]
            for kind in ("observation_space", "action_space")
        )

    def restart(self, rng: np.random.Generator) -> None:
        """Opens a new match from a seed that is drawn from rng."""
        self.env.restart(np.zeros(1, np.int64), rng.integers(NUM_SEEDS, size=1, dtype=np.uint64))
        self._refuse_dropped()
        for group in self._groups:
            group.forget()
        self._look()

    def to_act(self) -> list[int]:
        """The seats that must act now."""
        return [int(seat) for seat in np.flatnonzero(self.env.to_act[0])]

    def observation(self, seat: int) -> Any:
        """A copy of what the seat saw when it was last to act or was truncated; blank before."""
        group, place = self._places[seat]
        return group.observation(place)

    def action_mask(self, seat: int) -> Any:
        """The legal actions in the form that `action_space.sample(mask)` takes; None if all always are.

        Everything is legal for a seat that is not to act: what it gives is ignored.
        """
        group, place = self._places[seat]
        return group.action_mask(place, bool(self.env.to_act[0, seat]))

    def put(self, seat: int, action: Any) -> str | None:
        """Takes the action of a seat that is to act; why it is illegal, if it is."""
        group, place = self._places[seat]
        refusal = group.put(place, action)
        return refusal and f"{self.env.id}, seat {self.seat_names[seat]}: {refusal}"

    def put_rows(self, group: int, places: np.ndarray, rows: Tree) -> None:
        """Takes action leaves [R, ...] of R seats at `places` of a group."""
        for path, leaf in rows.items():
            self._groups[group].action[path][0, places] = leaf

    def step(self) -> None:
        """Plays the actions that were put."""
        self.env.step(tuple(group.action for group in self._groups))
        self._refuse_dropped()
        self._look()

    def _look(self) -> None:
        """Keep the rows that are valid now."""
        valid = self.env.to_act[0] | self.env.truncated[0]
        for group in self._groups:
            group.keep(valid)

    def _refuse_dropped(self) -> None:
        dropped = getattr(self.env, "dropped", None)
        if dropped is not None and dropped[0]:
            raise GameError(f"{self.env.id}: the match broke off: {getattr(self.env, 'cause', 'no cause')}")


class _SeatedGroup:
    """A group's seats, with copies of their last valid observations and the actions they have put."""

    def __init__(self, group: Group) -> None:
        self.seats = group.seats
        self.observation_space = group.observation_space
        self.action_space = group.action_space
        self.action = empty_rows(group.action_space, 1, len(group.seats))
        self._group = group
        self._blank = _blank_rows(group.observation_space, len(group.seats))
        self._seen = {path: leaf.copy() for path, leaf in self._blank.items()}
        self._actions = RowWriter(group.action_space, self.action, "action")
        self._legal = ActionReader(group.action_space, group.mask)
        self._nested = ActionReader(group.observation_space, {})

    def forget(self) -> None:
        for path, leaf in self._seen.items():
            leaf[...] = self._blank[path]

    def keep(self, valid: np.ndarray) -> None:
        """Copies the rows of the seats that are valid [A]."""
        places = np.flatnonzero(valid[list(self.seats)])
        for path, leaf in self._seen.items():
            leaf[0, places] = self._group.obs[path][0, places]

    def observation(self, place: int) -> Any:
        return self._nested.action(self._seen, 0, place)

    def action_mask(self, place: int, acts: bool) -> Any:
        if not self._group.mask:
            return None
        legal = {path: mask[0, place] | (not acts) for path, mask in self._group.mask.items()}
        return _sampling_mask(self.action_space, legal, "")

    def put(self, place: int, action: Any) -> str | None:
        try:
            self._actions.write(action, place)
        except ValueError as error:
            return f"{error}"
        acts = np.zeros((1, len(self.seats)), np.bool_)
        acts[0, place] = True
        illegal = self._legal.illegal(self.action, acts)
        return illegal and illegal.message


def _blank_rows(space: spaces.Space, num_seats: int) -> Tree:
    """The value of a space that is nearest to zeros, as leaves [1, S, ...]."""
    rows = empty_rows(space, 1, num_seats)
    for path, leaf in leaf_spaces(space).items():
        if isinstance(leaf, spaces.Box):
            np.clip(rows[path], leaf.low, leaf.high, out=rows[path])
        elif isinstance(leaf, spaces.Discrete | spaces.MultiDiscrete):
            rows[path][...] = leaf.start
    return rows


def _sampling_mask(space: spaces.Space, legal: Tree, path: str) -> Any:
    """The masks [n] of one seat's leaves as Gymnasium's `sample(mask)` takes them."""
    if isinstance(space, spaces.Dict):
        return {key: _sampling_mask(child, legal, _join(path, key)) for key, child in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_sampling_mask(child, legal, _join(path, str(k))) for k, child in enumerate(space))
    if path not in legal:
        return None
    if isinstance(space, spaces.MultiBinary):  # 2 where both values are legal, else the only one
        zero, one = legal[path].reshape(*space.shape, 2).transpose(-1, *range(len(space.shape)))
        return np.where(zero & one, 2, one).astype(np.int8)
    mask = legal[path].astype(np.int8)
    if isinstance(space, spaces.MultiDiscrete):
        return _nest(iter(np.split(mask, np.cumsum(num_choices(space))[:-1])), space.shape)
    return mask


def _nest(parts: Any, shape: tuple[int, ...]) -> Any:
    """Parts in nested tuples of this shape."""
    return tuple(_nest(parts, shape[1:]) for _ in range(shape[0])) if shape else next(parts)


def _join(path: str, key: str) -> str:
    return f"{path}/{key}" if path else key
