"""Parts: which seats of a game one policy plays.

Seats whose spaces differ (the game's groups) never share a policy. Within a group they share one, unless
the configuration splits it by role, by team or seat by seat. A player holds one policy for each part.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from envs.vector import VectorEnv
from selfplay.league_config import Held

Per = Literal["group", "role", "team", "seat"]


@dataclass(frozen=True, slots=True)
class Part:
    """Seats of one group that are played by the same policy. P seats."""

    name: str
    group: int  # index among the game's groups
    places: np.ndarray  # [P] places within the group, ascending
    seats: np.ndarray  # [P] seats of the game


def split(env: VectorEnv, pers: Iterable[Per]) -> tuple[Part, ...]:
    """The coarsest parts that every one of these ways to share policies agrees with, group by group."""
    ways = set(pers)
    parts = []
    for index, group in enumerate(env.groups):
        keys = ["_".join(_shared(env, seat, ways)) for seat in group.seats]
        for key in dict.fromkeys(keys):
            places = np.flatnonzero(np.array(keys) == key)
            parts.append(Part(key or group.name, index, places, np.asarray(group.seats)[places]))
    return tuple(_named_apart(env, part, parts) for part in parts)


def seat_names(env: VectorEnv) -> tuple[str, ...]:
    """[A] the game's own names of its seats, or seat_0, seat_1, ..."""
    return tuple(getattr(env, "seat_names", None) or (f"seat_{k}" for k in range(len(env.teams))))


def role(seat_name: str) -> str:
    """A seat's name without the number at its end: "adversary_1" -> "adversary"."""
    return re.sub(r"_?\d+$", "", seat_name) or seat_name


def units(env: VectorEnv, held: Held) -> tuple[int, ...]:
    """[A] number of what each seat belongs to where players hold that, in the order of the first seats."""
    if held == "team":
        return env.teams
    keys = [
        (team, role(name) if held == "role" else str(seat))
        for seat, (team, name) in enumerate(zip(env.teams, seat_names(env), strict=True))
    ]
    numbers = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    return tuple(numbers[key] for key in keys)


def policy_of(part: Part, own: Sequence[Part]) -> int:
    """Which of a player's own parts holds this one, which is at least as fine."""
    seat = int(part.seats[0])
    return next(k for k, mine in enumerate(own) if seat in mine.seats)


def _shared(env: VectorEnv, seat: int, ways: Collection[Per]) -> Iterator[str]:
    """What a seat has in common, beside its group, with those that share its policy."""
    if "team" in ways:
        yield f"team{env.teams[seat]}"
    if "role" in ways:
        yield role(seat_names(env)[seat])
    if "seat" in ways:
        yield seat_names(env)[seat]


def _named_apart(env: VectorEnv, part: Part, parts: list[Part]) -> Part:
    """The part, with its group's name before its own where another group has one of the same name."""
    if sum(other.name == part.name for other in parts) == 1:
        return part
    return Part(f"{env.groups[part.group].name}_{part.name}", part.group, part.places, part.seats)
