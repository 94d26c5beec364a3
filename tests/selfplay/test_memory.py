"""A worker's process does not search for cycles in what a game throws away by itself."""

from __future__ import annotations

import gc

import pytest

from selfplay import config as configuration
from selfplay.memory import collect_seldom
from selfplay.worker import Worker


@pytest.fixture
def searches():
    """Searches since the test began; Python's own thresholds before and after."""
    seen: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            seen.append(info["generation"])

    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    gc.callbacks.append(note)
    yield seen
    gc.callbacks.remove(note)
    gc.set_threshold(*before)


def throws() -> None:
    """What OpenSpiel's yacht gives at a throw of five dice, 30 times over."""
    for _ in range(30):
        assert len([(number, 1 / 6**5) for number in range(6**5)]) == 7776


def test_long_lists_of_tuples_are_not_searched(searches):
    throws()
    assert len(searches) > 100  # so it was
    collect_seldom()
    gc.collect()
    searches.clear()
    throws()
    assert searches == []


def test_cycles_are_still_found(searches):
    collect_seldom()
    for _ in range(30_000):
        cycle: list[object] = []
        cycle.append(cycle)
    assert searches


def test_every_worker_asks_for_it(searches):
    config = configuration.load("default", {"env.id": "tic_tac_toe", "rollout.num_games": 8})
    Worker(config, 0, 1)
    searches.clear()
    throws()
    assert len(searches) < 2  # what else the process made may be due
