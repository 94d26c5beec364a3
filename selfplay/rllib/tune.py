"""Our training as a Tune `Trainable`: sweeps, early stopping and population-based training."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune

from selfplay import config as configuration
from selfplay.config import Config
from selfplay.run_directory import CONFIG, METRICS, RunDirectory
from selfplay.train import check, with_schedule
from selfplay.training import Training

logger = logging.getLogger(__name__)

RUN = "run"
"""The folder of a trial, and of each of its checkpoints, that is a run directory."""


class _LastMetrics:
    """A view for nobody: keeps what the trial reports."""

    def __init__(self) -> None:
        self.metrics: dict[str, Any] = {}

    def update(self, metrics: Mapping[str, Any]) -> None:
        self.metrics = dict(metrics)

    def message(self, text: str) -> None:
        logger.info(text)

    def close(self) -> None:
        pass


class SelfplayTrainable(tune.Trainable):
    """One trial is one run, in a process of its own unless rollout.num_workers says otherwise.

    Its config: "config", a name in configs/ or an absolute path; "iterations" of ours in a step of Tune's
    (1); "cpus" that the trial takes (1); and any key of the configuration, dotted, with its value, such as
    {"config": "connect_four", "ppo.lr": tune.loguniform(1e-4, 1e-3)}. It reports the metrics of the last
    iteration, and is done when the configuration's own [stop] is reached. A checkpoint holds a whole run
    directory, CHECKPOINT/run, that `play` and `selfplay train --resume` take.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        own = {"CPU": float(config.get("cpus", 1))}
        return tune.PlacementGroupFactory([own | ({"GPU": 1.0} if config.get("device") == "cuda" else {})])

    def setup(self, config: dict[str, Any]) -> None:
        keys = {"rollout.num_workers": 0, "checkpoint.seconds": None} | config
        name, self._step = keys.pop("config", "default"), int(keys.pop("iterations", 1))
        self._own_cores(int(keys.pop("cpus", 1)))
        self._settings: Config = with_schedule(configuration.load(name, keys))
        check(self._settings)
        self._view = _LastMetrics()
        self._path = Path(self.logdir) / RUN
        self._training: Training | None = None  # begun at the first step, or taken from a checkpoint

    def step(self) -> dict[str, Any]:
        training = self._training or self._begin()
        stop = self._settings.stop
        goal = training.iteration + self._step
        end = goal if stop.iterations is None else min(goal, stop.iterations)
        training.config = self._until(end)
        training.loop()
        done = training.iteration < goal or training.iteration == stop.iterations
        return self._view.metrics | {"done": done}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Everything that the run is, but for older checkpoints and TensorBoard's events."""
        training = self._training or self._begin()
        newest = training.save()
        copy = Path(checkpoint_dir) / RUN
        (copy / "checkpoints").mkdir(parents=True)
        shutil.copytree(newest, copy / "checkpoints" / newest.name)
        # Between iterations the league's database is one file without an open transaction.
        shutil.copytree(training.run.league, copy / "league")
        for name in (CONFIG, METRICS):
            if (self._path / name).exists():
                shutil.copy(self._path / name, copy / name)

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Go on from a trial's checkpoint, its own or another's, with this trial's settings."""
        self.cleanup()
        shutil.rmtree(self._path, ignore_errors=True)
        shutil.copytree(Path(checkpoint_dir) / RUN, self._path)
        run = RunDirectory.open(self._path)
        run.lock()
        run.write_config(self._settings)
        self._training = Training(self._settings, run, self._view)
        self._training.resume()

    def cleanup(self) -> None:
        if self._training is not None:
            self._training.close()
            self._training.run.close()
            self._training = None

    def _begin(self) -> Training:
        run = RunDirectory.create(self._path, self._settings)
        self._training = Training(self._settings, run, self._view)
        self._training.begin()
        return self._training

    def _until(self, iteration: int) -> Config:
        """The settings with an end after this iteration, or before it by [stop]'s other conditions."""
        stop = self._settings.stop.model_copy(update={"iterations": iteration})
        return self._settings.model_copy(update={"stop": stop})

    def _own_cores(self, num_cores: int) -> None:
        """Keep this trial's process to its share of the cores: the learner takes all that it may use."""
        if not (self.is_actor() and hasattr(os, "sched_setaffinity")):
            return
        cores = sorted(os.sched_getaffinity(0))
        number = self.trial_id.rpartition("_")[2]  # trials are numbered as they are made
        first = (int(number) if number.isdigit() else 0) * num_cores
        own = {cores[(first + k) % len(cores)] for k in range(min(num_cores, len(cores)))}
        os.sched_setaffinity(0, own)
