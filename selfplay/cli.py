"""The command line: which command runs, and what its exit code says."""

from __future__ import annotations

import difflib
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from selfplay import config as configuration
from selfplay import run_directory
from selfplay.config import Config
from selfplay.errors import UserError
from selfplay.options import ConfigParser, Parsed, Parser
from selfplay.run_directory import RunDirectory, default_path

USAGE = """\
usage: selfplay COMMAND ...

LSTM policies that learn by playing themselves.

commands:
  train CONFIG        learn a game, or go on with --resume DIR
  play A B            play matches between runs, checkpoints, bots and people
  tournament DIR...   a round robin between players of runs and bots, with ratings
  exploitability DIR  how much a best response wins
  report DIR          a run as one page for the browser
  league-sim          matchmakers on games whose answer is known
  export DIR          write a policy for RLlib
  bench CONFIG        measure decisions per second
  envs                list the games, or check them all

`selfplay COMMAND --help` explains each.
"""

COMMANDS = (
    "train",
    "play",
    "tournament",
    "exploitability",
    "report",
    "league-sim",
    "export",
    "bench",
    "envs",
)

RESUMABLE = ("stop.", "checkpoint.", "device", "ppo.autocast", "rollout.num_workers")
"""Keys that a resumed run may change: where, in which precision and how long it learns, not what."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    command, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if command in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    return guarded(_dispatch, command, rest)


def train_command(argv: Sequence[str]) -> int:
    """`selfplay train ARGV`; returns the exit code."""
    return guarded(_train, list(argv))


def guarded(function: Callable[..., int | None], *arguments: Any) -> int:
    """The exit code of a command: a mistake of the user is one message and 2, a fault of ours 1."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # for python:PACKAGE.MODULE:FACTORY, as `python -m` has it
    try:
        return function(*arguments) or 0
    except SystemExit as stop:  # argparse's way to end after --help
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        from envs.vector import GameError

        if not isinstance(error, UserError | GameError):
            traceback.print_exc()
            return 1
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 2


def _dispatch(command: str, argv: list[str]) -> int:
    match command:
        case "train":
            return _train(argv)
        case "play":
            from selfplay import play

            return play.main(argv)
        case "bench":
            from selfplay import bench

            return bench.main(argv)
        case "exploitability":
            from selfplay import exploitability

            return exploitability.main(argv)
        case "tournament":
            from selfplay import tournament

            return tournament.main(argv)
        case "report":
            from selfplay import report

            return report.main(argv)
        case "league-sim":
            from selfplay import league_sim

            return league_sim.main(argv)
        case "export":
            from selfplay.rllib import export

            return export.main(argv)
        case "envs":
            return _envs(argv)
    close = difflib.get_close_matches(command, COMMANDS, n=1)
    nearest = f"; nearest: {close[0]}" if close else ""
    raise UserError(f"unknown command {command!r}{nearest}; there are {', '.join(COMMANDS)}")


def _train(argv: list[str]) -> int:
    parser = ConfigParser(
        prog="selfplay train",
        usage="selfplay train CONFIG [--section.key value ...] [--run-dir DIR]\n"
        "       selfplay train --resume DIR [--stop.key value ...]",
        description="Learn a game by self-play. CONFIG is a TOML file or one of "
        f"{', '.join(configuration.bundled_names())}; --help after it shows its values as the defaults.",
    )
    parser.add_argument(
        "--run-dir", metavar="DIR", help="where the run is kept; a new folder of runs/ without"
    )
    parser.add_argument(
        "--resume", metavar="DIR", help="go on with the run in DIR from its newest checkpoint"
    )
    parsed = parser.parse(argv)
    resume = parsed.options.resume is not None
    config, path = _resumed(parsed) if resume else _fresh(parsed)

    from selfplay import train

    return train.run(config, path, resume)


def _fresh(parsed: Parsed) -> tuple[Config, Path]:
    """The configuration and the folder of a new run."""
    if parsed.config is None:
        names = ", ".join(configuration.bundled_names())
        raise UserError(f"train what? Give CONFIG, a TOML file or one of {names}; or --resume DIR")
    config = configuration.load(parsed.config, parsed.overrides)
    if parsed.options.run_dir is not None:
        return config, Path(parsed.options.run_dir)
    stem = Path(parsed.config).stem
    return config, default_path(config.env.id if stem in ("default", "config") else stem)


def _resumed(parsed: Parsed) -> tuple[Config, Path]:
    """The configuration, with its new end, and the folder of a run that goes on."""
    extra = parsed.config or ("--run-dir" if parsed.options.run_dir is not None else None)
    if extra:
        raise UserError(f"--resume DIR goes on with that run: leave out {extra}")
    for key in parsed.overrides:
        if not key.startswith(RESUMABLE):
            raise UserError(
                f"--{key.replace('_', '-')} cannot change in a run that goes on; "
                "these can: --stop.*, --checkpoint.*, --device, --ppo.autocast, --rollout.num-workers"
            )
    run = RunDirectory.open(parsed.options.resume)
    return configuration.load(run.path / run_directory.CONFIG, parsed.overrides), run.path


def _envs(argv: list[str]) -> int:
    parser = Parser(
        prog="selfplay envs",
        description="List the games that come with this package, or any that match a PATTERN, such as "
        "'openspiel:*'; --check plays them and says which work.",
    )
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="game ids, with wildcards or without")
    parser.add_argument("--check", action="store_true", help="examine the games (all: some minutes)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    from envs import catalogue
    from envs.registry import native_games, source_forms

    for pattern in options.patterns:
        if not catalogue.matching([pattern]):
            raise UserError(f"no game matches {pattern!r}; `selfplay envs` lists ours, and docs/games.md all")
    if options.check:
        entries = [*catalogue.catalogue(options.patterns)]
        report = {"games": [entry._asdict() for entry in entries]}
        print(json.dumps(report) if options.json else catalogue.text(entries))
        return 0
    names = catalogue.matching(options.patterns) if options.patterns else sorted(native_games())
    if options.json:
        print(json.dumps({"games": names}))
    else:
        from selfplay import worker  # noqa: F401 (knows the sources of games that need more than `envs`)

        print("\n".join(names if options.patterns else [*names, *source_forms()]))
    return 0
