"""`play --replay FILE`: a match on record, step by step, and whether its game still gives it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence

from envs.registry import native_games
from selfplay import recording, worker
from selfplay.config import Config, EnvConfig
from selfplay.errors import UserError
from selfplay.recording import Decision, Recording

NEXT = ("\n", "\r", " ", "\x1b[C", "\x1b[B")
BACK = ("b", "\x7f", "\x1b[D", "\x1b[A")
LEAVE = ("q", "\x03", "\x04", "")
KEYS = "Enter or -> next, <- back, q quits"
CLEAR = "\x1b[2J\x1b[H"

KNOWN = ("openspiel:", "pettingzoo:pettingzoo.", "pettingzoo:mpe2.", "gymnasium:")
"""How ids begin that name no code but that of the libraries."""


def pages(record: Recording) -> list[str]:
    """The match step by step: each board with what was decided there; the last has the returns."""
    texts = []
    for number, board in enumerate(record.boards):
        step = record.steps[number] if number < len(record.steps) else ()
        lines = [f"{number + 1}. {_described(decision)}" for decision in step]
        texts.append("\n".join([f"\n{board}\n", *lines]))
    returns = ", ".join(f"seat {seat} {value:+g}" for seat, value in enumerate(record.returns))
    return [*texts[:-1], f"{texts[-1]}\nreturns: {returns}\n"]


def heading(record: Recording) -> str:
    """Who sat where."""
    return "\n".join(f"seat {seat}: {label}" for seat, label in enumerate(record.lineup))


def show(record: Recording) -> None:
    """Print the match: page by page at a terminal, else all of it."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        with _keys_at_once():
            _turn(heading(record), pages(record))
    else:
        print("\n".join([heading(record), *pages(record)]))


def _turn(head: str, texts: Sequence[str]) -> None:
    """Show a page at a time, forth and back by keys."""
    number = 0
    while True:
        print(f"{CLEAR}{head}\n{texts[number]}\n[{number + 1} of {len(texts)}] {KEYS} ", end="", flush=True)
        key = os.read(sys.stdin.fileno(), 8).decode(errors="replace")
        if key in LEAVE or (key in NEXT and number == len(texts) - 1):
            print()
            return
        if key in NEXT:
            number += 1
        elif key in BACK:
            number = max(number - 1, 0)


@contextlib.contextmanager
def _keys_at_once() -> Iterator[None]:
    """The terminal gives every key when it is pressed, without waiting for Enter and without showing it."""
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal, termios.TCSADRAIN)  # keys pressed before are kept
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _described(decision: Decision) -> str:
    """A decision as one line."""
    played = decision.name if decision.name is not None else str(decision.action)
    words = [f"seat {decision.seat} plays {played}"]
    if decision.value is not None:
        words.append(f"value {decision.value:+.2f}  entropy {decision.entropy:.2f}")
    if decision.top:
        words.append("  ".join(f"{choice.name} {choice.probability:.0%}" for choice in decision.top))
    return "   ".join(words)


def unverified(record: Recording, trusted: str | None) -> str | None:
    """Play the match again: None if it ends as on record, UserError if not, or why it cannot be played.

    trusted: the id of a game whose code may be run. A file from somebody else can name any code.
    """
    names_code = not record.env_id.startswith(KNOWN) or record.env_id.count(":") > 1
    if trusted not in (None, record.env_id):
        raise UserError(f"--env {trusted} is not the game on record, {record.env_id}")
    if names_code and record.env_id not in native_games() and trusted is None:
        return f"its game is code of its own; --env {record.env_id} runs that"
    try:
        env = worker.make_game(Config(env=EnvConfig(id=record.env_id, kwargs=record.env_kwargs)), 1)
    except UserError as error:
        return str(error)
    for _ in recording.play_again(record, env):
        pass
    return None
