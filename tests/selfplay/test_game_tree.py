"""Exact values where all seats move at once: by hand, by every pure strategy, and against OpenSpiel's."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pyspiel
import pytest
import torch

from envs.registry import make
from policies.policy import Policy, PolicySpec
from selfplay import exploitability, game_tree
from selfplay.exploitability import strategy_of, uniform
from selfplay.game_tree import NONE, NotExact, nash_conv, walk
from selfplay.information_states import information_states

PENNIES = {"rounds": 2}
DILEMMA = {"row_payoff": [[3, 0], [5, 1]], "column_payoff": [[3, 5], [0, 1]], "rounds": 1}
BIASED = {"row_payoff": [[0, -1, 2], [1, 0, -1], [-2, 1, 0]], "rounds": 1}  # rock wins 2


def _game(id: str, **kwargs):
    return functools.partial(make, id, **kwargs)


def _always(states, *probability: float) -> np.ndarray:
    """[I, n] the same play everywhere."""
    return np.tile(np.array(probability), (len(states), 1))


# By hand.


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_rock_paper_scissors(rounds):
    states, ticks = walk(_game("rock_paper_scissors", rounds=rounds))
    assert len(states) == 2 * sum(9**k for k in range(rounds))
    assert nash_conv(ticks, uniform(states)) == pytest.approx(0, abs=1e-12)
    assert nash_conv(ticks, _always(states, 1, 0, 0)) == pytest.approx(2 * rounds)  # paper wins each round
    # Against half rock, paper wins 1/2 and loses 1/4.
    assert nash_conv(ticks, _always(states, 0.5, 0.25, 0.25)) == pytest.approx(2 * rounds / 4)


def test_biased_rock_paper_scissors():
    states, ticks = walk(_game("matrix_game", **BIASED))
    assert nash_conv(ticks, _always(states, 0.25, 0.5, 0.25)) == pytest.approx(0, abs=1e-12)
    # Against uniform play rock earns (0 - 1 + 2) / 3, for either seat.
    assert nash_conv(ticks, uniform(states)) == pytest.approx(2 / 3)


def test_prisoners_dilemma():
    states, ticks = walk(_game("matrix_game", **DILEMMA))
    assert nash_conv(ticks, _always(states, 0, 1)) == pytest.approx(0)
    assert nash_conv(ticks, _always(states, 1, 0)) == pytest.approx(2 * (5 - 3))


def test_who_copies_the_last_action_is_beaten_from_the_second_round_on():
    states, ticks = walk(_game("rock_paper_scissors", rounds=3))
    last = states.obs[:, :3]
    copies = np.where(last.any(axis=1, keepdims=True), last, 1 / 3)
    assert nash_conv(ticks, copies) == pytest.approx(2 * 2)


# By trying everything.


def test_as_every_pure_strategy_tried_in_turn():
    """Two rounds of matching pennies: five information states each, 32 pure strategies."""
    states, ticks = walk(_game("matrix_game", **PENNIES))
    rng = np.random.default_rng(0)
    for _ in range(3):
        play = rng.dirichlet((1, 1), len(states))
        gain = 0.0
        for seat in range(2):
            own = np.flatnonzero(states.player == seat)
            tried = []
            for pure in itertools.product((0, 1), repeat=len(own)):
                changed = play.copy()
                changed[own] = np.eye(2)[list(pure)]
                tried.append(_expected(states, changed)[seat])
            gain += max(tried) - _expected(states, play)[seat]
        assert nash_conv(ticks, play) == pytest.approx(gain, abs=1e-9)


def _expected(states, play) -> np.ndarray:
    """Returns [2] of two rounds of matching pennies, each way through them played by the rules."""

    def place(seat: int, before: tuple[int, int] | None) -> int:
        seen = np.zeros(5)
        if before is not None:
            seen[[before[1 - seat], 2 + before[seat]]] = 1
            seen[4] = 0.5
        (found,) = np.flatnonzero((states.player == seat) & (states.obs == seen).all(axis=1))
        return found

    total = np.zeros(2)
    joints = list(itertools.product((0, 1), repeat=2))
    for first, second in itertools.product(joints, joints):
        chance = 1.0
        for seat in range(2):
            chance *= play[place(seat, None), first[seat]] * play[place(seat, first), second[seat]]
        won = sum(1 if a == b else -1 for a, b in (first, second))
        total += chance * np.array([won, -won])
    return total


def test_as_openspiel_has_it():
    game = pyspiel.load_game("matrix_rps")
    ours, ticks = walk(_game("rock_paper_scissors", rounds=1))
    theirs = information_states(game)
    assert list(ours.player) == list(theirs.player) == [0, 1]
    for seed in range(3):
        play = np.random.default_rng(seed).dirichlet((1, 1, 1), 2)
        found = exploitability.exploitability(lambda _, play=play: play, game, theirs)
        assert nash_conv(ticks, play) == pytest.approx(found.nash_conv, abs=1e-9)


def test_a_payoff_at_the_wrong_seat_is_noticed(monkeypatch):
    """With the own probability left in the reach, rare replies look bad."""
    states, ticks = walk(_game("matrix_game", **PENNIES))
    play = np.random.default_rng(0).dirichlet((1, 1), len(states))
    right = nash_conv(ticks, play)

    def all_reach(ticks, probability):
        reach, reaches = np.ones(1), []
        for tick in ticks:
            own = probability[tick.state[tick.history], tick.action]
            through = reach[tick.history] * own.prod(axis=1)
            reaches.append(np.repeat(through[:, None], 2, axis=1))
            reach = through[tick.after != NONE]
        return reaches

    monkeypatch.setattr(game_tree, "_others_reach", all_reach)
    assert abs(nash_conv(ticks, play) - right) > 0.01


# What a policy with memory does.


@pytest.mark.parametrize("core", ["lstm", "none"])
def test_policies_are_asked_as_they_play(core):
    """The game played by hand to each history of two rounds, and the policy unrolled along it."""
    env = make("rock_paper_scissors", 9, rounds=2)
    (group,) = env.groups
    torch.manual_seed(1)
    spec = PolicySpec(encoder=(8,), hidden_size=8, core=core, previous=True)
    policy = Policy(group.observation_space, group.action_space, spec)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(torch.randn_like(parameter))
    states, _ = walk(_game("rock_paper_scissors", rounds=2))
    found = strategy_of([policy, policy], env)(states)
    env.restart(np.arange(9), np.zeros(9, np.uint64))
    opening = group.obs[""].copy()
    action = np.stack(np.unravel_index(np.arange(9), (3, 3)), axis=1)
    env.step(({"": action},))
    for game, seat in itertools.product(range(9), range(2)):
        obs = np.stack([opening[game, seat], group.obs[""][game, seat]])[:, None]
        inputs = {
            "": torch.tensor(obs),
            "@action": torch.tensor([[0], [1 + action[game, seat]]]),
            "@reward": torch.tensor([[[0.0]], [[float(env.reward[game, seat])]]]),
        }
        layers, vectors, width = policy.state_shape
        first = torch.tensor([[True], [False]])
        with torch.no_grad():
            out = policy.unroll(inputs, first, torch.zeros(layers, vectors, 1, width))
            expected = policy.head.log_probs(out.head, {})[:, 0].exp().numpy()
        (here,) = np.flatnonzero((states.player == seat) & (states.obs == obs[1, 0]).all(axis=1))
        np.testing.assert_allclose(found[here], expected[1], atol=1e-5)
        np.testing.assert_allclose(found[states.parent[here]], expected[0], atol=1e-5)


# OpenSpiel's games of moves at once, asked in turns.


def test_openspiels_dilemma():
    """Its defectors get 10 from cooperators and 1 from each other, cooperators 5 and 0."""
    game = pyspiel.load_game("matrix_pd")
    assert exploitability.exploitability(uniform, game).nash_conv == pytest.approx(2 * (5.5 - 4))


def test_goofspiel_shows_what_its_matches_show():
    id = "goofspiel(num_cards=3,imp_info=true,points_order=random)"
    states = information_states(pyspiel.load_game(id))
    assert states.legal.any(axis=1).all()
    known = {seat: {row.tobytes() for row in states.obs[states.player == seat]} for seat in range(2)}
    env = make(f"openspiel:{id}", 32)
    rng = np.random.default_rng(0)
    env.restart(np.arange(32), rng.integers(0, 2**63, 32, dtype=np.uint64))
    (group,) = env.groups
    seen = 0
    while not env.over.all():
        for game, seat in np.argwhere(env.to_act):
            assert group.obs[""][game, seat].ravel().tobytes() in known[seat]
            seen += 1
        action = (rng.random(group.mask[""].shape) * group.mask[""]).argmax(axis=2)
        env.step(({"": action},))
    assert seen >= 2 * 32


# Refusals, each in one line.


@pytest.mark.parametrize(
    ("id", "message"), [("rock_paper_scissors", "too large"), ("tic_tac_toe", "seats wait")]
)
def test_games_that_are_refused(monkeypatch, id, message):
    monkeypatch.setattr(game_tree, "MAX_STATES", 2000)
    with pytest.raises(NotExact, match=message) as refused:
        walk(_game(id))
    assert "\n" not in str(refused.value)
