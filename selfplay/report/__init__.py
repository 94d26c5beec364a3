"""`selfplay report DIR`: a run as one page for the browser."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from selfplay.cli import guarded
from selfplay.errors import UserError
from selfplay.options import Parser

NAME = "report.html"


def main(argv: Sequence[str] | None = None) -> int:
    """`selfplay report ARGV`; returns the exit code."""
    return guarded(_report, list(sys.argv[1:] if argv is None else argv))


def _report(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    from selfplay.report import page, reader

    data = reader.read(options.run)
    path = Path(options.run) / NAME if options.output is None else options.output
    try:
        path.write_text(page.page(data), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    print(path)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="selfplay report",
        usage="selfplay report DIR [--output FILE]",
        description="Write the run in DIR as one HTML page: ratings, payoffs, training curves, the family of "
        "players, matches on record and the configuration. The page needs nothing else, no network either.",
    )
    parser.add_argument("run", metavar="DIR", help="a run directory, also of a run that goes on")
    parser.add_argument("--output", metavar="FILE", type=Path, help=f"the page (default: DIR/{NAME})")
    return parser
