"""Who takes part: the players that the words of the command line mean, and what identifies each."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from selfplay import contestants
from selfplay.contestants import Contestant
from selfplay.errors import UserError
from selfplay.league.store import Player, Store
from selfplay.matches import MAIN
from selfplay.run_directory import CONFIG, RunDirectory

FORMS = "a run directory, DIR:PLAYER, DIR:PATTERN, a checkpoint, random or bot:NAME"


@dataclass(frozen=True, slots=True)
class Entrant:
    """A player of the tournament."""

    name: str  # as it was typed, or DIR:PLAYER of a member that --members found
    identity: str  # the same for players that play alike, whatever they are called and wherever they lie
    contestant: Contestant


def gather(words: Sequence[str], *, members: int, greedy: bool) -> tuple[Entrant, ...]:
    """The players that these words mean; a run directory brings so many `members`, the newest among them.

    DIR:PATTERN brings the past selves whose names match, as in a shell. A player that is named twice is
    refused. One that was not named, with the weights of another that is in already, is left out.
    """
    if contestants.HUMAN in words:
        raise UserError(f"human cannot enter a tournament: a player is {FORMS}")
    matching = {word: _matching(word) for word in words}
    found: dict[str, Entrant] = {}
    for word in (word for word in words if matching[word] is None):
        entrant = _entrant(word, greedy)
        if entrant.identity in found:
            raise UserError(
                f"{found[entrant.identity].name} and {word} are the same player; a player enters once"
            )
        found[entrant.identity] = entrant
    for word in words:
        more = matching[word]
        if more is None:
            more = _past_members(word, members - 1) if members > 1 else []
        for name in more:
            entrant = _entrant(name, greedy)
            found.setdefault(entrant.identity, entrant)
    if len(found) < 2:
        named = ", ".join(entrant.name for entrant in found.values()) or "nobody"
        raise UserError(f"a tournament needs at least two players, and was given {named}")
    order = {name: k for k, word in enumerate(words) for name in matching[word] or [word]}
    return tuple(sorted(found.values(), key=lambda entrant: _place(entrant.name, order)))


def _place(name: str, order: dict[str, int]) -> int:
    """Of a member that --members found, the place of its run."""
    return order[name] if name in order else order[name.rpartition(":")[0]]


def _entrant(word: str, greedy: bool) -> Entrant:
    contestant = contestants.find(word)
    return Entrant(word, identity(contestant, greedy=greedy), contestant)


def identity(contestant: Contestant, *, greedy: bool) -> str:
    """A bot's name, or the SHA-256 of the weights, of what is built around them, and of how it chooses."""
    if contestant.bot is not None:
        return contestant.bot
    assert contestant.config is not None
    assert contestant.weights is not None
    built = {
        "policy": contestant.config.policy.model_dump(mode="json"),
        "env": contestant.config.env.kwargs,
        "greedy": greedy,
    }
    digest = hashlib.sha256(json.dumps(built, sort_keys=True, default=str).encode())
    for name, array in sorted(contestant.weights.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _matching(word: str) -> list[str] | None:
    """The past selves that DIR:PATTERN means, in the order in which they joined; None: it is no pattern."""
    folder, colon, pattern = word.rpartition(":")
    if not (colon and set(pattern) & set("*?[") and (Path(folder) / CONFIG).is_file()):
        return None
    with Store(RunDirectory.open(folder).league, readonly=True) as store:
        past = [player.name for player in store.players() if player.kind == "snapshot"]
    chosen = [name for name in past if fnmatch.fnmatchcase(name, pattern)]
    if not chosen:
        kinds = sorted({f"{name.rpartition('-')[0]}-*" for name in past})
        raise UserError(f"{word} matches no past self; there are {', '.join(kinds) or 'none'}")
    return [f"{folder}:{name}" for name in chosen]


def _past_members(word: str, number: int) -> list[str]:
    """Past selves of a run directory, evenly spaced over the iterations in which they joined."""
    if not (Path(word) / CONFIG).is_file():
        return []
    with Store(RunDirectory.open(word).league, readonly=True) as store:
        past = [p for p in store.players() if p.kind == "snapshot" and p.name.startswith(f"{MAIN}-")]
    return [f"{word}:{player.name}" for player in evenly_spaced(past, number)]


def evenly_spaced(past: Sequence[Player], number: int) -> list[Player]:
    """So many of these past selves, or all: nearest to even steps from the first one to the present.

    The present itself is left out: the newest player stands for it.
    """
    left = sorted(past, key=lambda player: player.iteration)
    if not left:
        return []
    first, last = left[0].iteration, left[-1].iteration
    chosen = []
    for target in np.linspace(first, last, number + 1)[:-1]:
        if left:
            nearest = min(left, key=lambda player: abs(player.iteration - target))
            left.remove(nearest)
            chosen.append(nearest)
    return sorted(chosen, key=lambda player: player.iteration)
