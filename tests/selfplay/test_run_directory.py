import json
import math

import numpy as np
import pytest
import torch

from selfplay import config, versions
from selfplay.errors import UserError
from selfplay.run_directory import RunDirectory, default_path


@pytest.fixture
def setting():
    return config.load("default", {"env.id": "connect_four", "env.kwargs.opening_plies": 4})


@pytest.fixture
def run(tmp_path, setting):
    run = RunDirectory.create(tmp_path / "run", setting)
    yield run
    run.close()


def row(iteration, **metrics):
    return {"iteration": iteration, "agent_steps": 100 * iteration, **metrics}


def scalars(path, tag):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(path))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)], events.Tags()["tensors"]


def test_a_new_run_holds_its_configuration_and_folders(run, setting):
    assert {path.name for path in run.path.iterdir()} == {
        ".lock",
        "config.toml",
        "versions.json",
        "checkpoints",
        "league",
        "replays",
    }
    assert RunDirectory.open(run.path).config == setting
    assert (run.checkpoints, run.league, run.replays) == tuple(
        run.path / name for name in ("checkpoints", "league", "replays")
    )


def test_the_configuration_of_a_resumed_run_is_written_again(run, setting):
    changed = setting.model_copy(update={"stop": config.StopConfig(iterations=7)})
    run.write_config(changed)
    assert RunDirectory.open(run.path).config == run.config == changed


def test_what_a_run_went_on_with_is_written_down_once(run, monkeypatch):
    assert run.versions()["torch"] == torch.__version__
    run.append({"iteration": 4, "agent_steps": 1})
    run.note_versions()
    before = run.versions()
    monkeypatch.setattr(versions, "installed", lambda: before | {"torch": "9.9"})
    run.note_versions()
    entries = json.loads((run.path / "versions.json").read_text())
    assert [entry["after_iteration"] for entry in entries] == [0, 4]
    assert entries[0]["versions"] == before
    assert run.versions() == before | {"torch": "9.9"}
    (run.path / "versions.json").write_text("[")
    with pytest.raises(UserError, match=r"versions\.json is damaged"):
        run.versions()
    (run.path / "versions.json").unlink()
    assert run.versions() == {}


def test_a_folder_that_holds_a_run_is_refused_by_name(run, setting):
    with pytest.raises(UserError, match=f"a run is going on in {run.path}"):
        RunDirectory.create(run.path, setting)
    run.append({"iteration": 1, "agent_steps": 1})
    run.close()
    with pytest.raises(UserError, match=f"{run.path} already holds a run.*--resume"):
        RunDirectory.create(run.path, setting)


def test_what_a_failed_start_left_is_no_run(run, setting):
    (run.league / "league.sqlite").write_text("of the start that failed")
    run.close()
    again = RunDirectory.create(run.path, setting)
    assert not list(again.league.iterdir())


def test_an_existing_empty_folder_will_do(tmp_path, setting):
    assert RunDirectory.create(tmp_path, setting).path == tmp_path


def test_a_path_that_cannot_be_a_folder_is_refused(tmp_path, setting):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the run directory"):
        RunDirectory.create(tmp_path / "file" / "run", setting)


def test_default_paths_are_new_and_carry_the_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = default_path("openspiel:leduc_poker(players=2)")
    monkeypatch.setattr("os.getpid", lambda: 1)  # another process in the same second
    assert first != default_path("openspiel:leduc_poker(players=2)")
    assert first.name.startswith("openspiel-leduc_poker-players-2-2")


def test_opening_what_is_no_run(tmp_path):
    with pytest.raises(UserError, match=f"no run directory {tmp_path / 'absent'}"):
        RunDirectory.open(tmp_path / "absent")
    with pytest.raises(UserError, match=r"is not a run directory: it has no config\.toml"):
        RunDirectory.open(tmp_path)


def test_a_damaged_configuration_names_its_file(run):
    (run.path / "config.toml").write_text("[ppo\n")
    with pytest.raises(UserError, match=r"run/config\.toml is not valid TOML"):
        RunDirectory.open(run.path)


def test_metrics_are_lines_of_json_and_tensorboard_scalars(run):
    run.append(row(1, **{"loss/policy": np.float32(0.5), "league/pool_size": np.int64(3)}))
    run.append(row(2, **{"loss/policy": 0.25, "league/pool_size": 4}))
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss/policy"] for line in lines] == [0.5, 0.25]
    assert list(run.metrics()) == [json.loads(line) for line in lines]
    run.close()
    points, tensors = scalars(run.path, "loss/policy")
    assert points == [(100, 0.5), (200, 0.25)]
    assert "config/text_summary" in tensors


def test_a_number_that_is_not_finite_is_null(run):
    run.append(row(1, **{"loss/policy": math.nan, "loss/kl": np.float32("inf"), "loss/value": 1.0}))
    text = (run.path / "metrics.jsonl").read_text()
    assert json.loads(text) == row(1, **{"loss/policy": None, "loss/kl": None, "loss/value": 1.0})


@pytest.mark.parametrize(
    "torn", ['{"iteration": 4, "agent', '{"iteration": 4}', '{"iteration": 4,\n', "\0\0\0"]
)
def test_a_torn_last_line_is_left_out_and_then_gone(run, torn):
    for iteration in (1, 2, 3):
        run.append(row(iteration))
    run.close()
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    assert [entry["iteration"] for entry in run.metrics()] == [1, 2, 3]
    again = RunDirectory.open(run.path)
    again.truncate(3)
    again.append(row(4))
    again.close()
    assert [entry["iteration"] for entry in again.metrics()] == [1, 2, 3, 4]


def test_a_damaged_line_in_the_middle_is_named(run):
    run.append(row(1))
    run.close()
    path = run.path / "metrics.jsonl"
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(UserError, match=r"metrics\.jsonl: line 1 is damaged"):
        run.truncate(1)


@pytest.mark.parametrize("iteration", [0, 2])
def test_a_resumed_run_forgets_what_came_after_its_checkpoint(run, iteration):
    for number in (1, 2, 3):
        run.append(row(number, **{"loss/policy": float(number)}))
    run.close()
    again = RunDirectory.open(run.path)
    again.truncate(iteration)
    for number in range(iteration + 1, 5):
        again.append(row(number, **{"loss/policy": 10.0 * number}))
    again.close()
    expected = [float(number) if number <= iteration else 10.0 * number for number in (1, 2, 3, 4)]
    assert [entry["loss/policy"] for entry in again.metrics()] == expected
    points, _ = scalars(run.path, "loss/policy")
    assert [value for _, value in points] == expected


def test_truncating_a_run_without_metrics(run):
    run.truncate(0)
    assert list(run.metrics()) == []
