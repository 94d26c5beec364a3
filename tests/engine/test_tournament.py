"""Work as Ray's tasks, and a tournament on them: the same as in this process."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from selfplay import cli
from selfplay.engine.tasks import Task, run_here, run_on_ray
from selfplay.errors import UserError
from selfplay.tournament.store import FILE
from tests.selfplay.test_tournament import make_run, matches_kept

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]


def weighed(number: int, weight: np.ndarray) -> float:
    return number * float(weight.sum())


def dies_once(path: Path, number: int) -> int:
    """The first process that does this is killed."""
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fails(number: int) -> int:
    if number == 1:
        raise UserError("one is not allowed")
    return number


def waits(path: Path, number: int) -> int:
    """At most so many at once: each leaves a mark while it works."""
    mark = path / str(number)
    mark.touch()
    present = len(list(path.iterdir()))
    time.sleep(0.1)
    mark.unlink()
    return present


def test_results_are_those_of_this_process() -> None:
    shared = {"a": np.ones(3), "b": np.full(2, 5.0)}
    tasks = [Task((k,), ("a" if k % 2 else "b",)) for k in range(20)]
    here = list(run_here(weighed, tasks, shared))
    assert [result for _, result in here] == [k * (3.0 if k % 2 else 10.0) for k in range(20)]
    there = list(run_on_ray(weighed, tasks, shared, num_workers=2))
    assert sorted(there, key=lambda pair: pair[0].arguments) == here


def test_a_process_that_dies_is_replaced(tmp_path: Path) -> None:
    tasks = [Task((tmp_path / "mark", k), ()) for k in range(4)]
    assert {result for _, result in run_on_ray(dies_once, tasks, {}, num_workers=2)} == {0, 1, 2, 3}
    assert (tmp_path / "mark").exists()


def test_a_mistake_is_raised_as_itself() -> None:
    with pytest.raises(UserError, match="one is not allowed"):
        list(run_on_ray(fails, [Task((k,), ()) for k in range(3)], {}, num_workers=1))


def test_no_more_work_at_once_than_workers(tmp_path: Path) -> None:
    tasks = [Task((tmp_path, k), ()) for k in range(6)]
    assert max(result for _, result in run_on_ray(waits, tasks, {}, num_workers=1)) == 1


def test_a_tournament_is_the_same_on_ray(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(make_run(tmp_path / f"run{seed}", seed=seed)) for seed in (1, 2)]
    reports = []
    for workers in ("0", "2"):
        folder = tmp_path / f"workers{workers}"
        argv = ["tournament", *runs, "random", "bot:perfect", "--games", "300", "--json"]
        assert cli.main([*argv, "--workers", workers, "--output", str(folder)]) == 0
        reports.append(json.loads(capsys.readouterr().out))
        assert reports[-1].pop("output") == str(folder)
    assert reports[0] == reports[1]
    assert reports[0]["games"] == 6 * 300
    assert matches_kept(tmp_path / "workers0") == matches_kept(tmp_path / "workers2")
    assert (tmp_path / "workers2" / FILE).exists()
