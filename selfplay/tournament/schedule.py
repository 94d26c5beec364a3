"""What is to be played: the pairs, the matches of each by number, and who sits where. A seats, T teams.

Two players meet in each match. With two teams or more one of them holds one team and the other all the
others; in a game of one team each plays the match alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

CHUNK = 128
"""Matches of a pair that are played at once, and kept together: what a kill may cost."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two players by identity, in the order in which all that is kept of them is written down."""

    first: str
    second: str

    @classmethod
    def of(cls, one: str, other: str) -> Pair:
        assert one != other
        return cls(min(one, other), max(one, other))


@dataclass(frozen=True, slots=True)
class Piece:
    """Matches of one pair, played at once."""

    pair: Pair
    numbers: tuple[int, ...]


def pairs(identities: Sequence[str]) -> list[Pair]:
    """Everybody against everybody else, in the order of the players."""
    return [Pair.of(one, other) for k, one in enumerate(identities) for other in identities[k + 1 :]]


def round_length(num_teams: int) -> int:
    """Matches in which both players of a pair hold every place equally often."""
    return 2 * num_teams if num_teams > 2 else num_teams


def seats(numbers: np.ndarray, teams: Sequence[int]) -> np.ndarray:
    """Who sits where, 0 the pair's first and 1 its second: numbers [M] -> [M, A].

    In match n one player holds team n mod T alone and the other all the others; they change over every T
    matches. With two teams this is the first player on team n mod 2.
    """
    team = np.asarray(teams)
    num_teams = int(team.max()) + 1
    single = (numbers // num_teams) % 2 if num_teams > 2 else np.zeros_like(numbers)  # who is alone
    alone = team[None, :] == (numbers % num_teams)[:, None]
    return np.where(alone, single[:, None], 1 - single[:, None]).astype(np.int32)


def match_seed(seed: int, pair: Pair, number: int) -> int:
    """In [0, 2^64): the first eight bytes of a SHA-256, so that no two matches share a stream."""
    text = f"tournament\n{seed}\n{pair.first}\n{pair.second}\n{number}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def pieces(
    pair: Pair, numbers: Iterable[int], played: Collection[int], chunk: int = CHUNK
) -> Iterator[Piece]:
    """The matches of a pair that are not played yet, cut at every multiple of `chunk`."""
    missing = np.array(sorted(set(numbers) - set(played)), np.int64)
    for block in np.unique(missing // chunk):
        yield Piece(pair, tuple(missing[missing // chunk == block].tolist()))
