"""The command: read the words, play what is missing, tell how it stands."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from selfplay import contestants
from selfplay.config import EnvConfig, num_cores
from selfplay.contestants import Contestant
from selfplay.engine.tasks import Task, run_here, run_on_ray
from selfplay.errors import UserError
from selfplay.options import Parser, take_kwargs, whole
from selfplay.tournament import report as reports
from selfplay.tournament import schedule
from selfplay.tournament.entrants import FORMS, Entrant, gather
from selfplay.tournament.playing import Game, Played, encoded, play
from selfplay.tournament.report import Report
from selfplay.tournament.schedule import Pair, Piece
from selfplay.tournament.standings import standings
from selfplay.tournament.store import Results
from selfplay.views import Meeting

DEFAULT_GAMES = 100
KWARGS = "env.kwargs."

PATIENCE = 20.0
"""Seconds of play in this process, and again of what is expected to be left, before Ray is started."""


def main(argv: Sequence[str]) -> int:
    """`selfplay tournament ARGV`; returns the exit code."""
    words, overrides = take_kwargs(list(argv))
    options = _parser().parse_args(words)
    if not options.json:
        print(reports.text(_held(options, overrides)))
        return 0
    # A game's library may greet on stdout, which belongs to the result.
    with contextlib.redirect_stdout(sys.stderr):
        report = _held(options, overrides)
    print(json.dumps(report.as_dict(), allow_nan=False))
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="selfplay tournament",
        usage="selfplay tournament A B [C ...] [--games N] [--seed S] [--members K] [--greedy]\n"
        "            [--output DIR] [--workers N] [--json] [--env ID] [--env.kwargs.KEY VALUE ...]",
        description="Everybody plays everybody else, and all are rated on one scale. A player is "
        f"{FORMS}. Results are kept as they come: the same command goes on where it was stopped, and with "
        "more players or matches plays only what is missing.",
    )
    parser.add_argument("players", metavar="A B", nargs="+", help=f"who plays: {FORMS}")
    parser.add_argument(
        "--games",
        metavar="N",
        type=whole(1),
        help=f"matches of each pair, in which both hold every team equally often (default: {DEFAULT_GAMES})",
    )
    parser.add_argument(
        "--seed", metavar="S", type=whole(0), default=0, help="the same seed gives the same result"
    )
    parser.add_argument(
        "--members",
        metavar="K",
        type=whole(1),
        default=1,
        help="a run directory enters its newest player and K - 1 past selves, evenly spaced in time "
        "(default: 1, the newest)",
    )
    parser.add_argument(
        "--greedy", action="store_true", help="policies take their likeliest action instead of sampling"
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, help="where results are kept (default: tournaments/GAME)"
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=_workers,
        default="auto",
        help="processes that play, on Ray; 0: this one; auto (default): this one, and Ray on all cores "
        f"for what would take more than {PATIENCE:g} s",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--env", metavar="ID", help="the game, where no player comes from a run")
    parser.add_argument(
        "--env.kwargs.KEY", dest="kwargs", metavar="VALUE", help="argument of the game, over a run's"
    )
    return parser


def _workers(text: str) -> int | str:
    return text if text == "auto" else whole(0)(text)


_workers.__name__ = "whole number or auto"  # argparse names it: "invalid ... value: 'many'"


def _held(options: Any, overrides: dict[str, Any]) -> Report:
    """Play what is missing of the tournament, write its files, and give all of it."""
    entrants = gather(options.players, members=options.members, greedy=options.greedy)
    kwargs = {key.removeprefix(KWARGS): value for key, value in overrides.items()}
    own = contestants.games([each.contestant for each in entrants], options.env, kwargs)
    meeting = Meeting(own, 1)
    for k, entrant in enumerate(entrants):  # whether it fits the game is told before anything is played
        side, (_, env) = entrant.contestant, meeting.game(k)
        contestants.seat(side, env, contestants.common_parts([side], env), greedy=options.greedy)
    teams, zero_sum = meeting.env.teams, meeting.env.zero_sum
    number = _games(options.games, max(teams) + 1)
    games = _paired(entrants, own, options)
    folder = _folder(options.output, own[0].id)
    results = Results(folder)
    try:
        _play_missing(results, games, number, entrants, options.workers)
        played = {pair: results.played(game, pair, number) for pair, game in games.items()}
    finally:
        results.close()
    report = Report(
        env=own[0].id,
        env_kwargs=own[0].kwargs if all(each == own[0] for each in own) else None,
        seed=options.seed,
        greedy=options.greedy,
        games_per_pair=number,
        standings=standings(entrants, played, rated=zero_sum and max(teams) > 0),
        folder=folder,
    )
    reports.save(report)
    return report


def _paired(entrants: Sequence[Entrant], own: Sequence[EnvConfig], options: Any) -> dict[Pair, Game]:
    """What each pair plays. A bot sees the game as its opponent does: so no third player matters to them."""
    kwargs = {
        entrant.identity: (encoded(env.kwargs), entrant.contestant.bot is not None)
        for entrant, env in zip(entrants, own, strict=True)
    }
    games = {}
    for pair in schedule.pairs([*kwargs]):
        (first, first_is_bot), (second, second_is_bot) = kwargs[pair.first], kwargs[pair.second]
        if first_is_bot:
            first = second
        elif second_is_bot:
            second = first
        games[pair] = Game(own[0].id, (first, second), options.seed, options.greedy)
    return games


def _games(given: int | None, num_teams: int) -> int:
    """The number of matches of a pair; both hold every place equally often in it."""
    turn = schedule.round_length(num_teams)
    games = DEFAULT_GAMES - DEFAULT_GAMES % -turn if given is None else given
    if games % turn:
        below, above = games - games % turn, games - games % -turn
        near = f"{below} or {above}" if below else str(above)
        raise UserError(
            f"--games {games}: two players change seats over {turn} matches, so it must be a multiple of "
            f"{turn}, such as {near}"
        )
    return games


def _folder(given: Path | None, game: str) -> Path:
    """The folder that holds the results, made where it is missing."""
    stem = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in game).strip("-")
    folder = Path("tournaments") / stem if given is None else given
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {folder}: cannot make this folder: {error.strerror}") from error
    return folder


def _play_missing(
    results: Results,
    games: Mapping[Pair, Game],
    number: int,
    entrants: Sequence[Entrant],
    workers: int | str,
) -> None:
    """Play the matches that are not kept yet, `number` of each pair, and keep them as they come."""
    missing = [
        piece
        for pair, game in games.items()
        for piece in schedule.pieces(pair, range(number), results.played(game, pair, number).number.tolist())
    ]
    total = number * len(games)
    kept = total - sum(len(piece.numbers) for piece in missing)
    try:
        sides = {entrant.identity: entrant.contestant for entrant in entrants}
        for piece, played in _played(games, missing, sides, workers):
            results.add(games[piece.pair], piece.pair, played)
            kept += len(played.number)
            _tell(f"\r{kept} of {total} matches")
    except KeyboardInterrupt:
        print(
            f"stopped: {kept} of {total} matches are kept in {results.path}; the same command goes on",
            file=sys.stderr,
        )
        raise
    finally:
        _tell("\r" + " " * 40 + "\r")


def _tell(words: str) -> None:
    if sys.stderr.isatty():
        print(words, end="", file=sys.stderr, flush=True)


def _played(
    games: Mapping[Pair, Game], pieces: Sequence[Piece], sides: Mapping[str, Contestant], workers: int | str
) -> Iterator[tuple[Piece, Played]]:
    """The pieces with their results, in any order.

    The clock decides only where a piece is played, never how it ends.
    """
    tasks = [Task((games[piece.pair], piece), (piece.pair.first, piece.pair.second)) for piece in pieces]
    done = 0
    if workers == "auto":
        start = time.monotonic()
        for task, played in run_here(play, tasks, sides):
            yield task.arguments[1], played
            done += 1
            spent = time.monotonic() - start
            if num_cores() > 1 and spent > PATIENCE and spent / done * (len(tasks) - done) > PATIENCE:
                break
        workers = num_cores()
    left = tasks[done:]
    if not left:
        return
    run = functools.partial(run_on_ray, num_workers=int(workers)) if workers else run_here
    for task, played in run(play, left, sides):
        yield task.arguments[1], played
