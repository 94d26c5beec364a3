"""What decisions are drawn with. R rows (a decision each), B games, U numbers for each row.

In training all matches of a rollout draw from one generator, which is fastest. Everywhere else a match must
come out the same whatever is played beside it: there every number is a hash of the match's seed, the seat,
the number of the decision in the match, and the place of the number in the decision.

    key    = mix(mix(mix(match_seed ^ SALT) ^ seat) ^ number)
    bits_i = mix(key + (i + 1) * GOLDEN)                        i = 0, 1, ...

mix is the finaliser of splitmix64 (Steele et al. 2014, OOPSLA, "Fast splittable pseudorandom number
generators"), a bijection of 64 bits of which each output bit flips with probability 1/2 when an input bit
does; bits_i is the splitmix64 stream that begins at key, which passes BigCrush. Two decisions share a stretch
of numbers only if their keys lie close by chance: with N decisions about N^2 U / 2^64, so 10^-5 at 10^7
decisions. SALT keeps the draws apart from those of games, which run splitmix64 from the same seed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numba import njit

from envs.vector import Bot, Tree

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
SALT = np.uint64(0xD1B54A32D192ED03)


@njit(cache=True, nogil=True)
def _mix(bits):  # type: ignore[no-untyped-def]
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@njit(cache=True, nogil=True)
def _keys(seed, seat, number, key):  # type: ignore[no-untyped-def]
    """key [R] from match seed, seat and decision number [R] uint64 each."""
    for r in range(key.shape[0]):
        key[r] = _mix(_mix(_mix(seed[r] ^ SALT) ^ seat[r]) ^ number[r])


@njit(cache=True, nogil=True)
def _fill(key, first, drop, scale, drawn):  # type: ignore[no-untyped-def]
    """drawn [R, U] in [0, 1): the numbers from place `first` on, without their lowest `drop` bits."""
    for r in range(drawn.shape[0]):
        for k in range(drawn.shape[1]):
            bits = _mix(key[r] + np.uint64(first + k + 1) * GOLDEN)
            drawn[r, k] = np.float64(bits >> drop) * scale


class MatchDraws:
    """The draws of B matches at one moment."""

    def __init__(self, seed: np.ndarray, number: np.ndarray) -> None:
        """seed [B] of the matches; number [B] of decisions that were made in each before this moment."""
        self.seed, self.number = seed.astype(np.uint64), number.astype(np.uint64)

    def rows(self, game: np.ndarray, seat: np.ndarray) -> RowDraws:
        """Those of the decisions of these seats [R] in these games [R]."""
        key = np.empty(len(game), np.uint64)
        _keys(self.seed[game], seat.astype(np.uint64), self.number[game], key)
        return RowDraws(key)


class RowDraws:
    """The draws of R decisions, none of which depends on the other rows."""

    def __init__(self, key: np.ndarray) -> None:
        self.key = key  # [R] uint64

    def uniform(self, num: int) -> np.ndarray:
        """[R, num] float32 in [0, 1)."""
        drawn = np.empty((len(self.key), num), np.float32)
        _fill(self.key, 0, np.uint64(40), 2.0**-24, drawn)
        return drawn

    def generators(self) -> Iterator[np.random.Generator]:
        """One for each row, in turn: each is the same object with another state."""
        bits = np.random.Philox(0)
        generator = np.random.Generator(bits)
        state = bits.state
        for key in self.key:
            state["state"]["key"][:] = key, SALT
            bits.state = state
            yield generator


Draws = np.random.Generator | RowDraws
"""What a player draws with: one generator for all rows, or each row's own."""


def uniform(rng: Draws, rows: int, num: int) -> np.ndarray:
    """[rows, num] float32 in [0, 1)."""
    if isinstance(rng, RowDraws):
        return rng.uniform(num)
    return rng.random((rows, num), dtype=np.float32)


def generators(rng: Draws, rows: int) -> Iterator[np.random.Generator]:
    """A generator for each row, to be used before the next one is asked for."""
    if isinstance(rng, RowDraws):
        return rng.generators()
    return iter([rng] * rows)


def ask_bot(bot: Bot, obs: Tree, mask: Tree, rows: int, rng: Draws) -> Tree:
    """The action leaves [R, ...] of a bot that sees obs leaves [R, ...] and mask leaves [R, n].

    With draws by row a bot is asked row by row, as nobody knows how it uses its generator; all at once if
    it says that it draws in the same way for each row (`envs.bots.by_row`).
    """
    if not isinstance(rng, RowDraws):
        return bot(obs, mask, rng)
    if getattr(bot, "by_row", False):
        return bot(obs, mask, _RowGenerator(rng.key))  # type: ignore[arg-type]
    answers = [
        bot(_row(obs, k), _row(mask, k), generator) for k, generator in enumerate(rng.generators())
    ]  # fmt: skip
    return {path: np.concatenate([answer[path] for answer in answers]) for path in answers[0]}


def _row(tree: Tree, k: int) -> Tree:
    return {path: leaf[k : k + 1] for path, leaf in tree.items()}


class _RowGenerator:
    """Of NumPy's generator what bots need that draw alike for each row: entry [r, ...] is row r's own."""

    def __init__(self, key: np.ndarray) -> None:
        self._key, self._used = key, 0

    def random(self, size: int | tuple[int, ...]) -> np.ndarray:
        """[R, ...] float64 in [0, 1)."""
        shape = size if isinstance(size, tuple) else (size,)
        assert shape[0] == len(self._key), "a bot that draws by row draws for every row"
        drawn = np.empty((len(self._key), int(np.prod(shape[1:]))))
        _fill(self._key, self._used, np.uint64(11), 2.0**-53, drawn)
        self._used += drawn.shape[1]
        return drawn.reshape(shape)

    def uniform(self, low: float, high: float, size: int | tuple[int, ...]) -> np.ndarray:
        """[R, ...] float64 in [low, high)."""
        return low + (high - low) * self.random(size)

    def integers(self, num: int, size: int | tuple[int, ...]) -> np.ndarray:
        """[R, ...] int64 of 0 to num - 1."""
        return (self.random(size) * num).astype(np.int64)
