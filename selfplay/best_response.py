"""How much a fresh learner, trained against a player that stays as it is, gains on it: a lower bound.

U deviators, A seats, M matches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from envs.vector import VectorEnv
from selfplay import config as configuration
from selfplay import contestants, worker
from selfplay.config import Config, EnvConfig
from selfplay.contestants import Contestant
from selfplay.engine.local import LocalEngine
from selfplay.errors import UserError
from selfplay.evaluate import SLOTS, mean_interval
from selfplay.matches import MAIN, Lineups, MatchResults
from selfplay.part_play import Seated
from selfplay.parts import Part
from selfplay.rollout import Matches

FROZEN = "frozen"
"""The measured player's name in lineups, unless it is a bot, which has its own."""

CHECKPOINTS = 4
"""Candidates of each learner, at equal distances; each is tried both sampling and greedy."""

SELECTION_SHARE = 8
"""A candidate is chosen by this part of the number of matches that it is then measured by."""

UPDATES = 100
"""Iterations that a budget should be good for; matches played at once are halved until it is."""

FEWEST_GAMES = 32

ENTROPY = 0.03
"""Entropy bonus of a learner at the start, at most; at the end it has none."""

TRAINING, SELECTION, MEASUREMENT = range(3)  # purposes of matches, for their seeds

Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Effort:
    """What may be spent on finding and measuring best responses."""

    budget: int  # decisions that each learner learns from
    seeds: int  # learners, each from its own start
    games: int  # matches of each deviator in the measurement, and of the player against itself
    seed: int


@dataclass(frozen=True, slots=True)
class Gain:
    """What the seats of one deviator win by leaving the player's ways, mean return of the seats."""

    seats: list[int]
    best_response: float  # against the player in all other seats
    own: float  # of the player in these seats, against itself
    gain: float  # best_response - own
    ci95: tuple[float, float] | None  # of the gain
    found: str  # which candidate this is


class Bound(NamedTuple):
    """A lower bound of NashConv, and where it comes from."""

    nash_conv: float
    ci95: tuple[float, float] | None  # None: of a single match
    gains: list[Gain]  # one for each deviator
    games: int  # matches that each of them was measured by


class _Candidate(NamedTuple):
    label: str
    players: Seated


def deviators(teams: Sequence[int]) -> np.ndarray:
    """[U, A] bool, whose seats leave the player's ways together: a team, or in a game of one team a seat."""
    team = np.asarray(teams)
    who = team if team.max() > 0 else np.arange(len(team))
    return who == np.arange(who.max() + 1)[:, None]


def seatings(units: np.ndarray, matches: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """[M, A] int32, 0 in the seats of one of units [U, A] and 1 elsewhere; each unit equally often.

    rng: shuffles them, for games whose matches all end at once, where a slot would keep its unit for ever.
    """
    unit = np.arange(matches) % len(units)
    return np.where(units[unit if rng is None else rng.permutation(unit)], 0, 1).astype(np.int32)


def lower_bound(contestant: Contestant, game: EnvConfig, effort: Effort, notify: Notify) -> Bound:
    """Train best responses to the contestant and measure what they gain, by matches of their own.

        gain_u = mean return of u's best response against the player - of the player against itself
        NashConv >= sum_u gain_u

    A best response that was trained may fall short of the best one and never exceeds it, so that the sum's
    expectation is at most NashConv. Which candidate plays for u is chosen by other matches than those it is
    measured by; the player itself is among the candidates, with a gain of exactly 0.
    Source: Timbers et al. 2022, "Approximate exploitability", arXiv:2004.09677.
    """
    against = _Against(contestant, game, effort)
    candidates = [_Candidate("the player itself", against.frozen)]
    for number in range(effort.seeds):
        candidates += against.trained(number, notify)
    notify(f"choosing among {len(candidates) - 1} best responses")
    chosen = _chosen(against, candidates)
    notify(f"measuring by {effort.games:,} matches")
    return _measured(against, candidates, chosen)


class _Against:
    """The game, who deviates, and the player that stays as it is."""

    def __init__(self, contestant: Contestant, game: EnvConfig, effort: Effort) -> None:
        self.effort = effort
        self._contestant = contestant
        self._name = contestant.bot or FROZEN
        env = worker.make_game(Config(env=game), 1)
        self.units = deviators(env.teams)
        self._config = learner_config(contestant, game, effort, env)
        self._parts = worker.make_parts(self._config, env)
        self.frozen = contestants.seat(contestant, env, self._parts, greedy=False)

    def trained(self, number: int, notify: Notify) -> Iterator[_Candidate]:
        """Best responses of a learner at equal distances on its way through the budget."""
        budget = self.effort.budget
        rng = np.random.default_rng(np.random.SeedSequence(self.effort.seed, spawn_key=(TRAINING, number)))
        engine = LocalEngine(self._config.model_copy(update={"seed": self.effort.seed + number}), self._fetch)
        unchecked, steps, due = True, 0, 1
        while steps < budget:
            rows = 2 * self._config.rollout.num_games
            engine.begin([Lineups((MAIN, self._name), seatings(self.units, rows, rng))])
            (collected,) = engine.collect()
            if unchecked:
                unchecked = engine.check_replay() is None
            steps = engine.learn().agent_steps
            notify(_progress(number, self.effort, steps, collected.results))
            if steps >= budget * due / CHECKPOINTS:
                due = 1 + steps * CHECKPOINTS // budget
                label = f"learner {number + 1} after {steps:,} decisions"
                yield from self._candidates(label, engine.weights())
        engine.close()

    def _fetch(self, name: str) -> Mapping[str, np.ndarray]:
        assert name == FROZEN
        assert self._contestant.weights is not None
        return self._contestant.weights

    def _candidates(self, label: str, weights: Mapping[str, np.ndarray]) -> Iterator[_Candidate]:
        env = worker.make_game(self._config, 1)
        found = Contestant("", label, config=self._config, weights=weights)
        for greedy in (False, True):
            players = contestants.seat(found, env, self._parts, greedy=greedy)
            yield _Candidate(f"{label}, {'greedy' if greedy else 'sampling'}", players)

    def play(self, table: np.ndarray, players: Seated, purpose: int) -> MatchResults:
        """Every lineup of table [M, A] once, with `players` for 0 and the measured player for 1.

        Matches of one purpose are the same ones, whoever plays: they can be compared pair by pair.
        """

        def make() -> VectorEnv:
            return worker.make_game(self._config, min(len(table), SLOTS))

        matches = Matches(
            make(),
            self._parts,
            np.random.SeedSequence(self.effort.seed, spawn_key=(purpose,)),
            cyclic=False,
            remake=make,
            max_failures=self._config.env.max_failures,
        )
        lineups = Lineups((MAIN, self._name), table)
        matches.assign(lineups, {MAIN: players, self._name: self.frozen})
        return matches.play_all()


def _progress(number: int, effort: Effort, steps: int, results: MatchResults) -> str:
    """How far a learner is, and its return in the matches that just ended."""
    seated = np.array([name == MAIN for name in results.players], bool)[results.lineup]
    mean = f", mean return {results.returns[seated].mean():+.3f}" if seated.any() else ""
    return f"best response {number + 1} of {effort.seeds}: {steps / effort.budget:.0%} learned{mean}"


def _chosen(against: _Against, candidates: Sequence[_Candidate]) -> list[int]:
    """Of each deviator the candidate with the best mean return, by matches that serve nothing else."""
    matches = max(against.effort.games // SELECTION_SHARE, 1)
    means = np.zeros((len(candidates), len(against.units)))
    for k, candidate in enumerate(candidates):
        for u, unit in enumerate(against.units):
            results = against.play(seatings(unit[None], matches), candidate.players, SELECTION)
            means[k, u] = _some(_mean_over(results.returns, unit)).mean()
    chosen: list[int] = means.argmax(axis=0).tolist()
    return chosen


def _measured(against: _Against, candidates: Sequence[_Candidate], chosen: Sequence[int]) -> Bound:
    """What these candidates, one for each deviator, gain on the player, and its interval over the matches."""
    games, units = against.effort.games, against.units
    itself = against.play(np.ones((games, units.shape[1]), np.int32), against.frozen, MEASUREMENT)
    played = [
        against.play(seatings(unit[None], games), candidates[k].players, MEASUREMENT) if k else itself
        for unit, k in zip(units, chosen)
    ]
    own_returns, *returns = aligned([itself, *played])
    own = np.stack([_mean_over(own_returns, unit) for unit in units], axis=1)  # [M, U]
    best = np.stack([_mean_over(each, unit) for each, unit in zip(returns, units)], axis=1)
    gain = best - own
    total = gain.sum(axis=1)
    gains = [
        Gain(
            np.flatnonzero(unit).tolist(),
            float(best[:, u].mean()),
            float(own[:, u].mean()),
            float(gain[:, u].mean()),
            mean_interval(gain[:, u]),
            candidates[chosen[u]].label,
        )
        for u, unit in enumerate(units)
    ]
    return Bound(float(total.mean()), mean_interval(total), gains, len(total))


def aligned(played: Sequence[MatchResults]) -> list[np.ndarray]:
    """Returns [M, A] of each play of the same matches: those that all finished, in one order."""
    common = _some(functools.reduce(np.intersect1d, [each.seed for each in played]))
    order = [np.argsort(each.seed) for each in played]
    return [
        each.returns[by_seed[np.searchsorted(each.seed[by_seed], common)]]
        for each, by_seed in zip(played, order)
    ]


def _some(matches: np.ndarray) -> np.ndarray:
    if len(matches) == 0:
        raise UserError("no match was finished: the game failed in all of them")
    return matches


def _mean_over(returns: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """[M] float64, returns [M, A] as the mean over the seats of unit [A] bool."""
    mean: np.ndarray = returns[:, unit].mean(axis=1, dtype=np.float64)
    return mean


def learner_config(contestant: Contestant, game: EnvConfig, effort: Effort, env: VectorEnv) -> Config:
    """How a best response learns: as the player's run did, or as `configs/default.toml` says for a bot.

    But without what keeps self-play from going round in circles, the magnet and much entropy: the opponent
    stays as it is. In this process, and with enough updates.
    """
    config = contestant.config or configuration.load("default", {"env.id": game.id})
    ppo = {
        "magnet_coef": 0.0,
        "entropy": min(config.ppo.entropy, ENTROPY),
        "entropy_final": 0.0,
        "anneal_steps": effort.budget,
        "autocast": False,
    }
    rollout = {"num_workers": 0, "staleness": 0, "inference": "worker"}
    config = config.model_copy(
        update={
            "env": game,
            "ppo": config.ppo.model_copy(update=ppo),
            "rollout": config.rollout.model_copy(update=rollout),
            "num_learners": 1,
            "seed": effort.seed,
        }
    )
    return _with_updates(config, effort.budget, worker.make_parts(config, env))


def _with_updates(config: Config, budget: int, parts: Sequence[Part]) -> Config:
    """With so few matches at once that the budget makes UPDATES iterations, as far as that can be."""
    seats = sum(len(part.seats) for part in parts)
    games, minibatches = config.rollout.num_games, config.ppo.num_minibatches
    while (
        games % 2 == 0
        and games // 2 >= FEWEST_GAMES
        and games * seats * config.rollout.fragment_length * UPDATES > budget
        and all(games // 2 * len(part.seats) % minibatches == 0 for part in parts)
    ):
        games //= 2
    return config.model_copy(update={"rollout": config.rollout.model_copy(update={"num_games": games})})
