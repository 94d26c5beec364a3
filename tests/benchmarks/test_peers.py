import json
import sys

import numpy as np
import pytest

from benchmarks.peers import common, rows


class Clock:
    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(common.time, "perf_counter", lambda: self.now)


def test_meter_counts_after_the_warm_up_alone(monkeypatch):
    clock = Clock(monkeypatch)
    meter = common.Meter(5.0, warm_up_iterations=2, warm_up_seconds=4.0)
    going = []
    for clock.now in (1.0, 3.0, 5.0, 7.0, 9.0, 11.0):  # the third ends the warm-up: two, and 4 seconds
        going.append(meter.tick(10, 20))
    assert going == [True, True, True, True, True, False]
    assert meter.result() == common.Measured(decisions=30, rows=60, seconds=6.0)


def test_meter_wants_something_measured(monkeypatch):
    Clock(monkeypatch)
    meter = common.Meter(5.0, warm_up_iterations=1, warm_up_seconds=0.0)
    assert meter.tick(10)
    with pytest.raises(RuntimeError, match="warm-up"):
        meter.result()


def line(monkeypatch, capsys, *arguments, measure=None):
    def measured(workload, seconds, **settings):
        return common.Measured(decisions=100, rows=200, seconds=2.0)

    settings = {"connect_four": {"games": 8, "fast": True, "mode": "serial"}}
    monkeypatch.setattr(sys, "argv", ["peer", *arguments])
    common.main("", measure or measured, settings)
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_settings_are_options(monkeypatch, capsys):
    assert line(monkeypatch, capsys, "connect_four") == {
        "decisions_per_s": 50.0,
        "rows_per_s": 100.0,
        "settings": "games 8, fast True, mode serial",
        "decisions": 100,
        "rows": 200,
        "seconds": 2.0,
    }
    changed = line(monkeypatch, capsys, "connect_four", "--games", "4", "--no-fast")
    assert changed["settings"] == "games 4, fast False, mode serial"


def test_a_workload_that_is_left_out_says_why(monkeypatch, capsys):
    def cannot(*_, **__):
        raise common.CannotRun("no masks")

    for arguments, reason in (("connect_four", "no masks"), ("cartpole", "not written for cartpole")):
        with pytest.raises(SystemExit) as ended:
            line(monkeypatch, capsys, arguments, measure=cannot)
        assert ended.value.code == common.LEFT_OUT
        assert capsys.readouterr().err.splitlines()[-1] == reason


def test_seats_of_connect_four_take_turns_as_rows():
    game = rows.make("connect_four", 3)
    assert game.num_rows == 6
    waiting = [True] + [False] * 6
    for step in range(2):
        assert (game.acting.reshape(3, 2) == [step == 0, step == 1]).all()
        assert (game.mask[~game.acting] == waiting).all()
        game.step(np.zeros(6, np.int64))
    for column in (
        1,
        0,
        1,
        0,
        1,
    ):  # the other seat's goes on top: four in column 0 are three of the first seat
        game.step(np.full(6, column))


def test_a_match_begins_anew_in_the_step_that_ends_it():
    game = rows.make("connect_four", 1)
    first = game.obs.copy()
    for column in (0, 1, 0, 1, 0, 1):
        game.step(np.full(2, column))
        assert not (game.terminated | game.truncated).any()
    game.step(np.zeros(2, np.int64))  # the fourth in a column
    assert game.terminated.tolist() == [True, True]
    assert game.reward.tolist() == [1.0, -1.0]
    assert (game.obs == first).all()
    game.step(np.zeros(2, np.int64))
    assert game.reward.tolist() == [0.0, 0.0]


def test_an_illegal_action_becomes_a_legal_one():
    game = rows.make("connect_four", 8)
    for _ in range(20):  # the column is full after six
        game.step(np.zeros(16, np.int64))
    mask = np.array([[False, True, False, True]] * 1000)
    made = rows._made_legal(np.zeros(1000, np.int64), mask, np.random.default_rng(0))
    assert set(made.tolist()) == {1, 3}
    assert 400 < (made == 1).sum() < 600
    legal = rows._made_legal(np.full(1000, 3), mask, np.random.default_rng(0))
    assert (legal == 3).all()


def test_matches_shared_among_processes_play_as_those_of_one():
    whole, split = rows.make("rock_paper_scissors", 4), rows.make("rock_paper_scissors", 4, processes=2)
    rng = np.random.default_rng(0)
    for _ in range(25):
        for name in rows.SHOWN:
            assert (getattr(whole, name) == getattr(split, name)).all(), name
        action = rng.integers(3, size=8)
        whole.step(action)
        split.step(action)


def test_simple_tag_pads_and_cuts_off():
    pytest.importorskip("mpe2")
    game = rows.make("simple_tag", 2)
    assert game.obs.shape == (8, 16)
    assert (game.obs[[3, 7], 14:] == 0).all()
    for number in range(1, 51):
        game.step(np.ones(8, np.int64))
        assert (game.truncated == (number % 25 == 0)).all()
