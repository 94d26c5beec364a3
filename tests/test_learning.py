"""Whole runs that must end in good players: `make test ARGS="-m learning"`, about a minute a seed."""

import json
import subprocess
import sys

import pytest


def command(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "selfplay", *map(str, arguments)], check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.mark.learning
@pytest.mark.parametrize("seed", [0, 1])
def test_connect_four_is_learned(tmp_path, seed):
    """A tenth of the main job: far above the untrained player's 3% against the one-ply bot."""
    run = tmp_path / "run"
    steps = ("--stop.agent-steps", 4e6, "--ppo.anneal-steps", 4e6)
    command("train", "connect_four", "--run-dir", run, "--seed", seed, *steps)
    for opponent, least in (("random", 0.95), ("bot:one_ply", 0.35)):
        line = command("play", run, opponent, "--games", 1000, "--json").splitlines()[-1]
        assert json.loads(line)["score_ci95"][0] > least, (opponent, line)


@pytest.mark.learning
def test_without_learning_nothing_is_learned(tmp_path):
    """The same with a learning rate of next to nothing: the test above can fail."""
    run = tmp_path / "run"
    still = ("--ppo.lr", 1e-12, "--ppo.lr-final", 0, "--stop.agent-steps", 1e6)
    command("train", "connect_four", "--run-dir", run, *still)
    line = command("play", run, "bot:one_ply", "--games", 1000, "--json").splitlines()[-1]
    assert json.loads(line)["score_ci95"][1] < 0.1, line


def train(run, config, *options):
    command("train", config, "--run-dir", run, "--rollout.num-workers", 0, "--device", "cpu", *options)


def result(*arguments):
    return json.loads(command(*arguments, "--json").splitlines()[-1])


@pytest.mark.learning
@pytest.mark.parametrize(
    ("config", "memory", "without"), [("cartpole", 450, 80), ("repeat_previous", 0.9, -0.4)]
)
def test_memory_is_learned(tmp_path, config, memory, without):
    for core, least, most in (("lstm", memory, float("inf")), ("none", float("-inf"), without)):
        train(tmp_path / core, config, "--policy.core", core)
        assert least < result("play", tmp_path / core, "--games", 200)["mean_return"] < most


@pytest.mark.learning
def test_hidden_moves_are_remembered(tmp_path):
    for core in ("lstm", "none"):
        train(tmp_path / core, "phantom_tic_tac_toe", "--policy.core", core)
    assert result("play", tmp_path / "lstm", tmp_path / "none", "--games", 2000)["score_ci95"][0] > 0.6


@pytest.mark.learning
def test_a_code_is_invented(tmp_path):
    train(tmp_path / "run", "signalling")
    assert result("play", tmp_path / "run", "--games", 1000)["mean_return"] >= 0.95


@pytest.mark.learning
@pytest.mark.parametrize(("config", "most"), [("kuhn_poker", 0.05), ("leduc_poker", 0.6)])
def test_the_last_policy_is_near_equilibrium(tmp_path, config, most):
    train(tmp_path / "run", config)
    assert result("exploitability", tmp_path / "run")["exploitability"] <= most


@pytest.mark.learning
@pytest.mark.parametrize(
    ("config", "least"), [("tictactoe_pettingzoo", 0.8), ("goofspiel_openspiel", 0.7), ("simple_tag", 0.5)]
)
def test_games_of_other_libraries_are_learned(tmp_path, config, least):
    train(tmp_path / "run", config)
    assert result("play", tmp_path / "run", "random", "--games", 1000)["score_ci95"][0] > least
