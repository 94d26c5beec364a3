"""Whether the rollouts play the next batch while the learner learns: as configured, or as is faster."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

WARM_UP, BLOCK, ROUNDS = 4, 6, 4
"""Under "auto": iterations before the trial, of each block, and how often both ways take their turn."""

MARGIN = 1.02
"""Overlapping must be so many times as fast: it makes data a little older."""

HELD, MEMORY = 0.95, 0.9
"""Staleness, as a mean of which the past makes up so much, above which rollouts take turns again; a little
below 1, so that a part of a run has no more."""

T = TypeVar("T")


class Overlap:
    """Decides each iteration; under "auto" by a trial at the start of the run.

    The trial has blocks of iterations in turns and blocks that overlap, in pairs of which every other is the
    other way round, so that a machine which grows slower is fair to both. Every block begins and ends
    with idle rollouts, so that its decisions were all played and learned from within its own time; an
    overlapping block of K iterations overlaps K - 1 times. The median over the rounds decides, by what
    is left of the gain where holding the staleness forces some iterations to take turns.
    """

    def __init__(self, staleness: int | Literal["auto"]) -> None:
        self.chosen: bool | None = None if staleness == "auto" else staleness == 1
        self.staleness = 0.0  # mean of late
        self._seen = 0  # iterations of the trial
        self._steps = self._seconds = 0.0  # of the present block
        self._speeds: list[float] = []  # decisions a second of the blocks so far
        self._ages: list[float] = []  # staleness of the trial's iterations, from the warm-up's end on

    def wanted(self) -> bool:
        """Whether to begin the next batch before the one in hand is learned from."""
        if self.chosen is not None:
            return self.chosen and self.staleness <= HELD
        block, place = divmod(self._seen - WARM_UP, BLOCK)
        return block >= 0 and _overlaps(block) and place < BLOCK - 1

    def observe(self, steps: int, seconds: float, staleness: float) -> str | None:
        """After an iteration of so many decisions, so old; what the trial found, once, when it ends."""
        self.staleness = MEMORY * self.staleness + (1 - MEMORY) * staleness
        if self.chosen is not None:
            return None
        self._seen += 1
        if self._seen <= WARM_UP:
            return None
        self._steps += steps
        self._seconds += seconds
        self._ages.append(staleness)
        if (self._seen - WARM_UP) % BLOCK:
            return None
        self._speeds.append(self._steps / self._seconds)
        self._steps = self._seconds = 0.0
        return self._decide() if len(self._speeds) == 2 * ROUNDS else None

    def trial_left(self) -> int:
        """Iterations until the choice is made."""
        return WARM_UP + 2 * ROUNDS * BLOCK - self._seen if self.chosen is None else 0

    def _decide(self) -> str:
        pairs = zip(*_by_way(self._speeds), strict=True)
        gain = math.exp(statistics.median(math.log(overlapped / turns) for turns, overlapped in pairs))
        share = self._share()
        gain = 1 / (1 - share + share / gain)
        self.chosen = gain >= MARGIN
        often = f" in {share:.0%} of iterations, as its staleness allows," if share < 1 else ""
        choice = "play on while learning" if self.chosen else "take turns"
        return (
            f"playing on while learning{often} is {gain:.2f} times as fast as taking turns: rollouts {choice}"
        )

    def _share(self) -> float:
        """Of iterations, how many may overlap so that staleness is held."""
        in_turns, overlapped = _by_way([self._ages[k : k + BLOCK] for k in range(0, len(self._ages), BLOCK)])
        turns = statistics.fmean(itertools.chain(*in_turns))
        # A block's first iteration was not played ahead.
        ahead = statistics.fmean(itertools.chain(*(block[1:] for block in overlapped)))
        return 1.0 if ahead <= HELD else max(0.0, (HELD - turns) / (ahead - turns))

    def state(self) -> dict[str, Any]:
        """The choice, for a checkpoint; a trial that is under way begins anew."""
        return {"chosen": self.chosen, "staleness": self.staleness}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Keep what the run chose before; a choice of the configuration goes before it."""
        self.staleness = state.get("staleness", 0.0)
        if self.chosen is None:
            self.chosen = state["chosen"]


def _overlaps(block: int) -> bool:
    """Whether this block of a trial is one that overlaps."""
    return block % 4 in (1, 2)


def _by_way(blocks: Sequence[T]) -> tuple[list[T], list[T]]:
    """Those of a trial's blocks that take turns, and those that overlap."""
    turns = [each for k, each in enumerate(blocks) if not _overlaps(k)]
    return turns, [each for k, each in enumerate(blocks) if _overlaps(k)]
