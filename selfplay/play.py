"""`play A B`: matches between runs, checkpoints, bots and people, and how strong A is."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from envs.vector import VectorEnv
from selfplay import contestants, recording, worker
from selfplay.cli import guarded
from selfplay.config import Config, EnvConfig
from selfplay.contestants import FORMS, Contestant
from selfplay.errors import UserError
from selfplay.evaluate import SLOTS, Evaluation, compare, evaluate, rotations
from selfplay.human import HumanPlayer, session
from selfplay.options import Parser, take_kwargs, whole
from selfplay.part_play import Seated
from selfplay.parts import Part
from selfplay.recording import Decision, FirstMatch, Recording
from selfplay.search import seating

DEFAULT_GAMES = 100
KWARGS = "env.kwargs."


def main(argv: Sequence[str] | None = None) -> int:
    """`play ARGV`; returns the exit code."""
    return guarded(_play, list(sys.argv[1:] if argv is None else argv))


def _play(argv: list[str]) -> int:
    words, overrides = take_kwargs(argv)
    options = _parser().parse_args(words)
    if not options.json:
        print(_report(*_played(options, overrides)))
        return 0
    # A game's library may greet on stdout, which belongs to the result.
    with contextlib.redirect_stdout(sys.stderr):
        _, result = _played(options, overrides)
    print(json.dumps(asdict(result), allow_nan=False))
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="play",
        usage="play A B [--games N] [--seed S] [--greedy] [--json] [--render] [--save-replay FILE]\n"
        "            [--search N] [--env ID] [--env.kwargs.KEY VALUE ...]",
        description=f"Play matches and tell how strong A is. A player is {FORMS}; one for each team of "
        "the game, and each holds every team equally often. In a game of one team A and B play the same "
        "matches, each alone, and the better return wins.",
    )
    parser.add_argument("players", metavar="A B", nargs="+", help=f"who plays: {FORMS}")
    parser.add_argument(
        "--games",
        metavar="N",
        type=whole(1),
        help=f"matches, a multiple of the number of players (default: {DEFAULT_GAMES}; "
        "with human: until you quit)",
    )
    parser.add_argument(
        "--seed", metavar="S", type=whole(0), default=0, help="the same seed gives the same result"
    )
    parser.add_argument(
        "--greedy", action="store_true", help="policies take their likeliest action instead of sampling"
    )
    parser.add_argument(
        "--search",
        metavar="N",
        type=whole(0),
        default=0,
        help="A, a policy, simulates N continuations before each decision (default: 0, the policy alone)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--render", action="store_true", help="show the first match step by step")
    parser.add_argument("--save-replay", metavar="FILE", type=Path, help="write the first match as JSON")
    parser.add_argument("--env", metavar="ID", help="the game, where no player comes from a run")
    parser.add_argument(
        "--env.kwargs.KEY", dest="kwargs", metavar="VALUE", help="argument of the game, over a run's"
    )
    return parser


def _played(options: Any, overrides: dict[str, Any]) -> tuple[str, Evaluation]:
    """What was played, in words, and the result."""
    people = contestants.HUMAN in options.players
    if people and (options.render or options.save_replay):
        raise UserError("--render and --save-replay record matches without people")
    if options.save_replay and not options.save_replay.absolute().parent.is_dir():
        raise UserError(f"--save-replay {options.save_replay}: no folder {options.save_replay.parent}")
    torch.set_num_threads(1)  # a match is decided a few rows at a time
    sides = [contestants.find(text) for text in options.players]
    kwargs = {key.removeprefix(KWARGS): value for key, value in overrides.items()}
    game = contestants.common_game(sides, options.env, kwargs)
    teams = _game(game, 1).teams
    _check_number(sides, max(teams) + 1, game.id)
    if options.search:
        seating.check_side(sides[0], options.search)
    games = options.games
    if people:
        result = _with_people(sides, game, games, options)
    else:
        result = _without_people(sides, game, _games(games, len(sides)), options)
    return f"{game.id}: {' against '.join(side.label for side in sides)}", result


def _game(game: EnvConfig, num_games: int) -> VectorEnv:
    return worker.make_game(Config(env=game), num_games)


def _check_number(sides: Sequence[Contestant], num_teams: int, game: str) -> None:
    if num_teams == 1 and len(sides) == 2 and not any(side.is_human for side in sides):
        return  # the same matches, each alone
    if len(sides) != num_teams:
        alone = " (or by two without people: the same matches, each alone)" if num_teams == 1 else ""
        raise UserError(f"{game} is played by {num_teams}, one for each team{alone}; {len(sides)} given")


def _games(given: int | None, num_sides: int) -> int:
    """The number of matches; it must divide into turns at every team."""
    games = DEFAULT_GAMES - DEFAULT_GAMES % -num_sides if given is None else given
    if games % num_sides:
        below, above = games - games % num_sides, games - games % -num_sides
        near = f"{below} or {above}" if below else str(above)
        raise UserError(
            f"--games {games}: the {num_sides} sides change seats, so it must be a multiple of {num_sides}, "
            f"such as {near}"
        )
    return games


def _parts(sides: Sequence[Contestant], env: VectorEnv, options: Any) -> tuple[Part, ...]:
    return seating.seat_by_seat(env) if options.search else contestants.common_parts(sides, env)


def _seat(
    number: int, side: Contestant, game: EnvConfig, env: VectorEnv, parts: Sequence[Part], options: Any
) -> Seated:
    """A bot or policies; the first side searches, if any does."""
    if options.search and number == 0:
        return seating.seat(side, game, env, parts, simulations=options.search, greedy=options.greedy)
    return contestants.seat(side, env, parts, greedy=options.greedy)


def _with_people(sides: Sequence[Contestant], game: EnvConfig, games: int | None, options: Any) -> Evaluation:
    env = _game(game, 1)
    parts = _parts(sides, env, options)
    num_people = sum(side.is_human for side in sides)
    players: list[Seated] = []
    labels: list[str] = []
    for number, side in enumerate(sides, start=1):
        name = f"player {number}" if num_people > 1 else "you"
        labels.append(name if side.is_human else side.label)
        whose = "Your" if name == "you" else f"Player {number}'s"
        players.append(
            tuple(HumanPlayer(env, part.group, whose) for part in parts)
            if side.is_human
            else _seat(number - 1, side, game, env, parts, options)
        )
    return session(env, parts, players, labels, games=games, seed=options.seed)


def _without_people(
    sides: Sequence[Contestant], game: EnvConfig, games: int, options: Any
) -> Evaluation:  # fmt: skip
    env = FirstMatch(_game(game, min(games, SLOTS)))
    parts = _parts(sides, env, options)
    players = [_seat(number, side, game, env, parts, options) for number, side in enumerate(sides)]
    alone = max(env.teams) == 0 and len(players) == 2
    result = (compare if alone else evaluate)(env, parts, players, games=games, seed=options.seed)
    if options.search:
        seating.warn_of_unsearched(players[0])
    if options.render or options.save_replay:
        own = [
            next(k for k, part in enumerate(parts) if seat in part.seats) for seat in range(len(env.teams))
        ]
        seated = [
            (sides[k].label, players[k][own[seat]]) for seat, k in enumerate(rotations(env.teams, 1).table[0])
        ]
        record = recording.annotate(env, game, _game(game, 1), seated, options.seed)
        if options.render:
            _show(record, _game(game, 1))
        if options.save_replay:
            recording.save(record, options.save_replay)
    return result


def _show(record: Recording, env: VectorEnv) -> None:
    """Print a match board by board."""
    for seat, label in enumerate(record.lineup):
        print(f"seat {seat}: {label}")
    for number, (board, step) in enumerate(recording.play_again(record, env)):
        print(f"\n{board}\n")
        for decision in step:
            print(f"{number + 1}. {_described(decision)}")
    returns = ", ".join(f"seat {seat} {value:+g}" for seat, value in enumerate(record.returns))
    print(f"returns: {returns}\n")


def _described(decision: Decision) -> str:
    """A decision as one line."""
    played = decision.name if decision.name is not None else str(decision.action)
    words = [f"seat {decision.seat} plays {played}"]
    if decision.value is not None:
        words.append(f"value {decision.value:+.2f}  entropy {decision.entropy:.2f}")
    if decision.top:
        words.append("  ".join(f"{choice.name} {choice.probability:.0%}" for choice in decision.top))
    return "   ".join(words)


def _interval(bounds: tuple[float, float] | None) -> str:
    return "" if bounds is None else f", 95% interval {bounds[0]:+.3f} to {bounds[1]:+.3f}"


def _report(title: str, result: Evaluation) -> str:
    """The result as lines for a person."""
    if result.mean_score is None or result.score_ci95 is None:
        return f"{title}\nno match was finished"
    low, high = result.score_ci95
    lines = [
        title,
        f"matches        {result.games} (seed {result.seed})",
        f"wins           {result.wins}, draws {result.draws}, losses {result.losses}",
        f"mean score     {result.mean_score:.3f}, 95% interval {low:.3f} to {high:.3f}",
        f"mean return    {result.mean_return:+.3f}{_interval(result.return_ci95)}",
    ]
    if result.elo_diff is not None:
        beyond = {1.0: " or more", 0.0: " or less"}.get(result.mean_score, "")
        lines.append(f"Elo difference {result.elo_diff:+.0f}{beyond}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
