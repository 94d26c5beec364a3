"""Phantom tic-tac-toe: B matches in lockstep, every loop over games in a Numba kernel.

Neither seat sees the other's marks. Who tries a cell that the other has marked learns that, and tries
again. Source: Teytaud and Teytaud 2011, "Lemmas on partial observation, with application to phantom
games".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Discrete, MultiBinary
from numba import njit

from envs import native
from envs.tic_tac_toe import CELLS, EMPTY_AT, FULL, MARKS_AT, OBS_SIZE, draw_board, has_line, how_it_ended
from envs.vector import Bot, Group, Tree

OBSERVATIONS = ("known", "last")
TO_ACT_AT = OBS_SIZE  # in the privileged view, after the whole board


class _Matches(NamedTuple):
    """B matches: everything that a kernel reads and writes."""

    marks: np.ndarray  # [B, 2] int64, bitboard of each seat
    obs: np.ndarray  # [B, 2, 27] int8
    mask: np.ndarray  # [B, 2, 9] bool, cells that are empty for all that the seat knows
    privileged: np.ndarray  # [B, 29] int8
    to_act: np.ndarray  # [B, 2] bool
    reward: np.ndarray  # [B, 2] float32
    terminated: np.ndarray  # [B, 2] bool
    over: np.ndarray  # [B] bool


@njit(cache=True, nogil=True)
def _restart(m: _Matches, games: np.ndarray, shows_known: bool) -> None:
    """Open matches in slots games [K] int64."""
    for k in range(games.shape[0]):
        game = games[k]
        m.marks[game] = 0
        m.obs[game] = 0
        if shows_known:
            m.obs[game, :, EMPTY_AT : EMPTY_AT + CELLS] = 1
        m.mask[game] = True
        m.privileged[game] = 0
        m.privileged[game, EMPTY_AT : EMPTY_AT + CELLS] = 1
        m.privileged[game, TO_ACT_AT] = 1
        m.to_act[game, 0] = True
        m.to_act[game, 1] = False
        native.clear(game, m.reward, m.terminated, m.over)


@njit(cache=True, nogil=True)
def _mark(m: _Matches, game: int, seat: int, cell: int) -> None:
    """Marks an empty cell: the turn passes, or the match ends."""
    other = 1 - seat
    m.marks[game, seat] |= 1 << cell
    m.privileged[game, EMPTY_AT + cell] = 0
    m.privileged[game, MARKS_AT[seat] + cell] = 1
    won = has_line(m.marks[game, seat])
    ended = won or m.marks[game, 0] | m.marks[game, 1] == FULL
    if won:
        m.reward[game, seat] = 1
        m.reward[game, other] = -1
    if ended:
        m.terminated[game] = True
        m.over[game] = True
    m.to_act[game, seat] = False
    m.to_act[game, other] = not ended
    m.privileged[game, TO_ACT_AT + seat] = 0
    m.privileged[game, TO_ACT_AT + other] = not ended


@njit(cache=True, nogil=True)
def _step(m: _Matches, action: np.ndarray, shows_known: bool) -> None:
    """One legal try, from action [B, 2], in every match that is not over."""
    for game in range(m.over.shape[0]):
        if m.over[game]:
            m.reward[game] = 0
            continue
        seat = int(m.to_act[game, 1])
        cell = action[game, seat]
        taken = m.marks[game, 1 - seat] >> cell & 1
        if shows_known:
            m.obs[game, seat, EMPTY_AT + cell] = 0
        else:
            m.obs[game, seat] = 0
        m.obs[game, seat, MARKS_AT[1 - seat if taken else seat] + cell] = 1
        m.mask[game, seat, cell] = False
        if not taken:
            _mark(m, game, seat, cell)


class PhantomTicTacToe:
    """Phantom tic-tac-toe: two seats, seat 0 plays X first; +1 to the winner, -1 to the loser.

    Action 3 * row + column tries a cell. The obs is OpenSpiel's observation tensor: the cells that the
    seat takes for empty, those where it knows of an O and those where it knows of an X. With
    observation="last" it is only the cell of the seat's last try, with the mark that was found or made
    there: what else it knows, it must remember (but it never may try a cell twice).
    `privileged` is all cells, and who is to act (2).
    """

    id = "phantom_tic_tac_toe"
    teams = (0, 1)
    zero_sum = True
    bots: Mapping[str, Bot] = {}
    privileged_space = MultiBinary(OBS_SIZE + 2)

    def __init__(self, num_games: int, *, observation: str = "known") -> None:
        native.check_int(self.id, "num_games", num_games, 1, None)
        native.check_choice(self.id, "observation", observation, OBSERVATIONS)
        self._shows_known = observation == "known"
        if self._shows_known:
            self.openspiel = "phantom_ttt"
        self.num_games = num_games
        self._matches = m = _Matches(
            marks=np.zeros((num_games, 2), np.int64),
            obs=np.zeros((num_games, 2, OBS_SIZE), np.int8),
            mask=np.ones((num_games, 2, CELLS), np.bool_),
            privileged=np.zeros((num_games, OBS_SIZE + 2), np.int8),
            **native.shown(num_games, 2),
        )
        self.to_act, self.reward, self.terminated, self.over = m.to_act, m.reward, m.terminated, m.over
        self.truncated = np.zeros_like(m.terminated)  # [B, 2], never
        self.privileged: Tree = {"": m.privileged}
        obs, mask = {"": m.obs}, {"": m.mask}
        self.groups = (Group("seat", (0, 1), MultiBinary(OBS_SIZE), Discrete(CELLS), obs, mask),)

    def restart(self, games: np.ndarray, seeds: np.ndarray) -> None:
        """Open new matches in slots games [K] int64; the rules draw nothing from seeds [K] uint64."""
        games, _ = native.check_restart(self.id, self.num_games, games, seeds)
        _restart(self._matches, games, self._shows_known)

    def step(self, actions: tuple[Tree, ...]) -> None:
        """Play action "" [B, 2] int64 of the seats to act; if one is illegal, nothing is played."""
        action = actions[0][""]
        native.check_turn(self.id, action, self.over, self.to_act, self._matches.mask)
        _step(self._matches, action, self._shows_known)

    def state(self) -> Tree:
        """A copy of every array that the matches consist of, [B, ...] each."""
        return native.copy_state(self._matches._asdict())

    def set_state(self, state: Tree) -> None:
        """Go on from what `state` of as many games gave."""
        native.load_state(self.id, self._matches._asdict(), state)

    def render(self, game: int, seat: int | None = None) -> str:
        """The whole board (for a seat what it knows of it), what has not been tried, and whose turn it is."""
        m = self._matches
        acts = int(self.to_act[game, 1])
        looks = acts if seat is None else seat
        untried = m.mask[game, looks]
        known = m.marks[game] if seat is None else m.marks[game] & ~int(untried @ (1 << np.arange(CELLS)))
        board = draw_board(known)
        if self.over[game]:
            return f"{board}\n{how_it_ended(m.marks[game])}"
        cells = " ".join(str(cell + 1) for cell in np.flatnonzero(untried))
        return f"{board}\n{'XO'[acts]} to move; not yet tried: {cells}"

    def action_names(self, game: int) -> list[str]:
        """The cells as a person counts them: "1" to "9", row by row."""
        return [str(cell + 1) for cell in range(CELLS)]
