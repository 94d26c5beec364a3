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
