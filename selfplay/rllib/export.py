"""`selfplay export DIR[:PLAYER] --to rllib --output FOLDER`: a trained policy for RLlib."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from selfplay import contestants
from selfplay.errors import UserError
from selfplay.options import Parser

FORMATS = ("rllib",)


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(
        prog="selfplay export",
        description="Write a trained policy in the form of another library. FOLDER then loads by RLlib's "
        "RLModule.from_checkpoint; where a player has several policies, each is a folder in it.",
    )
    parser.add_argument("player", metavar="DIR[:PLAYER]", help="a run directory, DIR:PLAYER or a checkpoint")
    parser.add_argument("--to", metavar="rllib", default="rllib", help="the library (default: rllib)")
    parser.add_argument("--output", metavar="FOLDER", required=True, help="a new folder")
    options = parser.parse_args(argv)
    if options.to not in FORMATS:
        raise UserError(f"--to {options.to} is not allowed; there is {', '.join(FORMATS)}")
    logging.getLogger("ray").setLevel(logging.ERROR)  # RLlib warns of what it deprecates in itself
    for folder in export(options.player, Path(options.output)):
        print(folder)
    return 0


def export(player: str, output: Path) -> list[Path]:
    """Write the policies of a player, as `play` names it; the folders written, each an RLModule's."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output {output} already exists; name a new folder")
    found = contestants.find(player)
    if found.config is None or found.weights is None:
        raise UserError(f"{player} has no policy to export; give a run directory, DIR:PLAYER or a checkpoint")
    # Importing RLlib takes seconds: only once there is something to export.
    from selfplay.rllib.checkpoint import make_modules

    modules = make_modules(found.label, found.config, found.weights)
    folders = []
    for name, module in modules.items():
        # RLlib's file systems know absolute paths only.
        folder = (output if len(modules) == 1 else output / name).resolve()
        module.save_to_path(folder)
        folders.append(folder)
    return folders
