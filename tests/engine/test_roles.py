"""Several learners on Ray: in turns with the numbers of one process, or side by side."""

import json
import os
import signal

import pytest
import ray

from selfplay import train
from selfplay.config import Config
from selfplay.engine import cluster as engine_cluster
from selfplay.league.store import Store
from selfplay.run_directory import RunDirectory
from selfplay.training import Training
from tests.selfplay.test_roles import Silent
from tests.selfplay.test_roles import config as small

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def with_workers(config, number, staleness=0, **league):
    rollout = config.rollout.model_copy(update={"num_workers": number, "staleness": staleness})
    league = config.league.model_copy(update=league)
    return config.model_copy(update={"rollout": rollout, "league": league})


def rows(path):
    lines = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in r.items() if "loss/" in k or "league/" in k or "steps" in k} for r in lines]


def in_room(monkeypatch, part, together):
    room = engine_cluster.Room(1, 0, part, together)
    monkeypatch.setattr(engine_cluster, "find_room", lambda config, number: room)


@pytest.mark.parametrize("staleness", [0, 1])
def test_turns_on_ray_give_the_numbers_of_one_process(tmp_path, cluster, monkeypatch, staleness):
    # What was begun is played to its end with the weights that it was begun with.
    monkeypatch.setattr(engine_cluster.RayEngine, "_publish", lambda self: None)
    in_room(monkeypatch, 0.33, together=False)
    config = small(6, evaluators=0)
    here, there = (with_workers(config, number, staleness, evaluators=0) for number in (0, 1))
    assert train.run(here, tmp_path / "here", resume=False) == 0
    assert train.run(there, tmp_path / "ray", resume=False) == 0
    assert rows(tmp_path / "ray") == rows(tmp_path / "here")


def begun(path, config):
    run = RunDirectory.create(path, config)
    training = Training(config, run, Silent())
    training.begin()
    return training


def test_side_by_side_all_learn_and_an_evaluator_that_dies_is_made_anew(tmp_path, cluster, monkeypatch):
    in_room(monkeypatch, 0.25, together=True)
    training = begun(tmp_path / "run", with_workers(small(5), 1))
    try:
        assert training._engines.together
        (actor,) = training._engines.evaluators._actors
        os.kill(ray.get(actor.__ray_call__.remote(lambda self: os.getpid())), signal.SIGKILL)
        training.loop()
    finally:
        training.close()
        training.run.close()
    with Store(tmp_path / "run" / "league", readonly=True) as store:
        roles = {p.role for p in store.players() if p.kind == "snapshot"}
        kinds = {match.kind for iteration in range(1, 6) for match in store.matches(iteration)}
    assert any("evaluator 0 was lost" in message for message in training.view.messages)
    assert roles == {"main", "main_exploiter", "league_exploiter"}
    assert "evaluation" in kinds


def test_an_exploiters_rollout_that_is_lost_while_it_plays_ahead_is_made_anew(tmp_path, cluster, monkeypatch):
    """It asks again for the main learner's version that it meets, which nobody else has at the table yet."""
    in_room(monkeypatch, 0.25, together=True)
    training = begun(tmp_path / "run", with_workers(small(5), 1, staleness=1, evaluators=0))
    killed, record = [], Training._record

    def kill(self):
        exploiter = self._members[1]
        if self.iteration == 2:
            assert exploiter.ahead
            actor = exploiter.engine._actors["rollout worker 0"]
            os.kill(ray.get(actor.__ray_call__.remote(lambda self: os.getpid())), signal.SIGKILL)
            killed.extend(exploiter.faces)
        record(self)

    monkeypatch.setattr(Training, "_record", kill)
    try:
        training.loop()
    finally:
        training.close()
        training.run.close()
    assert "main@000001" in killed
    assert any("rollout worker 0 was lost" in message for message in training.view.messages)
    assert [row["iteration"] for row in training.run.metrics()] == [1, 2, 3, 4, 5]


def test_more_evaluators_than_cpus_is_one_line(tmp_path, cluster):
    config = with_workers(small(2), 1, evaluators=64)
    with pytest.raises(Exception, match=r"league\.evaluators=64, but the Ray cluster has"):
        train.run(Config.model_validate(config.model_dump()), tmp_path / "run", resume=False)


@pytest.mark.parametrize(
    ("workers", "number", "evaluators", "expected"),
    [
        (1, 3, 0, (1, 1, True)),  # three of one worker each fit 4 CPUs
        (2, 3, 0, (4, 0.3333, False)),  # 6 do not
        ("auto", 3, 0, (4, 0.3333, False)),  # one machine: in turns, each with all of it
        ("auto", 1, 1, (3, 1, False)),
    ],
)
def test_who_has_which_part_of_the_cluster(cluster, workers, number, evaluators, expected):
    room = engine_cluster.find_room(with_workers(small(1), workers, evaluators=evaluators), number)
    assert (room.cpus, room.part, room.together) == expected
