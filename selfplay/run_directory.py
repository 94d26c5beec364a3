"""A run on disk: config.toml, versions.json, metrics.jsonl, TensorBoard events; checkpoints, league."""

from __future__ import annotations

import datetime
import fcntl
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from selfplay import config as configuration
from selfplay import versions
from selfplay.config import Config
from selfplay.errors import UserError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

CONFIG = "config.toml"
METRICS = "metrics.jsonl"
VERSIONS = "versions.json"
LOCK = ".lock"
RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray in the environment of a job's entry point


class RunDirectory:
    """One run's folder: made by `create`, or found by `open`."""

    def __init__(self, path: Path, config: Config) -> None:
        self.path = path
        self.config = config
        self._board: SummaryWriter | None = None
        self._purge_step: int | None = None
        self._lock: TextIO | None = None

    @classmethod
    def create(cls, path: Path | str | None, config: Config) -> RunDirectory:
        """A new run in `path`, or in a new folder of runs/; refuses a folder that holds a run."""
        path = default_path(config.env.id) if path is None else Path(path)
        run = cls(path, config)
        try:
            path.mkdir(parents=True, exist_ok=True)
            run.lock()
            if (path / METRICS).exists() or any((path / "checkpoints").glob("iteration-*[1-9]*")):
                raise UserError(
                    f"{path} already holds a run: go on with it by --resume {path}, or name another"
                )
            # What a start that failed before its first iteration left behind.
            shutil.rmtree(run.league, ignore_errors=True)
            shutil.rmtree(run.checkpoints, ignore_errors=True)
            for folder in (run.checkpoints, run.league, run.replays):
                folder.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the run directory {path}: {error.strerror}") from error
        run.write_config(config)
        run.note_versions()
        return run

    def lock(self) -> None:
        """Keep other processes from training in this directory while this one lives."""
        try:
            self._lock = (self.path / LOCK).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"a run is going on in {self.path}: wait for its end, or stop it") from error
        except OSError as error:
            raise UserError(f"cannot write to {self.path}: {error.strerror}") from error

    @classmethod
    def open(cls, path: Path | str) -> RunDirectory:
        """The run that `path` holds."""
        path = Path(path)
        if not path.is_dir():
            raise UserError(f"no run directory {path}")
        if not (path / CONFIG).is_file():
            raise UserError(f"{path} is not a run directory: it has no {CONFIG}")
        table = configuration.read(path / CONFIG)
        return cls(path, configuration.resolve(table, {}, source=str(path / CONFIG)))

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def league(self) -> Path:
        return self.path / "league"

    @property
    def replays(self) -> Path:
        return self.path / "replays"

    def write_config(self, config: Config) -> None:
        """Make `config` the run's own, as when it is resumed with another end."""
        self.config = config
        _replace(self.path / CONFIG, configuration.dump(config))

    def note_versions(self) -> None:
        """Write down what the run goes on with, where that is not what it went on with before."""
        now, then = versions.installed(), self._versions()
        if not then or then[-1]["versions"] != now:
            after = max((row["iteration"] for row in self.metrics()), default=0)
            entries = [*then, {"after_iteration": after, "versions": now}]
            _replace(self.path / VERSIONS, json.dumps(entries, indent=1) + "\n")

    def versions(self) -> dict[str, str]:
        """Of Python and packages, with which the run last went on; none where it did not write them down."""
        entries = self._versions()
        return entries[-1]["versions"] if entries else {}

    def _versions(self) -> list[dict[str, Any]]:
        path = self.path / VERSIONS
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}); remove it") from error

    def append(self, metrics: Mapping[str, Any]) -> None:
        """Add an iteration to metrics.jsonl and to TensorBoard at its agent_steps.

        A number that is not finite becomes null in the one and is left out of the other.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary

        row = {name: _finite(value) for name, value in metrics.items()}
        with (self.path / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
        # One event of all: with an event each the writer takes six times as long.
        values = [Summary.Value(tag=name, simple_value=x) for name, x in row.items() if x is not None]
        self._open_board()._get_file_writer().add_summary(Summary(value=values), row["agent_steps"])

    def picture(self, name: str, pixels: np.ndarray, agent_steps: int) -> None:
        """Show an image [H, W, 3] uint8 in TensorBoard."""
        self._open_board().add_image(name, pixels, global_step=agent_steps, dataformats="HWC")

    def metrics(self) -> Iterator[dict[str, Any]]:
        """Rows of metrics.jsonl in order; a last line that a crash tore is left out."""
        path = self.path / METRICS
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        for number, line in enumerate(lines[:-1], start=1):
            try:
                yield json.loads(line)
            except ValueError as error:
                if number == len(lines) - 1:
                    return
                raise UserError(f"{path}: line {number} is damaged; remove it") from error

    def truncate(self, iteration: int) -> None:
        """Forget every row after `iteration`, here and in TensorBoard, before a run goes on from it."""
        assert self._board is None, "truncate comes before the first append"
        rows = [row for row in self.metrics() if row["iteration"] <= iteration]
        _replace(self.path / METRICS, "".join(json.dumps(row) + "\n" for row in rows))
        self._purge_step = rows[-1]["agent_steps"] + 1 if rows else 0

    def close(self) -> None:
        if self._board is not None:
            self._board.close()
            self._board = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _open_board(self) -> SummaryWriter:
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.path), purge_step=self._purge_step)
            text = configuration.dump(self.config).replace("\n", "\n    ")
            self._board.add_text("config", "    " + text, global_step=self._purge_step or 0)
            _add_hyperparameters(self._board, self.config)
        return self._board


def _add_hyperparameters(board: SummaryWriter, config: Config) -> None:
    """Every key, for TensorBoard's table of runs; the writer's own way would make a folder of its own."""
    from torch.utils.tensorboard.summary import hparams

    table = config.model_dump()
    flat = {
        f"{section}.{key}": value if isinstance(value, bool | int | float | str) else str(value)
        for section, keys in table.items()
        if isinstance(keys, dict)
        for key, value in keys.items()
    } | {key: value for key, value in table.items() if not isinstance(value, dict)}
    file = board._get_file_writer()
    for summary in hparams(flat, {"league/rating": 0.0, "league/win_rate_pool": 0.0}):
        file.add_summary(summary)


def default_path(name: str) -> Path:
    """A folder of runs/ that does not exist yet, named after a configuration or a game.

    runs/ is here, but for a Ray job, whose working directory is a copy that goes away: there in the home.
    """
    runs = Path.home() / "runs" if RAY_JOB in os.environ else Path("runs")
    stem = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name).strip("-")
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    # Seeds of one sweep start in the same second.
    return runs / f"{stem}-{now}-{os.getpid()}"


def _finite(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".partial-{path.name}")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
