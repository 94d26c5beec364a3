"""benchmarks.slow_games_one_core: the table's arithmetic; the bare game keeps Python's own thresholds."""

import gc
import itertools

from benchmarks import slow_games_one_core
from benchmarks.slow_games_one_core import Round, row
from selfplay.memory import collect_seldom


def test_a_row_tells_medians_of_ratios():
    rounds = [
        Round(100e-6, 400e-6, 110e-6, 150e-6, 105e-6, 20e-6, 15e-6),
        Round(200e-6, 800e-6, 200e-6, 250e-6, 190e-6, 30e-6, 20e-6),  # the machine is half as fast
        Round(100e-6, 400e-6, 105e-6, 125e-6, 100e-6, 10e-6, 10e-6),
    ]
    shown = ["x", "400", "100", "1.05", "1.00", "0.15", "0.10", "1.25", "20%", "20% to 33%"]
    assert row("x", rounds) == shown


def test_the_bare_game_is_played_as_python_would(monkeypatch):
    before, seen = gc.get_threshold(), []
    monkeypatch.setattr(slow_games_one_core, "TURN", 1e-4)
    collect_seldom()
    try:
        play = (seen.append(gc.get_threshold()) or 2 for _ in itertools.count())
        decision, step = slow_games_one_core.bare(play)
        assert set(seen) == {slow_games_one_core.PYTHONS}
        assert step == 2 * decision
        assert gc.get_threshold() != slow_games_one_core.PYTHONS
    finally:
        gc.set_threshold(*before)
