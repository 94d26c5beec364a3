"""Tic-tac-toe as bitboards: B matches in lockstep, every loop over games in a Numba kernel.

Bit 3 * row + column of a board is a mark, row 0 at the top.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Discrete, MultiBinary
from numba import njit

from envs import native
from envs.bots import by_row
from envs.vector import Bot, Group, Tree

CELLS = 9
FULL = (1 << CELLS) - 1  # every cell taken
LINES = (0o007, 0o070, 0o700, 0o111, 0o222, 0o444, 0o421, 0o124)  # a digit is a row

EMPTY_AT = 0  # obs: 9 cells that are empty, 9 with seat 1's mark, 9 with seat 0's, as OpenSpiel has them
MARKS_AT = (18, 9)  # of each seat
OBS_SIZE = 27


class _Matches(NamedTuple):
    """B matches: everything that a kernel reads and writes."""

    marks: np.ndarray  # [B, 2] int64, bitboard of each seat
    ply: np.ndarray  # [B] int64, marks on the board; its parity is the seat to act
    obs: np.ndarray  # [B, 2, 27] int8
    mask: np.ndarray  # [B, 2, 9] bool
    to_act: np.ndarray  # [B, 2] bool
    reward: np.ndarray  # [B, 2] float32
    terminated: np.ndarray  # [B, 2] bool
    over: np.ndarray  # [B] bool


@njit(cache=True, nogil=True)
def has_line(board: int) -> bool:
    """Whether a bitboard holds three in a line."""
    found = False
    for line in LINES:
        found |= board & line == line
    return found


@njit(cache=True, nogil=True)
def _restart(m: _Matches, games: np.ndarray) -> None:
    """Open matches in slots games [K] int64."""
    for k in range(games.shape[0]):
        game = games[k]
        m.marks[game] = 0
        m.ply[game] = 0
        m.obs[game] = 0
        m.obs[game, :, EMPTY_AT : EMPTY_AT + CELLS] = 1
        m.mask[game] = True
        m.to_act[game, 0] = True
        m.to_act[game, 1] = False
        native.clear(game, m.reward, m.terminated, m.over)


@njit(cache=True, nogil=True)
def _step(m: _Matches, action: np.ndarray) -> None:
    """One legal ply, from action [B, 2], in every match that is not over."""
    for game in range(m.over.shape[0]):
        if m.over[game]:
            m.reward[game] = 0
            continue
        seat = m.ply[game] & 1
        cell = action[game, seat]
        m.marks[game, seat] |= 1 << cell
        m.ply[game] += 1
        for viewer in range(2):
            m.obs[game, viewer, EMPTY_AT + cell] = 0
            m.obs[game, viewer, MARKS_AT[seat] + cell] = 1
            m.mask[game, viewer, cell] = False
        won = has_line(m.marks[game, seat])
        ended = won or m.ply[game] == CELLS
        if won:
            m.reward[game, seat] = 1
            m.reward[game, 1 - seat] = -1
        if ended:
            m.terminated[game] = True
            m.over[game] = True
        m.to_act[game, seat] = False
        m.to_act[game, 1 - seat] = not ended


@functools.cache
def best_cells() -> np.ndarray:
    """[512, 512] int16: bitboard of the cells that are best for the side to act, by (own, other) marks.

    Best is what keeps the outcome under perfect play; 0 where nobody is to act.
    """
    best = np.zeros((FULL + 1, FULL + 1), np.int16)

    @functools.cache
    def value(own: int, other: int) -> int:
        """1, 0 or -1 for the side to act."""
        if has_line(other):
            return -1
        values = {
            cell: -value(other, own | 1 << cell) for cell in range(CELLS) if not (own | other) >> cell & 1
        }
        top = max(values.values(), default=0)
        best[own, other] = sum(1 << cell for cell in values if values[cell] == top)
        return top

    value(0, 0)
    return best


@by_row
def perfect(obs: Tree, mask: Tree, rng: np.random.Generator) -> Tree:
    """Bot: plays perfectly, drawing uniformly from the best cells.

    obs "" [R, 3, 3, 3] int8, mask "" [R, 9] bool -> action "" [R] int64.
    """
    cells = obs[""].reshape(-1, OBS_SIZE).astype(np.int64)
    bit = 1 << np.arange(CELLS)
    crosses, noughts = (cells[:, at : at + CELLS] @ bit for at in MARKS_AT)
    crosses_act = cells[:, CELLS:].sum(axis=1) % 2 == 0
    own, other = np.where(crosses_act, (crosses, noughts), (noughts, crosses))
    best = best_cells()[own, other][:, None] & bit != 0  # [R, 9]
    rank = (rng.random(len(best)) * best.sum(axis=1)).astype(np.int64)
    return {"": (best.cumsum(axis=1) > rank[:, None]).argmax(axis=1)}


class TicTacToe:
    """Tic-tac-toe: two seats in turn, seat 0 plays X first; +1 to the winner, -1 to the loser.

    The obs is OpenSpiel's observation tensor, the same for both seats: the cells [row, column] that
    are empty, those with O and those with X. Action 3 * row + column marks a cell.
    """

    id = "tic_tac_toe"
    openspiel = "tic_tac_toe"
    teams = (0, 1)
    public_actions = True
    zero_sum = True
    bots: Mapping[str, Bot] = {"perfect": perfect}

    def __init__(self, num_games: int) -> None:
        native.check_int(self.id, "num_games", num_games, 1, None)
        self.num_games = num_games
        self._matches = m = _Matches(
            marks=np.zeros((num_games, 2), np.int64),
            ply=np.zeros(num_games, np.int64),
            obs=np.zeros((num_games, 2, OBS_SIZE), np.int8),
            mask=np.ones((num_games, 2, CELLS), np.bool_),
            **native.shown(num_games, 2),
        )
        self.to_act, self.reward, self.terminated, self.over = m.to_act, m.reward, m.terminated, m.over
        self.truncated = np.zeros_like(m.terminated)  # [B, 2], never
        obs, mask = {"": m.obs.reshape(num_games, 2, 3, 3, 3)}, {"": m.mask}
        self.groups = (Group("seat", (0, 1), MultiBinary((3, 3, 3)), Discrete(CELLS), obs, mask),)

    def restart(self, games: np.ndarray, seeds: np.ndarray) -> None:
        """Open new matches in slots games [K] int64; the rules draw nothing from seeds [K] uint64."""
        games, _ = native.check_restart(self.id, self.num_games, games, seeds)
        _restart(self._matches, games)

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
        """The board, with the numbers of the cells that are empty, and whose turn it is."""
        return f"{draw_board(self._matches.marks[game])}\n{self._status(game)}"

    def action_names(self, game: int) -> list[str]:
        """The cells as a person counts them: "1" to "9", row by row."""
        return [str(cell + 1) for cell in range(CELLS)]

    def _status(self, game: int) -> str:
        """Whose turn it is, or how the match ended."""
        ply = self._matches.ply[game]
        if not self.over[game]:
            return f"{'XO'[ply & 1]} to move"
        return how_it_ended(self._matches.marks[game])


def draw_board(marks: np.ndarray) -> str:
    """The board of marks [2], X for seat 0 and O for seat 1, a number in a cell that is empty."""
    cells = [
        "X" if marks[0] >> cell & 1 else "O" if marks[1] >> cell & 1 else str(cell + 1)
        for cell in range(CELLS)
    ]
    return "\n".join(" ".join(cells[row : row + 3]) for row in range(0, CELLS, 3))


def how_it_ended(marks: np.ndarray) -> str:
    """The result of a match that is over, by its marks [2]."""
    for seat, name in enumerate("XO"):
        if has_line(marks[seat]):
            return f"{name} has won"
    return "draw" if marks[0] | marks[1] == FULL else "not started"
