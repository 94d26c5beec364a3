"""A match follows from its lineup and seed: played alone, in a batch, in another order, on other slots.

The policies are small. A network's forward may round differently in batches of different sizes, which could
move a draw across the border between two actions: with float32 about once in 10^6 decisions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from envs.bots import random_bot
from envs.cartpole import CartPole
from envs.connect_four import ConnectFour, one_ply
from envs.kuhn_poker import KuhnPoker
from selfplay import rollout
from selfplay.draws import MatchDraws
from selfplay.evaluate import compare, evaluate, match_seeds, play_lineups
from selfplay.matches import Lineups
from selfplay.parts import split
from selfplay.players import BotPlayer, PolicyPlayer
from tests.selfplay.test_rollout import make_policy
from tests.toy_games import TOYS

NAMES = ("policy", "other", "random", "own draws")
GAMES: dict[str, Any] = {"connect_four": ConnectFour, "kuhn_poker": KuhnPoker, **TOYS}


class Noting:
    """A game that notes what was done in each match, by its seed."""

    def __init__(self, env):
        self._env, self.seed, self.actions = env, np.zeros(env.num_games, np.uint64), {}

    def __getattr__(self, name):
        return getattr(self._env, name)

    def restart(self, games, seeds):
        self.seed[games] = seeds
        self._env.restart(games, seeds)

    def step(self, actions):
        for game, seat in np.argwhere(self.to_act):
            done = [leaf[game, seat].tolist() for leaf in actions[0].values()]
            self.actions.setdefault(int(self.seed[game]), []).append((int(seat), done))
        self._env.step(actions)


def own_draws(env):
    """A bot that draws as it likes: more where it sees more."""
    draw = random_bot(env.groups[0].action_space)

    def bot(obs, mask, rng):
        rng.standard_normal(int(abs(next(iter(obs.values())).sum())) % 5)
        return draw(obs, mask, rng)

    return bot


def players(env, *, greedy):
    return {
        "policy": (PolicyPlayer(make_policy(env), greedy=greedy),),
        "other": (PolicyPlayer(make_policy(env, 1, hidden_size=14), greedy=greedy),),
        "random": (BotPlayer(random_bot(env.groups[0].action_space)),),
        "own draws": (BotPlayer(own_draws(env)),),
    }


def matches(game, table, seeds, *, slots, greedy=False):
    """[(actions, returns, length)] of the lineups, in their order."""
    env = Noting(GAMES[game](slots))
    results = play_lineups(
        env, split(env, ["group"]), Lineups(NAMES, table), players(env, greedy=greedy), seeds
    )
    assert results.row.tolist() == [*range(len(table))]
    assert results.seed.tolist() == seeds.tolist()
    assert (np.array(results.players)[results.lineup] == np.array(NAMES)[table]).all()
    return [
        (env.actions[int(seed)], returns.tolist(), int(length))
        for seed, returns, length in zip(seeds, results.returns, results.length, strict=True)
    ]


def check(game, *, greedy=False):
    rng = np.random.default_rng(0)
    table = rng.integers(0, len(NAMES), (12, len(GAMES[game](1).teams))).astype(np.int32)
    seeds = match_seeds(5, 12)
    wanted = matches(game, table, seeds, slots=12, greedy=greedy)
    assert len({str(actions) for actions, _, _ in wanted}) > 3
    assert matches(game, table, seeds, slots=1, greedy=greedy) == wanted
    assert matches(game, table, seeds, slots=5, greedy=greedy) == wanted
    order = rng.permutation(12)
    again = matches(game, table[order], seeds[order], slots=5, greedy=greedy)
    assert again == [wanted[k] for k in order]
    first, rest = (
        matches(game, table[at], seeds[at], slots=4, greedy=greedy) for at in (slice(7), slice(7, 12))
    )
    assert first + rest == wanted
    alone = matches(game, table[3:4], seeds[3:4], slots=1, greedy=greedy)
    assert alone == wanted[3:4]


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("game", ["connect_four", "kuhn_poker", "brawl", "turns"])
def test_a_match_follows_from_its_lineup_and_seed(game, greedy):
    check(game, greedy=greedy)


@pytest.mark.parametrize("game", ["connect_four", "turns"])
def test_planted_bug_one_generator_for_all(monkeypatch, game):
    shared = np.random.default_rng(0)
    monkeypatch.setattr(rollout, "MatchDraws", lambda seed, number: shared)
    with pytest.raises(AssertionError):
        check(game)


class Keys(BotPlayer):
    """Random, and keeps what its rows are drawn by."""

    def __init__(self, env):
        super().__init__(random_bot(env.groups[0].action_space))
        self.keys = []

    def act(self, obs, mask, is_first, state, rng):
        self.keys += rng.key.tolist()
        return super().act(obs, mask, is_first, state, rng)


@pytest.mark.parametrize("forgotten", ["", "game", "seat", "number"])
def test_no_two_decisions_are_drawn_alike(monkeypatch, forgotten):
    """All act at once, in three matches; planted: one of the three words left out."""

    class Forgetful(MatchDraws):
        def rows(self, game, seat):
            self.number = self.number * (forgotten != "number")
            return super().rows(game * (forgotten != "game"), seat * (forgotten != "seat"))

    monkeypatch.setattr("selfplay.part_play.MatchDraws", Forgetful)
    monkeypatch.setattr(rollout, "MatchDraws", Forgetful)
    env = TOYS["brawl"](3)
    keys = Keys(env)
    lineups = Lineups(("it",), np.zeros((3, len(env.teams)), np.int32))
    results = play_lineups(env, split(env, ["group"]), lineups, {"it": (keys,)}, match_seeds(0, 3))
    assert len(keys.keys) == results.length.sum()
    assert (len(set(keys.keys)) == len(keys.keys)) == (forgotten == "")


def test_an_evaluation_does_not_depend_on_the_slots():
    def result(slots, games=40):
        env = ConnectFour(slots)
        two = [(PolicyPlayer(make_policy(env)),), (BotPlayer(one_ply),)]
        return evaluate(env, split(env, ["group"]), two, games=games, seed=4)

    assert result(40) == result(7)
    assert match_seeds(4, 40).tolist()[:9] == match_seeds(4, 9).tolist()


def test_two_alone_meet_the_same_chance():
    """The same player twice draws every match."""
    env = CartPole(8)
    policy = (PolicyPlayer(make_policy(env)),)
    result = compare(env, split(env, ["group"]), [policy, policy], games=20, seed=1)
    assert result.draws == 20


def test_training_draws_from_one_generator():
    """As it always did: tests/selfplay/test_golden.py has the numbers."""
    env = ConnectFour(2)
    matches = rollout.Matches(env, split(env, ["group"]), np.random.SeedSequence(0), cyclic=True)
    before = matches.rng.bit_generator.state
    matches.assign(Lineups(("random",), np.zeros((1, 2), np.int32)), {"random": (BotPlayer(one_ply),)})
    matches.tick()
    assert matches.rng.bit_generator.state != before
    while not matches.finished:
        matches.tick()
    assert matches.results().row is None
