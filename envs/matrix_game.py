"""Matrix games in rounds: two seats choose at once, again and again; every loop over games in a Numba kernel.

B games, n actions of each seat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box, Discrete
from numba import njit

from envs import native
from envs.bots import by_row
from envs.vector import Bot, Group, Tree

Matrix = Sequence[Sequence[float]]

MATCHING_PENNIES = ((1, -1), (-1, 1))
ROCK_PAPER_SCISSORS = ((0, -1, 1), (1, 0, -1), (-1, 1, 0))


class _Matches(NamedTuple):
    """B matches: everything that a kernel reads and writes."""

    round: np.ndarray  # [B] int64, rounds played
    last: np.ndarray  # [B, 2] int64, actions of the last round, -1 before the first
    total: np.ndarray  # [B, 2] float32, sum of each seat's rewards
    obs: np.ndarray  # [B, 2, 2n + 1] float32
    to_act: np.ndarray  # [B, 2] bool
    reward: np.ndarray  # [B, 2] float32
    terminated: np.ndarray  # [B, 2] bool
    over: np.ndarray  # [B] bool


@njit(cache=True, nogil=True)
def _restart(m: _Matches, games: np.ndarray) -> None:
    """Open matches in slots games [K] int64."""
    for k in range(games.shape[0]):
        game = games[k]
        m.round[game] = 0
        m.last[game] = -1
        m.total[game] = 0
        m.obs[game] = 0
        m.to_act[game] = True
        native.clear(game, m.reward, m.terminated, m.over)


@njit(cache=True, nogil=True)
def _first_illegal(m: _Matches, action: np.ndarray, num_actions: int) -> int:
    """2 * match + seat of the first action [B, 2] of a match in play that there is not; -1 if none."""
    for game in range(m.over.shape[0]):
        for seat in range(2):
            if not m.over[game] and not 0 <= action[game, seat] < num_actions:
                return 2 * game + seat
    return -1


@njit(cache=True, nogil=True)
def _step(m: _Matches, action: np.ndarray, payoff: np.ndarray, rounds: int) -> None:
    """One round from action [B, 2] in every match that is not over; payoff [2, n, n] as in `MatrixGame`."""
    num_actions = payoff.shape[1]
    for game in range(m.over.shape[0]):
        if m.over[game]:
            m.reward[game] = 0
            continue
        m.round[game] += 1
        for seat in range(2):
            own, other = m.last[game, seat], m.last[game, 1 - seat]
            if own >= 0:
                m.obs[game, seat, other] = 0
                m.obs[game, seat, num_actions + own] = 0
            own, other = action[game, seat], action[game, 1 - seat]
            m.obs[game, seat, other] = 1
            m.obs[game, seat, num_actions + own] = 1
            m.obs[game, seat, 2 * num_actions] = m.round[game] / rounds
            m.reward[game, seat] = payoff[seat, action[game, 0], action[game, 1]]
            m.total[game, seat] += m.reward[game, seat]
        m.last[game, 0] = action[game, 0]
        m.last[game, 1] = action[game, 1]
        if m.round[game] == rounds:
            m.to_act[game] = False
            m.terminated[game] = True
            m.over[game] = True


class MatrixGame:
    """Two seats choose an action at once, in each of `rounds` rounds; each round is paid.

    Seat 0 chooses the row and seat 1 the column; `row_payoff` [n][n] is what seat 0 is paid,
    `column_payoff` [n][n] what seat 1 is (None: minus the other, a zero-sum game), both indexed
    [row][column]. The obs of a seat, from its own side: the other's last action as one-hot [n], its own [n]
    (zeros in the first round), and the share of the rounds that have been played.

    Bots: each action's name plays that action always; "copycat" plays the other's last action, and
    in a symmetric game "beat_last" the best reply to it (both draw the first one uniformly).
    """

    id = "matrix_game"
    teams = (0, 1)
    public_actions = True
    deterministic = True

    def __init__(
        self,
        num_games: int,
        *,
        row_payoff: Matrix = MATCHING_PENNIES,
        column_payoff: Matrix | None = None,
        names: Sequence[str] | None = None,
        rounds: int = 10,
    ) -> None:
        native.check_int(self.id, "num_games", num_games, 1, None)
        native.check_int(self.id, "rounds", rounds, 1, None)
        row = _check_payoff(self.id, "row_payoff", row_payoff)
        column = -row if column_payoff is None else _check_payoff(self.id, "column_payoff", column_payoff)
        if row.shape != column.shape:
            raise ValueError(f"{self.id}: row_payoff is {row.shape} and column_payoff {column.shape}")
        self._payoff = np.stack([row, column])  # [2, n, n]
        num_actions = len(row)
        self._names = _check_names(self.id, names, num_actions)
        self._rounds = rounds
        self.num_games = num_games
        self.zero_sum = bool((row + column == 0).all())
        replies = row.argmax(axis=0) if (column == row.T).all() else None
        self.bots: Mapping[str, Bot] = _bots(self._names, replies)
        self._matches = m = _Matches(
            round=np.zeros(num_games, np.int64),
            last=np.full((num_games, 2), -1, np.int64),
            total=np.zeros((num_games, 2), np.float32),
            obs=np.zeros((num_games, 2, 2 * num_actions + 1), np.float32),
            **native.shown(num_games, 2),
        )
        self.to_act, self.reward, self.terminated, self.over = m.to_act, m.reward, m.terminated, m.over
        self.truncated = np.zeros_like(m.terminated)  # [B, 2], never
        space = Box(0, 1, (2 * num_actions + 1,), np.float32)
        self.groups = (Group("seat", (0, 1), space, Discrete(num_actions), {"": m.obs}),)

    def restart(self, games: np.ndarray, seeds: np.ndarray) -> None:
        """Open new matches in slots games [K] int64; the rules draw nothing from seeds [K] uint64."""
        games, _ = native.check_restart(self.id, self.num_games, games, seeds)
        _restart(self._matches, games)

    def step(self, actions: tuple[Tree, ...]) -> None:
        """Play action "" [B, 2] int64; if one is illegal, nothing is played."""
        action = actions[0][""]
        native.check_array(self.id, "the action", action, self.to_act.shape, np.int64)
        place = _first_illegal(self._matches, action, len(self._names))
        if place >= 0:
            game, seat = divmod(place, 2)
            legal = list(range(len(self._names)))
            raise native.illegal_action(self.id, game, seat, action[game, seat], legal)
        _step(self._matches, action, self._payoff, self._rounds)

    def state(self) -> Tree:
        """A copy of every array that the matches consist of, [B, ...] each."""
        return native.copy_state(self._matches._asdict())

    def set_state(self, state: Tree) -> None:
        """Go on from what `state` of as many games gave."""
        native.load_state(self.id, self._matches._asdict(), state)

    def render(self, game: int, seat: int | None = None) -> str:
        """The last round and the score."""
        m = self._matches
        if m.round[game] == 0:
            return "not started" if self.over[game] else f"round 1 of {self._rounds}"
        own, other = (self._names[action] for action in m.last[game])
        first, second = (f"{total:g}" for total in m.total[game])
        return f"round {m.round[game]} of {self._rounds}: {own} - {other}, score {first} : {second}"

    def action_names(self, game: int) -> list[str]:
        """What the actions are called; their numbers where they have no names."""
        return list(self._names)


class RockPaperScissors(MatrixGame):
    """Rock, paper, scissors in rounds: 1 for a round won, -1 for one lost, 0 for a tie."""

    id = "rock_paper_scissors"

    def __init__(self, num_games: int, *, rounds: int = 10) -> None:
        names = ("rock", "paper", "scissors")
        super().__init__(num_games, row_payoff=ROCK_PAPER_SCISSORS, names=names, rounds=rounds)


def _bots(names: Sequence[str], replies: np.ndarray | None) -> dict[str, Bot]:
    """The scripted players; replies [n] is the best reply to each action in a symmetric game."""
    num_actions = len(names)
    bots = {name: _always(action) for action, name in enumerate(names)}
    bots["copycat"] = _after_last(np.arange(num_actions))
    if replies is not None:
        bots["beat_last"] = _after_last(replies)
    return bots


def _always(action: int) -> Bot:
    @by_row
    def bot(obs: Tree, mask: Tree, rng: np.random.Generator) -> Tree:
        """obs "" [R, 2n + 1] -> action "" [R] int64."""
        return {"": np.full(len(obs[""]), action, np.int64)}

    return bot


def _after_last(replies: np.ndarray) -> Bot:
    """The bot that plays replies [n] to the other's last action, and any action at first."""
    num_actions = len(replies)

    @by_row
    def bot(obs: Tree, mask: Tree, rng: np.random.Generator) -> Tree:
        """obs "" [R, 2n + 1] -> action "" [R] int64."""
        last = obs[""][:, :num_actions]
        any_action = rng.integers(num_actions, size=len(last))
        return {"": np.where(last.any(axis=1), replies[last.argmax(axis=1)], any_action)}

    return bot


def _check_payoff(id: str, name: str, payoff: Matrix) -> np.ndarray:
    """[n, n] float32; ValueError unless it is square, of at least 2 actions, and finite."""
    try:
        matrix = np.asarray(payoff, np.float32)
    except (TypeError, ValueError):
        matrix = np.empty(0, np.float32)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise ValueError(f"{id}: {name}={payoff!r} must be a square of numbers, at least 2 by 2")
    if not np.isfinite(matrix).all():
        raise ValueError(f"{id}: {name}={payoff!r} must be finite")
    return matrix


def _check_names(id: str, names: Sequence[str] | None, num_actions: int) -> tuple[str, ...]:
    if names is None:
        return tuple(str(action) for action in range(num_actions))
    sound = all(isinstance(name, str) for name in names) and not isinstance(names, str)
    if not sound or len(set(names)) != len(names) or len(names) != num_actions:
        raise ValueError(f"{id}: names={names!r} must be {num_actions} different words, one for each action")
    return tuple(names)
