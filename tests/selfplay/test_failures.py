"""Games whose own code raises: their matches are dropped and counted; too often is the end."""

import re
from collections import deque

import numpy as np
import pytest
from gymnasium import spaces

from envs.connect_four import ConnectFour
from envs.python_games import Match, Moment, PythonGames, Seat
from envs.vector import GameError
from selfplay import cli
from selfplay.config import Config
from selfplay.fragments import concatenate
from selfplay.matches import MAIN, Lineups
from selfplay.replay import check_replay
from selfplay.worker import Worker

LONGEST = 12


class Fragile(Match):
    """Counts down in turns; matches of seeds divisible by 3 show it from the start, and raise."""

    def reset(self, seed):
        self.left, self.doomed = 3 + seed % (LONGEST - 3), seed % 3 == 0
        self.noise = np.random.default_rng(seed)
        return self._moment()

    def step(self, actions):
        self.left -= 1
        if self.doomed and self.left == 1:
            raise RuntimeError("the board is on fire")
        return self._moment()

    def _moment(self):
        if self.left == 0:
            return Moment((), {}, terminated=(0, 1), reward={0: 1.0, 1: -1.0})
        seat = self.left % 2
        return Moment((seat,), {seat: np.array([self.doomed, self.noise.uniform(-1, 1)], np.float32)})

    def render(self):
        return str(self.left)


def fragile(num_games):
    seats = [Seat(f"player_{k}", spaces.Box(-1, 1, (2,)), spaces.Discrete(3)) for k in range(2)]
    return PythonGames("fragile", Fragile, num_games, seats, (0, 1))


class Unseeded(Fragile):
    """Draws of its own, so that no match can be played again."""

    starts = np.random.default_rng(0)

    def reset(self, seed):
        return super().reset(3 * int(self.starts.integers(1000)) + 1)


def unseeded(num_games):
    seats = [Seat(f"player_{k}", spaces.Box(-1, 1, (2,)), spaces.Discrete(3)) for k in range(2)]
    return PythonGames("unseeded", Unseeded, num_games, seats, (0, 1))


class Burning(ConnectFour):
    """A vector game that raises in every tenth step; no one knows what its matches are then."""

    steps = 0

    def step(self, actions):
        Burning.steps += 1
        if Burning.steps % 10 == 0:
            self.over[:] = self.to_act[:] = True  # what it leaves is nonsense
            raise KeyError("fire")
        super().step(actions)


class NeverOpens(ConnectFour):
    def restart(self, games, seeds):
        raise OSError("no display")


class Exits(ConnectFour):
    def step(self, actions):
        raise SystemExit(3)


def config_of(factory, *, length=LONGEST, games=8, **env):
    return Config.model_validate(
        {
            "env": {"id": f"python:tests.selfplay.test_failures:{factory}"} | env,
            "policy": {"encoder": [12], "hidden_size": 10},
            "rollout": {"num_games": games, "num_workers": 0, "fragment_length": length},
            "device": "cpu",
        }
    )


def opened(config):
    worker = Worker(config, 0, 1)
    main = worker.rollout.main[0].policy
    main.output_weight.data *= 300  # a wrong state shows in every probability
    worker.rollout.assign(Lineups((MAIN,), np.zeros((1, 2), np.int32)), {})
    return worker, main


@pytest.mark.parametrize("length", [2, LONGEST])
def test_what_dropped_matches_decided_is_taken_back(length):
    worker, main = opened(config_of("fragile", length=length, max_failures=10**6))
    matches = worker.rollout.matches
    batches, lengths = [], []
    for _ in range(12):
        batch, results = worker.rollout.collect()
        batches.append(batch[0])
        lengths += results.length.tolist()
        assert not results.seed.astype(object).tolist() or all(
            int(s) % 3 for s in results.seed.astype(object)
        )
    fragment = concatenate(batches)
    assert matches.dropped == matches.failures > 10
    assert "the board is on fire" in matches.cause
    assert set(lengths) <= set(range(3, LONGEST))
    # Of a doomed match only lanes remain that were complete before it was dropped, up to their ends.
    doomed = fragment.obs[""][..., 0] == 1
    assert not (doomed[:-1] & fragment.is_first[1:]).any()
    assert doomed.mean() < (0.5 if length == 2 else 0.1)
    assert check_replay(main, fragment, 0).ratio < 1e-4


def test_matches_that_cannot_be_played_again_on_resume_are_dropped():
    worker, _ = opened(config_of("unseeded"))
    worker.rollout.collect()
    under_way = int((~worker.env.over).sum())
    again, main = opened(config_of("unseeded"))
    assert again.rollout.set_state(*worker.rollout.state(), {})
    matches = again.rollout.matches
    assert matches.dropped == under_way > 0
    assert "the same seed and actions show something else" in matches.cause
    assert matches.idle
    assert (again.rollout.lanes[0].held == -1).all()
    again.rollout.assign(Lineups((MAIN,), np.zeros((1, 2), np.int32)), {})
    batch, _ = again.rollout.collect()
    assert check_replay(main, concatenate([batch[0]]), 0).ratio < 1e-4


def test_what_is_not_taken_back_is_seen(monkeypatch):
    monkeypatch.setattr("selfplay.lanes.Lanes.drop", lambda self, rows: self.held.__setitem__(rows, -1))
    with pytest.raises(AssertionError):
        test_what_dropped_matches_decided_is_taken_back(LONGEST)


def test_a_vector_game_that_raises_is_made_anew():
    Burning.steps = 0
    worker, main = opened(config_of("Burning", max_failures=10**6, games=4))
    finished, batches = 0, []
    for _ in range(4):
        batch, results = worker.rollout.collect()
        batches.append(batch[0])
        finished += len(results.seed)
        assert (np.abs(results.returns).sum(axis=1) != 1).all()
    matches = worker.rollout.matches
    assert matches.failures == Burning.steps // 10 > 2
    assert matches.dropped == 4 * matches.failures
    assert "KeyError: 'fire'" in matches.cause
    assert "test_failures.py" in matches.cause
    assert check_replay(main, concatenate(batches), 0).ratio < 1e-4


@pytest.mark.parametrize(
    ("factory", "allowed", "message"),
    [
        (
            "fragile",
            2,
            r"failed 3 times, env.max_failures=2; the last: .*the board is on fire",
        ),
        (
            "fragile",
            0,
            r"fragile: its code failed once, env.max_failures=0; .*match \d+.*RuntimeError",
        ),
        (
            "NeverOpens",
            5,
            r"failed 6 times, env.max_failures=5; the last: OSError: no display",
        ),
        ("Exits", 1, r"failed 2 times, env.max_failures=1; the last: SystemExit: 3"),
    ],
)
def test_too_often_is_the_end(factory, allowed, message):
    worker, _ = opened(config_of(factory, max_failures=allowed))
    with pytest.raises(GameError, match=message):
        deque((worker.rollout.collect() for _ in range(50)), maxlen=0)


def test_a_run_tells_of_dropped_matches_and_ends_with_the_cause(tmp_path, capsys):
    words = [
        "train", "default", "--env.id", "python:tests.selfplay.test_failures:fragile", "--run-dir",
        str(tmp_path / "run"), "--rollout.num-workers", "0", "--rollout.num-games", "16",
        "--league.rating-games", "1", "--env.max-failures", "200", "--stop.iterations", "500",
    ]  # fmt: skip
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert "the board is on fire" in out
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "env.max_failures=200; the last: " in err
    assert "the board is on fire" in err


class Bad:
    """A vector game of two cells, wrong in one way."""

    def __new__(cls, num_games, *, wrong):
        return PythonGames("bad", lambda: BadMatch(wrong), num_games, BAD_SEATS, (0,))


BAD_SEATS = [Seat("player_0", spaces.Box(0, 1, (2,)), spaces.Discrete(3), has_mask=True)]
WRONG = {
    "not_finite": (np.array([0, np.nan], np.float32), "nan"),
    "outside": (np.array([0, 7], np.float32), "7"),
    "dtype": (np.array(["a", "b"]), "dtype|type"),
    "shape": (np.zeros(3, np.float32), "shape|\\(3,\\)"),
    "mask": (None, "no legal action"),
}


class BadMatch(Match):
    def __init__(self, wrong):
        self.wrong = wrong

    def reset(self, seed):
        self.time = 0
        return self._moment(np.zeros(2, np.float32), np.ones(3, bool))

    def step(self, actions):
        self.time += 1
        obs, mask = np.zeros(2, np.float32), np.ones(3, bool)
        if self.time == 3:
            obs = obs if WRONG[self.wrong][0] is None else WRONG[self.wrong][0]
            mask = np.zeros(3, bool) if self.wrong == "mask" else mask
        return self._moment(obs, mask)

    def _moment(self, obs, mask):
        return Moment((0,), {0: obs}, mask={0: mask})

    def render(self):
        return ""


@pytest.mark.parametrize("wrong", WRONG)
def test_a_game_that_breaks_its_contract_ends_the_run_with_one_clear_line(wrong, tmp_path, capsys):
    words = [
        "train", "default", "--env.id", "python:tests.selfplay.test_failures:Bad",
        "--env.kwargs.wrong", wrong, "--run-dir", str(tmp_path / "run"),
        "--rollout.num-workers", "0", "--rollout.num-games", "4",
    ]  # fmt: skip
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert re.match(r"error: bad, match \d, seat 0", err), err
    assert re.search(WRONG[wrong][1], err), err


class BurnsInRatings(ConnectFour):
    """Raises in the step after the tenth, once, wherever it is played."""

    burnt = False

    def __init__(self, num_games):
        super().__init__(num_games)
        self.steps = 0

    def step(self, actions):
        self.steps += 1
        if self.steps > 10 and not BurnsInRatings.burnt:
            BurnsInRatings.burnt = True
            raise RuntimeError("smoke")
        super().step(actions)


def words(factory, folder):
    return [
        "train", "default", "--env.id", f"python:tests.selfplay.test_failures:{factory}", "--run-dir",
        str(folder), "--rollout.num-workers", "0", "--rollout.num-games", "8", "--stop.iterations", "2",
        "--league.rating-games", "8",
    ]  # fmt: skip


def test_matches_beside_training_are_dropped_too(tmp_path):
    """The first matches of a run rate its first snapshot: some are lost, the run goes on."""
    BurnsInRatings.burnt = False
    assert cli.main(words("BurnsInRatings", tmp_path / "run")) == 0
    assert BurnsInRatings.burnt


def test_play_ends_with_one_line(tmp_path, capsys):
    BurnsInRatings.burnt = False
    game = ["--env", "python:tests.selfplay.test_failures:BurnsInRatings"]
    assert cli.main(["play", "random", "random", "--games", "4", *game]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: connect_four: its code failed once, ")
    assert "RuntimeError: smoke" in err
    assert err.count("\n") == 1


def test_a_number_that_is_none_is_refused(tmp_path, capsys):
    assert cli.main([*words("Bad", tmp_path / "run"), "--env.kwargs.wrong", "nan"]) == 2
    assert "env.kwargs.wrong=nan is not allowed; it must be finite" in capsys.readouterr().err
