"""A resumed run is the same run: numbers, weights, league; and where it cannot be, it says so."""

import json
import shutil
import signal

import numpy as np
import pytest

from selfplay import checkpoint, worker
from selfplay.config import Config
from selfplay.errors import CheckpointError
from selfplay.league import LeagueError
from selfplay.league.league import League
from selfplay.rollout import Matches
from selfplay.train import run

TIMES = ("seconds", "time/", "speed/")


def config_of(iterations, **changes):
    """Snapshots, past selves, ratings and every normaliser within a few iterations."""
    table = {
        "env": {"id": "connect_four", "train_kwargs": {"opening_plies": 4}},
        "policy": {"encoder": [12], "hidden_size": 10},
        "rollout": {"num_games": 8, "num_workers": 0, "fragment_length": 6},
        "ppo": {"epochs": 2, "normalize_value": True, "magnet_coef": 0.1, "magnet_iterations": 4},
        "league": {"snapshot_iterations": 2, "rating_games": 2, "self_play": 0.5},
        "checkpoint": {"seconds": "none", "iterations": 4},
        "seed": 3,
        "device": "cpu",
    }
    for section, values in changes.items():
        table[section] = table[section] | values if isinstance(values, dict) else values
    # The end of the run must not move the schedules.
    table["ppo"] = {"anneal_steps": 2000} | table["ppo"]
    return Config.model_validate(table | {"stop": {"iterations": iterations}})


def rows(path):
    """metrics.jsonl without what a clock told."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(TIMES)} for row in lines]


def players(path, config):
    league = League.open(path / "league", config.league, worker.make_game(config, 1).teams, config.seed)
    try:
        known = league.players()
        weights = {p.name: league.weights(p.name) for p in known if p.kind == "snapshot"}
        return known, weights, league.state()["rng"]
    finally:
        league.close()


def assert_same_run(one, two, iterations):
    assert rows(one) == rows(two)
    assert [row["iteration"] for row in rows(one)] == list(range(1, iterations + 1))
    left, left_meta = checkpoint.load(checkpoint.newest(one / "checkpoints"))
    right, right_meta = checkpoint.load(checkpoint.newest(two / "checkpoints"))
    assert left.keys() == right.keys()
    for part in left:
        assert left[part].keys() == right[part].keys()
        for name, array in left[part].items():
            assert np.array_equal(array, right[part][name], equal_nan=array.dtype.kind == "f"), (part, name)
    left_meta.pop("seconds"), right_meta.pop("seconds")
    assert left_meta == right_meta


def train(path, iterations, *, resume=False, **changes):
    assert run(config_of(iterations, **changes), path, resume) == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of six iterations at once, to be read."""
    path = tmp_path_factory.mktemp("at_once") / "whole"
    train(path, 6)
    return path


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """Its first three iterations, to be copied."""
    path = tmp_path_factory.mktemp("in_parts") / "half"
    train(path, 3)
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ppo": {"advantage": "vtrace", "normalize_reward": True, "grad_clip_sigma": 5.0}},
        {"env": {"id": "python:tests.toy_games:turns", "train_kwargs": {}}},
    ],
    ids=["connect_four", "all on", "toy"],
)
def test_a_run_in_two_parts_is_the_run_at_once(tmp_path, changes):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(whole, 6, **changes)
    train(parts, 3, **changes)
    train(parts, 6, resume=True, **changes)
    assert_same_run(whole, parts, 6)
    config = config_of(6, **changes)
    known, weights, rng = players(whole, config)
    known_parts, weights_parts, rng_parts = players(parts, config)
    assert known == known_parts
    assert rng == rng_parts
    assert sum(player.kind == "snapshot" for player in known) == 4  # at 0, 2, 4, 6
    for name, arrays in weights.items():
        assert all(np.array_equal(x, weights_parts[name][key]) for key, x in arrays.items())


def test_what_was_done_after_the_checkpoint_is_done_again(whole, tmp_path):
    """As after a crash: iteration 5 was played, the newest checkpoint is of 4."""
    crashed = tmp_path / "crashed"
    train(crashed, 5)
    newest = checkpoint.newest(crashed / "checkpoints")
    assert newest.name == "iteration-00000005"
    newest.rename(tmp_path / "lost")
    train(crashed, 6, resume=True)
    assert_same_run(whole, crashed, 6)


def test_a_run_that_died_before_its_last_checkpoint_is_not_at_its_end(whole, tmp_path):
    crashed = tmp_path / "crashed"
    shutil.copytree(whole, crashed)
    checkpoint.newest(crashed / "checkpoints").rename(tmp_path / "lost")
    train(crashed, 6, resume=True)
    assert_same_run(whole, crashed, 6)


def test_without_a_checkpoint_nothing_is_started(whole, tmp_path, monkeypatch):
    husk = tmp_path / "husk"
    shutil.copytree(whole, husk)
    for path in (husk / "checkpoints").iterdir():
        path.rename(tmp_path / path.name)
    monkeypatch.setattr("selfplay.train.Training", None)
    before = (husk / "config.toml").read_text()
    with pytest.raises(CheckpointError, match="husk has no checkpoint to go on from; begin a new run"):
        train(husk, 7, resume=True)
    assert (husk / "config.toml").read_text() == before


def test_stopped_before_training_begins_nothing_is_left(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("selfplay.train.Training", lambda *arguments: signal.raise_signal(signal.SIGINT))
    with pytest.raises(SystemExit, match="130"):
        train(tmp_path / "run", 2)
    assert not (tmp_path / "run").exists()
    assert "stopped before training began: there is nothing to go on with" in "".join(capfd.readouterr())


def test_an_end_that_was_reached_changes_nothing(tmp_path, capfd):
    train(tmp_path / "run", 2)
    before = (tmp_path / "run" / "config.toml").read_text()
    train(tmp_path / "run", 1, resume=True, seed=9)
    said = "".join(capfd.readouterr())
    assert "at its end (iteration 2 of 1); to go on, give a later --stop.iterations, or none" in said
    assert (tmp_path / "run" / "config.toml").read_text() == before


def test_what_the_user_can_mend_in_mid_run_loses_no_run(whole, tmp_path, monkeypatch):
    """Such as a full disk, which the league's database tells of."""
    commit = League.commit

    def full(self, iteration):
        if iteration == 5:
            raise LeagueError("database or disk is full")
        commit(self, iteration)

    with monkeypatch.context() as patch:
        patch.setattr(League, "commit", full)
        with pytest.raises(LeagueError):
            train(tmp_path / "run", 6)
    train(tmp_path / "run", 6, resume=True)
    assert_same_run(whole, tmp_path / "run", 6)


def test_a_run_that_failed_before_its_first_iteration_is_begun_again(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(League, "record", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(tmp_path / "run", 2)
    assert checkpoint.newest(tmp_path / "run" / "checkpoints") is not None
    train(tmp_path / "run", 2)
    train(tmp_path / "whole", 2)
    assert_same_run(tmp_path / "whole", tmp_path / "run", 2)


def test_a_checkpoint_that_lacks_a_key_is_refused(tmp_path, monkeypatch):
    train(tmp_path / "run", 1)
    original = checkpoint.load

    def load(path):
        arrays, meta = original(path)
        del meta["config"]["policy"]["per"]
        return arrays, meta

    monkeypatch.setattr(checkpoint, "load", load)
    with pytest.raises(CheckpointError, match=r"know no policy\.per: an earlier version"):
        run(config_of(2), tmp_path / "run", resume=True)


def test_another_seed_is_another_run(tmp_path):
    train(tmp_path / "a", 2)
    train(tmp_path / "b", 2, seed=4)
    assert rows(tmp_path / "a")[0]["loss/value"] != rows(tmp_path / "b")[0]["loss/value"]


@pytest.mark.parametrize("game", ["memory", "cutoff"])
def test_a_game_without_state_begins_its_matches_anew_and_says_so(tmp_path, capfd, game):
    changes = {"env": {"id": f"python:tests.toy_games:{game}", "train_kwargs": {}}}
    train(tmp_path / "run", 3, **changes)
    said = "".join(capfd.readouterr())
    assert "begin anew" not in said
    train(tmp_path / "run", 6, resume=True, **changes)
    said = "".join(capfd.readouterr())
    assert "matches under way begin anew" in said
    assert [row["iteration"] for row in rows(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]


def forget_the_draws(monkeypatch):
    original = Matches.set_state

    def set_state(self, arrays, meta, players):
        return original(self, arrays, meta | {"rng": self.rng.bit_generator.state}, players)

    monkeypatch.setattr(Matches, "set_state", set_state)


def forget_the_recurrent_states(monkeypatch):
    original = Matches.set_state

    def set_state(self, arrays, meta, players):
        return original(self, {k: v * 0 if ":state:" in k else v for k, v in arrays.items()}, meta, players)

    monkeypatch.setattr(Matches, "set_state", set_state)


def forget_the_league(monkeypatch):
    monkeypatch.setattr(League, "set_state", lambda self, state, iteration: None)


def begin_matches_anew(monkeypatch):
    monkeypatch.setattr(worker.Worker, "set_state", lambda *args: True)


@pytest.mark.parametrize(
    "plant", [forget_the_draws, forget_the_recurrent_states, forget_the_league, begin_matches_anew]
)
def test_a_run_that_is_not_the_same_is_seen(monkeypatch, whole, half, tmp_path, plant):
    shutil.copytree(half, tmp_path / "parts")
    plant(monkeypatch)
    train(tmp_path / "parts", 6, resume=True)
    with pytest.raises(AssertionError):
        assert_same_run(whole, tmp_path / "parts", 6)
