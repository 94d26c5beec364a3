"""The simulator's games by hand, and who converges in them, on fixed seeds and with margins."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from selfplay import cli, league_sim
from selfplay.league import matchmaking
from selfplay.league_sim import GAMES, Settings, simulate

SHORT = Settings(iterations=300)


def curve(game: str, matchmaker: str) -> np.ndarray:
    return simulate(game, matchmaker, SHORT).curve


def last(game: str, matchmaker: str) -> np.ndarray:
    """The learner's measure at the end, of every seed."""
    return simulate(game, matchmaker, SHORT).learner


# The games


def test_rock_paper_scissors_by_hand():
    game = GAMES["rock_paper_scissors"]
    rock, paper, half = np.eye(3)[0], np.eye(3)[1], np.array([0.5, 0.5, 0])
    assert game.advantage(paper[None], np.array([[rock, paper, half]])).tolist() == [[1, 0, 0.5]]
    assert game.distance(np.array([rock, half, np.full(3, 1 / 3)])) == pytest.approx([1, 0.5, 0])
    stronger = game.improved(np.full((1, 3), 1 / 3), np.array([[rock, rock]]))[0]
    # Logits 0, .5, -.5 for rock, paper, scissors, whose payoffs against rock are 0, 1, -1.
    assert stronger == pytest.approx(np.exp([0, 0.5, -0.5]) / np.exp([0, 0.5, -0.5]).sum())


def test_the_disc_by_hand():
    game = GAMES["disc"]
    right, up = np.array([1.0, 0]), np.array([0, 1.0])
    assert game.advantage(up[None], np.array([[right, up, -right]])).tolist() == [[1, 0, -1]]
    assert game.distance(np.array([[0.3, 0.4]])) == pytest.approx([0.5])
    assert game.improved(0.5 * right[None], np.array([[right, right]]))[0] == pytest.approx([0.47, 0.2])
    assert np.linalg.norm(game.improved(up[None], np.array([[right, up]]))) <= 1 + 1e-12


def test_skill_by_hand():
    game = GAMES["transitive"]
    one, others = np.array([[np.log(3)]]), np.array([[[0.0], [np.log(3)]]])
    assert game.advantage(one, others)[0] == pytest.approx([0.5, 0])  # wins 3 of 4, and half
    assert game.improved(one, others).item() == pytest.approx(np.log(3) + 0.1 * (3 / 16 + 1 / 4) / 2)


@pytest.mark.parametrize("name", GAMES)
def test_games_are_antisymmetric(name):
    game, rng = GAMES[name], np.random.default_rng(0)
    ones, others = (np.stack([game.start(rng) for _ in range(6)]) for _ in range(2))
    there = game.advantage(ones, others[:, None])[:, 0]
    back = game.advantage(others, ones[:, None])[:, 0]
    assert there == pytest.approx(-back)
    assert np.abs(there).max() <= 1


@pytest.mark.parametrize("name", GAMES)
def test_a_step_gains_against_those_it_was_taken_against(name):
    game, rng = GAMES[name], np.random.default_rng(1)
    others = np.stack([[game.start(rng)] for _ in range(5)])
    ones = np.full((5, 3), 1 / 3) if name == "rock_paper_scissors" else 0 * others[:, 0]
    gain = game.advantage(game.improved(ones, others), others) - game.advantage(ones, others)
    assert (gain > 0).all()


# Who converges


@pytest.mark.parametrize("game", ["rock_paper_scissors", "disc"])
def test_meeting_the_latest_alone_circles_and_others_converge(game):
    latest = curve(game, "latest")
    assert (latest[100:].min(axis=0) > 0.25).all(), "a circle never comes near the middle"
    assert latest[200:].mean() == pytest.approx(latest[100:200].mean(), abs=0.02)
    for matchmaker in ("nash", "alphastar"):
        assert (last(game, matchmaker) < 0.15).all(), matchmaker
    for matchmaker in ("quality", "pfsp_hard"):
        assert last(game, matchmaker).mean() < 0.6 * latest[-30:].mean(), matchmaker


def test_the_past_selves_of_a_circle_hold_the_answer():
    """What the learner runs around, the Nash mixture of its past selves finds."""
    result = simulate("disc", "latest", SHORT)
    assert (result.learner > 0.9).all()
    assert (result.pool < 1e-6).all()


def test_hard_pfsp_that_prefers_the_weak_does_not_converge(monkeypatch):
    honest = last("disc", "pfsp_hard").mean()
    monkeypatch.setattr(
        matchmaking, "pfsp_hard", lambda score, power: matchmaking._proportional(score**power)
    )
    assert last("disc", "pfsp_hard").mean() > honest + 0.2


def test_everybody_climbs_a_transitive_game_and_those_who_meet_equals_climb_fastest():
    reached = {name: last("transitive", name).mean() for name in matchmaking.NAMES}
    assert min(reached.values()) > 3
    assert max(reached.values()) == reached["latest"] == reached["nash"]
    assert min(reached.values()) == reached["uniform"] < 0.85 * reached["latest"]
    assert 300 * 0.1 / 4 * 0.9 < reached["latest"] < 300 * 0.1 / 4, "a quarter of the step, against equals"


def test_a_seed_gives_the_same_and_another_does_not():
    one, again = (simulate("disc", "pfsp_hard", Settings(iterations=30)).curve for _ in range(2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, simulate("disc", "pfsp_hard", Settings(iterations=30, seed=1)).curve)


def test_draws_follow_the_shares():
    rng = np.random.default_rng(0)
    drawn = [league_sim._draw(0.25, np.array([0.5, 0, 0.5]), rng) for _ in range(500)]
    count = np.bincount(np.concatenate(drawn) + 1, minlength=4) / (500 * league_sim.NUM_OPPONENTS)
    assert count == pytest.approx([0.25, 0.375, 0, 0.375], abs=0.03)


# The command


def test_the_command_prints_one_json_object(capsys):
    assert cli.main(["league-sim", "--game", "disc", "--matchmaker", "latest", "nash",
                     "--iterations", "20", "--seed", "3", "--json"]) == 0  # fmt: skip
    report = json.loads(capsys.readouterr().out)
    assert (report["iterations"], report["seed"], report["num_seeds"]) == (20, 3, league_sim.NUM_SEEDS)
    assert [row["matchmaker"] for row in report["results"]] == ["latest", "nash"]
    row = report["results"][0]
    assert (row["game"], row["measure"]) == ("disc", "exploitability")
    assert len(row["learner"]) == len(row["pool"]) == league_sim.NUM_SEEDS
    assert row["learner_mean"] == pytest.approx(np.mean(row["learner"]))
    assert row["pool_std"] == pytest.approx(np.std(row["pool"]))


def test_the_command_prints_a_table_and_draws_a_plot(capsys, tmp_path):
    path = tmp_path / "curves.png"
    assert cli.main(["league-sim", "--iterations", "15", "--plot", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.count("alphastar") == len(GAMES)
    assert "±" in out
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--game", "chess"], "no game 'chess'; there are rock_paper_scissors, disc, transitive"),
        (["--matchmaker", "best"], "no matchmaker 'best'; there are latest, uniform"),
        (["--iterations", "0"], "--iterations 0"),
        (["--seed", "-1"], "--seed -1"),
        (["--window", "2"], "--window 2.0"),
        (["--power", "0"], "--power 0.0"),
        (["--iterations", "10", "--plot", "/nowhere/curves.png"], "--plot /nowhere/curves.png"),
        (["--iterations", "10", "--plot", "curves.doc"], "--plot curves.doc"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(words, named, capsys):
    assert cli.main(["league-sim", "--game", "transitive", "--matchmaker", "latest", *words]) == 2
    streams = capsys.readouterr()
    assert named in streams.err
    assert streams.err.count("\n") == 1
    assert streams.out == ""


def test_a_plot_without_matplotlib_is_refused_before_the_work(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(league_sim, "simulate", None)
    assert cli.main(["league-sim", "--plot", "curves.png"]) == 2
    assert "pip install matplotlib" in capsys.readouterr().err
