"""One rollout worker: a game, the policy that acts, and the opponents it meets. It needs no Ray."""

from __future__ import annotations

import copy
import difflib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from envs.bots import random_bot
from envs.registry import make
from envs.vector import Tree, VectorEnv
from policies.policy import Policy, PolicySpec
from selfplay.config import Config
from selfplay.errors import UserError
from selfplay.fragments import Fragment
from selfplay.matches import MAIN, Lineups, MatchResults
from selfplay.memory import keep_freed_memory
from selfplay.players import BotPlayer, Player, PolicyPlayer
from selfplay.rollout import Matches, Rollout, load_weights

RANDOM = "random"
BOT_PREFIX = "bot:"

ROLLOUT, BESIDE, LEAGUE, LEARNER = range(4)
"""First numbers of the spawn keys of a run's seed, so that no two draws share a stream."""

Weights = Mapping[str, np.ndarray]
Fetch = Callable[[str], Weights]
"""A snapshot's weights by its name."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What came with the fragments of one `collect`."""

    results: MatchResults
    decisions: int  # made by all players together
    seconds: float
    game_seconds: float  # of those, in the game's own step and restart


class TimedEnv:
    """A game that counts the time spent inside it."""

    def __init__(self, env: VectorEnv) -> None:
        self._env = env
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def step(self, actions: tuple[Tree, ...]) -> None:
        start = time.perf_counter()
        self._env.step(actions)
        self.seconds += time.perf_counter() - start

    def restart(self, games: np.ndarray, seeds: np.ndarray) -> None:
        start = time.perf_counter()
        self._env.restart(games, seeds)
        self.seconds += time.perf_counter() - start


def make_game(config: Config, num_games: int, *, training: bool = False) -> VectorEnv:
    """The configured game, as it is judged or as it is trained on.

    A game this version cannot train on is the user's to know.
    """
    kwargs = config.env.kwargs | (config.env.train_kwargs if training else {})
    try:
        env = make(config.env.id, num_games, **kwargs)
    except ValueError as error:
        raise UserError(str(error)) from error
    if len(env.groups) != 1:
        names = ", ".join(group.name for group in env.groups)
        raise UserError(
            f"{config.env.id} has seats with different spaces ({names}); all seats must share one policy"
        )
    return env


def make_policy(config: Config, env: VectorEnv, seed: int) -> Policy:
    """The network that the configuration describes for this game, with weights drawn from `seed`."""
    group = env.groups[0]
    network = config.policy
    spec = PolicySpec(tuple(network.encoder), network.core, network.hidden_size, network.num_layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return Policy(group.observation_space, group.action_space, spec)
        except ValueError as error:
            raise UserError(f"{config.env.id}: {error}") from error


class Worker:
    """Plays its share of the games."""

    def __init__(self, config: Config, index: int, num_workers: int) -> None:
        # One thread each: the cores are shared out by workers, not inside them.
        torch.set_num_threads(1)
        keep_freed_memory()
        self.config, self.index = config, index
        self.env = TimedEnv(make_game(config, config.rollout.num_games // num_workers, training=True))
        self._open(0)

    def _open(self, entropy: int) -> None:
        policy = make_policy(self.config, self.env, self.config.seed)
        self.rollout = Rollout(
            self.env,
            PolicyPlayer(policy),
            length=self.config.rollout.fragment_length,
            seed=np.random.SeedSequence(self.config.seed, spawn_key=(ROLLOUT, self.index, entropy)),
        )

    def reopen(self, entropy: int) -> None:
        """Begin anew in place of a worker that died, with draws that it did not make."""
        self.env = TimedEnv(make_game(self.config, self.env.num_games, training=True))
        self._open(entropy)

    def collect(
        self, weights: Weights, version: int, lineups: Lineups, fetch: Fetch
    ) -> tuple[Fragment, Collected]:
        """Play with these weights and lineups until a batch of lanes is complete."""
        start, in_game = time.perf_counter(), self.env.seconds
        matches = self.rollout.matches
        decided = matches.decisions
        self.rollout.load(weights, version)
        self.rollout.assign(lineups, self._bring(lineups.players, matches.players, fetch))
        fragments, results = self.rollout.collect()
        return fragments[0], Collected(
            results,
            matches.decisions - decided,
            time.perf_counter() - start,
            self.env.seconds - in_game,
        )

    def play(
        self, weights: Weights, version: int, lineups: Lineups, seed: list[int], fetch: Fetch
    ) -> MatchResults:
        """Play every lineup once, apart from training and without recording; MAIN plays these weights."""
        self.rollout.load(weights, version)
        env = make_game(self.config, len(lineups.table))
        first, *rest = seed
        draws = np.random.SeedSequence(first, spawn_key=(BESIDE, *rest, self.index))
        matches = Matches(env, draws, cyclic=False)
        matches.assign(lineups, {MAIN: self.rollout.main} | self._bring(lineups.players, {}, fetch))
        return matches.play_all()

    def _bring(self, names: tuple[str, ...], known: Mapping[str, Player], fetch: Fetch) -> dict[str, Player]:
        new = (name for name in names if name != MAIN and name not in known)
        return {name: self._player(name, fetch) for name in new}

    def _player(self, name: str, fetch: Fetch) -> Player:
        if name == RANDOM or name.startswith(BOT_PREFIX):
            return make_bot(name, self.env)
        policy = copy.deepcopy(self.rollout.main.policy)
        load_weights(policy, fetch(name))
        return PolicyPlayer(policy)

    def state(self) -> tuple[Tree, dict[str, Any]]:
        """Everything that the next `collect` depends on, opponents by their names."""
        return self.rollout.state()

    def set_state(self, arrays: Tree, meta: dict[str, Any], fetch: Fetch) -> bool:
        """Go on from what `state` gave; False where the game cannot, and its matches began anew."""
        return self.rollout.set_state(arrays, meta, self._bring(tuple(meta["ids"]), {}, fetch))


def make_bot(name: str, env: Any) -> BotPlayer:
    """`random`, or `bot:NAME` of this game."""
    if name == RANDOM:
        return BotPlayer(random_bot(env.groups[0].action_space))
    bot = name.removeprefix(BOT_PREFIX)
    if bot not in env.bots:
        known = [RANDOM, *(BOT_PREFIX + each for each in env.bots)]
        close = difflib.get_close_matches(name, known, n=1)
        nearest = f"; nearest: {close[0]}" if close else ""
        raise UserError(f"{env.id} has no bot {name!r}{nearest}; it has {', '.join(known)}")
    return BotPlayer(env.bots[bot])
