"""The seats of one part on every game slot: what they see, their recurrent states and actions.

B games, P seats of the part, R = B * P rows (row = game * P + place within the part).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import cast

import numba
import numpy as np

from envs.vector import GameError, Tree, VectorEnv
from policies.spaces import (
    PREVIOUS_ACTION,
    PREVIOUS_REWARD,
    PRIVILEGED,
    leaves,
    previous_rows,
    previous_space,
)
from selfplay.draws import Draws, MatchDraws
from selfplay.lanes import Lanes
from selfplay.parts import Part
from selfplay.players import Decision, Learning, Player, PolicyPlayer

Seated = Sequence[Player]
"""Whoever holds a seat: one player for each part of the game."""


@numba.njit(nogil=True, cache=True)
def _gather(stored, rows):  # type: ignore[no-untyped-def]
    """stored [L, S, R, H] at these rows [K]: [L, S, K, H]."""
    state = np.empty((stored.shape[0], stored.shape[1], rows.shape[0], stored.shape[3]), np.float32)
    for layer in range(stored.shape[0]):
        for vector in range(stored.shape[1]):
            for k in range(rows.shape[0]):
                row = rows[k]
                for unit in range(stored.shape[3]):  # as a loop: four times faster than a slice's assignment
                    state[layer, vector, k, unit] = stored[layer, vector, row, unit]
    return state


@numba.njit(nogil=True, cache=True)
def _by_player(to_act, lineup, seats, size, rows, player):  # type: ignore[no-untyped-def]
    """Rows [K] that are to act, written player by player, each one's ascending; who they are [N], ascending.

    to_act [B, A], lineup [B, A] of numbers below size (-1: nobody plays there), seats [P]; rows [R], of which
    K are written; player [R] gets the N. Gives N + 1 ends: the rows of the n-th player are those from ends[n]
    to ends[n + 1].
    """
    games, places = to_act.shape[0], seats.shape[0]
    count = np.zeros(size, np.int64)
    for game in range(games):
        for p in range(places):
            if to_act[game, seats[p]]:
                assert 0 <= lineup[game, seats[p]] < size, "a seat is to act where nobody plays"
                count[lineup[game, seats[p]]] += 1
    number, total = 0, 0
    ends = np.zeros(size + 1, np.int64)
    for k in range(size):
        if count[k]:
            player[number] = k
            count[k], total, number = total, total + count[k], number + 1
            ends[number] = total
    for game in range(games):
        for p in range(places):
            if to_act[game, seats[p]]:
                k = lineup[game, seats[p]]
                rows[count[k]] = game * places + p
                count[k] += 1
    return ends[: number + 1]


@numba.njit(nogil=True, cache=True)
def _scatter(state, rows, stored):  # type: ignore[no-untyped-def]
    """stored [L, S, R, H] at these rows [K] = state [L, S, K, H]."""
    for layer in range(stored.shape[0]):
        for vector in range(stored.shape[1]):
            for k in range(rows.shape[0]):
                row = rows[k]
                for unit in range(stored.shape[3]):
                    stored[layer, vector, row, unit] = state[layer, vector, k, unit]


class PartPlay:
    """Acts for one part of the seats, whoever holds them."""

    def __init__(self, env: VectorEnv, part: Part, number: int, actions: Tree) -> None:
        """number: of the part among the game's; actions: the group's leaves [B, S, ...], written here."""
        self.part, self.number = part, number
        self.group_action = actions
        self.games = env.num_games
        self.rows = self.games * len(part.seats)
        self.is_first = np.ones(self.rows, bool)
        self.states: dict[tuple[int, int, int], np.ndarray] = {}  # shape (L, S, H) -> [L, S, R, H]
        self.game = np.repeat(np.arange(self.games), len(part.seats))  # [R]
        self.seat = np.tile(part.seats, self.games)  # [R]
        self.attach(env)
        space = previous_space(self.group.action_space)
        self.previous: Tree = {
            path: np.zeros((self.rows, *(leaf.shape or ())), leaf.dtype)
            for path, leaf in leaves(space, PREVIOUS_ACTION).items()
        } | {PREVIOUS_REWARD: np.zeros((self.rows, 1), np.float32)}
        self.tracks_previous = False
        self.seconds = 0.0  # that players took to act

    def attach(self, env: VectorEnv) -> None:
        """Play on this env, which has the same layout."""
        self.env_id = env.id
        self.group = env.groups[self.part.group]
        self.privileged: Tree = {
            f"{PRIVILEGED}/{path}" if path else PRIVILEGED: leaf
            for path, leaf in getattr(env, "privileged", {}).items()
        }
        size = len(self.group.seats)
        self.flat = (np.arange(self.games)[:, None] * size + self.part.places).reshape(-1)  # [R] of [B * S]

    def open(self, games: np.ndarray) -> None:
        """New matches begin in these slots."""
        self.is_first.reshape(self.games, -1)[games] = True
        for leaf in self.previous.values():
            leaf.reshape(self.games, -1)[games] = 0

    def act(
        self,
        to_act: np.ndarray,
        lineup: np.ndarray,
        seated: Mapping[int, str],
        players: Mapping[str, Seated],
        rng: np.random.Generator | MatchDraws,
        recorded: tuple[str, Lanes, int] | None,
    ) -> None:
        """One batched forward for every player present.

        seated: names by the numbers in lineup; recorded: a player whose decisions are noted, the lanes that
        take them, and its version.
        """
        main, lanes, version = recorded or ("", None, 0)
        acting, sitting = np.empty(self.rows, np.int64), np.empty(self.rows, np.int64)
        ends = _by_player(to_act, lineup, self.part.seats, max(seated, default=-1) + 1, acting, sitting)
        for number, (start, end) in enumerate(itertools.pairwise(ends.tolist())):
            name, rows = seated[int(sitting[number])], acting[start:end]
            player = players[name][self.number]
            obs, mask = self.views(rows, player.extras)
            is_first = self.is_first[rows]
            stored = self.state_of(player)
            opened = lanes.open(rows, is_first, stored, version) if lanes and name == main else None
            draws = rng.rows(self.game[rows], self.seat[rows]) if isinstance(rng, MatchDraws) else rng
            decision = self._ask(player, obs, mask, is_first, stored, rows, draws)
            for path, leaf in decision.action.items():
                target = self.group_action[path]
                target.reshape(-1, *target.shape[2:])[self.flat[rows]] = leaf
            if decision.value is not None and not np.isfinite(decision.value).all():
                self._refuse(rows, obs, decision.value)
            if opened is not None:
                assert lanes is not None
                assert decision.logp is not None
                assert decision.value is not None
                lanes.record(opened, obs, mask, decision.action, decision.logp, decision.value)
            if self.tracks_previous:
                for path, leaf in previous_rows(self.group.action_space, decision.action).items():
                    self.previous[_under(PREVIOUS_ACTION, path)][rows] = leaf
                self.previous[PREVIOUS_REWARD][rows] = 0
        self.is_first[acting[: ends[-1]]] = False

    def _ask(
        self,
        player: Player,
        obs: Tree,
        mask: Tree,
        is_first: np.ndarray,
        stored: np.ndarray,
        rows: np.ndarray,
        rng: Draws,
    ) -> Decision:
        """A player's decisions of these rows, whose states go on in `stored`."""
        in_place = player if isinstance(player, PolicyPlayer) and player.in_place else None
        state = stored if in_place else _gather(stored, rows)
        start = time.perf_counter()
        if in_place:
            decision = in_place.act_at(obs, mask, is_first, state, rows, rng)
        else:
            decision = player.act(obs, mask, is_first, state, rng)
        self.seconds += time.perf_counter() - start
        if not in_place:
            _scatter(decision.state, rows, stored)
        return decision

    def earn(self, reward: np.ndarray) -> None:
        """Note what a step paid, reward [B, A], until the next decision."""
        if self.tracks_previous:
            self.previous[PREVIOUS_REWARD] += reward[:, self.part.seats].reshape(-1, 1)

    def _refuse(self, rows: np.ndarray, obs: Tree, value: np.ndarray) -> None:
        """Name the match and seat of a value that is not finite, and what made it so."""
        k = int(np.flatnonzero(~np.isfinite(value))[0])
        game, place = divmod(int(rows[k]), len(self.part.seats))
        where = f"match {game}, seat {self.part.seats[place]}"
        for path, leaf in obs.items():
            if not np.isfinite(leaf[k]).all():
                raise GameError(f"{self.env_id}, {where}: observation {path or 'leaf'} is not finite")
        raise FloatingPointError(f"{self.env_id}, {where}: the policy's value is {value[k]}; it has diverged")

    def settle(self, env: VectorEnv, main: Player, lanes: Lanes) -> None:
        """Hand the step's rewards and endings to the lanes, valuing views at which a match was cut off."""
        final_value = np.zeros(self.rows, np.float32)
        cut = env.truncated[:, self.part.seats].reshape(-1) & (lanes.held >= 0)
        if cut.any():
            rows = np.flatnonzero(cut)
            state = self.state_of(main)[:, :, rows]
            obs, _ = self.views(rows, main.extras)
            final_value[rows] = cast(Learning, main).value(obs, self.is_first[rows], state)
        lanes.settle(env.reward, env.terminated, env.truncated, final_value)

    def views(self, rows: np.ndarray, extras: Sequence[str]) -> tuple[Tree, Tree]:
        """Observation and mask leaves of these rows, copied: [B, S, ...] -> [K, ...]."""
        flat = self.flat[rows]
        obs, mask = (
            {path: leaf.reshape(-1, *leaf.shape[2:]).take(flat, axis=0) for path, leaf in tree.items()}
            for tree in (self.group.obs, self.group.mask)
        )
        for path in extras:
            whole = self.privileged.get(path)
            obs[path] = self.previous[path][rows] if whole is None else whole[self.game[rows]]
        return obs, mask

    def state_of(self, player: Player) -> np.ndarray:
        """States [L, S, R, H] of all rows for players of this one's shape."""
        shape = player.state_shape
        if shape not in self.states:
            self.states[shape] = np.zeros((*shape[:2], self.rows, shape[2]), np.float32)
        return self.states[shape]

    def state(self) -> Tree:
        """Everything that the next decision depends on, but for the players."""
        arrays = {"is_first": self.is_first.copy()}
        for shape, state in self.states.items():
            arrays[f"state:{','.join(map(str, shape))}"] = state.copy()
        if self.tracks_previous:
            arrays |= {f"previous:{path}": leaf.copy() for path, leaf in self.previous.items()}
        return arrays

    def set_state(self, arrays: Tree) -> None:
        for name, array in arrays.items():
            kind, _, which = name.partition(":")
            if kind == "is_first":
                self.is_first[:] = array
            elif kind == "state":
                layers, vectors, units = map(int, which.split(","))
                self.states[layers, vectors, units] = array.copy()
            else:
                self.previous[which][:] = array


def _under(prefix: str, path: str) -> str:
    return f"{prefix}/{path}" if path else prefix
