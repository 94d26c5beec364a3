"""The past selves that are met, and who leaves when they become too many. N past selves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from selfplay.evaluate import Z95
from selfplay.league import quality
from selfplay.league.store import Player


class Pool:
    """Snapshots that may be drawn, in the order in which they joined, with their qualities."""

    def __init__(self, players: Sequence[Player]) -> None:
        self.members = [p for p in players if p.kind == "snapshot" and p.retired is None]
        self.quality = np.array([p.quality for p in self.members], np.float64)  # [N]
        self._saved = self.quality.copy()

    @property
    def names(self) -> list[str]:
        return [player.name for player in self.members]

    @property
    def roles(self) -> tuple[str, ...]:
        return tuple(str(player.role) for player in self.members)

    def joining_quality(self) -> float:
        """The quality at which a new past self joins."""
        return quality.joining(self.quality)

    def join(self, player: Player) -> None:
        self.members.append(player)
        assert player.quality is not None
        self.quality = np.append(self.quality, player.quality)
        self._saved = np.append(self._saved, player.quality)

    def leave(self, name: str) -> None:
        place = self.names.index(name)
        del self.members[place]
        self.quality, self._saved = np.delete(self.quality, place), np.delete(self._saved, place)

    def moved(self) -> list[tuple[str, float]]:
        """Qualities that changed since the last call."""
        places = np.flatnonzero(self.quality != self._saved)
        self._saved = self.quality.copy()
        return [(self.members[k].name, float(self.quality[k])) for k in places]

    def set_quality(self, values: Mapping[str, float]) -> None:
        self.quality = np.array([values[name] for name in self.names], np.float64)
        self._saved = self.quality.copy()


def leaver(counts: np.ndarray, keep: Sequence[bool]) -> int:
    """Who leaves a pool that is full: the one whom the main learner beats most surely.

    counts [N, 3] wins, draws, losses of the main learner, old matches fading; keep [N] who may not leave.
    Surest is the highest lower end of Wilson's 95% interval of the score; of equals the oldest goes.
    """
    n = counts.sum(axis=1)
    mean = np.divide(counts[:, 0] + counts[:, 1] / 2, n, out=np.full(len(n), 0.5), where=n > 0)
    n = np.maximum(n, 1e-9)
    z2 = Z95**2 / n
    half = Z95 * np.sqrt(mean * (1 - mean) / n + z2 / (4 * n))
    low = (mean + z2 / 2 - half) / (1 + z2)
    return int(np.argmax(np.where(np.asarray(keep, bool), -1.0, low)))
