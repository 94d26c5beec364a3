"""A process that dies at any byte of what it writes leaves a run that opens, goes on, and is the same run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ITERATIONS = 5
POINTS = 60

CAMPAIGN = """
import ctypes, json, os, shutil, signal, sys
from pathlib import Path

import numpy as np
import torch

from selfplay import checkpoint
from selfplay.league import LeagueError, Store
from selfplay.train import run
from tests.selfplay.test_resume import assert_same_run, config_of, players

torch.set_num_threads(1)
iterations, points, folder = int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
shim = ctypes.CDLL(sys.argv[1])
shim.crash_counted.restype = ctypes.c_long
changes = {"checkpoint": {"seconds": "none", "iterations": 2}, "league": {"snapshot_iterations": 1}}
config = config_of(iterations, **changes)


def crash(path, limit):
    "Train in a process of its own that dies after so many bytes; its exit status, and the bytes it wrote."
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        shim.crash_below(str(folder).encode())
        shim.crash_after(ctypes.c_long(limit))
        code = run(config, path, path.exists())
        os.write(write, str(shim.crash_counted()).encode())
        os._exit(code)
    os.close(write)
    with os.fdopen(read) as pipe:
        counted = pipe.read()
    return os.waitpid(pid, 0)[1], int(counted or 0)


def contents(path):
    "All that the league tells of its matches, up to each iteration."
    with Store(path / "league", readonly=True) as store:
        results = store._db.execute("SELECT * FROM results ORDER BY 1, 2, 3, 4").fetchall()
        return store.iteration, [p.name for p in store.players()], results


whole = folder / "whole"
status, size = crash(whole, -1)
assert status == 0
_, all_players, all_results = contents(whole)
tally = {"killed": 0, "begun anew": 0, "resumed": 0, "bytes": size}
rng = np.random.default_rng(0)
for limit in sorted(rng.integers(0, size, points).tolist()):
    path = folder / "crashed"
    status, _ = crash(path, limit)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (limit, status)
    tally["killed"] += 1
    try:  # the league alone: it opens, at an iteration that is whole
        iteration, names, results = contents(path)
        assert results == [row for row in all_results if row[0] <= iteration], limit
        assert names == all_players[: len(names)], limit
        with Store(path / "league", readonly=True) as store:
            for player in store.players():
                if player.weights:
                    store.weights(player.name)
    except LeagueError as error:
        assert not any((path / "checkpoints").glob("iteration-*")), (limit, str(error))
    if checkpoint.newest(path / "checkpoints") is None:
        tally["begun anew"] += 1  # it died before there was anything to go on from
        shutil.rmtree(path)
        continue
    status, _ = crash(path, -1)
    assert status == 0, (limit, status)
    try:
        assert_same_run(whole, path, iterations)
    except AssertionError as error:
        raise AssertionError(f"killed after {limit} of {size} bytes") from error
    assert contents(path) == contents(whole), limit
    assert players(path, config)[0] == players(whole, config)[0], limit
    tally["resumed"] += 1
    shutil.rmtree(path)
print(json.dumps(tally))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_run_killed_at_any_byte_goes_on_as_the_same_run(tmp_path: Path) -> None:
    library = tmp_path / "crash_at_byte.so"
    source = Path(__file__).with_name("crash_at_byte.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    (tmp_path / "runs").mkdir()
    arguments = [str(library), str(ITERATIONS), str(POINTS), str(tmp_path / "runs")]
    process = subprocess.run(
        [sys.executable, "-c", CAMPAIGN, *arguments],
        env=os.environ | {"LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    tally = json.loads(process.stdout.splitlines()[-1])
    print(tally)
    assert tally["killed"] == POINTS
    assert tally["resumed"] > POINTS // 2
