"""`ray job submit`, as docs/cluster.md tells it: a head of the test's own, jobs that end well and badly."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


class Head:
    """A Ray head on this machine, reached as a user does: by the `ray` command."""

    def __init__(self, folder: Path) -> None:
        dashboard = free_port()
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTHONPATH"))},
            "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "disabled",  # it listens to this machine alone
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
        }
        options = {
            "port": free_port(),
            "dashboard-host": "127.0.0.1",
            "dashboard-port": dashboard,
            "dashboard-agent-listen-port": free_port(),
            "temp-dir": folder,
            "num-cpus": 2,
            "object-store-memory": 200_000_000,
        }
        command = ["ray", "start", "--head", "--block", "--disable-usage-stats"]
        command += [f"--{name}={value}" for name, value in options.items()]
        self.process = subprocess.Popen(
            command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while self.ray("job", "list")[0] != 0:
            assert time.monotonic() < deadline, "the head does not answer"
            time.sleep(1)

    def ray(self, *arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            ["ray", *arguments],
            cwd=ROOT,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return done.returncode, done.stdout

    def submit(self, *arguments: str) -> tuple[int, str]:
        train = ("python", "-m", "selfplay.train", *arguments)
        return self.ray("job", "submit", "--working-dir", ".", "--", *train)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)  # with --block, it takes its own processes with it
        self.process.wait(60)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    head = Head(folder)
    yield head
    head.stop()
    shutil.rmtree(folder, ignore_errors=True)


def test_job_trains_to_the_end(head: Head, run_dir: Path) -> None:
    code, out = head.submit("connect_four", "--stop.seconds", "6", "--run-dir", str(run_dir))
    assert code == 0, out
    assert "succeeded" in out
    assert f"run directory: {run_dir}" in out
    assert "iteration 1 " in out
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["seconds"] >= 6
    assert list((run_dir / "checkpoints").iterdir())


def test_upload_holds_no_environment_and_no_runs(head: Head) -> None:
    code, out = head.ray("job", "submit", "--working-dir", ".", "--", "ls", "-A")
    assert code == 0, out
    held = set(out.splitlines())
    assert {"selfplay", "envs", "policies", "configs"} <= held
    assert not {".git", ".venv", "runs", ".mypy_cache", ".pytest_cache"} & held


def test_mistake_fails_the_job(head: Head, run_dir: Path) -> None:
    code, out = head.submit("connect_four", "--ppo.lr", "fast", "--run-dir", str(run_dir))
    assert code != 0
    assert "error: " in out
    assert "FAILED" in out or "failed" in out


def test_stopped_job_saves_a_checkpoint(head: Head, run_dir: Path) -> None:
    submit = ("job", "submit", "--working-dir", ".", "--no-wait", "--submission-id", "to-be-stopped", "--")
    assert (
        head.ray(*submit, "python", "-m", "selfplay.train", "connect_four", "--run-dir", str(run_dir))[0] == 0
    )
    metrics = run_dir / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") > 1):
        assert time.monotonic() < deadline, head.ray("job", "logs", "to-be-stopped")[1]
        time.sleep(0.5)
    assert head.ray("job", "stop", "to-be-stopped")[0] == 0
    rows = metrics.read_text().splitlines()
    saved = max((run_dir / "checkpoints").iterdir())
    assert str(len(rows)) in saved.name
