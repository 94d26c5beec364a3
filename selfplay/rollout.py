"""The first hot loop: play matches of one vector game, and record what the learning player decides.

B games, A seats, P seats of a part, R = B * P rows (row = game * P + place within the part).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from envs.failures import RAISED
from envs.vector import GameError, Tree, VectorEnv
from policies.spaces import PREVIOUS_ACTION, PREVIOUS_REWARD, leaves
from selfplay.draws import MatchDraws
from selfplay.errors import UserError
from selfplay.fragments import Fragment, concatenate
from selfplay.lanes import Lanes
from selfplay.matches import MAIN, Lineups, MatchResults
from selfplay.part_play import PartPlay, Seated
from selfplay.parts import Part
from selfplay.players import Learning, Player

MOST_PIECES = 8
"""Pieces that a part gives in one collection, at most, while another part has not given its first."""

Batch = tuple[Fragment | None, ...]
"""What one collection gives: a fragment for each part, None for one that decided too little."""


class Matches:
    """Plays lineups on a vector game, pinned from the start of a match to its end.

    Unless cyclic, what a match's players draw depends on nothing but its seed (`selfplay.draws`), so that a
    match comes out the same whatever is played beside it.
    """

    def __init__(
        self,
        env: VectorEnv,
        parts: Sequence[Part],
        seed: np.random.SeedSequence,
        *,
        cyclic: bool,
        spread: int = 1,
        remake: Callable[[], VectorEnv] | None = None,
        max_failures: int = 0,
    ) -> None:
        """cyclic: begin again at the first lineup after the last, else leave finished games idle.

        spread: ticks over which the first matches of all games begin, evenly, so that later ones end, and
        fragments are complete, at different times: with all at once, one batch may take twice as long as
        the next.
        max_failures: how often the game's own code may raise before it is an error; remake: the game
        anew, where it did.
        """
        self.env = env
        self.cyclic = cyclic
        self.spread, self.begun = spread, 0  # ticks of first matches; those that were
        self.remake, self.max_failures = remake, max_failures
        self.players: dict[str, Seated] = {}
        self.ids: dict[str, int] = {}  # names that sit somewhere or may
        play_seed, match_seed = seed.spawn(2)
        self.rng = np.random.Generator(np.random.PCG64(play_seed))
        self.match_rng = np.random.Generator(np.random.PCG64(match_seed))
        games, seats = env.to_act.shape
        self.lineup = np.full((games, seats), -1, np.int32)
        self.row = np.full(games, -1, np.int64)  # of the table
        self.match_seed = np.zeros(games, np.uint64)  # 0: of a slot that had no match yet
        self.returns = np.zeros((games, seats), np.float32)
        self.length = np.zeros(games, np.int32)
        self.table = np.zeros((0, seats), np.int32)
        self.next_lineup = 0
        self.seeds: np.ndarray | None = None  # [Q] of the table's matches; None: drawn
        self.actions = tuple(_empty_actions(env, k) for k in range(len(env.groups)))
        self.parts = [
            PartPlay(env, part, number, self.actions[part.group]) for number, part in enumerate(parts)
        ]
        self.finished: list[tuple[np.ndarray, ...]] = []
        self.decisions = 0  # made so far by all players
        self.dropped = 0  # matches that ended without a result, as the game's code raised
        self.failures = 0  # times that it did
        self.cause = ""  # of the last one

    def assign(
        self, lineups: Lineups, players: Mapping[str, Seated], seeds: np.ndarray | None = None
    ) -> None:
        """The lineups that matches take from now on; matches under way keep theirs.

        `players` brings those not known yet. Whoever neither sits in a match nor can be drawn is let go.
        seeds [Q] uint64 of the matches; without them each row draws one, in the order of the table.
        """
        assert seeds is None or (not self.cyclic and seeds.shape == (len(lineups.table),))
        self.seeds = seeds
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
        self._track_previous()

    def _track_previous(self) -> None:
        """Keep previous actions and rewards where somebody looks at them."""
        for play in self.parts:
            wanted = {path for seated in self.players.values() for path in seated[play.number].extras}
            play.tracks_previous = any(
                path == PREVIOUS_REWARD or path.startswith(PREVIOUS_ACTION) for path in wanted
            )

    def tick(self, lanes: Sequence[Lanes] | None = None, version: int = 0) -> None:
        """One decision of every seat that is to act, one step of the game."""
        try:
            self._tick(lanes, version)
        except _GameFailure as failure:
            self._begin_anew(failure, lanes)

    def _tick(self, lanes: Sequence[Lanes] | None, version: int) -> None:
        if self.env.over.any():
            self._open()
        acting = self.env.to_act.sum(axis=1, dtype=np.int32)
        rng = self.rng if self.cyclic else MatchDraws(self.match_seed, self.length)
        self.length += acting
        self.decisions += int(acting.sum())
        seated = {k: name for name, k in self.ids.items()}
        for play in self.parts:
            recorded = None if lanes is None else (MAIN, lanes[play.number], version)
            play.act(self.env.to_act, self.lineup, seated, self.players, rng, recorded)
        self._guarded(self.env.step, self.actions)
        self.returns += self.env.reward
        for play in self.parts:
            play.earn(self.env.reward)
            if lanes is not None:
                play.settle(self.env, self.players[MAIN][play.number], lanes[play.number])
        if self.env.over.any():
            self._finish(lanes)

    def _open(self) -> None:
        """Seat the next lineups in the games that are over."""
        games = self._ready(np.flatnonzero(self.env.over))
        left = len(self.table) - self.next_lineup
        if not self.cyclic:
            games = games[:left]
        if len(games) == 0:
            return
        order = (self.next_lineup + np.arange(len(games))) % len(self.table)
        self.next_lineup += len(games)
        if self.cyclic:
            self.next_lineup %= len(self.table)
        self.lineup[games], self.row[games] = self.table[order], order
        self.match_seed[games] = (
            self.match_rng.integers(0, 2**64, len(games), dtype=np.uint64)
            if self.seeds is None
            else self.seeds[order]
        )
        self.returns[games] = 0.0
        self.length[games] = 0
        for play in self.parts:
            play.open(games)
        self._guarded(self.env.restart, games, self.match_seed[games])

    def _ready(self, games: np.ndarray) -> np.ndarray:
        """Of these, all that had a match before, and as many others as are to begin by this tick."""
        unused = self.match_seed[games] == 0
        if not unused.any():
            return games
        number = len(self.match_seed)
        self.begun = min(self.begun + 1, self.spread)
        more = -(-number * self.begun // self.spread) - (number - int(unused.sum()))
        return games[~unused | (np.cumsum(unused) <= more)]

    def _finish(self, lanes: Sequence[Lanes] | None) -> None:
        """Note the results of matches that ended; those that failed, in opening or now, have none."""
        self._drop_failed(lanes)
        games = np.flatnonzero(self.env.over & (self.lineup[:, 0] >= 0))
        self.finished.append(
            tuple(
                x[games].copy() for x in (self.lineup, self.returns, self.length, self.match_seed, self.row)
            )
        )
        self.lineup[games] = -1

    # Games whose own code raises

    def _guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        except (GameError, UserError):
            raise
        except RAISED as error:  # a user's game may fail in any way
            raise _GameFailure from error

    def _drop_failed(self, lanes: Sequence[Lanes] | None) -> None:
        """Forget the matches that the game says have failed."""
        dropped = getattr(self.env, "dropped", None)
        if dropped is None or not dropped.any():
            return
        games = np.flatnonzero(dropped & (self.lineup[:, 0] >= 0))
        if len(games):
            self._drop(games, lanes)
            self._count_failures(len(games), getattr(self.env, "cause", "no cause given"))

    def _begin_anew(self, failure: _GameFailure, lanes: Sequence[Lanes] | None) -> None:
        """Every match is lost with a game whose state nobody knows; open others on a new one."""
        assert failure.__cause__ is not None
        self._drop(np.flatnonzero(self.lineup[:, 0] >= 0), lanes)
        self._count_failures(1, _described(failure.__cause__), failure.__cause__)
        self.match_seed[:], self.begun = 0, 0
        assert self.remake is not None, "a game that may fail can be made anew"
        self.env = self.remake()
        for play in self.parts:
            play.attach(self.env)

    def _drop(self, games: np.ndarray, lanes: Sequence[Lanes] | None) -> None:
        self.dropped += len(games)
        self.lineup[games] = -1
        for play, recorder in zip(self.parts, lanes or (), strict=False):
            recorder.drop(np.flatnonzero(np.isin(play.game, games)))

    def _count_failures(self, number: int, cause: str, error: BaseException | None = None) -> None:
        self.failures += number
        self.cause = cause
        if self.failures > self.max_failures:
            message = too_many_failures(self.env.id, self.failures, self.max_failures, cause)
            raise GameError(message) from error

    @property
    def idle(self) -> bool:
        """Whether no match is under way."""
        return bool((self.lineup[:, 0] < 0).all())

    def play_all(self, watch: Callable[[Matches], None] | None = None) -> MatchResults:
        """Play every lineup once, and give the results in the order of the lineups.

        watch: is called after every tick.
        """
        assert not self.cyclic
        self.tick()
        while not self.idle or self.next_lineup < len(self.table):
            if watch is not None:
                watch(self)
            self.tick()
        return self.results()

    def results(self) -> MatchResults:
        """Matches that ended since the last call; unless cyclic, in the order of their lineups."""
        empty = (self.lineup[:0], self.returns[:0], self.length[:0], self.match_seed[:0], self.row[:0])
        columns = [np.concatenate(parts) for parts in zip(empty, *self.finished, strict=True)]
        self.finished = []
        if not self.cyclic:
            order = np.argsort(columns[-1], kind="stable")
            columns = [column[order] for column in columns]
        lineup, returns, length, seed, row = columns
        used, index = np.unique(lineup, return_inverse=True)
        seated = {k: name for name, k in self.ids.items()}
        names = tuple(seated[k] for k in used)
        index = index.reshape(lineup.shape).astype(np.int32)
        return MatchResults(names, index, returns, length, seed, None if self.cyclic else row)

    def state(self) -> tuple[Tree, dict[str, Any]]:
        """Everything that the next tick depends on, but for the players themselves."""
        assert not self.finished, "results are taken before the state is"
        arrays = {name: getattr(self, name).copy() for name in _MATCH_ARRAYS}
        for k, play in enumerate(self.parts):
            arrays |= {f"part{k}:{name}": array for name, array in play.state().items()}
        env = self.env.state()
        arrays |= {f"env:{name}": array for name, array in (env or {}).items()}
        return arrays, {
            "ids": self.ids,
            "next_lineup": self.next_lineup,
            "begun": self.begun,
            "decisions": self.decisions,
            "dropped": self.dropped,
            "failures": self.failures,
            "rng": self.rng.bit_generator.state,
            "match_rng": self.match_rng.bit_generator.state,
            "env_has_state": env is not None,
        }

    def set_state(self, arrays: Tree, meta: dict[str, Any], players: Mapping[str, Seated]) -> bool:
        """Go on from what `state` gave; False if the game cannot, so that its matches begin anew."""
        self.rng.bit_generator.state = meta["rng"]
        self.match_rng.bit_generator.state = meta["match_rng"]
        self.decisions = meta["decisions"]
        self.dropped, self.failures = meta["dropped"], meta["failures"]
        self.ids = dict(meta["ids"])
        self.players = {name: players[name] for name in self.ids}
        self._track_previous()
        self.table, self.next_lineup = arrays["table"].copy(), meta["next_lineup"]
        if not meta["env_has_state"]:
            return False
        self.begun = meta.get("begun", self.spread)  # checkpoints of before have none
        for name in _MATCH_ARRAYS:
            setattr(self, name, arrays[name].copy())
        for k, play in enumerate(self.parts):
            play.set_state(_part(arrays, f"part{k}:"))
        self.env.set_state(_part(arrays, "env:"))
        return True


class _GameFailure(Exception):
    """The game's own code raised; the cause is what it raised."""


class Rollout:
    """Matches of the learning player, until enough fragments are complete."""

    def __init__(self, matches: Matches, main: Sequence[Learning], *, length: int) -> None:
        """main: the learning player, a policy for each part; length: decisions of a fragment, T."""
        self.matches = matches
        self.main = tuple(main)
        self.version = 0
        self.lanes = [_lanes(play, player, length) for play, player in zip(matches.parts, main, strict=True)]

    def load(self, weights: Sequence[Mapping[str, np.ndarray]], version: int) -> None:
        """Play with these weights, of each part, from the next decision on."""
        for player, part in zip(self.main, weights, strict=True):
            player.load(part, version)
        self.version = version

    def assign(self, lineups: Lineups, players: Mapping[str, Seated]) -> None:
        self.matches.assign(lineups, {MAIN: self.main, **players})

    def collect(
        self, before_tick: Callable[[], None] = lambda: None, pieces: int = 1
    ) -> tuple[Batch, MatchResults]:
        """Play until every part has a piece of complete lanes, or one of them has given many.

        So many pieces are as many lanes of a part as the game has rows of it. A part that decides more often
        than another gives several, as one wider fragment. before_tick: may `load` newer weights.
        """
        taken: list[list[Fragment]] = [[] for _ in self.lanes]
        sizes = [play.rows // pieces for play in self.matches.parts]
        while True:
            for lanes, size, own in zip(self.lanes, sizes, taken, strict=True):
                if lanes.complete >= size:
                    own.append(lanes.take(size))
            if all(taken) or max(map(len, taken)) >= MOST_PIECES:
                break
            if all(lanes.complete < size for lanes, size in zip(self.lanes, sizes, strict=True)):
                before_tick()
                self.matches.tick(self.lanes, self.version)  # which may complete a lane of every row
        return tuple(concatenate(each) if each else None for each in taken), self.matches.results()

    def state(self) -> tuple[Tree, dict[str, Any]]:
        """Matches, recurrent states and lanes in mid-play: arrays, and what JSON can hold."""
        arrays, meta = self.matches.state()
        for k, lanes in enumerate(self.lanes):
            arrays |= {f"lanes{k}:{name}": array for name, array in lanes.state().items()}
        return arrays, meta | {"version": self.version}

    def set_state(self, arrays: Tree, meta: dict[str, Any], players: Mapping[str, Seated]) -> bool:
        """Go on from what `state` gave, but for the weights; False if the game's matches began anew."""
        self.version = meta["version"]
        same = self.matches.set_state(arrays, meta, {MAIN: self.main, **players})
        for k, lanes in enumerate(self.lanes):
            if same:
                lanes.set_state(_part(arrays, f"lanes{k}:"))
            else:
                lanes.clear()
        if same:
            self.matches._drop_failed(self.lanes)  # those that could not be played again from their actions
        return same


def too_many_failures(env_id: str, failures: int, allowed: int, cause: str) -> str:
    """The error that ends a run whose game goes on failing."""
    times = "once" if failures == 1 else f"{failures} times"
    return f"{env_id}: its code failed {times}, env.max_failures={allowed}; the last: {cause}"


_MATCH_ARRAYS = ("lineup", "match_seed", "returns", "length", "table")


def _lanes(play: PartPlay, player: Player, length: int) -> Lanes:
    """Lanes for what this player sees and does in its part."""
    obs, mask = play.views(np.arange(1), player.extras)
    action = {path: leaf[0] for path, leaf in play.group_action.items()}
    return Lanes(
        play.part.seats,
        play.rows,
        length,
        state_shape=player.state_shape,
        obs=obs,
        mask=mask,
        action=action,
    )


def _part(arrays: Tree, prefix: str) -> Tree:
    """The arrays whose names begin with prefix, by the rest of their names."""
    return {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}


def _empty_actions(env: VectorEnv, index: int) -> Tree:
    """Action leaves [B, S, ...] of a group."""
    group = env.groups[index]
    return {
        path: np.zeros((env.num_games, len(group.seats), *(space.shape or ())), space.dtype)
        for path, space in leaves(group.action_space).items()
    }


def _described(error: BaseException) -> str:
    """An error as one line, with the place in the code that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name})" if frames else ""
    return " ".join(f"{type(error).__name__}: {error}".split()) + place
