"""Batches that rollouts play, and the pieces that each of them is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ray.actor import ActorHandle

from selfplay.engine.calls import Ref
from selfplay.matches import Lineups
from selfplay.worker import Collected

PIECES = 2
"""Pieces for each rollout of a batch that they share; each costs some milliseconds of Ray's and of copies."""


class Begun:
    """A batch that the rollouts play: in pieces, so many for each, of which every one plays one at least."""

    def __init__(self, number: int, lineups: Sequence[Lineups], pieces: int) -> None:
        self.number, self.lineups, self.pieces = number, lineups, pieces
        self.names = {name for each in lineups for name in each.players}
        self.done: list[tuple[Asked, Collected]] = []
        self._first = set(range(len(lineups)))  # rollouts that were asked for none yet
        self._left = (pieces - 1) * len(lineups)  # pieces for whoever is next, beside those

    @property
    def complete(self) -> bool:
        return len(self.done) == self.pieces * len(self.lineups)

    def give(self, rollout: int) -> bool:
        """Let this rollout have a piece, if one is left for it."""
        if rollout in self._first:
            self._first.remove(rollout)
            return True
        if self._left:
            self._left -= 1
            return True
        return False


class Asked(NamedTuple):
    """A piece that a rollout was asked for."""

    begun: Begun
    rollout: int
    actor: ActorHandle
    batch: Ref
    published: int  # how often weights had been published again by then
