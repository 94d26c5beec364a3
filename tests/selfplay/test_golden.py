"""The losses of a tiny run of Connect Four, as they were: a change that says "same numbers" must keep them.

After a change that is meant to move them:  python -m tests.selfplay.test_golden
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import pytest

from selfplay import learner, train, training
from selfplay.config import Config

GOLDEN = Path(__file__).with_name("golden_connect_four.json")
NAMES = (
    "loss/policy",
    "loss/value",
    "loss/entropy",
    "loss/kl",
    "loss/grad_norm",
    "agent_steps",
    "match/length",
)


def losses(path: Path) -> list[dict[str, float]]:
    """Six iterations: past selves from the first on, schedules on their way, two layers."""
    table = {
        "env": {"id": "connect_four"},
        "policy": {"encoder": [16], "hidden_size": 16, "num_layers": 2},
        "rollout": {"num_games": 16, "num_workers": 0, "fragment_length": 8},
        "ppo": {"lr": 3e-3, "anneal_steps": 3000},
        "league": {"snapshot_iterations": 2, "rating_games": 2, "self_play": 0.5},
        "stop": {"iterations": 6},
        "seed": 11,
        "device": "cpu",
    }
    assert train.run(Config.model_validate(table), path, resume=False) == 0
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [{name: row[name] for name in NAMES} for row in map(json.loads, lines)]


def assert_golden(got: list[dict[str, float]]) -> None:
    golden = json.loads(GOLDEN.read_text())
    assert len(got) == len(golden) == 6
    for iteration, (now, then) in enumerate(zip(got, golden, strict=True), start=1):
        for name in NAMES:
            # The policy's loss is a small rest of terms of order 1 that cancel.
            rest = 2e-7 if name == "loss/policy" else 1e-9
            assert now[name] == pytest.approx(then[name], rel=1e-4, abs=rest), (iteration, name)


@pytest.mark.parametrize("cores", [1, 3])
def test_losses_are_as_they_were(monkeypatch, run_dir, cores):
    """On any number of cores, hence of shards of a minibatch."""
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert_golden(losses(run_dir))


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        (learner, "ADAM_EPS", 1e-4),
        (learner.losses, "normalize", lambda advantage: advantage / advantage.std()),
        (training, "LINEUPS_PER_GAME", 3),
    ],
)
def test_a_small_change_is_seen(monkeypatch, run_dir, owner, name, value):
    monkeypatch.setattr(owner, name, value)
    with pytest.raises(AssertionError):
        assert_golden(losses(run_dir))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps(losses(Path(folder) / "run"), indent=1) + "\n"
    GOLDEN.write_text(text)
    sys.stdout.write(text)
