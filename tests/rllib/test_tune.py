"""Our training under Tune: a sweep, and trials that go on from checkpoints."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("ray.tune")
from ray import tune

from selfplay import checkpoint, cli
from selfplay.errors import ConfigError
from selfplay.rllib.tune import SelfplayTrainable

TOY = {
    "config": "default",
    "env.id": "python:tests.toy_games:memory",
    "rollout.num_games": 16,
    "policy.encoder": [8],
    "policy.hidden_size": 8,
    "league.rating_games": 2,
    "league.snapshot_iterations": 1,
}


@pytest.fixture
def trials():
    """Trials in this process, cleaned up at the end."""
    made = []

    def trial(**changes):
        made.append(SelfplayTrainable(TOY | changes))
        return made[-1]

    yield trial
    for each in made:
        each.stop()


def weights_of(trial):
    return {name: array.copy() for name, array in trial._training.main.engine.weights().items()}


def numbers(result):
    """What a step reports, but for what the clock says."""
    return {
        name: value
        for name, value in result.items()
        if name.startswith(("loss/", "league/", "match/", "ppo/")) or name in ("iteration", "agent_steps")
    }


def test_a_step_is_some_iterations_and_reports_the_last(trials):
    trial = trials(iterations=3)
    result = trial.train()
    assert (result["iteration"], result["training_iteration"], result["done"]) == (3, 1, False)
    assert trial.train()["iteration"] == 6
    assert np.isfinite(result["loss/policy"])


def test_a_trial_is_done_at_its_configurations_own_end(trials):
    trial = trials(iterations=2, **{"stop.iterations": 3})
    assert not trial.train()["done"]
    result = trial.train()
    assert (result["iteration"], result["done"]) == (3, True)
    steps = trials(iterations=2, **{"stop.agent_steps": 1})
    result = steps.train()
    assert (result["iteration"], result["done"]) == (1, True)


def test_a_trial_goes_on_from_its_checkpoint_as_if_nothing_had_been(trials, tmp_path):
    turns = {"env.id": "python:tests.toy_games:turns"}  # which gives its state
    whole, first, second = trials(**turns), trials(**turns), trials(**turns)
    for _ in range(2):
        whole.train()
        first.train()
    first.save(str(tmp_path / "saved"))
    first.train()  # what happens after it is not in it
    second.train()  # nor what the trial had done that takes it
    second.restore(str(tmp_path / "saved"))
    for _ in range(2):
        one, two = whole.train(), second.train()
    assert one["iteration"] == two["iteration"] == 4
    assert numbers(one) == numbers(two)
    mine, theirs = weights_of(whole), weights_of(second)
    assert all(np.array_equal(mine[name], theirs[name]) for name in mine)
    rows = list(second._training.run.metrics())
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4]


def test_a_checkpoint_taken_over_keeps_the_takers_settings(trials, tmp_path):
    """As population-based training does: another's weights, its own learning rate."""
    donor, taker = trials(), trials(**{"ppo.lr": 1e-2, "ppo.lr_final": 1e-2})
    donor.train()
    donor.save(str(tmp_path / "saved"))
    taker.restore(str(tmp_path / "saved"))
    mine, theirs = weights_of(taker), weights_of(donor)
    assert all(np.array_equal(mine[name], theirs[name]) for name in mine)
    assert taker.train()["ppo/lr"] == pytest.approx(1e-2)


def test_a_checkpoint_is_a_run(trials, tmp_path, capsys):
    trial = trials()
    trial.train()
    trial.save(str(tmp_path / "saved"))
    assert checkpoint.newest(tmp_path / "saved" / "run" / "checkpoints").name == "iteration-00000001"
    capsys.readouterr()
    argv = [str(tmp_path / "saved" / "run"), "random", "--games", "4", "--json"]
    assert cli.main(["play", *argv]) == 0


def test_a_mistake_is_named():
    with pytest.raises(ConfigError, match=r"ppo\.rate"):
        SelfplayTrainable(TOY | {"ppo.rate": 1})


@pytest.mark.ray
@pytest.mark.slow
def test_a_small_sweep(cluster, tmp_path):
    tuner = tune.Tuner(
        SelfplayTrainable,
        param_space=TOY | {"ppo.lr": tune.grid_search([1e-4, 1e-3]), "seed": 3},
        tune_config=tune.TuneConfig(metric="loss/entropy", mode="max"),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(tmp_path),
            stop={"training_iteration": 2},
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
            verbose=0,
        ),
    )
    results = tuner.fit()
    assert not results.errors
    assert sorted(result.config["ppo.lr"] for result in results) == [1e-4, 1e-3]
    for result in results:
        assert result.metrics["iteration"] == 2
        assert result.metrics["agent_steps"] == 2 * 16 * 2 * 16
        newest = checkpoint.newest(tmp_path / result.checkpoint.path / "run" / "checkpoints")
        assert newest.name == "iteration-00000002"
    assert results.get_best_result().metrics["loss/entropy"] > 0
