"""Leduc hold'em for two: B matches in lockstep, every loop over games in a Numba kernel.

Six cards: jack, queen, king, twice each; card c has rank c // 2. Each seat holds one and puts in an ante
of 1. Two rounds of betting, seat 0 first in both, with raises of 2 and then 4, at most two a round;
between them one card is laid open. A pair with it wins, else the higher rank, else the pot is split.
Source: Southey et al. 2005, "Bayes' bluff: opponent modelling in poker", arXiv:1207.1411.
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

CARDS = 6
FOLD, CALL, RAISE = 0, 1, 2
NUM_ACTIONS = 3
MAX_RAISES = 2  # in a round
MAX_PLIES = 2 * (MAX_RAISES + 2)  # call, raise, raise, call in both rounds
MOST_PUT_IN = 1 + 2 * 2 + 2 * 4

CARD_NAMES = ("Js", "Jh", "Qs", "Qh", "Ks", "Kh")
ACTION_NAMES = ("fold", "call", "raise")

CARD_AT = 2  # obs: [own seat 2, own card 6, open card 6, put in by each seat 2]
OPEN_AT = CARD_AT + CARDS
PUT_IN_AT = OPEN_AT + CARDS
OBS_SIZE = PUT_IN_AT + 2

SEEN_OPEN_AT = 2 * CARDS  # privileged: [card of seat 0, of seat 1, open card, put in 2, raises, to act 2]
SEEN_PUT_IN_AT = SEEN_OPEN_AT + CARDS
SEEN_RAISES_AT = SEEN_PUT_IN_AT + 2
SEEN_TO_ACT_AT = SEEN_RAISES_AT + 1
PRIVILEGED_SIZE = SEEN_TO_ACT_AT + 2


class _Matches(NamedTuple):
    """B matches: everything that a kernel reads and writes."""

    card: np.ndarray  # [B, 3] int8, held by seat 0 and seat 1; the third is or will be laid open
    put_in: np.ndarray  # [B, 2] int8, by each seat
    raises: np.ndarray  # [B] int8, in this round
    seat: np.ndarray  # [B] int8, whose turn it is
    ply: np.ndarray  # [B] int64, decisions so far
    second: np.ndarray  # [B] int64, decisions of the first round; -1 before the second
    played: np.ndarray  # [B, 8] int8, the decisions, -1 from ply on
    obs: np.ndarray  # [B, 2, 16] float32
    privileged: np.ndarray  # [B, 23] float32
    mask: np.ndarray  # [B, 2, 3] bool
    to_act: np.ndarray  # [B, 2] bool
    reward: np.ndarray  # [B, 2] float32
    terminated: np.ndarray  # [B, 2] bool
    over: np.ndarray  # [B] bool


@njit(cache=True, nogil=True)
def _show(m: _Matches, game: int) -> None:
    """Write what has been put in, what is legal and whose turn it is where it is seen."""
    for seat in range(2):
        put_in = m.put_in[game, seat]
        m.obs[game, 0, PUT_IN_AT + seat] = put_in
        m.obs[game, 1, PUT_IN_AT + seat] = put_in
        m.privileged[game, SEEN_PUT_IN_AT + seat] = put_in
        acts = not m.over[game] and m.seat[game] == seat
        m.to_act[game, seat] = acts
        m.privileged[game, SEEN_TO_ACT_AT + seat] = acts
        m.mask[game, seat, FOLD] = put_in < m.put_in[game, 1 - seat]
        m.mask[game, seat, RAISE] = m.raises[game] < MAX_RAISES
    m.privileged[game, SEEN_RAISES_AT] = m.raises[game]


@njit(cache=True, nogil=True)
def _deal(m: _Matches, game: int, seed: np.uint64) -> None:
    """Draw three different cards, every order of them equally likely."""
    _, bits = next_random(seed)
    deal = np.int64(bits % np.uint64(CARDS * (CARDS - 1) * (CARDS - 2)))
    first = deal % CARDS
    deal //= CARDS
    second = deal % (CARDS - 1)
    third = deal // (CARDS - 1)
    second += second >= first  # of the cards that are left
    low, high = min(first, second), max(first, second)
    third += third >= low
    third += third >= high
    m.card[game, 0] = first
    m.card[game, 1] = second
    m.card[game, 2] = third


@njit(cache=True, nogil=True)
def _restart(m: _Matches, games: np.ndarray, seeds: np.ndarray) -> None:
    """Open matches in slots games [K] int64 from seeds [K] uint64."""
    for k in range(games.shape[0]):
        game = games[k]
        _deal(m, game, seeds[k])
        m.put_in[game] = 1
        m.raises[game] = 0
        m.seat[game] = 0
        m.ply[game] = 0
        m.second[game] = -1
        m.played[game] = -1
        m.obs[game] = 0
        m.privileged[game] = 0
        for seat in range(2):
            m.obs[game, seat, seat] = 1
            m.obs[game, seat, CARD_AT + m.card[game, seat]] = 1
            m.privileged[game, CARDS * seat + m.card[game, seat]] = 1
        m.mask[game, :, CALL] = True
        native.clear(game, m.reward, m.terminated, m.over)
        _show(m, game)


@njit(cache=True, nogil=True)
def _strength(m: _Matches, game: int, seat: int) -> int:
    """Of a hand: its rank, and more than any rank if it pairs the open card."""
    rank = m.card[game, seat] // 2
    return rank + CARDS * (rank == m.card[game, 2] // 2)


@njit(cache=True, nogil=True)
def _open_second_round(m: _Matches, game: int) -> None:
    """Lay the third card open; seat 0 is to act."""
    m.second[game] = m.ply[game]
    m.raises[game] = 0
    m.seat[game] = 0
    shown = m.card[game, 2]
    m.obs[game, 0, OPEN_AT + shown] = 1
    m.obs[game, 1, OPEN_AT + shown] = 1
    m.privileged[game, SEEN_OPEN_AT + shown] = 1


@njit(cache=True, nogil=True)
def _finish(m: _Matches, game: int, gain: int) -> None:
    """End the match: seat 0 wins `gain` from seat 1."""
    m.reward[game, 0] = gain
    m.reward[game, 1] = -gain
    m.terminated[game] = True
    m.over[game] = True


@njit(cache=True, nogil=True)
def _play(m: _Matches, game: int, played: int) -> None:
    """One legal decision of the seat whose turn it is."""
    seat = m.seat[game]
    other = 1 - seat
    opens = m.ply[game] == max(m.second[game], 0)  # the first decision of its round
    m.played[game, m.ply[game]] = played
    m.ply[game] += 1
    m.seat[game] = other
    if played == FOLD:
        _finish(m, game, m.put_in[game, 1] if seat == 1 else -m.put_in[game, 0])
        return
    m.put_in[game, seat] = m.put_in[game, other]
    if played == RAISE:
        m.put_in[game, seat] += 2 if m.second[game] < 0 else 4
        m.raises[game] += 1
    elif not opens:  # a call ends the round
        if m.second[game] < 0:
            _open_second_round(m, game)
        else:
            lead = _strength(m, game, 0) - _strength(m, game, 1)
            _finish(m, game, np.sign(lead) * m.put_in[game, 0])


@njit(cache=True, nogil=True)
def _step(m: _Matches, action: np.ndarray) -> None:
    """One legal decision, from action [B, 2], in every match that is not over."""
    for game in range(m.over.shape[0]):
        if m.over[game]:
            m.reward[game] = 0
            continue
        _play(m, game, action[game, m.seat[game]])
        _show(m, game)


class LeducPoker:
    """Leduc hold'em: rewards, what was won or lost, come at the end.

    The obs of a seat is OpenSpiel's observation tensor, and so are the actions: 0 fold, 1 call (or
    check), 2 raise. It shows what was put in, not in which order: that takes memory. `privileged` is
    [card of seat 0 (6), of seat 1 (6), open card (6), put in by each (2), raises in this round (1),
    who is to act (2)].
    """

    id = "leduc_poker"
    openspiel = "leduc_poker"
    teams = (0, 1)
    public_actions = True
    seat_names = ("player_0", "player_1")
    zero_sum = True
    bots: Mapping[str, Bot] = {}
    privileged_space = Box(
        0,
        np.array([1] * SEEN_PUT_IN_AT + [MOST_PUT_IN] * 2 + [MAX_RAISES] + [1] * 2, np.float32),
        dtype=np.float32,
    )

    def __init__(self, num_games: int) -> None:
        native.check_int(self.id, "num_games", num_games, 1, None)
        self.num_games = num_games
        self._matches = m = _Matches(
            card=np.zeros((num_games, 3), np.int8),
            put_in=np.zeros((num_games, 2), np.int8),
            raises=np.zeros(num_games, np.int8),
            seat=np.zeros(num_games, np.int8),
            ply=np.zeros(num_games, np.int64),
            second=np.full(num_games, -1, np.int64),
            played=np.full((num_games, MAX_PLIES), -1, np.int8),
            obs=np.zeros((num_games, 2, OBS_SIZE), np.float32),
            privileged=np.zeros((num_games, PRIVILEGED_SIZE), np.float32),
            mask=np.ones((num_games, 2, NUM_ACTIONS), np.bool_),
            **native.shown(num_games, 2),
        )
        self.to_act, self.reward, self.terminated, self.over = m.to_act, m.reward, m.terminated, m.over
        self.truncated = np.zeros_like(m.terminated)  # [B, 2], never
        self.privileged: Tree = {"": m.privileged}
        space = Box(0, np.array([1] * PUT_IN_AT + [MOST_PUT_IN] * 2, np.float32), dtype=np.float32)
        obs, mask = {"": m.obs}, {"": m.mask}
        self.groups = (Group("seat", (0, 1), space, Discrete(NUM_ACTIONS), obs, mask),)

    def restart(self, games: np.ndarray, seeds: np.ndarray) -> None:
        """Open new matches in slots games [K] int64 from seeds [K] uint64."""
        _restart(self._matches, *native.check_restart(self.id, self.num_games, games, seeds))

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
        """The cards dealt so far (for a seat its own), what was put in and played, and whose turn it is."""
        m = self._matches
        if not m.put_in[game].any():
            return "not started"
        lines = [
            f"seat {holder} holds {native.hidden(CARD_NAMES[m.card[game, holder]], holder, seat)} "
            f"and has put in {m.put_in[game, holder]}"
            for holder in range(2)
        ]
        played = [ACTION_NAMES[action] for action in m.played[game, : m.ply[game]]]
        if m.second[game] < 0:
            lines.append(f"round 1: {', '.join(played) or 'nothing yet'}")
        else:
            second = int(m.second[game])
            lines.append(f"round 1: {', '.join(played[:second])}")
            lines.append(f"open card: {CARD_NAMES[m.card[game, 2]]}")
            lines.append(f"round 2: {', '.join(played[second:]) or 'nothing yet'}")
        return "\n".join([*lines, self._status(game)])

    def action_names(self, game: int) -> list[str]:
        """Call is also to check, where nothing is to be called."""
        return list(ACTION_NAMES)

    def _status(self, game: int) -> str:
        m = self._matches
        if not self.over[game]:
            return f"seat {m.seat[game]} to act"
        if m.played[game, m.ply[game] - 1] == FOLD:
            gain = m.put_in[game, 1] if m.seat[game] == 0 else -m.put_in[game, 0]
        else:
            gain = np.sign(_strength(m, game, 0) - _strength(m, game, 1)) * m.put_in[game, 0]
        return "the pot is split" if gain == 0 else f"seat {int(gain < 0)} has won {abs(gain)}"
