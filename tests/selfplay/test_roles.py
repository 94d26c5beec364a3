"""Several learners in one run: each trains, is frozen, begins anew; resumed, it is the same run."""

import json
import shutil
import sqlite3

import numpy as np
import pytest

from selfplay import checkpoint, contestants, train
from selfplay.config import Config
from selfplay.engine import local
from selfplay.errors import UserError
from selfplay.league.store import Store
from selfplay.matches import MAIN
from selfplay.members import slot_config
from selfplay.run_directory import RunDirectory


class Silent:
    def __init__(self):
        self.messages = []

    def update(self, metrics): ...

    def message(self, text):
        self.messages.append(text)

    def close(self): ...


def config(iterations, **league):
    return Config.model_validate(
        {
            "env": {"id": "tic_tac_toe"},
            "policy": {"encoder": [8], "hidden_size": 8},
            "rollout": {"num_games": 16, "num_workers": 0, "fragment_length": 4},
            "ppo": {"num_minibatches": 2, "lr": 1e-2},
            "league": {
                "snapshot_iterations": 3,
                "rating_games": 4,
                "main_exploiters": 1,
                "league_exploiters": 1,
                "exploiter_iterations": 4,
                "evaluators": 1,
                "evaluation_games": 4,
            }
            | league,
            "stop": {"iterations": iterations},
            "checkpoint": {"seconds": "none", "iterations": 5},
            "seed": 3,
            "device": "cpu",
        }
    )


def trained(path, iterations, **league):
    assert train.run(config(iterations, **league), path, resume=False) == 0
    return path


def tables(path):
    with sqlite3.connect(path / "league" / "league.sqlite") as db:
        names = ("players", "results", "matches", "meetings", "payoffs", "ratings", "lineup_seats")
        return {name: db.execute(f"SELECT * FROM {name}").fetchall() for name in names}


def rows(path):
    lines = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
    clocks = ("seconds", "speed/", "time/")
    keep = [{k: v for k, v in line.items() if not any(c in k for c in clocks)} for line in lines]
    assert keep
    return keep


def test_each_role_learns_and_leaves_frozen_players(tmp_path):
    path = trained(tmp_path / "run", 9)
    with Store(path / "league", readonly=True) as store:
        players = {p.name: p for p in store.players()}
        frozen = {p.role: [q.name for q in players.values() if q.kind == "snapshot" and q.role == p.role]
                  for p in players.values() if p.role}  # fmt: skip
        payoffs = store.payoffs()
        assert frozen["main"] == [f"main-{k:06d}" for k in (0, 3, 6, 9)]
        # A main exploiter begins anew each time; its successor is a player of its own, without a parent.
        assert frozen["main_exploiter"] == ["main_exploiter_0-000004", "main_exploiter_0.2-000008"]
        assert players["main_exploiter_0.2-000008"].parent is None
        assert len(frozen["league_exploiter"]) == 2
        first, second = (store.weights(name) for name in frozen["main_exploiter"])
        assert any((first[key] != second[key]).any() for key in first)
        assert store.config("main-000003") == store.config("main_exploiter_0-000004")
        kinds = {match.kind for iteration in range(1, 10) for match in store.matches(iteration)}
    assert kinds == {"train", "rating", "evaluation"}
    index = {name: k for k, name in enumerate(payoffs.players)}
    met = payoffs.matches.sum(axis=2)
    assert met[index["main_exploiter_0"], index[MAIN]] > 0  # the main learner as it is now
    assert met[index["main_exploiter_0"], index["league_exploiter_0"]] == 0
    assert (met == met.T).all()
    assert (payoffs.counts[..., 0].sum(axis=2) == payoffs.counts[..., 2].sum(axis=2).T).all()
    last = rows(path)[-1]
    assert last["main_exploiter_0/agent_steps"] > 0
    assert last["agent_steps"] == 9 * 16 * 2 * 4


def test_an_exploiter_plays_as_it_is_in_the_newest_checkpoint(tmp_path):
    path = trained(tmp_path / "run", 9, exploiter_reset=0.0)
    arrays, _ = checkpoint.load(checkpoint.newest(path / "checkpoints"))
    for name in ("main_exploiter_0.3", "league_exploiter_0"):
        learner = arrays[f"{name.partition('.')[0]}-learner"]
        found = contestants.find(f"{path}:{name}")
        assert found.label == f"{path}:{name} (iteration-00000009)"
        assert found.weights
        for key, array in found.weights.items():
            np.testing.assert_array_equal(array, learner[f"policy:{key}"])
    with pytest.raises(UserError, match=r"gave way to main_exploiter_0\.2 .*; play .*:main_exploiter_0-"):
        contestants.find(f"{path}:main_exploiter_0")
    with pytest.raises(UserError, match=r"gave way to main_exploiter_0\.3 .*; play .*:main_exploiter_0\.2-"):
        contestants.find(f"{path}:main_exploiter_0.2")
    for folder in (path / "checkpoints").iterdir():
        if not folder.name.endswith("05"):
            shutil.rmtree(folder)
    with pytest.raises(UserError, match=r"main_exploiter_0\.3 is not in the run's newest checkpoint$"):
        contestants.find(f"{path}:main_exploiter_0.3")


def test_an_exploiter_that_the_run_went_on_without(tmp_path):
    alone = config(6, main_exploiters=0, league_exploiters=0)
    path = trained(tmp_path / "run", 5, league_exploiters=0, exploiter_iterations=20)
    assert train.run(alone, path, resume=True) == 0
    with pytest.raises(UserError, match=r"main_exploiter_0 is not in the run's newest checkpoint$"):
        contestants.find(f"{path}:main_exploiter_0")


def test_an_exploiter_is_frozen_before_it_begins_anew(tmp_path, monkeypatch):
    """AlphaStar's trap: a snapshot taken after the reset would hold fresh weights."""
    before = {}

    def reset(self, config):
        before[len(before)] = {name: x.copy() for name, x in self.weights().items()}
        whole(self, config)

    whole = local.LocalEngine.reset
    monkeypatch.setattr(
        local.LocalEngine,
        "reset",
        lambda self, c: reset(self, c) if hasattr(self, "_published") else whole(self, c),
    )
    path = trained(tmp_path / "run", 4, league_exploiters=0)
    with Store(path / "league", readonly=True) as store:
        frozen = store.weights("main_exploiter_0-000004")
    assert len(before) == 1
    for name, x in frozen.items():
        np.testing.assert_array_equal(x, before[0][name])


@pytest.mark.parametrize("matchmaker", ["alphastar", "nash"])
def test_a_resumed_run_of_several_learners_is_the_same_run(tmp_path, matchmaker):
    whole = trained(tmp_path / "whole", 8, matchmaker=matchmaker)
    path = trained(tmp_path / "parts", 6, matchmaker=matchmaker)
    newest = checkpoint.newest(path / "checkpoints")
    assert newest.name.endswith("06")
    # What came after the checkpoint of iteration 5 is forgotten and played again.
    for folder in (path / "checkpoints").iterdir():
        if not folder.name.endswith("05"):
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
    assert train.run(config(8, matchmaker=matchmaker), path, resume=True) == 0
    assert rows(path) == rows(whole)
    ours, theirs = tables(path), tables(whole)
    for name in theirs:
        assert ours[name] == theirs[name], name


def test_slots_draw_apart_and_the_first_as_a_run_without_others():
    alone = config(1, main_exploiters=0, league_exploiters=0)
    assert slot_config(alone, 0, 1) is alone
    seeds = {slot_config(alone, index, life).seed for index in (1, 2) for life in (1, 2, 3)}
    assert len(seeds) == 6


def test_the_main_learner_is_what_it_would_be_alone_until_exploiters_join_the_pool(tmp_path):
    """An exploiter plays beside the main learner and takes nothing from it but the league's draws."""
    losses = [
        [
            row["loss/value"]
            for row in rows(trained(tmp_path / str(k), 1, main_exploiters=k, league_exploiters=k))
        ]
        for k in (0, 1)
    ]
    assert losses[0] == losses[1]


def test_a_general_sum_game_keeps_returns_and_rates_nobody(tmp_path):
    table = config(4, main_exploiters=0, league_exploiters=0).model_dump()
    dilemma = {"row_payoff": [[3, 0], [5, 1]], "column_payoff": [[3, 5], [0, 1]], "rounds": 2}
    table["env"] = {"id": "matrix_game", "kwargs": dilemma, "train_kwargs": {}}
    path = tmp_path / "run"
    assert train.run(Config.model_validate(table), path, resume=False) == 0
    with Store(path / "league", readonly=True) as store:
        payoffs = store.payoffs()
        assert store.rating_history() == []
    assert payoffs.counts.sum() == 0
    assert payoffs.matches.sum() > 0
    assert np.abs(payoffs.returns).sum() > 0
    last = rows(path)[-1]
    assert "league/rating" not in last
    assert "league/return/random" in last


def test_a_learner_plays_one_role_beside_its_past_selves(tmp_path):
    table = config(4, main_exploiters=0, league_exploiters=0).model_dump()
    table["env"] = {"id": "signalling", "kwargs": {}, "train_kwargs": {}}
    table["league"] |= {"lineup": "role", "matchmaker": "uniform", "self_play": 0.5}
    assert train.run(Config.model_validate(table), tmp_path / "run", resume=False) == 0
    with Store(tmp_path / "run" / "league", readonly=True) as store:
        played = {tuple(sorted(set(match.lineup))) for k in range(1, 5) for match in store.matches(k)}
    assert {("main",), ("main", "main-000000")} <= played
    assert all(len(who) == 1 or "main" in who for who in played)


def test_a_lineup_that_leaves_nothing_to_others_is_refused(tmp_path):
    table = config(1, main_exploiters=0, league_exploiters=0).model_dump()
    table["env"] = {"id": "cartpole", "kwargs": {}, "train_kwargs": {}}
    table["league"] |= {"lineup": "seat", "self_play": 0.5}
    with pytest.raises(UserError, match=r'league\.lineup="seat": cartpole has only one, .* could play$'):
        train.run(Config.model_validate(table), tmp_path / "run", resume=False)
    assert not (tmp_path / "run").exists()
    table["league"] |= {"lineup": "role", "self_play": 1.0}
    with pytest.raises(ValueError, match=r'league\.lineup="role", but league\.self_play=1'):
        Config.model_validate(table)


def test_a_run_directory_tells_of_a_bad_mix(tmp_path):
    with pytest.raises(ValueError, match=r"no qualty; nearest: quality"):
        config(1, matchmaker="mix", mix={"qualty": 1.0})
    with pytest.raises(ValueError, match=r"league\.mix\.nash=-1"):
        config(1, matchmaker="mix", mix={"nash": -1})
    with pytest.raises(ValueError, match="give weights"):
        config(1, mix={"nash": 1.0})
    assert RunDirectory.create(
        tmp_path / "r", config(1, matchmaker="mix", mix={"nash": 1.0})
    ).config.league.mix
