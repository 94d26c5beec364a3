"""`play A B`: matches between runs, checkpoints, bots and people, and how strong A is."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import torch

from envs.vector import VectorEnv
from selfplay import contestants, playback, recording, worker
from selfplay.cli import guarded
from selfplay.config import Config, EnvConfig
from selfplay.contestants import FORMS, Contestant
from selfplay.errors import UserError
from selfplay.evaluate import SLOTS, Evaluation, compare, evaluate, rotations
from selfplay.human import HumanPlayer, session
from selfplay.league_config import Held
from selfplay.options import Parser, take_kwargs, whole
from selfplay.part_play import Seated
from selfplay.parts import Part, units
from selfplay.recording import FirstMatch, Recording
from selfplay.rollout import Matches
from selfplay.search import seating
from selfplay.views import Meeting, seen_by

DEFAULT_GAMES = 100
KWARGS = "env.kwargs."


def main(argv: Sequence[str] | None = None) -> int:
    """`play ARGV`; returns the exit code."""
    return guarded(_play, list(sys.argv[1:] if argv is None else argv))


def _play(argv: list[str]) -> int:
    words, overrides = take_kwargs(argv)
    options = _parser().parse_args(words)
    if options.replay:
        with contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext():
            shown = _replayed(options)
        if options.json:
            print(json.dumps(shown))
        return 0
    if not options.players:
        raise UserError(f"who plays? A player is {FORMS}")
    if not options.json:
        print(_report(*_played(options, overrides)))
        return 0
    # A game's library may greet on stdout, which belongs to the result.
    with contextlib.redirect_stdout(sys.stderr):
        _, result, _ = _played(options, overrides)
    print(json.dumps(asdict(result), allow_nan=False))
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="play",
        usage="play A B [--games N] [--seed S] [--greedy] [--json] [--render] [--save-replay FILE]\n"
        "            [--lineup team|role|seat] [--search N] [--env ID] [--env.kwargs.KEY VALUE ...]\n"
        "       play --replay FILE [--json] [--env ID]",
        description=f"Play matches and tell how strong A is. A player is {FORMS}; one for each team of "
        "the game, and each holds every team equally often. In a game of one team A and B play the same "
        "matches, each alone, and the better return wins. With --lineup role A holds one role of a team "
        "(with seat: one seat), going round them, and the others hold the rest, its team mates too.",
    )
    parser.add_argument("players", metavar="A B", nargs="*", help=f"who plays: {FORMS}")
    parser.add_argument(
        "--games",
        metavar="N",
        type=whole(1),
        help=f"matches, a multiple of the number of players, or of roles or seats (default: {DEFAULT_GAMES}; "
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
    parser.add_argument(
        "--lineup",
        choices=get_args(Held),
        default="team",
        help="what a player holds: a team (the default), the seats of one role in a team, or one seat; "
        "with fewer players than there are of these the last one holds what is left",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--render", action="store_true", help="show the first match step by step")
    parser.add_argument("--save-replay", metavar="FILE", type=Path, help="write the first match as JSON")
    parser.add_argument(
        "--replay", metavar="FILE", type=Path, help="show a match that --save-replay wrote, step by step"
    )
    parser.add_argument("--env", metavar="ID", help="the game, where no player comes from a run")
    parser.add_argument(
        "--env.kwargs.KEY", dest="kwargs", metavar="VALUE", help="argument of the game, over a run's"
    )
    return parser


def _played(options: Any, overrides: dict[str, Any]) -> tuple[str, Evaluation, bool]:
    """What was played, in words; the result; and whether somebody could win."""
    people = contestants.HUMAN in options.players
    if people and (options.render or options.save_replay):
        raise UserError("--render and --save-replay record matches without people")
    if options.save_replay and not options.save_replay.absolute().parent.is_dir():
        raise UserError(f"--save-replay {options.save_replay}: no folder {options.save_replay.parent}")
    torch.set_num_threads(1)  # a match is decided a few rows at a time
    sides = [contestants.find(text) for text in options.players]
    kwargs = {key.removeprefix(KWARGS): value for key, value in overrides.items()}
    games = contestants.games(sides, options.env, kwargs)
    game = games[0].id
    env = worker.make_game(Config(env=games[0]), 1)
    held = units(env, options.lineup)
    num_units = max(held) + 1
    whole = options.lineup == "team"
    if whole:
        _check_number(sides, num_units, game)
    elif num_units == 1:
        raise UserError(f"--lineup {options.lineup}: {game} has only one, so that nobody else could play")
    elif not 2 <= len(sides) <= num_units:
        raise UserError(
            f"--lineup {options.lineup}: {game} has {num_units}, team by team, played by 2 to {num_units} "
            f"players; {len(sides)} given"
        )
    if options.search:
        seating.check_side(sides[0], options.search)
    if people:
        result = _with_people(sides, games, options.games, options, held)
    else:
        turns = len(sides) if whole else num_units
        result = _without_people(sides, games, _games(options.games, turns), options, held)
    title = f"{game}: {(' against ' if whole else ' and ').join(side.label for side in sides)}"
    return title, result, max(env.teams) > 0 or (whole and len(sides) > 1)


def _check_number(sides: Sequence[Contestant], num_teams: int, game: str) -> None:
    if num_teams == 1 and len(sides) == 2 and not any(side.is_human for side in sides):
        return  # the same matches, each alone
    if len(sides) != num_teams:
        alone = " (or by two without people: the same matches, each alone)" if num_teams == 1 else ""
        raise UserError(f"{game} is played by {num_teams}, one for each team{alone}; {len(sides)} given")


def _games(given: int | None, turns: int) -> int:
    """The number of matches; it must divide into turns at every team, or whatever a player holds."""
    games = DEFAULT_GAMES - DEFAULT_GAMES % -turns if given is None else given
    if games % turns:
        below, above = games - games % turns, games - games % -turns
        near = f"{below} or {above}" if below else str(above)
        raise UserError(
            f"--games {games}: the players change seats, {turns} ways in turn, so it must be a multiple of "
            f"{turns}, such as {near}"
        )
    return games


def _parts(sides: Sequence[Contestant], env: VectorEnv, options: Any) -> tuple[Part, ...]:
    return seating.seat_by_seat(env) if options.search else contestants.common_parts(sides, env)


def _seat(number: int, side: Contestant, meeting: Meeting, parts: Sequence[Part], options: Any) -> Seated:
    """A bot or policies; the first side searches, if any does."""
    game, env = meeting.game(number)
    if options.search and number == 0:
        seated = seating.seat(side, game, env, parts, simulations=options.search, greedy=options.greedy)
    else:
        seated = contestants.seat(side, env, parts, greedy=options.greedy)
    return meeting.seated(number, seated)


def _with_people(
    sides: Sequence[Contestant],
    games: Sequence[EnvConfig],
    num_games: int | None,
    options: Any,
    held: Sequence[int],
) -> Evaluation:
    meeting = Meeting(games, 1)
    parts = _parts(sides, meeting.env, options)
    num_people = sum(side.is_human for side in sides)
    players: list[Seated] = []
    labels: list[str] = []
    people: dict[int, list[HumanPlayer]] = {}
    for number, side in enumerate(sides):
        if not side.is_human:
            labels.append(side.label)
            players.append(_seat(number, side, meeting, parts, options))
            continue
        labels.append(f"player {number + 1}" if num_people > 1 else "you")
        whose = f"Player {number + 1}'s" if num_people > 1 else "Your"
        people[number] = [HumanPlayer(meeting.game(number)[1], part, whose) for part in parts]
        players.append(meeting.seated(number, people[number]))
    return session(
        meeting.env,
        parts,
        players,
        labels,
        people=people,
        games=num_games,
        seed=options.seed,
        units=held,
    )


def _without_people(
    sides: Sequence[Contestant],
    games: Sequence[EnvConfig],
    num_games: int,
    options: Any,
    held: Sequence[int],
) -> Evaluation:
    """held [A]: what each player holds (`selfplay.parts.units`)."""
    meeting = Meeting(games, min(num_games, SLOTS))
    env = FirstMatch(meeting.env)
    parts = _parts(sides, env, options)
    players = [_seat(number, side, meeting, parts, options) for number, side in enumerate(sides)]
    patience = Patience(num_games)
    if max(held) == 0 and len(players) == 2:
        result = compare(env, parts, players, games=num_games, seed=options.seed, watch=patience)
    else:
        result = evaluate(env, parts, players, games=num_games, seed=options.seed, units=held, watch=patience)
    if options.search:
        seating.warn_of_unsearched(seen_by(players[0][0])[0])
    if options.render or options.save_replay:
        record = _recorded(env, sides, games, parts, players, options.seed, held)
        if options.render:
            print("\n".join([playback.heading(record), *playback.pages(record)]))
        if options.save_replay:
            recording.save(record, options.save_replay)
    return result


def _recorded(
    match: FirstMatch,
    sides: Sequence[Contestant],
    games: Sequence[EnvConfig],
    parts: Sequence[Part],
    players: Sequence[Seated],
    seed: int,
    held: Sequence[int],
) -> Recording:
    """The first match, with what the policies thought."""
    first = rotations(held, 1, len(sides)).table[0]
    own = [next(k for k, part in enumerate(parts) if seat in part.seats) for seat in range(len(match.teams))]
    seated = [(sides[k].label, players[k][own[seat]]) for seat, k in enumerate(first)]
    meeting = Meeting(games, 1)
    return recording.annotate(match, meeting.games[0], meeting.env, seated, seed)


class Patience:
    """Says on stderr, twice a minute, how far the matches are: one may never end."""

    def __init__(self, games: int, seconds: float = 30.0) -> None:
        self.games, self.seconds = games, seconds
        self._begun = self._said = time.monotonic()

    def __call__(self, matches: Matches) -> None:
        now = time.monotonic()
        if now - self._said < self.seconds:
            return
        self._said = now
        over = sum(len(lineup) for lineup, *_ in matches.finished)
        print(
            f"{over} of {self.games} matches are over after {now - self._begun:.0f} s; "
            f"{matches.decisions} decisions made",
            file=sys.stderr,
        )


def _replayed(options: Any) -> dict[str, Any]:
    """Show the match on record, unless asked for JSON; what it was, and whether its game still gives it."""
    if options.players or options.save_replay:
        raise UserError("--replay FILE shows a match that was played: leave out players and --save-replay")
    record = recording.load(options.replay)
    reason = playback.unverified(record, options.env)
    if not options.json:
        playback.show(record)
        game = f"{record.env_id} {record.env_kwargs}" if record.env_kwargs else record.env_id
        print(f"verified: {game} gives the same match" if reason is None else f"not verified: {reason}")
    return {
        "env_id": record.env_id,
        "lineup": record.lineup,
        "returns": record.returns,
        "steps": len(record.steps),
        "verified": reason is None,
    }


def _interval(bounds: tuple[float, float] | None) -> str:
    return "" if bounds is None else f", 95% interval {bounds[0]:+.3f} to {bounds[1]:+.3f}"


def _report(title: str, result: Evaluation, contested: bool) -> str:
    """The result as lines for a person; contested: whether somebody could win."""
    if result.mean_score is None or result.score_ci95 is None:
        return f"{title}\nno match was finished"
    low, high = result.score_ci95
    lines = [title, f"matches        {result.games} (seed {result.seed})"]
    if contested:
        lines += [
            f"wins           {result.wins}, draws {result.draws}, losses {result.losses}",
            f"mean score     {result.mean_score:.3f}, 95% interval {low:.3f} to {high:.3f}",
        ]
    lines.append(f"mean return    {result.mean_return:+.3f}{_interval(result.return_ci95)}")
    if result.elo_diff is not None:
        beyond = {1.0: " or more", 0.0: " or less"}.get(result.mean_score, "")
        lines.append(f"Elo difference {result.elo_diff:+.0f}{beyond}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
