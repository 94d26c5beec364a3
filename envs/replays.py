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
        self._place = {s: (k, p) for k, group in enumerate(groups) for p, s in enumerate(group.seats)}
        self._leaves = [
            (k, path, np.dtype(leaf.dtype), (1, len(group.seats), *(leaf.shape or ())))
            for k, group in enumerate(groups)
            for path, leaf in leaf_spaces(group.action_space).items()
        ]
        self._sizes = [dtype.itemsize * int(np.prod(shape)) for _, _, dtype, shape in self._leaves]

    def begin(self, seed: int) -> bytearray:
        """The record of a match that begins."""
        return bytearray(seed.to_bytes(_SEED_BYTES, "little"))

    def note(self, record: bytearray, game: int, acts: np.ndarray, actions: Sequence[Tree]) -> None:
        """Add a step of the match in slot `game`: who acted [A] and each group's leaves [B, S, ...]."""
        record += acts.tobytes()
        for k, path, _, _ in self._leaves:
            record += actions[k][path][game].tobytes()

    def replay(self, record: bytes, reset: Callable[[int], T], step: Callable[[dict[int, Any]], T]) -> T:
        """Play the match again; gives what its last move shows."""
        shown = reset(int.from_bytes(record[:_SEED_BYTES], "little"))
        num_seats = len(self._place)
        at = _SEED_BYTES
        while at < len(record):
            acts = np.frombuffer(record, np.bool_, num_seats, at)
            at += num_seats
            actions: list[Tree] = [{} for _ in self._readers]
            for (k, path, dtype, shape), size in zip(self._leaves, self._sizes):
                row = np.frombuffer(record, dtype, int(np.prod(shape)), at)
                actions[k][path] = row.reshape(shape)
                at += size
            shown = step(self.taken(actions, 0, acts))
        return shown

    def taken(self, actions: Sequence[Tree], game: int, acts: np.ndarray) -> dict[int, Any]:
        """seat -> its action, in its own space, of those that act [A]."""
        own = {}
        for seat in acts.nonzero()[0].tolist():
            group, place = self._place[seat]
            own[seat] = self._readers[group].action(actions[group], game, place)
        return own
