"""The seats of a game as it names them, and the groups that those with equal spaces form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gymnasium import spaces

from envs.rows import check_space, empty_mask, empty_rows
from envs.vector import Group


class Seat(NamedTuple):
    """What a seat is, fixed for the game."""

    name: str  # such as "adversary_1"; its role is what comes before "_1"
    observation_space: spaces.Space
    action_space: spaces.Space
    has_mask: bool = False  # legal actions come with each decision, for every discrete leaf


def role(name: str) -> str:
    """A seat's name without a trailing number: "adversary_1" -> "adversary"."""
    stem, _, number = name.rpartition("_")
    return stem if stem and number.isdigit() else name


def make_groups(seats: Sequence[Seat], num_games: int) -> tuple[Group, ...]:
    """Seats with equal spaces and masks together, called after their common role, else "seat"."""
    members: list[list[int]] = []
    for seat, (_, *spaces_and_mask) in enumerate(seats):
        for group in members:
            if [*seats[group[0]][1:]] == spaces_and_mask:
                group.append(seat)
                break
        else:
            members.append([seat])
    roles = [{role(seats[seat].name) for seat in group} for group in members]
    names = [next(iter(own)) if len(own) == 1 else "seat" for own in roles]
    groups = []
    for name, group in zip(names, members):
        one = seats[group[0]]
        groups.append(
            Group(
                name if names.count(name) == 1 else one.name,
                tuple(group),
                one.observation_space,
                one.action_space,
                empty_rows(one.observation_space, num_games, len(group)),
                empty_mask(one.action_space, num_games, len(group)) if one.has_mask else {},
            )
        )
    return tuple(groups)


def check_seats(id: str, seats: Sequence[Seat], teams: Sequence[int]) -> None:
    """Raises ValueError unless there are seats, each a Seat whose spaces arrays hold, and a team for each."""
    if not len(seats):
        raise ValueError(f"{id}: there are no seats; a game needs one at least")
    for k, seat in enumerate(seats):
        if not (isinstance(seat, Seat) and isinstance(seat.name, str)):
            raise ValueError(f"{id}: seats[{k}] is {seat!r:.80}; it must be a Seat, whose name is text")
        for word, space in (("observation", seat.observation_space), ("action", seat.action_space)):
            try:
                check_space(space)
            except ValueError as error:
                raise ValueError(f"{id}, seat {seat.name!r}, {word}: {error}") from error
    if len(teams) != len(seats):
        raise ValueError(f"{id}: teams {tuple(teams)} must be a number for each of the {len(seats)} seats")
