"""The learners of a run, each with an engine of its own, and a turn of play and learning."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from selfplay.config import Config
from selfplay.engine import Engine, Learned
from selfplay.league.roles import Slot
from selfplay.matches import MAIN
from selfplay.worker import SLOT, Collected


@dataclass(slots=True)
class Member:
    """A slot of the league at work."""

    slot: Slot
    engine: Engine
    unchecked: bool = True  # whether its fragments have yet to be replayed
    ahead: bool = False  # whether its rollouts play for the next iteration already
    overlapped: bool = False  # whether they had begun with this one before it learned from the one before
    faces: set[str] = field(default_factory=set)  # who may sit in the matches begun last
    collected: list[Collected] = field(default_factory=list)
    learned: Learned = field(default=Learned(0, 0, {}))

    @property
    def is_main(self) -> bool:
        return self.slot.name == MAIN


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of a turn."""

    sample: float = 0.0
    learn: float = 0.0

    def __add__(self, other: Times) -> Times:
        return Times(self.sample + other.sample, self.learn + other.learn)


def take_turn(
    members: Sequence[Member], begin: Callable[[Member], None], may_play_ahead: Callable[[Member], bool]
) -> Times:
    """Sample, then learn: all these members at the same time.

    begin: let a member's rollouts play. A member that may play ahead does so while it learns. That batch is
    begun together with this one, so that a rollout which has played its part of this one waits for nobody.
    """

    def play_ahead() -> None:
        for member in members:
            if not member.ahead and may_play_ahead(member):
                begin(member)
                member.ahead = True

    start = time.perf_counter()
    for member in members:
        member.overlapped, member.ahead = member.ahead, False
        if not member.overlapped:
            begin(member)
    play_ahead()
    for member in members:
        member.collected = member.engine.collect()
    sampled = time.perf_counter()
    for member in members:
        if member.unchecked:
            member.unchecked = member.engine.check_replay() is None
    checked = time.perf_counter()
    play_ahead()  # those that were checked only now
    begun = time.perf_counter()
    for member, learned in zip(members, _all_learn([member.engine for member in members]), strict=True):
        member.learned = learned
    return Times(sampled - start + begun - checked, time.perf_counter() - begun)


def _all_learn(engines: Sequence[Engine]) -> list[Learned]:
    if len(engines) == 1:
        return [engines[0].learn()]
    with ThreadPoolExecutor(len(engines)) as pool:
        return list(pool.map(lambda engine: engine.learn(), engines))


def slot_config(config: Config, index: int, life: int) -> Config:
    """The run's configuration with the seed of a slot's so-manyth learner; the first slot's as it is."""
    if index == 0:
        return config
    drawn = np.random.SeedSequence(config.seed, spawn_key=(SLOT, index, life)).generate_state(1, np.uint64)
    return config.model_copy(update={"seed": int(drawn[0] >> np.uint64(1))})
