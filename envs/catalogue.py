"""Which games work here: every native one, every one of OpenSpiel's, and those of other libraries.

Each is examined in a process of its own, by the conformance suite and one whole match, so that a game
that hangs or crashes takes nothing else with it. `python -m envs.catalogue > docs/games.md` writes the page.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import os
import pkgutil
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import gymnasium
import numpy as np

from envs import registry
from envs.conformance import check
from envs.leaves import leaf_spaces
from envs.random_play import random_actions, restart
from envs.vector import GameError, VectorEnv

SECONDS = 180.0  # that a game's process may take
MATCH_SECONDS = 20.0  # of a core, for one whole match
SLOW = 0.5  # seconds of a core for a match, from which on the suite plays less

PETTINGZOO = ("pettingzoo.classic", "pettingzoo.butterfly", "pettingzoo.sisl", "mpe2")
GYMNASIUM = ("classic_control", "toy_text", "box2d")
POPGYM = ("RepeatPreviousEasy", "AutoencodeEasy", "CountRecallEasy", "PositionOnlyCartPoleEasy")

PARAMETERS = {
    "add_noise": "epsilon=1.0,seed=1,game=kuhn_poker()",
    "bridge_uncontested_bidding": "num_redeals=1",  # with the 10 of the default a match takes seconds
    "cached_tree": "game=kuhn_poker()",
    "coop_to_1p": "game=tiny_hanabi()",
    "misere": "game=tic_tac_toe()",
    "normal_form_extensive_game": "game=kuhn_poker()",
    "repeated_game": "stage_game=matrix_pd(),num_repetitions=10",
    "restricted_nash_response": "game=leduc_poker(),p=0.5,fixed_player=0",
    "start_at": "game=tic_tac_toe(),history=4;0",
    "turn_based_simultaneous_game": "game=goofspiel(num_cards=5)",
    "zerosum": "game=matrix_pd()",
}
"""With what OpenSpiel's games are tried that need parameters."""

INTRODUCTION = f"""\
# Games

Written by `python -m envs.catalogue > docs/games.md`; `selfplay envs --check [PATTERN ...]` looks again.

Every game here went through the conformance suite (`envs/conformance.py`), which plays random legal
actions, and through one match, whose decisions by all seats are counted ("over N decisions": it did not
end within {MATCH_SECONDS:g} seconds of a core). OpenSpiel's games are all that it registers, with
parameters where it needs them; PettingZoo's and Gymnasium's are those that need no ROMs or licences.
[Adding a game](adding_a_game.md) tells how seats become teams and groups."""


class Entry(NamedTuple):
    """What is known of one game."""

    id: str
    supported: bool
    seats: int | None
    kind: str  # how seats move, what is paid, what is seen and done
    why: str  # not supported; empty where it is


def ids() -> list[str]:
    """Every game that is looked at."""
    return [*sorted(registry.native_games()), *_openspiel(), *_pettingzoo(), *_gymnasium()]


def _openspiel() -> list[str]:
    if not importlib.util.find_spec("pyspiel"):
        return []
    import pyspiel

    names = (game.short_name for game in pyspiel.registered_games())
    return [
        f"openspiel:{name}({PARAMETERS[name]})" if name in PARAMETERS else f"openspiel:{name}"
        for name in names
    ]


def _pettingzoo() -> list[str]:
    """Modules called NAME_vNUMBER of the families that need no ROMs, those that are installed."""
    found = []
    for family in PETTINGZOO:
        spec = importlib.util.find_spec(family) if importlib.util.find_spec(family.split(".")[0]) else None
        for module in pkgutil.iter_modules(spec.submodule_search_locations if spec else None):
            if spec and re.search(r"_v\d+$", module.name):
                found.append(f"pettingzoo:{family}.{module.name}")
    return found


def _gymnasium() -> list[str]:
    """The newest version of each of Gymnasium's own tasks in these families, and some of POPGym's."""
    newest: dict[str, str] = {}
    for spec in sorted(gymnasium.registry.values(), key=lambda spec: spec.version or 0):
        if str(spec.entry_point).startswith(tuple(f"gymnasium.envs.{family}" for family in GYMNASIUM)):
            newest[spec.name] = f"gymnasium:{spec.id}"
    popgym = [f"gymnasium:popgym-{name}-v0" for name in POPGYM] if importlib.util.find_spec("popgym") else []
    return [*sorted(newest.values()), *popgym]


def examine(id: str) -> Entry:
    """Look at one game, in this process."""
    try:
        env = registry.make(id, 1)
    except ValueError as error:
        return Entry(id, False, None, "", str(error))
    seats = len(env.teams)
    try:
        start = time.process_time()
        kind = _kind(env)
        slow = time.process_time() - start > SLOW
        games, steps = (2, 5) if slow else (3, 12)
        check(lambda num_games: registry.make(id, num_games), num_games=games, num_steps=steps)
    except (AssertionError, GameError) as error:
        return Entry(id, False, seats, "", str(error))
    return Entry(id, True, seats, kind, "")


def _kind(env: VectorEnv) -> str:
    """Plays a match, to its end if there is time, and says what kind of game it is."""
    rng = np.random.default_rng(0)
    end = time.process_time() + MATCH_SECONDS
    restart(env, np.zeros(1, np.int64), rng)
    together, alone, decisions = False, False, 0
    while not env.over[0] and time.process_time() < end:
        acting = int(env.to_act.sum())
        together, alone, decisions = together or acting > 1, alone or acting == 1, decisions + acting
        env.step(random_actions(env, rng))
    moves = "in turn" if not together else "in turn or at once" if alone else "at once"
    teams = len(set(env.teams))
    aim = "zero-sum" if env.zero_sum else "one team" if teams == 1 else "general-sum"
    social = [] if len(env.teams) == 1 else [moves, aim] + [f"{teams} teams"] * (1 < teams < len(env.teams))
    actions = dict.fromkeys(_spelled(group.action_space) for group in env.groups)
    views = dict.fromkeys(_spelled(group.observation_space) for group in env.groups)
    length = f"{decisions} decisions" if env.over[0] else f"over {decisions} decisions"
    return ", ".join([*social, f"sees {' / '.join(views)}", f"does {' / '.join(actions)}", length])


def _spelled(space: gymnasium.Space) -> str:
    """A space in a word: its leaves' kinds and sizes."""
    words = []
    for leaf in leaf_spaces(space).values():
        kind = type(leaf).__name__
        if isinstance(leaf, gymnasium.spaces.Discrete):
            words.append(f"{kind} {leaf.n}")
        elif isinstance(leaf, gymnasium.spaces.MultiDiscrete):
            words.append(f"{kind} {'×'.join(map(str, leaf.nvec.ravel().tolist()))}")
        else:
            words.append(f"{kind} {'×'.join(map(str, leaf.shape or ()))}".rstrip())
    return " + ".join(words) if len(words) <= 4 else f"{len(words)} leaves"


def catalogue(
    patterns: Sequence[str] = (), *, jobs: int | None = None, seconds: float = SECONDS
) -> Iterator[Entry]:
    """The games that match any of the patterns (all, without), examined in processes, `jobs` at a time.

    A pattern may have wildcards, as openspiel:*; one without is itself the id of a game.
    """
    chosen = matching(patterns) if patterns else ids()
    with ThreadPoolExecutor(jobs or min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(lambda id: _apart(id, seconds), chosen)


def matching(patterns: Sequence[str]) -> list[str]:
    """The games that match any of the patterns, and those of other sources that are named whole."""
    known = ids()
    chosen: dict[str, None] = {}
    for pattern in patterns:
        named = ":" in pattern and not set("*?[") & set(pattern)
        chosen |= dict.fromkeys([pattern] if named else fnmatch.filter(known, pattern))
    return [*chosen]


def _apart(id: str, seconds: float) -> Entry:
    """`examine` in a process of its own."""
    command = [sys.executable, "-m", "envs.catalogue", "--examine", id]
    environ = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
    }
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=environ)
    except subprocess.TimeoutExpired:
        return Entry(id, False, None, "", f"not examined in {seconds:g} s")
    if done.returncode != 0:
        cause = done.stderr.strip().splitlines()[-1:] or ["no message"]
        return Entry(id, False, None, "", f"its process ended with {done.returncode}: {cause[0]}")
    return Entry(**json.loads(done.stdout.splitlines()[-1]))


def text(entries: Sequence[Entry]) -> str:
    """A table for the terminal."""
    rows = [("game", "fits", "seats", "what it is, or why it does not fit")]
    for entry in entries:
        fits, seats = "yes" if entry.supported else "no", "" if entry.seats is None else str(entry.seats)
        rows.append((entry.id, fits, seats, _words(entry)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join([*map(str.ljust, row[:3], widths), row[3]]) for row in rows]
    return "\n".join([*lines, "", summary(entries)])


def summary(entries: Sequence[Entry]) -> str:
    """How many fit, by where they come from."""
    sources = dict.fromkeys(_source(entry) for entry in entries)
    counts = []
    for source in sources:
        own = [entry for entry in entries if _source(entry) == source]
        counts.append(f"{source} {sum(entry.supported for entry in own)} of {len(own)}")
    return "fit: " + ", ".join(counts)


def _source(entry: Entry) -> str:
    return entry.id.partition(":")[0] if ":" in entry.id else "native"


def page(entries: Sequence[Entry]) -> str:
    """The page docs/games.md."""
    lines = [INTRODUCTION, "", f"What {summary(entries)}.", ""]
    for source in dict.fromkeys(_source(entry) for entry in entries):
        lines += [f"## {source}", "", "| game | fits | seats | what it is, or why it does not fit |"]
        lines.append("| --- | --- | --- | --- |")
        for entry in entries:
            if _source(entry) == source:
                fits, words = "yes" if entry.supported else "no", _words(entry).replace("|", "\\|")
                lines.append(f"| `{entry.id}` | {fits} | {entry.seats or ''} | {words} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def _words(entry: Entry) -> str:
    """Kind or reason without the id, which stands beside it."""
    words = entry.kind or entry.why
    for prefix in (f"game '{entry.id}': ", f"game '{entry.id}' ", f"{entry.id}: ", f"{entry.id}, "):
        words = words.removeprefix(prefix)
    return words


def main(argv: Sequence[str]) -> int:
    """`--examine ID` prints one entry as JSON; patterns, or nothing, print the page."""
    if argv[:1] == ["--examine"]:
        entry = examine(argv[1])
        print(json.dumps(entry._asdict()))
        return 0
    entries = []
    for entry in catalogue(argv):
        print(f"{entry.id}: {'fits' if entry.supported else entry.why}", file=sys.stderr)
        entries.append(entry)
    print(page(entries))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
