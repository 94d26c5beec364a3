"""Connect Four as bitboards: B matches in lockstep, every loop over games in a Numba kernel.

Bit 7 * column + row of a board is a disc, row 0 at the bottom; bit 7 * column + 6 stays empty, so
that a shift never carries a line from one column into the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Discrete, MultiBinary
from numba import njit

from envs import native
from envs.bots import by_row
from envs.random_bits import next_random
from envs.vector import Bot, Group, Tree

ROWS = 6
COLUMNS = 7
CELLS = ROWS * COLUMNS
MAX_OPENING_PLIES = CELLS - 1  # the last disc would end the match


class _Matches(NamedTuple):
    """B matches: everything that a kernel reads and writes."""

    discs: np.ndarray  # [B, 2] uint64, bitboard of each seat
    height: np.ndarray  # [B, 7] int8, discs in each column
    ply: np.ndarray  # [B] int64, discs on the board; its parity is the seat to act
    obs: np.ndarray  # [B, 2, 2, 6, 7] int8
    mask: np.ndarray  # [B, 2, 7] bool
    to_act: np.ndarray  # [B, 2] bool
    reward: np.ndarray  # [B, 2] float32
    terminated: np.ndarray  # [B, 2] bool
    over: np.ndarray  # [B] bool


@njit(cache=True, nogil=True)
def _has_four(board: np.uint64) -> bool:
    """Whether a bitboard holds four in a line."""
    for shift in (1, 6, 7, 8):  # vertical, falling diagonal, horizontal, rising diagonal
        pairs = board & (board >> np.uint64(shift))
        if pairs & (pairs >> np.uint64(2 * shift)):
            return True
    return False


@njit(cache=True, nogil=True)
def _disc(row: int, column: int) -> np.uint64:
    """The bitboard of one cell."""
    return np.uint64(1) << np.uint64(7 * column + row)


@njit(cache=True, nogil=True)
def _drop(m: _Matches, game: int, column: int) -> None:
    """Play the column for the seat whose turn it is; both seats' obs and mask follow."""
    seat = m.ply[game] & 1
    row = m.height[game, column]
    m.discs[game, seat] |= _disc(row, column)
    m.height[game, column] = row + 1
    m.ply[game] += 1
    m.obs[game, seat, 0, row, column] = 1
    m.obs[game, 1 - seat, 1, row, column] = 1
    if row == ROWS - 1:
        m.mask[game, 0, column] = False
        m.mask[game, 1, column] = False


@njit(cache=True, nogil=True)
def _nth_set(flags: np.ndarray, n: np.int64) -> int:
    """Index of the n-th (from 0) true entry of flags [7] bool; -1 if there are fewer."""
    for column in range(COLUMNS):
        if flags[column]:
            if n == 0:
                return column
            n -= 1
    return -1


@njit(cache=True, nogil=True)
def _play_opening(m: _Matches, game: int, seed: np.uint64, opening_plies: int) -> None:
    """0..opening_plies uniformly random plies, stopping before one that would end the match."""
    state, bits = next_random(seed)
    for _ in range(np.int64(bits % np.uint64(opening_plies + 1))):
        state, bits = next_random(state)
        legal = m.mask[game, 0]
        column = _nth_set(legal, np.int64(bits % np.uint64(legal.sum())))
        board = m.discs[game, m.ply[game] & 1] | _disc(m.height[game, column], column)
        if _has_four(board):
            return
        _drop(m, game, column)


@njit(cache=True, nogil=True)
def _restart(m: _Matches, games: np.ndarray, seeds: np.ndarray, opening_plies: int) -> None:
    """Open matches in slots games [K] int64 from seeds [K] uint64."""
    for k in range(games.shape[0]):
        game = games[k]
        m.discs[game] = 0
        m.height[game] = 0
        m.ply[game] = 0
        m.obs[game] = 0
        m.mask[game] = True
        if opening_plies > 0:
            _play_opening(m, game, seeds[k], opening_plies)
        seat = m.ply[game] & 1
        m.to_act[game, seat] = True
        m.to_act[game, 1 - seat] = False
        native.clear(game, m.reward, m.terminated, m.over)


@njit(cache=True, nogil=True)
def _step(m: _Matches, action: np.ndarray) -> None:
    """One legal ply, from action [B, 2], in every match that is not over."""
    for game in range(m.over.shape[0]):
        if m.over[game]:
            m.reward[game] = 0
            continue
        seat = m.ply[game] & 1
        _drop(m, game, action[game, seat])
        won = _has_four(m.discs[game, seat])
        ended = won or m.ply[game] == CELLS
        if won:
            m.reward[game, seat] = 1
            m.reward[game, 1 - seat] = -1
        if ended:
            m.terminated[game] = True
            m.over[game] = True
        m.to_act[game, seat] = False
        m.to_act[game, 1 - seat] = not ended


@njit(cache=True, nogil=True)
def _one_ply(obs: np.ndarray, mask: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """A winning column, else a blocking one, else a legal one; noise [R] in [0, 1) picks among several.

    obs [R, 2, 6, 7], mask [R, 7] -> action [R] int64.
    """
    action = np.empty(obs.shape[0], np.int64)
    wins = np.empty(COLUMNS, np.bool_)
    blocks = np.empty(COLUMNS, np.bool_)
    for r in range(obs.shape[0]):
        own = np.uint64(0)
        other = np.uint64(0)
        for row in range(ROWS):
            for column in range(COLUMNS):
                own |= np.uint64(obs[r, 0, row, column]) << np.uint64(7 * column + row)
                other |= np.uint64(obs[r, 1, row, column]) << np.uint64(7 * column + row)
        for column in range(COLUMNS):
            landing = ((own | other) + _disc(0, column)) & (np.uint64(0x3F) << np.uint64(7 * column))
            wins[column] = mask[r, column] and _has_four(own | landing)
            blocks[column] = mask[r, column] and _has_four(other | landing)
        candidates = wins if wins.any() else blocks if blocks.any() else mask[r]
        action[r] = _nth_set(candidates, np.int64(noise[r] * candidates.sum()))
    return action


@by_row
def one_ply(obs: Tree, mask: Tree, rng: np.random.Generator) -> Tree:
    """Bot: wins at once if it can, else blocks an immediate win, else plays a random legal column.

    obs "" [R, 2, 6, 7] int8, mask "" [R, 7] bool -> action "" [R] int64.
    """
    return {"": _one_ply(obs[""], mask[""], rng.random(len(mask[""])))}


class ConnectFour:
    """Connect Four: two seats in turn, seat 0 plays the first disc; +1 to the winner, -1 to the loser.

    The obs of a seat has plane 0 for its own discs and plane 1 for the other's, [row, column] with
    row 0 at the bottom. `opening_plies` starts each match with 0..opening_plies random plies (drawn
    from its seed), so that training sees diverse openings; it never ends the match.
    """

    id = "connect_four"
    teams = (0, 1)
    public_actions = True
    zero_sum = True
    bots: Mapping[str, Bot] = {"one_ply": one_ply}

    def __init__(self, num_games: int, *, opening_plies: int = 0) -> None:
        native.check_int(self.id, "num_games", num_games, 1, None)
        native.check_int(self.id, "opening_plies", opening_plies, 0, MAX_OPENING_PLIES)
        self.num_games = num_games
        self._opening_plies = opening_plies
        self._matches = m = _Matches(
            discs=np.zeros((num_games, 2), np.uint64),
            height=np.zeros((num_games, COLUMNS), np.int8),
            ply=np.zeros(num_games, np.int64),
            obs=np.zeros((num_games, 2, 2, ROWS, COLUMNS), np.int8),
            mask=np.ones((num_games, 2, COLUMNS), np.bool_),
            **native.shown(num_games, 2),
        )
        self.to_act, self.reward, self.terminated, self.over = m.to_act, m.reward, m.terminated, m.over
        self.truncated = np.zeros_like(m.terminated)  # [B, 2], never
        obs, mask = {"": m.obs}, {"": m.mask}
        self.groups = (Group("seat", (0, 1), MultiBinary((2, ROWS, COLUMNS)), Discrete(COLUMNS), obs, mask),)

    def restart(self, games: np.ndarray, seeds: np.ndarray) -> None:
        """Open new matches in slots games [K] int64 from seeds [K] uint64."""
        games, seeds = native.check_restart(self.id, self.num_games, games, seeds)
        _restart(self._matches, games, seeds, self._opening_plies)

    def step(self, actions: tuple[Tree, ...]) -> None:
        """Play action "" [B, 2] int64 of the seats to act; if one is illegal, nothing is played."""
        action = actions[0][""]
        native.check_turn(self.id, action, self.over, self.to_act, self._matches.mask)
        _step(self._matches, action)

    def state(self) -> Tree:
        """A copy of every array that the matches consist of, [B, ...] each."""
        return native.copy_state(self._matches._asdict())

    def set_state(self, state: Tree) -> None:
        """Go on from what `state` of as many games gave."""
        native.load_state(self.id, self._matches._asdict(), state)

    def render(self, game: int, seat: int | None = None) -> str:
        """The board with its column numbers, X for seat 0 and O for seat 1, and whose turn it is."""
        first, second = self._matches.obs[game, 0]
        cells = np.where(first, "X", np.where(second, "O", "."))[::-1]
        lines = [" ".join(row) for row in cells]
        return "\n".join([*lines, " ".join(self.action_names(game)), self._status(game)])

    def action_names(self, game: int) -> list[str]:
        """The columns as a person counts them: "1" to "7"."""
        return [str(column + 1) for column in range(COLUMNS)]

    def _status(self, game: int) -> str:
        """Whose turn it is, or how the match ended."""
        ply = self._matches.ply[game]
        if not self.over[game]:
            return f"{'XO'[ply & 1]} to move"
        for seat, name in enumerate("XO"):
            if _has_four(self._matches.discs[game, seat]):
                return f"{name} has won"
        return "draw" if ply == CELLS else "not started"
