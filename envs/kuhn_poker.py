"""Kuhn poker for two: B matches in lockstep, every loop over games in a Numba kernel.

Cards 0, 1, 2 are jack, queen, king; each seat holds one and puts in an ante of 1. In turn a seat passes
or bets 1 more; against a bet, passing folds and betting calls. The higher card wins what the other put
in. Source: Kuhn 1950, "A simplified two-person poker".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box, Discrete
from numba import njit

from envs import native
from envs.random_bits import next_random
from envs.vector import Bot, Group, Tree

CARDS = 3
PASS, BET = 0, 1
ANTE, STAKE = 1, 2  # what a seat has put in before and after betting or calling
MAX_PLIES = 3

CARD_NAMES = "JQK"
ACTION_NAMES = ("pass", "bet")

CARD_AT = 2  # obs: [own seat 2, own card 3, put in by each seat 2]
PUT_IN_AT = CARD_AT + CARDS
OBS_SIZE = PUT_IN_AT + 2


class _Matches(NamedTuple):
    """B matches: everything that a kernel reads and writes."""

    card: np.ndarray  # [B, 2] int8, what each seat holds
    put_in: np.ndarray  # [B, 2] int8, by each seat
    ply: np.ndarray  # [B] int64, decisions so far; its parity is the seat to act
    played: np.ndarray  # [B, 3] int8, the decisions, -1 from ply on
    obs: np.ndarray  # [B, 2, 7] float32
    privileged: np.ndarray  # [B, 10] float32
    to_act: np.ndarray  # [B, 2] bool
    reward: np.ndarray  # [B, 2] float32
    terminated: np.ndarray  # [B, 2] bool
    over: np.ndarray  # [B] bool


@njit(cache=True, nogil=True)
def _show(m: _Matches, game: int) -> None:
    """Write what has been put in and whose turn it is where it is seen."""
    for seat in range(2):
        put_in = m.put_in[game, seat]
        m.obs[game, 0, PUT_IN_AT + seat] = put_in
        m.obs[game, 1, PUT_IN_AT + seat] = put_in
        m.privileged[game, 2 * CARDS + seat] = put_in
        acts = not m.over[game] and (m.ply[game] & 1) == seat
        m.to_act[game, seat] = acts
        m.privileged[game, 2 * CARDS + 2 + seat] = acts


@njit(cache=True, nogil=True)
def _restart(m: _Matches, games: np.ndarray, seeds: np.ndarray) -> None:
    """Open matches in slots games [K] int64 from seeds [K] uint64."""
    for k in range(games.shape[0]):
        game = games[k]
        _, bits = next_random(seeds[k])
        deal = np.int64(bits % np.uint64(CARDS * (CARDS - 1)))
        first = deal // (CARDS - 1)
        second = deal % (CARDS - 1)
        m.card[game, 0] = first
        m.card[game, 1] = second + (second >= first)  # of the cards that are left
        m.put_in[game] = ANTE
        m.ply[game] = 0
        m.played[game] = -1
        m.obs[game] = 0
        m.privileged[game] = 0
        for seat in range(2):
            m.obs[game, seat, seat] = 1
            m.obs[game, seat, CARD_AT + m.card[game, seat]] = 1
            m.privileged[game, CARDS * seat + m.card[game, seat]] = 1
        native.clear(game, m.reward, m.terminated, m.over)
        _show(m, game)


@njit(cache=True, nogil=True)
def _step(m: _Matches, action: np.ndarray) -> None:
    """One legal decision, from action [B, 2], in every match that is not over."""
    for game in range(m.over.shape[0]):
        if m.over[game]:
            m.reward[game] = 0
            continue
        seat = m.ply[game] & 1
        other = 1 - seat
        played = action[game, seat]
        faces_bet = m.put_in[game, other] > m.put_in[game, seat]
        if played == BET:
            m.put_in[game, seat] = STAKE
        m.played[game, m.ply[game]] = played
        m.ply[game] += 1
        if faces_bet or (played == PASS and m.ply[game] == 2):
            folds = faces_bet and played == PASS
            winner = other if folds or m.card[game, other] > m.card[game, seat] else seat
            won = m.put_in[game, 1 - winner]
            m.reward[game, winner] = won
            m.reward[game, 1 - winner] = -won
            m.terminated[game] = True
            m.over[game] = True
        _show(m, game)


class KuhnPoker:
    """Kuhn poker: seat 0 decides first; rewards, what was won or lost, come at the end.

    The obs of a seat is OpenSpiel's observation tensor, and so are the actions: 0 pass, 1 bet.
    `privileged` is [card of seat 0 (3), of seat 1 (3), put in by each (2), who is to act (2)].
    """

    id = "kuhn_poker"
    openspiel = "kuhn_poker"
    teams = (0, 1)
    public_actions = True
    seat_names = ("player_0", "player_1")
    zero_sum = True
    bots: Mapping[str, Bot] = {}
    privileged_space = Box(
        0, np.array([1] * (2 * CARDS) + [STAKE] * 2 + [1] * 2, np.float32), dtype=np.float32
    )

    def __init__(self, num_games: int) -> None:
        native.check_int(self.id, "num_games", num_games, 1, None)
        self.num_games = num_games
        self._matches = m = _Matches(
            card=np.zeros((num_games, 2), np.int8),
            put_in=np.zeros((num_games, 2), np.int8),
            ply=np.zeros(num_games, np.int64),
            played=np.full((num_games, MAX_PLIES), -1, np.int8),
            obs=np.zeros((num_games, 2, OBS_SIZE), np.float32),
            privileged=np.zeros((num_games, 2 * CARDS + 4), np.float32),
            **native.shown(num_games, 2),
        )
        self.to_act, self.reward, self.terminated, self.over = m.to_act, m.reward, m.terminated, m.over
        self.truncated = np.zeros_like(m.terminated)  # [B, 2], never
        self._legal = np.broadcast_to(np.True_, (num_games, 2, len(ACTION_NAMES)))  # always
        self.privileged: Tree = {"": m.privileged}
        space = Box(0, np.array([1] * PUT_IN_AT + [STAKE] * 2, np.float32), dtype=np.float32)
        self.groups = (Group("seat", (0, 1), space, Discrete(2), {"": m.obs}),)

    def restart(self, games: np.ndarray, seeds: np.ndarray) -> None:
        """Open new matches in slots games [K] int64 from seeds [K] uint64."""
        _restart(self._matches, *native.check_restart(self.id, self.num_games, games, seeds))

    def step(self, actions: tuple[Tree, ...]) -> None:
        """Play action "" [B, 2] int64 of the seats to act; if one is illegal, nothing is played."""
        action = actions[0][""]
        native.check_turn(self.id, action, self.over, self.to_act, self._legal)
        _step(self._matches, action)

    def state(self) -> Tree:
        """A copy of every array that the matches consist of, [B, ...] each."""
        return native.copy_state(self._matches._asdict())

    def set_state(self, state: Tree) -> None:
        """Go on from what `state` of as many games gave."""
        native.load_state(self.id, self._matches._asdict(), state)

    def render(self, game: int, seat: int | None = None) -> str:
        """The cards (for a seat its own), what has been put in, what was played, and whose turn it is."""
        m = self._matches
        if not m.put_in[game].any():
            return "not started"
        lines = [
            f"seat {holder} holds {native.hidden(CARD_NAMES[m.card[game, holder]], holder, seat)} "
            f"and has put in {m.put_in[game, holder]}"
            for holder in range(2)
        ]
        played = ", ".join(ACTION_NAMES[action] for action in m.played[game, : m.ply[game]])
        return "\n".join([*lines, f"played: {played or 'nothing yet'}", self._status(game)])

    def action_names(self, game: int) -> list[str]:
        """Pass also folds, bet also calls."""
        return list(ACTION_NAMES)

    def _status(self, game: int) -> str:
        m = self._matches
        if not self.over[game]:
            return f"seat {m.ply[game] & 1} to act"
        last = m.ply[game] - 1
        folded = m.played[game, last] == PASS and m.put_in[game, 0] != m.put_in[game, 1]
        winner = 1 - (last & 1) if folded else int(m.card[game].argmax())
        return f"seat {winner} has won {m.put_in[game, 1 - winner]}"
