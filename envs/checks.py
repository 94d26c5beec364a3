"""Does a game from elsewhere keep its word? Its layout once, and what it shows after every step.

B games, A seats of the game, S seats of a group. Everything that is wrong is a GameError of one line that
names id, match, seat, leaf, the value and what is allowed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from envs.layout import check_layout
from envs.leaves import leaf_spaces
from envs.rows import num_choices
from envs.seat_views import names_of, render_seat
from envs.vector import GameError, Group, Tree, VectorEnv

_SHOWN = ("to_act", "reward", "terminated", "truncated", "over")


class _Leaf(NamedTuple):
    """An observation leaf and what it may hold."""

    path: str
    space: spaces.Space
    rows: np.ndarray  # [B, S, ...]
    low: np.ndarray  # of the leaf's shape, or a number where all are alike
    high: np.ndarray


def _leaf(path: str, space: spaces.Space, rows: np.ndarray) -> _Leaf:
    low, high = _bounds(space)
    # Bounds are often worked out in float64 and kept in float32: leave them a little room.
    if rows.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            room = np.nan_to_num(1e-5 * np.maximum(1.0, np.maximum(abs(low), abs(high))), posinf=0.0)
        info = np.finfo(rows.dtype)  # beyond it there is only inf
        low, high = np.maximum(low - room, info.min), np.minimum(high + room, info.max)
    return _Leaf(path, space, rows, _number(np.asarray(low)), _number(np.asarray(high)))


def _number(bound: np.ndarray) -> np.ndarray:
    """A bound that is alike everywhere as one number, which is faster to compare with."""
    return bound.flat[0] if bound.size and (bound == bound.flat[0]).all() else bound


def _bounds(space: spaces.Space) -> tuple[Any, Any]:
    """Least and greatest value of each entry of a leaf."""
    if isinstance(space, spaces.Box):
        if np.issubdtype(space.dtype, np.floating):
            return space.low.astype(np.float64), space.high.astype(np.float64)
        return space.low, space.high
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.start) + int(space.n) - 1
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    return np.zeros(space.shape or ()), np.ones(space.shape or ())


class _Group(NamedTuple):
    seats: np.ndarray  # [S]
    obs: list[_Leaf]
    mask: list[tuple[str, np.ndarray, np.ndarray]]  # path, [B, S, n], where each part begins


class _Pointer(NamedTuple):
    """An action leaf that chooses an entity, by no mask but that of the set."""

    group: int
    path: str
    to: str
    present: np.ndarray  # [B, S, E]


def _pointers(number: int, group: Group) -> list[_Pointer]:
    return [
        _Pointer(number, path, to, group.obs[f"{to}_mask"])
        for path, to in group.points.items()
        if path not in group.mask
    ]


def _used(path: str, group: Group, actions: Tree) -> np.ndarray:
    """[B, S] bool: what was chosen in other leaves uses this one; one that is not used, uses nothing."""
    used = np.full(next(iter(actions.values())).shape[:2], path not in group.uses)
    for primary, choices in group.uses.get(path, {}).items():
        used |= np.isin(actions[primary], choices) & _used(primary, group, actions)
    return used


class Checked:
    """A game whose every view is checked before anybody plays on; all else is the game's own."""

    def __init__(self, env: VectorEnv, num_games: int) -> None:
        check_layout(env, num_games)
        self._env = env
        self.id, self.num_games, self.teams = env.id, env.num_games, env.teams
        self.zero_sum, self.groups, self.bots = env.zero_sum, env.groups, env.bots
        self.to_act, self.reward, self.over = env.to_act, env.reward, env.over
        self.terminated, self.truncated = env.terminated, env.truncated
        self._ended = np.ones_like(env.to_act)  # [B, A] the seat's episode in the slot's match has ended
        self._groups = [_group(group) for group in env.groups]
        self._pointers = [pointer for k, group in enumerate(env.groups) for pointer in _pointers(k, group)]

    def __getattr__(self, name: str) -> Any:
        """Members beyond the protocol, which not every game has."""
        if name == "_env":
            raise AttributeError(name)  # copies are made before it is there
        return getattr(self._env, name)

    def restart(self, games: np.ndarray, seeds: np.ndarray) -> None:
        self._env.restart(games, seeds)
        self._ended[games] = False
        self._check()

    def step(self, actions: tuple[Tree, ...]) -> None:
        self._check_pointers(actions)
        self._env.step(actions)
        self._ended |= self.terminated
        self._ended |= self.truncated
        self._check()

    def state(self) -> Tree | None:
        state = self._env.state()
        return None if state is None else state | {"checked_ended": self._ended.copy()}

    def set_state(self, state: Tree) -> None:
        self._ended[:] = state["checked_ended"]
        self._env.set_state({name: array for name, array in state.items() if name != "checked_ended"})

    def render(self, game: int, seat: int | None = None) -> str:
        return self._env.render(game) if seat is None else render_seat(self._env, game, seat)

    def action_names(self, game: int, seat: int | None = None) -> list[str] | None:
        return self._env.action_names(game) if seat is None else names_of(self._env, game, seat)

    def _check(self) -> None:
        """What must hold between any two calls."""
        for name in _SHOWN:
            if getattr(self._env, name) is not getattr(self, name):
                raise GameError(f"{self.id}: {name} is replaced by another array, not overwritten in place")
        self._refuse(self.to_act & self._ended, "is to act after its episode ended")
        self._refuse(self.to_act & self.over[:, None], "is to act in a match that is over")
        stuck = ~(self.over | self.to_act.any(axis=1))
        if stuck.any():
            game = int(stuck.argmax())
            raise GameError(f"{self.id}, match {game}: nobody is to act in a match in play")
        if not np.isfinite(self.reward).all():
            game, seat = np.argwhere(~np.isfinite(self.reward))[0].tolist()
            raise GameError(f"{self.id}, match {game}, seat {seat}: the reward is {self.reward[game, seat]}")
        shown = self.to_act | self.truncated
        for group in self._groups:
            self._check_obs(group, shown[:, group.seats])
            self._check_mask(group, self.to_act[:, group.seats])

    def _refuse(self, flags: np.ndarray, message: str) -> None:
        """Fails, naming the place, where flags [B, A] has a true entry."""
        if flags.any():
            game, seat = np.argwhere(flags)[0].tolist()
            raise GameError(f"{self.id}, match {game}, seat {seat}: {message}")

    def _check_pointers(self, actions: tuple[Tree, ...]) -> None:
        """Nobody who acts points to an entity where none is; where it is not used it may point anywhere."""
        for pointer in self._pointers:
            seats = self._groups[pointer.group].seats
            lost = self.to_act[:, seats] & ~pointer.present.any(axis=2)
            if not lost.any():
                continue
            lost &= _used(pointer.path, self.groups[pointer.group], actions[pointer.group])
            if lost.any():
                game, place = np.argwhere(lost)[0].tolist()
                where = f"{self.id}, match {game}, seat {seats[place]}"
                raise GameError(f"{where}: action {pointer.path!r} points to {pointer.to!r}, where nobody is")

    def _check_obs(self, group: _Group, shown: np.ndarray) -> None:
        """Rows [B, S] that are shown lie inside their bounds; nan and inf never do."""
        everything = bool(shown.all())
        for leaf in group.obs:
            rows = leaf.rows if everything else leaf.rows[shown]
            if rows.size and not _inside(rows, leaf.low, leaf.high):
                self._refuse_obs(group, leaf, shown)

    def _refuse_obs(self, group: _Group, leaf: _Leaf, shown: np.ndarray) -> None:
        fine = (leaf.rows >= leaf.low) & (leaf.rows <= leaf.high)
        fine |= ~shown.reshape(*shown.shape, *[1] * (fine.ndim - 2))
        game, place, *index = np.argwhere(~fine)[0].tolist()
        value, at = leaf.rows[(game, place, *index)], f" at {index}" if index else ""
        low, high = (np.broadcast_to(side, fine.shape[2:])[tuple(index)] for side in _bounds(leaf.space))
        allowed = f"{low:.6g} to {high:.6g}" if np.isfinite(high - low) else f"finite numbers in {leaf.space}"
        where = f"match {game}, seat {group.seats[place]}"
        raise GameError(f"{self.id}, {where}: obs {leaf.path!r} is {value:.6g}{at}; allowed are {allowed}")

    def _check_mask(self, group: _Group, acts: np.ndarray) -> None:
        """Seats that act [B, S] have a legal choice for every part of their action."""
        for path, mask, begins in group.mask:
            one_part = len(begins) == 1
            legal = mask.any(axis=2) if one_part else np.logical_or.reduceat(mask, begins, axis=2).all(axis=2)
            stuck = acts & ~legal
            if stuck.any():
                game, place = np.argwhere(stuck)[0].tolist()
                where = f"match {game}, seat {group.seats[place]}"
                raise GameError(f"{self.id}, {where}: mask {path!r} has no legal action")


def _group(group: Group) -> _Group:
    actions, observed = leaf_spaces(group.action_space), leaf_spaces(group.observation_space)
    leaves = [_leaf(path, space, group.obs[path]) for path, space in observed.items()]
    return _Group(
        np.array(group.seats),
        [leaf for leaf in leaves if not _holds_all(leaf)],
        [(path, mask, np.cumsum([0, *num_choices(actions[path])[:-1]])) for path, mask in group.mask.items()],
    )


def _holds_all(leaf: _Leaf) -> bool:
    """Whether no value of the leaf's dtype lies outside, as in images of bytes."""
    kind = leaf.rows.dtype.kind
    if kind not in "biu":
        return False
    least, most = (0, 1) if kind == "b" else (np.iinfo(leaf.rows.dtype).min, np.iinfo(leaf.rows.dtype).max)
    return bool(np.all(leaf.low <= least) and np.all(leaf.high >= most))


def _inside(rows: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool:
    """Whether all of rows [R, ...] lie from low to high; nan does not."""
    if np.ndim(low) == 0 and np.ndim(high) == 0:
        return bool(rows.min() >= low and rows.max() <= high)  # two passes without a copy
    return bool(((rows >= low) & (rows <= high)).all())
