"""The first hot loop: play matches of one vector game, and record what the learning player decides.

B games, A seats, S seats of a group, R = B * S rows (row = game * S + seat within the group).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
import torch

from envs.vector import GameError, Group, Tree, VectorEnv
from policies.spaces import leaves
from selfplay.fragments import Fragment
from selfplay.lanes import Lanes
from selfplay.matches import MAIN, Lineups, MatchResults
from selfplay.players import Player, PolicyPlayer


class Matches:
    """Plays lineups on a vector game, pinned from the start of a match to its end."""

    def __init__(self, env: VectorEnv, seed: np.random.SeedSequence, *, cyclic: bool) -> None:
        """cyclic: begin again at the first lineup after the last, else leave finished games idle."""
        self.env = env
        self.cyclic = cyclic
        self.players: dict[str, Player] = {}
        self.ids: dict[str, int] = {}  # names that sit somewhere or may
        play_seed, match_seed = seed.spawn(2)
        self.rng = np.random.Generator(np.random.PCG64(play_seed))
        self.match_rng = np.random.Generator(np.random.PCG64(match_seed))
        games, seats = env.to_act.shape
        self.lineup = np.full((games, seats), -1, np.int32)
        self.match_seed = np.zeros(games, np.uint64)
        self.returns = np.zeros((games, seats), np.float32)
        self.length = np.zeros(games, np.int32)
        self.table = np.zeros((0, seats), np.int32)
        self.next_lineup = 0
        self.groups = [GroupPlay(env.id, group, games) for group in env.groups]
        self.finished: list[tuple[np.ndarray, ...]] = []
        self.decisions = 0  # made so far by all players

    def assign(self, lineups: Lineups, players: Mapping[str, Player]) -> None:
        """The lineups that matches take from now on; matches under way keep theirs.

        `players` brings those not known yet. Whoever neither sits in a match nor can be drawn is let go.
        """
        next_id = max(self.ids.values(), default=-1) + 1
        for name in lineups.players:
            if name not in self.ids:
                self.ids[name] = next_id
                next_id += 1
        self.table = np.array([self.ids[name] for name in lineups.players], np.int32)[lineups.table]
        self.next_lineup = 0
        in_use = set(np.unique(self.lineup)) | set(np.unique(self.table))
        self.ids = {name: k for name, k in self.ids.items() if k in in_use or name == MAIN}
        known = self.players | dict(players)
        self.players = {name: known[name] for name in self.ids if name in known}
        missing = sorted(set(self.ids) - set(self.players))
        assert not missing, f"lineups name players that were not brought: {missing}"

    def tick(self, lanes: list[Lanes] | None = None, version: int = 0) -> None:
        """One decision of every seat that is to act, one step of the game."""
        if self.env.over.any():
            self._open()
        recorders: list[Lanes | None] = [None] * len(self.groups) if lanes is None else [*lanes]
        acting = self.env.to_act.sum(axis=1, dtype=np.int32)
        self.length += acting
        self.decisions += int(acting.sum())
        seated = {k: name for name, k in self.ids.items()}
        for play, recorder in zip(self.groups, recorders, strict=True):
            play.act(self.env.to_act, self.lineup, seated, self.players, self.rng, recorder, version)
        self.env.step(tuple(play.action for play in self.groups))
        self.returns += self.env.reward
        for play, recorder in zip(self.groups, recorders, strict=True):
            if recorder is not None:
                play.settle(self.env, self.players[MAIN], recorder)
        if self.env.over.any():
            self._finish()

    def _open(self) -> None:
        """Seat the next lineups in the games that are over."""
        games = np.flatnonzero(self.env.over)
        left = len(self.table) - self.next_lineup
        if not self.cyclic:
            games = games[:left]
        if len(games) == 0:
            return
        order = (self.next_lineup + np.arange(len(games))) % len(self.table)
        self.next_lineup += len(games)
        if self.cyclic:
            self.next_lineup %= len(self.table)
        self.lineup[games] = self.table[order]
        self.match_seed[games] = self.match_rng.integers(0, 2**64, len(games), dtype=np.uint64)
        self.returns[games] = 0.0
        self.length[games] = 0
        for play in self.groups:
            play.is_first.reshape(-1, len(play.group.seats))[games] = True
        self.env.restart(games, self.match_seed[games])

    def _finish(self) -> None:
        """Note the results of matches that ended with this step."""
        games = np.flatnonzero(self.env.over & (self.lineup[:, 0] >= 0))
        self.finished.append(
            tuple(x[games].copy() for x in (self.lineup, self.returns, self.length, self.match_seed))
        )
        self.lineup[games] = -1

    @property
    def idle(self) -> bool:
        """Whether no match is under way."""
        return bool((self.lineup[:, 0] < 0).all())

    def play_all(self) -> MatchResults:
        """Play every lineup once, and give the results."""
        assert not self.cyclic
        self.tick()
        while not self.idle or self.next_lineup < len(self.table):
            self.tick()
        return self.results()

    def results(self) -> MatchResults:
        """Matches that ended since the last call."""
        empty = (self.lineup[:0], self.returns[:0], self.length[:0], self.match_seed[:0])
        columns = [np.concatenate(parts) for parts in zip(empty, *self.finished, strict=True)]
        self.finished = []
        lineup, returns, length, seed = columns
        used, index = np.unique(lineup, return_inverse=True)
        seated = {k: name for name, k in self.ids.items()}
        names = tuple(seated[k] for k in used)
        return MatchResults(names, index.reshape(lineup.shape).astype(np.int32), returns, length, seed)

    def state(self) -> tuple[Tree, dict[str, Any]]:
        """Everything that the next tick depends on, but for the players themselves."""
        assert not self.finished, "results are taken before the state is"
        arrays = {name: getattr(self, name).copy() for name in _MATCH_ARRAYS}
        for k, play in enumerate(self.groups):
            arrays[f"group{k}:is_first"] = play.is_first.copy()
            for shape, state in play.states.items():
                arrays[f"group{k}:state:{','.join(map(str, shape))}"] = state.copy()
        env = self.env.state()
        arrays |= {f"env:{name}": array for name, array in (env or {}).items()}
        return arrays, {
            "ids": self.ids,
            "next_lineup": self.next_lineup,
            "decisions": self.decisions,
            "rng": self.rng.bit_generator.state,
            "match_rng": self.match_rng.bit_generator.state,
            "env_has_state": env is not None,
        }

    def set_state(self, arrays: Tree, meta: dict[str, Any], players: Mapping[str, Player]) -> bool:
        """Go on from what `state` gave; False if the game cannot, so that its matches begin anew."""
        self.rng.bit_generator.state = meta["rng"]
        self.match_rng.bit_generator.state = meta["match_rng"]
        self.decisions = meta["decisions"]
        self.ids = dict(meta["ids"])
        self.players = {name: players[name] for name in self.ids}
        self.table, self.next_lineup = arrays["table"].copy(), meta["next_lineup"]
        if not meta["env_has_state"]:
            return False
        for name in _MATCH_ARRAYS:
            setattr(self, name, arrays[name].copy())
        for k, play in enumerate(self.groups):
            play.is_first[:] = arrays[f"group{k}:is_first"]
            for name, state in _part(arrays, f"group{k}:state:").items():
                layers, vectors, units = map(int, name.split(","))
                play.states[layers, vectors, units] = state.copy()
        self.env.set_state(_part(arrays, "env:"))
        return True


@numba.njit(nogil=True, cache=True)
def _gather(stored, rows, state):  # type: ignore[no-untyped-def]
    """state [L, S, K, H] = stored [L, S, R, H] at these rows [K]."""
    for layer in range(stored.shape[0]):
        for vector in range(stored.shape[1]):
            for k in range(rows.shape[0]):
                state[layer, vector, k, :] = stored[layer, vector, rows[k], :]


@numba.njit(nogil=True, cache=True)
def _scatter(state, rows, stored):  # type: ignore[no-untyped-def]
    """stored [L, S, R, H] at these rows [K] = state [L, S, K, H]."""
    for layer in range(stored.shape[0]):
        for vector in range(stored.shape[1]):
            for k in range(rows.shape[0]):
                stored[layer, vector, rows[k], :] = state[layer, vector, k, :]


class GroupPlay:
    """The seats of one group: their recurrent states and actions."""

    def __init__(self, env_id: str, group: Group, games: int) -> None:
        self.env_id = env_id
        self.group = group
        self.seats = np.asarray(group.seats)
        self.rows = games * len(group.seats)
        self.is_first = np.ones(self.rows, bool)
        self.states: dict[tuple[int, int, int], np.ndarray] = {}  # shape (L, S, H) -> [L, S, R, H]
        self.action: Tree = _empty_actions(group, games)

    def act(
        self,
        to_act: np.ndarray,
        lineup: np.ndarray,
        seated: Mapping[int, str],
        players: Mapping[str, Player],
        rng: np.random.Generator,
        lanes: Lanes | None,
        version: int,
    ) -> None:
        """One batched forward for every player present; decisions of MAIN are recorded in `lanes`."""
        acting = np.flatnonzero(to_act[:, self.seats])
        sitting = lineup[:, self.seats].reshape(-1)[acting]
        for k in np.flatnonzero(np.bincount(sitting)).tolist():
            name, rows = seated[k], acting[sitting == k]
            player = players[name]
            obs, mask = self._views(rows)
            is_first = self.is_first[rows]
            stored = self.state_of(player)
            state = np.empty((*stored.shape[:2], len(rows), stored.shape[3]), np.float32)
            _gather(stored, rows, state)
            decision = player.act(obs, mask, is_first, state, rng)
            _scatter(decision.state, rows, stored)
            for path, leaf in decision.action.items():
                target = self.action[path]
                target.reshape(self.rows, *target.shape[2:])[rows] = leaf
            if decision.value is not None and not np.isfinite(decision.value).all():
                self._refuse(rows, obs, decision.value)
            if lanes is not None and name == MAIN:
                assert decision.logp is not None
                assert decision.value is not None
                lanes.record(
                    rows, is_first, state, obs, mask, decision.action, decision.logp, decision.value,
                    version,
                )  # fmt: skip
        self.is_first[acting] = False

    def _refuse(self, rows: np.ndarray, obs: Tree, value: np.ndarray) -> None:
        """Name the match and seat of a value that is not finite, and what made it so."""
        k = int(np.flatnonzero(~np.isfinite(value))[0])
        game, seat = divmod(int(rows[k]), len(self.seats))
        where = f"match {game}, seat {self.seats[seat]}"
        for path, leaf in obs.items():
            if not np.isfinite(leaf[k]).all():
                raise GameError(f"{self.env_id}, {where}: observation {path or 'leaf'} is not finite")
        raise FloatingPointError(f"{self.env_id}, {where}: the policy's value is {value[k]}; it has diverged")

    def settle(self, env: VectorEnv, main: Player, lanes: Lanes) -> None:
        """Hand the step's rewards and endings to the lanes, valuing views at which a match was cut off."""
        final_value = np.zeros(self.rows, np.float32)
        cut = env.truncated[:, self.seats].reshape(-1) & (lanes.held >= 0)
        if cut.any():
            rows = np.flatnonzero(cut)
            assert isinstance(main, PolicyPlayer)
            state = self.state_of(main)[:, :, rows]
            final_value[rows] = main.value(self._views(rows)[0], self.is_first[rows], state)
        lanes.settle(env.reward, env.terminated, env.truncated, final_value)

    def _views(self, rows: np.ndarray) -> tuple[Tree, Tree]:
        """Observation and mask leaves of these rows, copied: [R, S, ...] -> [K, ...]."""
        obs, mask = (
            {path: leaf.reshape(self.rows, *leaf.shape[2:]).take(rows, axis=0) for path, leaf in tree.items()}
            for tree in (self.group.obs, self.group.mask)
        )
        return obs, mask

    def state_of(self, player: Player) -> np.ndarray:
        """States [L, S, R, H] of all rows for players of this one's shape."""
        shape = player.state_shape
        if shape not in self.states:
            self.states[shape] = np.zeros((*shape[:2], self.rows, shape[2]), np.float32)
        return self.states[shape]


class Rollout:
    """Matches of the learning player, until enough fragments are complete."""

    def __init__(
        self, env: VectorEnv, main: PolicyPlayer, *, length: int, seed: np.random.SeedSequence
    ) -> None:
        """length: decisions of a fragment, T. A batch is as many lanes as the game has (game, seat) rows."""
        self.matches = Matches(env, seed, cyclic=True)
        self.main = main
        self.version = 0
        games = env.num_games
        self.lanes = [
            Lanes(play.group, games, length, games * len(play.seats), main.state_shape, play.action)
            for play in self.matches.groups
        ]

    def load(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        """Play with these weights from the next decision on."""
        load_weights(self.main.policy, weights)
        self.version = version

    def assign(self, lineups: Lineups, players: Mapping[str, Player]) -> None:
        self.matches.assign(lineups, {MAIN: self.main, **players})

    def collect(self) -> tuple[list[Fragment], MatchResults]:
        """Play until every group has a batch of complete lanes."""
        while not all(lanes.ready for lanes in self.lanes):
            self.matches.tick(self.lanes, self.version)
        return [lanes.take() for lanes in self.lanes], self.matches.results()

    def state(self) -> tuple[Tree, dict[str, Any]]:
        """Matches, recurrent states and lanes in mid-play: arrays, and what JSON can hold."""
        arrays, meta = self.matches.state()
        for k, lanes in enumerate(self.lanes):
            arrays |= {f"lanes{k}:{name}": array for name, array in lanes.state().items()}
        return arrays, meta | {"version": self.version}

    def set_state(self, arrays: Tree, meta: dict[str, Any], players: Mapping[str, Player]) -> bool:
        """Go on from what `state` gave, but for the weights; False if the game's matches began anew."""
        self.version = meta["version"]
        same = self.matches.set_state(arrays, meta, {MAIN: self.main, **players})
        for k, lanes in enumerate(self.lanes):
            if same:
                lanes.set_state(_part(arrays, f"lanes{k}:"))
            else:
                lanes.clear()
        return same


def load_weights(module: torch.nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Copy arrays by parameter name into a module; they stay the caller's."""
    # Arrays from the object store are read-only, which from_numpy warns of; the copy never writes.
    module.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})


_MATCH_ARRAYS = ("lineup", "match_seed", "returns", "length", "table")


def _part(arrays: Tree, prefix: str) -> Tree:
    """The arrays whose names begin with prefix, by the rest of their names."""
    return {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}


def _empty_actions(group: Group, games: int) -> Tree:
    return {
        path: np.zeros((games, len(group.seats), *(space.shape or ())), space.dtype)
        for path, space in leaves(group.action_space).items()
    }
