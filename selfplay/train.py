"""`selfplay train`: a run from its start, or its checkpoint, to its end. Also `python -m selfplay.train`."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfplay import checkpoint, engine
from selfplay.config import Config, StopConfig, check_lanes, resolve_num_workers
from selfplay.errors import UserError
from selfplay.run_directory import RunDirectory
from selfplay.training import Interruption, Training
from selfplay.view import choose
from selfplay.worker import make_bot, make_game, make_parts, make_policies


@contextmanager
def _signals() -> Iterator[Interruption]:
    """The first Ctrl-C, SIGTERM or SIGHUP ends the run after this iteration; a second one at once."""
    interruption = Interruption()

    def stop(number: int, frame: Any) -> None:
        if interruption.number is not None or not interruption.deferred:
            raise SystemExit(128 + number)
        interruption.number = number

    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, stop) for number in handled]
    try:
        yield interruption
    finally:
        for number, handler in zip(handled, before, strict=True):
            signal.signal(number, handler)


def check(config: Config) -> None:
    """Refuse what cannot be trained, before anything is written or started."""
    env = make_game(config, 1)
    make_game(config, 1, training=True)
    make_policies(config, env, config.seed)
    parts = make_parts(config, env)
    for part in parts:
        check_lanes(config, len(part.seats))
    for name in config.league.anchors:
        make_bot(name, env, parts)
    if resolve_num_workers(config) == 0:
        engine.choose_device(config, engine.cuda_here())


def with_schedule(config: Config) -> Config:
    """The configuration with the length of its schedules fixed: a later end does not stretch them."""
    if config.ppo.anneal_steps is not None or config.stop.agent_steps is None:
        return config
    ppo = config.ppo.model_copy(update={"anneal_steps": config.stop.agent_steps})
    return config.model_copy(update={"ppo": ppo})


def _reached(stop: StopConfig, directory: RunDirectory) -> tuple[str, str] | None:
    """The stop condition that the newest checkpoint's iteration met, as its option, and how far it is."""
    newest = checkpoint.newest(directory.checkpoints)
    saved = checkpoint.iteration_of(newest) if newest else 0
    rows = [row for row in directory.metrics() if row["iteration"] <= saved]
    ends = {"iterations": "iteration", "agent_steps": "agent_steps", "seconds": "seconds"}
    for key, metric in ends.items():
        end = getattr(stop, key)
        if rows and end is not None and rows[-1][metric] >= end:
            return f"--stop.{key.replace('_', '-')}", f"{metric} {rows[-1][metric]:g} of {end:g}"
    return None


def run(config: Config, path: Path, resume: bool) -> int:
    """Train in the run directory `path`; returns the exit code."""
    check(config)
    if not resume:
        config = with_schedule(config)
    directory = RunDirectory.open(path) if resume else RunDirectory.create(path, config)
    view = choose(directory.path, config.stop)
    try:
        view.message(f"run directory: {directory.path.resolve()}")
        if resume:
            directory.lock()
            if end := _reached(config.stop, directory):
                option, how_far = end
                view.message(f"this run is at its end ({how_far}); to go on, give a later {option}, or none")
                return 0
            checkpoint.to_go_on_from(directory.checkpoints)  # before anything is started
        with _signals() as interruption:
            training = Training(config, directory, view, interruption)
            try:
                if resume:  # not before: a run that cannot start as it is told keeps what it was told before
                    directory.write_config(config)
                    directory.note_versions()
                training.resume() if resume else training.begin()
                interruption.deferred = True
                training.loop()
                if interruption.number is not None:
                    view.message(f"{signal.Signals(interruption.number).name}: saving a checkpoint")
                training.save_last()
                view.message(_farewell(directory, len(set(training.teams))))
            finally:
                training.close()
        return 0 if interruption.number is None else 128 + interruption.number
    except (UserError, SystemExit) as error:
        if not resume and checkpoint.newest(directory.checkpoints) is None:
            shutil.rmtree(directory.path)
            if isinstance(error, SystemExit):
                view.message("stopped before training began: there is nothing to go on with")
        raise
    finally:
        directory.close()
        view.close()


def _farewell(directory: RunDirectory, num_teams: int) -> str:
    """What to do next, in commands that can be copied."""
    path, others = directory.path, " random" * (num_teams - 1)
    end = _reached(directory.config.stop, directory)
    on = f" {end[0]} N  (N from the run's beginning)" if end else ""
    return (
        f"saved in {path}\n"
        f"  how strong is it:  play {path}{others} --games {1000 // num_teams * num_teams}\n"
        f"  go on with it:     selfplay train --resume {path}{on}"
    )


if __name__ == "__main__":
    from selfplay.cli import train_command

    sys.exit(train_command(sys.argv[1:]))
