"""`selfplay train` with Ray, as a user runs it: errors, signals, what is left, what the screen shows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray

CONFIG = """\
[env]
id = "{game}"
[rollout]
num_workers = {workers}
num_games = 32
fragment_length = 8
[policy]
encoder = [16]
hidden_size = 16
[league]
rating_games = 4
[ppo]
num_minibatches = 2
"""

GAME = """\
from envs.connect_four import ConnectFour

class Broken(ConnectFour):
    steps = 0

    def step(self, actions):
        self.steps += 1
        if self.num_games > 4 and self.steps > 40:
            raise ZeroDivisionError("the dice fell off the table")
        super().step(actions)

def small_tables_only(num_games):
    if num_games > 1:
        raise ValueError("no room for a second match")
    return ConnectFour(num_games)
"""


class Shell:
    """Where a user types commands; all processes that come of them can be told from others."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.mark = f"SELFPLAY_TEST={uuid.uuid4()}"
        name, value = self.mark.split("=")
        self.environment = environment | {name: value}

    def config(self, game: str = "connect_four", workers: int = 1) -> str:
        (self.folder / "config.toml").write_text(CONFIG.format(game=game, workers=workers))
        return "config.toml"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "selfplay", "train", *arguments],
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def train(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate()
        return process.returncode, out, err

    def left(self) -> list[str]:
        """Commands of processes that came of this shell and still run, after some time to end."""
        deadline = time.monotonic() + 120  # where all was killed at once, Ray's agents may take over a minute
        while (found := self._running()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return found

    def _running(self) -> list[str]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append((folder / "cmdline").read_text().replace("\0", " ")[:100])
            except OSError:
                continue
        return found

    def rows(self, run: str = "run") -> list[dict[str, float]]:
        path = self.folder / run / "metrics.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def wait_for(self, iteration: int, process: subprocess.Popen[str]) -> None:
        while len(self.rows()) < iteration:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)


@pytest.fixture
def shell(tmp_path: Path, outside: dict[str, str]) -> Shell:
    return Shell(tmp_path, outside)


def checkpoints(shell: Shell) -> list[str]:
    return sorted(path.name for path in (shell.folder / "run" / "checkpoints").iterdir())


@pytest.mark.slow
def test_error_in_a_users_game(shell: Shell) -> None:
    """It reaches the user with the place, once it was raised too often; the game is found in this folder."""
    (shell.folder / "dice_game.py").write_text(GAME)
    code, out, err = shell.train(
        shell.config("python:dice_game:Broken"), "--run-dir", "run", "--env.max-failures", "5"
    )
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith("error: connect_four: its code failed 6 times, env.max_failures=5; the last: ")
    assert "ZeroDivisionError: the dice fell off the table" in line
    assert "dice_game.py:9 in step" in line
    assert "lost" not in out
    assert shell.left() == []


@pytest.mark.slow
def test_game_that_cannot_be_made_in_a_worker(shell: Shell) -> None:
    (shell.folder / "dice_game.py").write_text(GAME)
    code, _, err = shell.train(shell.config("python:dice_game:small_tables_only"), "--run-dir", "run")
    assert (code, err) == (2, "error: no room for a second match\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env.kwargs.plies", "3"], "no kwarg 'plies'"),
        (["--env.id", "python:nowhere:make"], "cannot import nowhere"),
        (["--ppo.num-minibatches", "7"], "num_minibatches=7 does not divide"),
        (["--rollout.num-workers", "32"], "has"),
    ],
)
@pytest.mark.slow
def test_mistakes_are_one_line(shell: Shell, arguments: list[str], message: str) -> None:
    code, _, err = shell.train(shell.config(), "--run-dir", "run", *arguments)
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_ctrl_c_saves_and_leaves_nothing_and_nothing_is_on_the_screen(shell: Shell) -> None:
    process = shell.start(shell.config(), "--run-dir", "run", "--rollout.staleness", "1")
    shell.wait_for(2, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the driver and all that it started
    out, err = process.communicate()
    assert process.returncode == 130
    assert err == ""
    ours = ("run directory", "starting", "iteration", "SIGINT", "saved", "  ")
    assert all(line.startswith(ours) for line in out.splitlines()), out
    first, saved = checkpoints(shell)
    assert first == "iteration-00000000"
    assert int("".join(filter(str.isdigit, saved))) == len(shell.rows())
    assert shell.left() == []


@pytest.mark.slow
def test_sigterm_then_kill_then_resume(shell: Shell) -> None:
    process = shell.start(shell.config(workers=2), "--run-dir", "run")
    shell.wait_for(2, process)
    process.terminate()
    assert process.communicate()[1] == ""
    assert process.returncode == 143
    saved = len(shell.rows())

    process = shell.start("--resume", "run", "--checkpoint.iterations", "5")
    shell.wait_for(saved + 12, process)
    process.kill()
    process.communicate()
    assert shell.left() == []  # Ray's processes end with their driver

    code, out, err = shell.train("--resume", "run", "--stop.iterations", str(saved + 20))
    assert (code, err) == (0, "")
    assert "goes on from" in out
    rows = shell.rows()
    assert [row["iteration"] for row in rows] == list(range(1, saved + 21))
    steps = [row["agent_steps"] for row in rows]
    assert steps == [32 * 2 * 8 * k for k in range(1, saved + 21)]
