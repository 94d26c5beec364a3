"""One rollout worker: a game, the policy that acts, and the opponents it meets. It needs no Ray."""

from __future__ import annotations

import copy
import difflib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch

import selfplay.rllib  # noqa: F401 (makes games of RLlib known by id; does not import it)
from envs.bots import random_bot
from envs.registry import make
from envs.vector import Tree, VectorEnv
from policies.policy import Policy, PolicySpec
from selfplay.config import Config
from selfplay.errors import UserError
from selfplay.inference.channel import Channel, make_fields
from selfplay.inference.player import RemotePlayer
from selfplay.matches import MAIN, Lineups, MatchResults, joined
from selfplay.memory import collect_seldom, keep_freed_memory
from selfplay.part_play import Seated
from selfplay.parts import Part, split
from selfplay.players import BotPlayer, Learning, PolicyPlayer
from selfplay.rollout import Batch, Matches, Rollout
from selfplay.weights import by_part

RANDOM = "random"
BOT_PREFIX = "bot:"

SNAPSHOT = 0
"""Version of a past self's weights, the only one."""

NEVER = -1
"""Version of weights that were not published."""

MOST_RESTING = 4
"""Past selves whose networks a worker keeps though they sit nowhere: about as many as leave at a time."""

ROLLOUT, BESIDE, LEAGUE, LEARNER, SLOT = range(5)
"""First numbers of the spawn keys of a run's seed, so that no two draws share a stream."""

Weights = Mapping[str, np.ndarray]
Fetch = Callable[[str], Weights]
"""A snapshot's weights by its name."""


class Piece(NamedTuple):
    """A part of a batch that a rollout is asked for."""

    batch: int | None  # its number; None: of its own
    of: int  # so many are as many lanes as the rollout has rows


WHOLE = Piece(None, 1)


@dataclass(frozen=True, slots=True)
class Collected:
    """What came with the fragments of one `collect`."""

    results: MatchResults
    decisions: int  # made by all players together
    seconds: float
    acting_seconds: float  # of those, in players: networks, sampling, bots
    game_seconds: float  # of those, in the game's own step and restart
    dropped: int = 0  # matches without a result, because the game's code raised
    failures: int = 0  # times that it did since the worker began
    cause: str = ""  # of the last one
    present: tuple[str, ...] = ()  # players that sit in a match under way, or may be seated next


def together(parts: Sequence[Collected]) -> Collected:
    """What came with pieces of one batch from one worker, in their order."""
    if len(parts) == 1:
        return parts[0]
    sums = ("decisions", "seconds", "acting_seconds", "game_seconds", "dropped")
    return replace(
        parts[-1],
        results=joined([part.results for part in parts]),
        failures=max(part.failures for part in parts),  # of a successor in mid-batch they are fewer
        cause=next((part.cause for part in reversed(parts) if part.cause), ""),
        **{name: sum(getattr(part, name) for part in parts) for name in sums},
    )


class TimedEnv:
    """A game that counts the time spent inside it."""

    def __init__(self, env: VectorEnv) -> None:
        self._env = env
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def replace(self, env: VectorEnv) -> None:
        """Go on with another game of the same layout."""
        self._env = env

    def step(self, actions: tuple[Tree, ...]) -> None:
        start = time.perf_counter()
        self._env.step(actions)
        self.seconds += time.perf_counter() - start

    def restart(self, games: np.ndarray, seeds: np.ndarray) -> None:
        start = time.perf_counter()
        self._env.restart(games, seeds)
        self.seconds += time.perf_counter() - start


def make_game(config: Config, num_games: int, *, training: bool = False) -> VectorEnv:
    """The configured game, as it is judged or as it is trained on."""
    kwargs = config.env.kwargs | (config.env.train_kwargs if training else {})
    try:
        return make(config.env.id, num_games, **kwargs)
    except ValueError as error:
        raise UserError(str(error)) from error


def make_parts(config: Config, env: VectorEnv) -> tuple[Part, ...]:
    """Which seats share a policy, as configured."""
    return split(env, (config.policy.per,))


def make_policies(config: Config, env: VectorEnv, seed: int) -> dict[str, Policy]:
    """The network of each part that the configuration describes, with weights drawn from `seed` on."""
    parts = make_parts(config, env)
    names = [part.name for part in parts]
    unknown = [name for name in config.policy.parts if name not in names]
    if unknown:
        raise UserError(
            f"policy.parts.{unknown[0]}: {config.env.id} has no such part; policy.per={config.policy.per!r} "
            f"gives {', '.join(names)}"
        )
    return {part.name: _make_policy(config, env, part, seed + k) for k, part in enumerate(parts)}


def _make_policy(config: Config, env: VectorEnv, part: Part, seed: int) -> Policy:
    group = env.groups[part.group]
    network = config.policy.of(part.name)
    private = getattr(env, "privileged_space", None) if network.critic == "privileged" else None
    if network.critic == "privileged" and private is None:
        raise UserError(
            f'policy.critic="privileged": {config.env.id} does not show its full state (games of PettingZoo '
            "and OpenSpiel do with --env.kwargs.privileged true); allowed here: shared, separate"
        )
    spec = PolicySpec(
        encoder=tuple(network.encoder),
        core=network.core,
        hidden_size=network.hidden_size,
        num_layers=network.num_layers,
        critic=network.critic,
        cnn=network.cnn,
        normalize=network.normalize,
        previous=network.previous,
        autoregressive=network.autoregressive,
        uses={**group.uses, **network.uses},
        points={**group.points, **network.points},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return Policy(group.observation_space, group.action_space, spec, private)
        except ValueError as error:
            raise UserError(f"{config.env.id}: {error}") from error


class Worker:
    """Plays its share of the games."""

    def __init__(self, config: Config, index: int, num_workers: int, inference: str | None = None) -> None:
        """inference: socket of the server that decides in its place (`selfplay.inference`)."""
        # One thread each: the cores are shared out by workers, not inside them.
        torch.set_num_threads(1)
        keep_freed_memory()
        collect_seldom()
        self.config, self.index, self.inference = config, index, inference
        self.env = TimedEnv(make_game(config, config.rollout.num_games // num_workers, training=True))
        self._beside: VectorEnv | None = None
        # Past selves that sit nowhere, the longest there first.
        self._resting: dict[str, tuple[Learning, ...]] = {}
        self._open(0)

    def _open(self, entropy: int) -> None:
        policies = make_policies(self.config, self.env, self.config.seed)
        self.parts = make_parts(self.config, self.env)
        matches = Matches(
            self.env,
            self.parts,
            np.random.SeedSequence(self.config.seed, spawn_key=(ROLLOUT, self.index, entropy)),
            cyclic=True,
            spread=self.config.rollout.fragment_length,
            remake=self._renewed,
            max_failures=self.config.env.max_failures,
        )
        self.channels = self._connect(policies)
        main = [self._seat(k, MAIN, policy) for k, policy in enumerate(policies.values())]
        self.rollout = Rollout(matches, main, length=self.config.rollout.fragment_length)
        self._published: tuple[Weights, int] = {}, NEVER
        self._batch: int | None = None  # whose lineups matches begin with

    def _connect(self, policies: Mapping[str, Policy]) -> list[Channel]:
        """To the inference server, for each part, if there is one."""
        if self.inference is None:
            return []
        groups = [self.env.groups[part.group] for part in self.parts]
        rows = [self.env.num_games * len(part.seats) for part in self.parts]
        return [
            Channel(self.inference, part, make_fields(policy, group), capacity)
            for (part, policy), group, capacity in zip(policies.items(), groups, rows, strict=True)
        ]

    def _seat(self, number: int, name: str, policy: Policy) -> Learning:
        """A player of a part, which decides here or at the server."""
        return RemotePlayer(self.channels[number], policy, name) if self.channels else PolicyPlayer(policy)

    def _renewed(self) -> VectorEnv:
        """The game made anew."""
        self.env.replace(make_game(self.config, self.env.num_games, training=True))
        return self.env

    def reopen(self, entropy: int) -> None:
        """Begin anew in place of a worker that died, with draws that it did not make."""
        self._renewed()
        self._open(entropy)

    def collect(
        self, weights: Weights, version: int, lineups: Lineups, fetch: Fetch, piece: Piece = WHOLE
    ) -> tuple[Batch, Collected]:
        """Play with these lineups, and these weights or newer ones, until a batch of lanes is complete.

        piece: or only this one of it; lineups go on where the last piece of the same batch left them.
        """
        start, in_game = time.perf_counter(), self.env.seconds
        matches = self.rollout.matches
        acting = sum(play.seconds for play in matches.parts)
        decided, dropped = matches.decisions, matches.dropped
        first = piece.batch is None or piece.batch != self._batch
        if version >= self._published[1] and (first or version > self.rollout.version):
            self.load(weights, version)  # else it has these or newer ones, or takes them up now
        if first:
            before = matches.players
            self.rollout.assign(lineups, self._bring(lineups.players, before, fetch))
            self._rest({name: who for name, who in before.items() if name not in matches.players})
            self._batch = piece.batch
        batch, results = self.rollout.collect(self._take_up, piece.of)
        return batch, Collected(
            results,
            matches.decisions - decided,
            time.perf_counter() - start,
            sum(play.seconds for play in matches.parts) - acting,
            self.env.seconds - in_game,
            matches.dropped - dropped,
            matches.failures,
            matches.cause,
            tuple(matches.ids),
        )

    def publish(self, weights: Weights, version: int) -> None:
        """Weights for the rest of the batch that is being played, if they are newer; from another thread."""
        if version > self._published[1]:
            self._published = weights, version

    def _take_up(self) -> None:
        """Play with what was published since, if it is newer."""
        weights, version = self._published
        if version > self.rollout.version:
            self.load(weights, version)

    def load(self, weights: Weights, version: int) -> None:
        """Play with these weights from the next decision on."""
        self.rollout.load(self._by_part(weights), version)

    def play(
        self,
        weights: Weights | None,
        version: int,
        lineups: Lineups,
        seed: list[int],
        fetch: Fetch,
        share: tuple[int, int] | None = None,
    ) -> MatchResults:
        """Play every lineup once, apart from training and without recording; or those rows of the table.

        MAIN plays these weights; None: it does not play. share: from which row to which. A match is the same
        whoever plays it.
        """
        if weights is not None:
            self.load(weights, version)
        begin, end = share or (0, len(lineups.table))
        first, *rest = seed
        matches = Matches(
            self._game_beside(end - begin),
            self.parts,
            np.random.SeedSequence(first, spawn_key=(BESIDE, *rest, 0)),
            cyclic=False,
            remake=lambda: self._game_beside(end - begin, anew=True),
            max_failures=self.config.env.max_failures,
        )
        seeds = matches.match_rng.integers(0, 2**64, len(lineups.table), dtype=np.uint64)[begin:end]
        brought = self._bring(lineups.players, {}, fetch)
        players = {MAIN: self.rollout.main} | brought
        matches.assign(replace(lineups, table=lineups.table[begin:end]), players, seeds)
        results = matches.play_all()
        self._rest(brought)
        assert results.row is not None
        return replace(results, row=results.row + begin)

    def _game_beside(self, num_games: int, *, anew: bool = False) -> VectorEnv:
        """So many matches apart from training; those of the last call, if they are as many.

        Where each match is a Python object, making them takes a tenth of a rating's time.
        """
        if anew or self._beside is None or self._beside.num_games != num_games:
            self._beside = make_game(self.config, num_games)
        return self._beside

    def _by_part(self, weights: Weights) -> tuple[Weights, ...]:
        return by_part(weights, [part.name for part in self.parts])

    def _bring(self, names: tuple[str, ...], known: Mapping[str, Seated], fetch: Fetch) -> dict[str, Seated]:
        new = [name for name in names if name != MAIN and name not in known]
        back = {name: self._resting.pop(name) for name in new if name in self._resting}
        return {name: back.get(name) or self._player(name, fetch) for name in new}

    def _player(self, name: str, fetch: Fetch) -> Seated:
        if is_bot(name):
            return make_bot(name, self.env, self.parts)
        if self._resting:
            # To copy a network takes several times as long as to load its weights.
            players = self._resting.pop(next(iter(self._resting)))
        else:
            players = tuple(
                self._seat(k, name, main.policy if self.channels else copy.deepcopy(main.policy))
                for k, main in enumerate(self.rollout.main)
            )
        for player, weights in zip(players, self._by_part(fetch(name)), strict=True):
            player.load(weights, SNAPSHOT)
        return players

    def _rest(self, gone: Mapping[str, Seated]) -> None:
        """Keep some of those who left: one may come back, or leave its networks to another."""
        if not self.channels:  # the server has those, under the names of its players
            past = {name: who for name, who in gone.items() if not is_bot(name)}
            self._resting |= cast(dict[str, tuple[Learning, ...]], past)
            for name in [*self._resting][:-MOST_RESTING]:
                del self._resting[name]

    def state(self) -> tuple[Tree, dict[str, Any]]:
        """Everything that the next `collect` depends on, opponents by their names."""
        return self.rollout.state()

    def set_state(self, arrays: Tree, meta: dict[str, Any], fetch: Fetch) -> bool:
        """Go on from what `state` gave; False where the game cannot, and its matches began anew."""
        self._published, self._batch, self._resting = ({}, NEVER), None, {}
        return self.rollout.set_state(arrays, meta, self._bring(tuple(meta["ids"]), {}, fetch))


def is_bot(name: str) -> bool:
    """Whether it names a scripted player."""
    return name == RANDOM or name.startswith(BOT_PREFIX)


def make_bot(name: str, env: VectorEnv, parts: Sequence[Part]) -> Seated:
    """`random`, or `bot:NAME` of this game, for each part."""
    if name == RANDOM:
        groups = [env.groups[part.group] for part in parts]
        return tuple(BotPlayer(random_bot(group.action_space, group.points)) for group in groups)
    bot = name.removeprefix(BOT_PREFIX)
    if bot not in env.bots:
        known = [RANDOM, *(BOT_PREFIX + each for each in env.bots)]
        close = difflib.get_close_matches(name, known, n=1)
        nearest = f"; nearest: {close[0]}" if close else ""
        raise UserError(f"{env.id} has no bot {name!r}{nearest}; it has {', '.join(known)}")
    scripted = env.bots[bot]
    by_group = scripted if isinstance(scripted, tuple) else (scripted,) * len(env.groups)
    return tuple(BotPlayer(by_group[part.group]) for part in parts)
