"""Games that are Python objects, one for each match: the base of the adapters to other libraries.

An adapter writes a `Match`, which plays one match with nested values, and gives a factory of such to
`PythonGames`, which is the vector game: B games, A seats of the game, S seats of a group.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
from gymnasium import spaces

from envs.failures import RAISED, describe
from envs.native import check_array, check_int, check_restart, copy_state, load_state
from envs.replays import Replays
from envs.rows import ActionReader, MaskWriter, RowWriter, empty_rows
from envs.seats import Seat, check_seats, make_groups
from envs.vector import Bot, GameError, Tree

__all__ = ["Match", "Moment", "PythonGames", "Seat"]


@dataclass(slots=True)
class Moment:
    """One match after its reset or a step; obs and the rest are copied at once and not kept."""

    to_act: Collection[int]  # seats that must act now; none when the match is over
    obs: Mapping[int, Any]  # seat -> observation in its space: of those to act, and those truncated
    mask: Mapping[int, Any] = field(default_factory=dict)  # seat -> legal actions bool [n], where has_mask
    reward: Mapping[int, float] = field(default_factory=dict)  # of this step, any seats
    terminated: Collection[int] = ()  # seats; one that ended before is ignored
    truncated: Collection[int] = ()  # seats; one that is also terminated counts as that
    state: Any = None  # the whole game, in privileged_space where the game has one


class Match(ABC):
    """One match of a game, played again and again; it may raise anything at any time.

    An exception ends the match without a result and the object is replaced; a GameError says that the
    game breaks its contract, which ends everything, so `PythonGames` adds only id and match to it.
    """

    @abstractmethod
    def reset(self, seed: int) -> Moment:
        """Begin a match whose chance comes from the seed (64 bits) alone."""

    @abstractmethod
    def step(self, actions: dict[int, Any]) -> Moment:
        """actions: of every seat that was to act, each legal and in the seat's own space."""

    def render(self) -> str:
        """The match as text that a person can read; empty: what is observed is shown in its place."""
        return ""

    def render_seat(self, seat: int) -> str:
        """What that seat may know of it, as text; empty: nobody has said what that is."""
        return ""

    def action_names(self) -> list[str] | None:
        """What a person types for each discrete action of the seat to act; None: the number."""
        return None

    def has_board(self) -> bool:
        """Whether `render` shows a person enough to play; else what the seat to act observes is shown too."""
        return type(self).render is not Match.render

    def save(self) -> bytes | None:
        """The match in mid-play; None: it is to be played again from its seed and actions."""
        return None

    def load(self, saved: bytes) -> None:
        """Go on from what `save` gave, from an object that was never reset too."""
        raise NotImplementedError

    def close(self) -> None:  # noqa: B027 (most games hold nothing)
        """Let go of what the object holds."""


T = TypeVar("T")

_MOST = float(np.finfo(np.float32).max)

_SAVED, _REPLAYED = b"\0", b"\1"
"""How a match's bytes are to be read."""


class _Rows(NamedTuple):
    """How the values of one group's seats become rows."""

    obs: RowWriter
    mask: MaskWriter
    action: ActionReader


class _Shown(NamedTuple):
    """Where one seat's values go: row `game * size + place`."""

    obs: RowWriter
    mask: MaskWriter | None
    size: int  # of its group
    place: int  # within it


class PythonGames:
    """The vector game of B matches, each an object that is made when its slot is first opened."""

    def __init__(
        self,
        id: str,
        make_match: Callable[[], Match],
        num_games: int,
        seats: Sequence[Seat],
        teams: Sequence[int],
        *,
        zero_sum: bool = False,
        bots: Mapping[str, Bot | tuple[Bot, ...]] | None = None,
        privileged_space: spaces.Space | None = None,
        fresh: bool = False,
    ) -> None:
        """fresh: each match takes a new object, for games whose reset leaves traces."""
        check_int(id, "num_games", num_games, 1, None)
        if missing := sorted(getattr(make_match, "__abstractmethods__", ())):
            raise ValueError(
                f"{id}: {getattr(make_match, '__name__', make_match)} has no {', '.join(missing)}"
            )
        self.id, self.num_games, self.zero_sum = id, num_games, zero_sum
        self.teams = tuple(teams)
        check_seats(id, seats, self.teams)
        self.seat_names = tuple(seat.name for seat in seats)
        self.bots: Mapping[str, Bot | tuple[Bot, ...]] = dict(bots or {})
        self._known = frozenset(range(len(seats)))
        self.groups = make_groups(seats, num_games)
        self._rows = [
            _Rows(
                RowWriter(group.observation_space, group.obs, "obs"),
                MaskWriter(group.mask),
                ActionReader(group.action_space, group.mask),
            )
            for group in self.groups
        ]
        self._shown = {
            seat: _Shown(rows.obs, rows.mask if group.mask else None, len(group.seats), place)
            for group, rows in zip(self.groups, self._rows)
            for place, seat in enumerate(group.seats)
        }
        self._seats = [np.array(group.seats) for group in self.groups]
        shape = (num_games, len(seats))
        self.to_act = np.zeros(shape, np.bool_)
        self.reward = np.zeros(shape, np.float32)
        self.terminated = np.zeros(shape, np.bool_)
        self.truncated = np.zeros(shape, np.bool_)
        self.over = np.ones(num_games, np.bool_)
        self.dropped = np.zeros(num_games, np.bool_)
        self.cause = ""
        self._ended = np.ones(shape, np.bool_)  # the seat's episode in the slot's match has ended
        shown = (self.to_act, self.reward, self.terminated, self.truncated, self._ended)
        self._cells = _Cells(*map(_cells, shown))
        self._make_match = make_match
        self._matches: list[Match | None] = [None] * num_games
        self._fresh = fresh
        self._replays = Replays(self.groups, [rows.action for rows in self._rows])
        self._records = [bytearray()] * num_games  # of each match, from its beginning
        self._privileged: RowWriter | None = None
        if privileged_space is not None:
            self.privileged_space = privileged_space
            rows = empty_rows(privileged_space, num_games, 1)
            self.privileged = {path: leaf[:, 0] for path, leaf in rows.items()}
            self._privileged = RowWriter(privileged_space, self.privileged, "state")

    def restart(self, games: np.ndarray, seeds: np.ndarray) -> None:
        """Open new matches in slots games [K] from seeds [K] uint64."""
        games, seeds = check_restart(self.id, self.num_games, games, seeds)
        self._clear(games)
        self.over[games] = self.dropped[games] = self._ended[games] = False
        for game, seed in zip(games.tolist(), seeds.tolist()):
            self._records[game] = self._replays.begin(seed)
            if self._fresh:
                self._close(game)
            self._play(game, _reset, seed)

    def step(self, actions: tuple[Tree, ...]) -> None:
        """One step of every match in play; leaves [B, S, ...] of each group."""
        self._check_actions(actions)
        live = np.flatnonzero(~self.over)
        acting = self.to_act[live]
        notes, taken = self._replays.notes(actions, live, acting), self._replays.taken(actions, live, acting)
        self.reward[:] = 0
        self._clear(live)
        for game, note, own in zip(live.tolist(), notes, taken):
            self._records[game] += note
            self._play(game, _step, own)

    def _clear(self, games: np.ndarray) -> None:
        """Nothing happened yet in these matches [K], and nobody acts."""
        self.reward[games] = 0
        self.to_act[games] = self.terminated[games] = self.truncated[games] = False

    def _check_actions(self, actions: tuple[Tree, ...]) -> None:
        """Raises GameError for the first illegal action, before anything has changed."""
        for group, seats, rows, leaves in zip(self.groups, self._seats, self._rows, actions, strict=True):
            try:
                illegal = rows.action.illegal(leaves, self.to_act[:, seats])
            except ValueError as error:
                raise GameError(f"{self.id}, group {group.name}: {error}") from error
            if illegal is not None:
                where = f"match {illegal.game}, seat {group.seats[illegal.place]}"
                raise GameError(f"{self.id}, {where}: {illegal.message}")

    def _match(self, game: int) -> Match:
        """The slot's object, made now if it is not there."""
        match = self._matches[game]
        if match is None:
            match = self._matches[game] = self._make_match()
        return match

    def _close(self, game: int) -> None:
        """Let go of the slot's object."""
        match, self._matches[game] = self._matches[game], None
        if match is not None:
            match.close()

    def _play(self, game: int, move: Callable[[Match, T], Moment], by: T) -> None:
        """Let one match move on, and show what it came to."""
        try:
            moment = move(self._match(game), by)
        except GameError as error:
            raise GameError(f"{self.id}, match {game}: {error}") from error
        except RAISED as error:  # only its own match is lost
            self._drop(game, error)
        else:
            self._show(game, moment)

    def _drop(self, game: int, error: BaseException) -> None:
        """The match is over without a result; its object may be broken, so it is replaced."""
        with contextlib.suppress(*RAISED):  # what is broken may also fail to close
            self._close(game)
        self.over[game] = self.dropped[game] = True
        self.cause = f"match {game}: {describe(error)}"

    def _show(self, game: int, moment: Moment) -> None:
        """Write what a match shows into the arrays; the rows were cleared before."""
        self._check_moment(game, moment)
        to_act, rewards, terminated, truncated, ended = self._cells
        first = game * len(self.teams)
        for seat, reward in moment.reward.items():
            sound = isinstance(reward, float) and -_MOST <= reward <= _MOST
            rewards[first + seat] = reward if sound else self._paid(game, seat, reward)
        for flags, seats in ((terminated, moment.terminated), (truncated, moment.truncated)):
            for seat in seats:
                if not ended[first + seat]:
                    flags[first + seat] = ended[first + seat] = True
        for seat in moment.to_act:
            if ended[first + seat]:
                raise GameError(f"{self.id}, match {game}, seat {seat}: is to act after its episode ended")
            to_act[first + seat] = True
        if not len(moment.to_act):
            self.over[game] = over = all(ended[first : first + len(self.teams)])
            if not over:
                raise GameError(f"{self.id}, match {game}: nobody is to act in a match in play")
        self._write(game, moment)

    def _check_moment(self, game: int, moment: Moment) -> None:
        """What a match gave is a Moment that names seats of the game only."""
        if not isinstance(moment, Moment):
            raise GameError(
                f"{self.id}, match {game}: reset and step must return a Moment, not {moment!r:.80}"
            )
        known = self._known.issuperset
        try:
            sound = known(moment.to_act) and known(moment.reward)
            sound = sound and known(moment.terminated) and known(moment.truncated)
        except TypeError:  # no collection, or not of numbers
            sound = False
        if not sound:
            self._refuse_moment(game, moment)

    def _refuse_moment(self, game: int, moment: Moment) -> None:
        """Fails with the first that is no collection of seats."""
        for name in ("to_act", "reward", "terminated", "truncated"):
            seats = getattr(moment, name)
            if not (isinstance(seats, Collection) and self._known.issuperset(seats)):
                allowed = f"allowed are seats from 0 to {len(self._known) - 1}"
                raise GameError(f"{self.id}, match {game}: {name} is {seats!r:.80}; {allowed}")

    def _paid(self, game: int, seat: int, reward: Any) -> float:
        """The reward as a number, which float32 must hold."""
        if not isinstance(reward, float | int):
            with contextlib.suppress(TypeError, ValueError):  # no array at all: refused below
                number = np.asarray(reward)
                reward = number.item() if number.dtype.kind in "biuf" and number.size == 1 else reward
        if not isinstance(reward, float | int) or not abs(reward) <= _MOST:
            where = f"{self.id}, match {game}, seat {seat}"
            raise GameError(f"{where}: the reward is {reward!r:.80}; allowed are finite numbers of float32")
        return reward

    def _write(self, game: int, moment: Moment) -> None:
        """Observations of seats to act or truncated, masks of seats to act, the view of the whole game."""
        seat: int | None = None
        try:
            for seat in moment.to_act:
                obs, mask, size, place = self._shown[seat]
                if seat not in moment.obs:
                    raise ValueError("it has no observation")
                obs.write(moment.obs[seat], game * size + place)
                if mask is not None:
                    if seat not in moment.mask:
                        raise ValueError("it has no mask")
                    mask.write(moment.mask[seat], game * size + place)
            for seat in moment.truncated:
                if self.truncated[game, seat]:
                    if seat not in moment.obs:
                        raise ValueError("it has no observation")
                    obs, _, size, place = self._shown[seat]
                    obs.write(moment.obs[seat], game * size + place)
            seat = None
            if self._privileged is not None:
                self._privileged.write(moment.state, game)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            where = f"match {game}" if seat is None else f"match {game}, seat {seat}"
            raise GameError(f"{self.id}, {where}: {error}") from error

    def _arrays(self) -> Tree:
        """Every array that is shown or depended on."""
        names = ("to_act", "reward", "terminated", "truncated", "over", "dropped", "_ended")
        arrays = {name: getattr(self, name) for name in names}
        for k, group in enumerate(self.groups):
            arrays |= {f"obs{k}:{path}": leaf for path, leaf in group.obs.items()}
            arrays |= {f"mask{k}:{path}": leaf for path, leaf in group.mask.items()}
        if self._privileged is not None:
            arrays |= {f"privileged:{path}": leaf for path, leaf in self.privileged.items()}
        return arrays

    def state(self) -> Tree:
        """Every match in mid-play: saved [B, N] uint8 holds what each gave, or its seed and actions."""
        saved = [b"" if over else self._saved(game) for game, over in enumerate(self.over)]
        size = np.array([len(own) for own in saved], np.int64)
        rows = np.zeros((self.num_games, size.max()), np.uint8)
        for row, own in zip(rows, saved):
            row[: len(own)] = np.frombuffer(own, np.uint8)
        return copy_state(self._arrays()) | {"saved": rows, "saved_size": size}

    def _saved(self, game: int) -> bytes:
        own = self._match(game).save()
        return _REPLAYED + bytes(self._records[game]) if own is None else _SAVED + own

    def set_state(self, state: Tree) -> None:
        """Go on from what `state` of as many games gave."""
        saved = {name: state[name] for name in ("saved", "saved_size") if name in state}
        load_state(self.id, self._arrays(), {name: state[name] for name in state.keys() - saved.keys()})
        check_array(self.id, "state 'saved_size'", saved["saved_size"], (self.num_games,), np.int64)
        for game in np.flatnonzero(~self.over).tolist():
            own = saved["saved"][game, : saved["saved_size"][game]].tobytes()
            try:
                self._restore(game, own)
            except RAISED as error:  # only its own match is lost
                self._clear(np.array([game]))
                self._drop(game, error)

    def _restore(self, game: int, saved: bytes) -> None:
        """Bring the slot's object to where it was, by loading or by playing the match again."""
        if self._fresh:
            self._close(game)
        match = self._match(game)
        if saved[:1] == _SAVED:
            match.load(saved[1:])
            return
        self._records[game] = bytearray(saved[1:])
        shown = [leaf[game].copy() for group in self.groups for leaf in group.obs.values()]
        moment = self._replays.replay(saved[1:], match.reset, match.step)
        same = set(moment.to_act) == set(self.to_act[game].nonzero()[0].tolist())
        if same:
            self._write(game, moment)
            again = [leaf[game] for group in self.groups for leaf in group.obs.values()]
            same = all(map(np.array_equal, shown, again))
        if not same:
            raise RuntimeError("the match cannot go on: the same seed and actions show something else now")

    def render(self, game: int, seat: int | None = None) -> str:
        """What the match's object says of itself, or of what a seat may know."""
        match = self._matches[game]
        if match is None or seat is None or len(self.teams) == 1:
            return "not started" if match is None else match.render()
        return match.render_seat(seat)

    def action_names(self, game: int) -> list[str] | None:
        """Names of the actions of the seat to act, where the match's object has such."""
        match = self._matches[game]
        return None if match is None or self.over[game] else match.action_names()

    def has_board(self, game: int) -> bool:
        """Whether `render` shows a person enough to play."""
        match = self._matches[game]
        return match is None or match.has_board()

    def close(self) -> None:
        """Close every match's object."""
        for game in range(self.num_games):
            self._close(game)


class _Cells(NamedTuple):
    """Flat views [B * A] of a game's arrays, whose entries are quicker to write one by one."""

    to_act: memoryview[Any]
    reward: memoryview[Any]
    terminated: memoryview[Any]
    truncated: memoryview[Any]
    ended: memoryview[Any]


def _cells(array: np.ndarray) -> memoryview[Any]:
    """The entries of a contiguous array, in place."""
    code: Any = array.dtype.char
    return array.data.cast("B").cast(code)


def _reset(match: Match, seed: int) -> Moment:
    return match.reset(seed)


def _step(match: Match, actions: dict[int, Any]) -> Moment:
    return match.step(actions)
