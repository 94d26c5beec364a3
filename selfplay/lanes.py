"""Recording: decisions of the learning player become fragments.

A *row* is one seat of one game slot (R = B * S of them), a *column* is storage for one lane of a
fragment. A row holds a column from a decision of its match until the match ends or the column is
full, so seats that wait or are played by somebody else leave no gaps: a column left half full by a
match that ended is taken on by the next match that opens, where the state is zero anyway.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

from selfplay.fragments import Fragment, Tree

FREE, PARTIAL, COMPLETE = 0, 1, 2
_JIT = {"nogil": True, "cache": True}


@numba.njit(**_JIT)
def _push(queue, head, count, which, column):  # type: ignore[no-untyped-def]
    size = queue.shape[1]
    queue[which, (head[which] + count[which]) % size] = column
    count[which] += 1


@numba.njit(**_JIT)
def _pop(queue, head, count, which):  # type: ignore[no-untyped-def]
    column = queue[which, head[which]]
    head[which] = (head[which] + 1) % queue.shape[1]
    count[which] -= 1
    return column


@numba.njit(**_JIT)
def _open(  # type: ignore[no-untyped-def]
    rows, first, stored, version, held, opened, cursor, queue, head, count, initial_state, scalars, flags,
    versions, before, place,
):  # fmt: skip
    """Give each of these rows [K] the place of its next decision; False where no column is left.

    stored [L, S, R, H]: the states that enter. place and before [K] get the flat [T * C] indices of this
    decision and of the row's last one in the same match, or -1. scalars: logp, value, reward, next_value
    [4, T, C]; flags: is_first, terminated, truncated [3, T, C].
    """
    length, columns = versions.shape
    for k in range(rows.shape[0]):
        row = rows[k]
        column = held[row]
        before[k] = -1
        if column >= 0:
            before[k] = (cursor[column] - 1) * columns + column
            if cursor[column] == length:
                _push(queue, head, count, COMPLETE, column)
                column = -1
        if column < 0:
            if first[k] and count[PARTIAL] > 0:
                column = _pop(queue, head, count, PARTIAL)
            elif count[FREE] == 0:
                return False
            else:
                column = _pop(queue, head, count, FREE)
                cursor[column] = 0
                for layer in range(stored.shape[0]):
                    for vector in range(stored.shape[1]):
                        for unit in range(stored.shape[3]):
                            initial_state[column, layer, vector, unit] = (
                                0.0 if first[k] else stored[layer, vector, row, unit]
                            )
            held[row] = column
            opened[row] = cursor[column]
        t = cursor[column]
        cursor[column] += 1
        place[k] = t * columns + column
        scalars[2, t, column] = 0.0
        scalars[3, t, column] = 0.0
        flags[0, t, column] = first[k]
        flags[1, t, column] = False
        flags[2, t, column] = False
        versions[t, column] = version
    return True


@numba.njit(**_JIT)
def _note(before, place, logp, value, scalars):  # type: ignore[no-untyped-def]
    """What was decided at these places [K]; scalars [4, T * C] as above."""
    for k in range(place.shape[0]):
        if before[k] >= 0:
            scalars[3, before[k]] = value[k]
        scalars[0, place[k]] = logp[k]
        scalars[1, place[k]] = value[k]


@numba.njit(**_JIT)
def _put(leaf, place, kept):  # type: ignore[no-untyped-def]
    """kept [T * C, N] at these places [K] = leaf [K, N], as bytes: NumPy's way by index takes longer."""
    for k in range(place.shape[0]):
        row = place[k]
        for j in range(leaf.shape[1]):
            kept[row, j] = leaf[k, j]


@numba.njit(**_JIT)
def _settle(  # type: ignore[no-untyped-def]
    reward, terminated, truncated, seats, final_value, held, cursor, queue, head, count, scalars, flags
):
    """Add the step's rewards to the last decisions; release the columns of rows whose episode ended."""
    num_seats = seats.shape[0]
    length = flags.shape[1]
    for game in range(reward.shape[0]):
        for s in range(num_seats):
            row = game * num_seats + s
            column = held[row]
            if column < 0:
                continue
            t = cursor[column] - 1
            seat = seats[s]
            scalars[2, t, column] += reward[game, seat]
            if terminated[game, seat] or truncated[game, seat]:
                flags[1, t, column] = terminated[game, seat]
                flags[2, t, column] = truncated[game, seat] and not terminated[game, seat]
                if not terminated[game, seat]:
                    scalars[3, t, column] = final_value[row]
                _push(queue, head, count, COMPLETE if t + 1 == length else PARTIAL, column)
                held[row] = -1


@numba.njit(**_JIT)
def _drop(rows, held, opened, cursor, queue, head, count):  # type: ignore[no-untyped-def]
    """Take back what the matches of these rows have recorded in the columns that they hold."""
    for k in range(rows.shape[0]):
        column = held[rows[k]]
        if column >= 0:
            cursor[column] = opened[rows[k]]
            _push(queue, head, count, PARTIAL if cursor[column] > 0 else FREE, column)
            held[rows[k]] = -1


class Opened(NamedTuple):
    """Where K decisions are to be recorded: flat [T * C] indices."""

    before: np.ndarray  # [K] of each row's last decision in the same match, or -1
    place: np.ndarray  # [K]


def _bytes(leaf: np.ndarray) -> np.ndarray:
    """[K, ...] without gaps -> the same memory as [K, N] bytes."""
    return leaf.reshape(len(leaf), math.prod(leaf.shape[1:])).view(np.uint8)


class Lanes:
    """The columns of one part of the seats."""

    def __init__(
        self,
        seats: np.ndarray,
        rows: int,
        length: int,
        *,
        state_shape: tuple[int, int, int],
        obs: Tree,
        mask: Tree,
        action: Tree,
    ) -> None:
        """seats [P] of the game; rows: R, of lanes at most that are handed over at a time; length: T.

        obs, mask and action are rows [K, ...] of what will be recorded, for their shapes.
        """
        # Each row can hold one; beside those, what is handed over, and what one tick may complete beyond it.
        columns = 3 * rows
        self.seats = seats
        self.length, self.columns = length, columns

        def leaves(tree: Tree) -> Tree:
            return {p: np.zeros((length, columns, *leaf.shape[1:]), leaf.dtype) for p, leaf in tree.items()}

        self.obs, self.mask, self.action = leaves(obs), leaves(mask), leaves(action)
        # The same memory as [T * C, N] bytes, which is where `record` writes.
        self._leaves = [
            ({path: _bytes(leaf.reshape(-1, *leaf.shape[2:])) for path, leaf in tree.items()}, tree)
            for tree in (self.obs, self.mask, self.action)
        ]
        self.scalars = np.zeros((4, length, columns), np.float32)
        self.flags = np.zeros((3, length, columns), bool)
        self.versions = np.zeros((length, columns), np.int32)
        self.initial_state = np.zeros((columns, *state_shape), np.float32)
        self.held = np.full(rows, -1, np.int64)  # of each row
        self.opened = np.zeros(rows, np.int64)  # where in its column a row's present match begins
        self.cursor = np.zeros(columns, np.int64)
        self.queue = np.zeros((3, columns), np.int64)
        self.head = np.zeros(3, np.int64)
        self.count = np.zeros(3, np.int64)
        self.clear()

    def clear(self) -> None:
        """Forget every decision that is not yet handed over."""
        self.held[:] = -1
        self.head[:] = 0
        self.count[:] = (self.columns, 0, 0)
        self.queue[FREE] = np.arange(self.columns)

    @property
    def complete(self) -> int:
        """How many complete lanes wait."""
        return int(self.count[COMPLETE])

    def open(self, rows: np.ndarray, is_first: np.ndarray, stored: np.ndarray, version: int) -> Opened:
        """Places for the next decisions of K rows, whose states before them are among stored [L, S, R, H].

        Whoever opens them must `record` them before anything is taken.
        """
        opened = Opened(np.empty(len(rows), np.int64), np.empty(len(rows), np.int64))
        there = _open(
            rows, is_first, stored, version, self.held, self.opened, self.cursor, self.queue, self.head,
            self.count, self.initial_state, self.scalars, self.flags, self.versions, *opened,
        )  # fmt: skip
        assert there, "batches are taken more slowly than lanes fill"
        return opened

    def record(
        self, opened: Opened, obs: Tree, mask: Tree, action: Tree, logp: np.ndarray, value: np.ndarray
    ) -> None:
        """Decisions of K rows: leaves [K, ...], logp and value [K]."""
        number = len(opened.place)
        assert len(logp) == len(value) == number, (logp.shape, value.shape, number)
        _note(*opened, logp, value, self.scalars.reshape(4, -1))
        for (kept, tree), given in zip(self._leaves, (obs, mask, action), strict=True):
            for path, leaf in given.items():
                assert leaf.shape == (number, *tree[path].shape[2:]), (path, leaf.shape, tree[path].shape)
                _put(_bytes(np.ascontiguousarray(leaf, tree[path].dtype)), opened.place, kept[path])

    def settle(
        self, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, final_value: np.ndarray
    ) -> None:
        """After a step: reward and endings [B, A], final_value [R] of the views where rows were truncated."""
        _settle(
            reward, terminated, truncated, self.seats, final_value, self.held, self.cursor, self.queue,
            self.head, self.count, self.scalars, self.flags,
        )  # fmt: skip

    def drop(self, rows: np.ndarray) -> None:
        """Forget what the present matches of these rows recorded, but for what lies in complete lanes."""
        _drop(rows, self.held, self.opened, self.cursor, self.queue, self.head, self.count)

    def take(self, number: int) -> Fragment:
        """So many lanes, those that were complete first, copied out."""
        assert number <= self.complete, (number, self.complete)
        size = self.queue.shape[1]
        order = (self.head[COMPLETE] + np.arange(number)) % size
        columns = self.queue[COMPLETE, order]
        self.head[COMPLETE] = (self.head[COMPLETE] + number) % size
        self.count[COMPLETE] -= number
        free = (self.head[FREE] + self.count[FREE] + np.arange(number)) % size
        self.queue[FREE, free] = columns
        self.count[FREE] += number

        def pick(tree: Tree) -> Tree:
            return {path: np.take(leaf, columns, axis=1) for path, leaf in tree.items()}

        logp, value, reward, next_value = np.take(self.scalars, columns, axis=2)
        is_first, terminated, truncated = np.take(self.flags, columns, axis=2)
        return Fragment(
            obs=pick(self.obs),
            mask=pick(self.mask),
            is_first=is_first,
            action=pick(self.action),
            logp=logp,
            value=value,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            next_value=next_value,
            initial_state=np.ascontiguousarray(self.initial_state[columns].transpose(1, 2, 0, 3)),
            version=np.take(self.versions, columns, axis=1),
        )

    def _arrays(self) -> Tree:
        own = {
            name: getattr(self, name)
            for name in (
                "scalars", "flags", "versions", "initial_state", "held", "opened", "cursor", "queue", "head",
                "count",
            )
        }  # fmt: skip
        trees = {"obs": self.obs, "mask": self.mask, "action": self.action}
        return own | {f"{kind}:{path}": leaf for kind, tree in trees.items() for path, leaf in tree.items()}

    def state(self) -> Tree:
        """Everything recorded, as arrays."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def set_state(self, state: Tree) -> None:
        for name, array in self._arrays().items():
            array[...] = state[name]
