"""A slow, obvious account of what a rollout did, to compare with what it handed over.

`SpyEnv` and `SpyPlayer` note every match, decision and reward in plain Python lists, from what the game
showed and the players were given; nothing here is taken from the rollout but the order of its calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from selfplay.fragments import Fragment, Tree
from selfplay.matches import MAIN, Lineups, MatchResults
from selfplay.players import Decision, Player, PolicyPlayer
from tests.playing import make_rollout


@dataclass(eq=False)
class Noted:
    """One decision of one seat."""

    match: Match
    seat: int
    obs: Tree
    mask: Tree
    entering: np.ndarray  # [L, S, H] state that the player was given
    is_first: bool
    decision: Decision  # of this row alone
    version: int
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    next_value: float | None = None  # None: never to be read
    follower: Noted | None = None  # the seat's next decision in this match
    handed: bool = False  # seen in a fragment


@dataclass(eq=False)
class Match:
    game: int
    seed: int
    lineup: tuple[str, ...]
    seats: list[list[Noted]] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)


class SpyEnv:
    """The game, with every call noted."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self.queue: list[tuple[str, ...]] = []  # lineups in the order in which matches must take them
        self.playing: dict[int, Match] = {}
        self.finished: list[Match] = []
        self.acted: dict[tuple[int, int], Noted] = {}
        self.main: PolicyPlayer | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def take_lineups(self, lineups: Lineups) -> None:
        self.table = [tuple(lineups.players[k] for k in row) for row in lineups.table]
        self.next = 0

    def restart(self, games: np.ndarray, seeds: np.ndarray) -> None:
        for game, seed in zip(games.tolist(), seeds.tolist()):
            assert game not in self.playing, "a match is opened where one is under way"
            lineup = self.table[self.next % len(self.table)]
            self.next += 1
            seats = len(lineup)
            self.playing[game] = Match(game, seed, lineup, [[] for _ in range(seats)], [0.0] * seats)
        self._env.restart(games, seeds)

    def step(self, actions: tuple[Tree, ...]) -> None:
        env = self._env
        acting = {(int(g), int(a)) for g, a in np.argwhere(env.to_act)}
        assert acting == set(self.acted), "who acted is not who was to act"
        for (game, seat), noted in self.acted.items():
            for path, leaf in noted.decision.action.items():
                assert np.array_equal(actions[0][path][game, seat], leaf), "another seat's action is played"
        self.acted = {}
        env.step(actions)
        for game, match in sorted(self.playing.items()):
            for seat, decisions in enumerate(match.seats):
                match.returns[seat] += float(env.reward[game, seat])
                last = decisions[-1] if decisions else None
                if last is None or last.terminated or last.truncated:
                    continue
                last.reward += float(env.reward[game, seat])
                last.terminated = bool(env.terminated[game, seat])
                last.truncated = bool(env.truncated[game, seat])
                if last.truncated and match.lineup[seat] == MAIN:
                    last.next_value = self._value(game, seat, last)
            if env.over[game]:
                self.finished.append(self.playing.pop(game))

    def _value(self, game: int, seat: int, last: Noted) -> float:
        """The value of the view at which the seat was cut off, alone."""
        obs = {p: torch.from_numpy(leaf[game, seat][None].copy()) for p, leaf in self.groups[0].obs.items()}
        with torch.no_grad():
            state = torch.from_numpy(last.decision.state[:, :, None])
            return float(self.main.policy.step(obs, torch.zeros(1, dtype=torch.bool), state).value)


class SpyPlayer:
    """A player, with every decision noted in the match of the seat that it must be for."""

    def __init__(self, name: str, player: Player, env: SpyEnv, rollout: Any) -> None:
        self.name, self.player, self.env, self.rollout = name, player, env, rollout
        self.state_shape, self.extras = player.state_shape, player.extras

    def act(self, obs, mask, is_first, state, rng):  # type: ignore[no-untyped-def]
        env = self.env
        rows = [
            (int(game), int(seat))
            for game, seat in np.argwhere(env.to_act)
            if env.playing[int(game)].lineup[seat] == self.name
        ]
        assert len(rows) == len(is_first), f"{self.name} is asked for {len(is_first)} rows, not {len(rows)}"
        decision = self.player.act(obs, mask, is_first, state, rng)
        for k, (game, seat) in enumerate(rows):
            for tree, shown in ((obs, env.groups[0].obs), (mask, env.groups[0].mask)):
                for path, leaf in tree.items():
                    assert np.array_equal(leaf[k], shown[path][game, seat]), "another seat's view"
            self._note(k, game, seat, obs, mask, is_first, state, decision)
        return decision

    def _note(self, k, game, seat, obs, mask, is_first, state, decision):  # type: ignore[no-untyped-def]
        match = self.env.playing[game]
        before = match.seats[seat][-1] if match.seats[seat] else None
        assert bool(is_first[k]) == (before is None), "is_first is not the match's first decision"
        entering = state[:, :, k].copy()
        if before is not None:
            ended = before.terminated or before.truncated
            assert not ended, "a seat acts after its end"
            assert np.array_equal(entering, before.decision.state), "the state moved between two decisions"
        noted = Noted(
            match,
            seat,
            {path: leaf[k].copy() for path, leaf in obs.items()},
            {path: leaf[k].copy() for path, leaf in mask.items()},
            entering,
            bool(is_first[k]),
            Decision(
                {path: leaf[k].copy() for path, leaf in decision.action.items()},
                None if decision.logp is None else decision.logp[k],
                None if decision.value is None else decision.value[k],
                decision.state[:, :, k].copy(),
            ),
            self.rollout.version,
        )
        if before is not None:
            before.follower = noted
            before.next_value = noted.decision.value
        match.seats[seat].append(noted)
        self.env.acted[game, seat] = noted

    def value(self, obs, is_first, state):  # type: ignore[no-untyped-def]
        return self.player.value(obs, is_first, state)


class Recorder:
    """A rollout under watch: `collect` plays on, and checks all that came of it."""

    def __init__(self, env: Any, policy: Any, *, length: int, seed: int = 0) -> None:
        self.env = SpyEnv(env)
        player = PolicyPlayer(policy)
        self.env.main = player
        self.rollout = make_rollout(self.env, player, length=length, seed=seed)
        self.policy, self.length = policy, length
        self.opponents: dict[str, Player] = {}
        self.found: dict[bytes, Noted] = {}
        self.results: list[MatchResults] = []
        self.counted = 0
        self.noted = 0  # of the finished matches: their decisions are in `found`
        self.lanes = 0

    def add(self, players: Mapping[str, Player]) -> None:
        self.opponents |= players

    def collect(self, lineups: Lineups) -> Fragment:
        self.env.take_lineups(lineups)
        known = set(self.rollout.matches.players)
        new = [n for n in lineups.players if n != MAIN and n not in known]
        spies = {n: (SpyPlayer(n, self.opponents[n], self.env, self.rollout),) for n in new}
        self.rollout.assign(lineups, spies)
        self._check_let_go(lineups)
        players = self.rollout.matches.players
        # The rollout asks that MAIN be a PolicyPlayer where it values a truncation: spy on its method.
        if not isinstance(players[MAIN][0], _SpiedMain):
            main = _SpiedMain(self.policy, SpyPlayer(MAIN, self.env.main, self.env, self.rollout))
            self.rollout.main = players[MAIN] = (main,)
        (fragment,), results = self.rollout.collect()
        self._note_all()
        self.check_lanes(fragment)
        self.check_results(results)
        return fragment

    def _check_let_go(self, lineups: Lineups) -> None:
        used = {MAIN} | {lineups.players[k] for k in np.unique(lineups.table)}
        used |= {name for match in self.env.playing.values() for name in match.lineup}
        assert set(self.rollout.matches.players) == used, "players are kept who sit nowhere"
        assert set(self.rollout.matches.ids) == used, "players are kept who sit nowhere"

    def _note_all(self) -> None:
        for match in [*self.env.finished[self.noted :], *self.env.playing.values()]:
            for seat, decisions in enumerate(match.seats):
                if match.lineup[seat] == MAIN:
                    for noted in decisions:
                        assert self.found.setdefault(key(noted.obs), noted) is noted, "two views are alike"
        self.noted = len(self.env.finished)

    def check_lanes(self, fragment: Fragment) -> None:
        """Every lane is decisions of MAIN, one after the other, each handed over once and in order."""
        length, lanes = fragment.is_first.shape
        assert (length, lanes) == (self.length, self.env.to_act.size)
        for n in range(lanes):
            before: Noted | None = None
            for t in range(length):
                noted = self.found.get(key({p: leaf[t, n] for p, leaf in fragment.obs.items()}))
                assert noted is not None, "a row that MAIN never saw"
                assert not noted.handed, "a decision is handed over twice"
                noted.handed = True
                if before is None:
                    wanted = np.zeros_like(noted.entering) if noted.is_first else noted.entering
                    state = fragment.initial_state[:, :, n]
                    assert np.array_equal(state, wanted), (
                        "initial_state is not what entered the first decision"
                    )
                elif before.terminated or before.truncated:
                    assert noted.is_first, "after an ending comes the middle of a match"
                else:
                    assert noted is before.follower, "not the next decision of the seat"
                self._check_row(fragment, t, n, noted)
                before = noted
            self.lanes += 1
        for noted in self.found.values():  # in order: nothing handed over before what preceded it
            if noted.handed and noted is not noted.match.seats[noted.seat][0]:
                decisions = noted.match.seats[noted.seat]
                assert decisions[decisions.index(noted) - 1].handed, "a decision was left out"

    def _check_row(self, fragment: Fragment, t: int, n: int, noted: Noted) -> None:
        def same(name: str, got: Any, wanted: Any) -> None:
            assert got == wanted, f"{name} is {got}, not {wanted}"

        same("is_first", bool(fragment.is_first[t, n]), noted.is_first)
        for path, leaf in noted.mask.items():
            assert np.array_equal(fragment.mask[path][t, n], leaf), "mask"
        for path, leaf in noted.decision.action.items():
            assert np.array_equal(fragment.action[path][t, n], leaf), "action"
        same("logp", fragment.logp[t, n], noted.decision.logp)
        same("value", fragment.value[t, n], noted.decision.value)
        same("version", fragment.version[t, n], noted.version)
        same("terminated", bool(fragment.terminated[t, n]), noted.terminated)
        same("truncated", bool(fragment.truncated[t, n]), noted.truncated)
        assert abs(fragment.reward[t, n] - noted.reward) < 1e-5, "reward"
        if not noted.terminated:
            assert noted.next_value is not None, "a decision is handed over before its outcome is known"
            gap = abs(fragment.next_value[t, n] - noted.next_value)
            assert gap <= (1e-5 * (1 + abs(noted.next_value)) if noted.truncated else 0), "next_value"

    def check_results(self, results: MatchResults) -> None:
        """Every finished match once, in the order in which they ended."""
        finished = self.env.finished[self.counted :]
        self.counted += len(finished)
        self.results.append(results)
        assert results.seed.tolist() == [match.seed for match in finished], "which matches ended"
        lineups = [tuple(results.players[k] for k in row) for row in results.lineup]
        assert lineups == [match.lineup for match in finished], "who played"
        assert results.length.tolist() == [sum(map(len, match.seats)) for match in finished], "length"
        wanted = np.array([match.returns for match in finished]).reshape(results.returns.shape)
        np.testing.assert_allclose(results.returns, wanted, atol=1e-5)


class _SpiedMain(PolicyPlayer):
    def __init__(self, policy: Any, spy: SpyPlayer) -> None:
        super().__init__(policy)
        self.spy = spy

    def act(self, obs, mask, is_first, state, rng):  # type: ignore[no-untyped-def]
        return self.spy.act(obs, mask, is_first, state, rng)


def key(obs: Tree) -> bytes:
    """What tells a decision from every other: its view holds noise of its match."""
    return b"|".join(np.ascontiguousarray(obs[path]).tobytes() for path in sorted(obs))
