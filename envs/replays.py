"""Matches kept as their seed and actions, and played again from them.

A seats of the game, S seats of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from envs.leaves import leaf_spaces
from envs.rows import ActionReader
from envs.vector import Group, Tree

T = TypeVar("T")
_SEED_BYTES = 8


class Replays:
    """Writes down what is done in the matches of a game, each step in equally many bytes."""

    def __init__(self, groups: Sequence[Group], readers: Sequence[ActionReader]) -> None:
        self._readers = readers
        self._seats = [np.array(group.seats) for group in groups]
        self._leaves = [
            (k, path, np.dtype(leaf.dtype), (1, len(group.seats), *(leaf.shape or ())))
            for k, group in enumerate(groups)
            for path, leaf in leaf_spaces(group.action_space).items()
        ]
        self._sizes = [dtype.itemsize * int(np.prod(shape)) for _, _, dtype, shape in self._leaves]

    def begin(self, seed: int) -> bytearray:
        """The record of a match that begins."""
        return bytearray(seed.to_bytes(_SEED_BYTES, "little"))

    def notes(self, actions: Sequence[Tree], games: np.ndarray, acting: np.ndarray) -> list[bytes]:
        """A step of the matches in slots games [K], for their records: who acted [K, A], and the leaves."""
        if not len(games):
            return []
        columns = [acting, *(actions[k][path][games] for k, path, _, _ in self._leaves)]
        rows = [np.ascontiguousarray(x).reshape(len(games), -1).view(np.uint8) for x in columns]
        whole = np.concatenate(rows, axis=1)
        width, noted = whole.shape[1], whole.tobytes()
        return [noted[k * width : (k + 1) * width] for k in range(len(games))]

    def replay(self, record: bytes, reset: Callable[[int], T], step: Callable[[dict[int, Any]], T]) -> T:
        """Play the match again; gives what its last move shows."""
        shown = reset(int.from_bytes(record[:_SEED_BYTES], "little"))
        num_seats = sum(map(len, self._seats))
        at = _SEED_BYTES
        while at < len(record):
            acts = np.frombuffer(record, np.bool_, num_seats, at)
            at += num_seats
            actions: list[Tree] = [{} for _ in self._readers]
            for (k, path, dtype, shape), size in zip(self._leaves, self._sizes):
                row = np.frombuffer(record, dtype, int(np.prod(shape)), at)
                actions[k][path] = row.reshape(shape)
                at += size
            shown = step(self.taken(actions, np.zeros(1, np.int64), acts[None])[0])
        return shown

    def taken(self, actions: Sequence[Tree], games: np.ndarray, acting: np.ndarray) -> list[dict[int, Any]]:
        """seat -> its action, in its own space, for each of slots games [K], of the seats acting [K, A]."""
        own: list[dict[int, Any]] = [{} for _ in games]
        for group, (reader, seats) in enumerate(zip(self._readers, self._seats)):
            rows, places = acting[:, seats].nonzero()
            chosen = reader.actions(actions[group], games[rows], places)
            for row, seat, value in zip(rows.tolist(), seats[places].tolist(), chosen):
                own[row][seat] = value
        return own if len(self._readers) == 1 else [dict(sorted(each.items())) for each in own]
