"""Equilibria of games worked by hand, and of random ones, where nobody may win against them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from selfplay.league import nash

ROCK_PAPER_SCISSORS = np.array([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]])


any_value = st.floats(-1, 1)


@st.composite
def games(draw, entries=any_value, max_size: int = 9) -> np.ndarray:
    """An antisymmetric matrix."""
    num = draw(st.integers(1, max_size))
    upper = np.zeros((num, num))
    rows, columns = np.triu_indices(num, 1)
    upper[rows, columns] = draw(st.lists(entries, min_size=len(rows), max_size=len(rows)))
    return upper - upper.T


few_values = games(st.sampled_from([-1.0, 0.0, 1.0]), max_size=6)
"""Games with many ties, which have many equilibria."""


def test_rock_paper_scissors():
    assert nash.equilibrium(ROCK_PAPER_SCISSORS) == pytest.approx([1 / 3] * 3)


def test_biased_rock_paper_scissors_by_hand():
    # Rock-paper 1, rock-scissors 2, paper-scissors 3: each is played as often as the other two's stake.
    biased = np.array([[0.0, -1, 2], [1, 0, -3], [-2, 3, 0]])
    assert nash.equilibrium(biased) == pytest.approx([3 / 6, 2 / 6, 1 / 6])


def test_a_transitive_chain_gives_all_to_the_best():
    skill = np.array([0.0, 3.0, 1.0, 2.0])
    advantage = 1 / (1 + np.exp(skill[None] - skill[:, None])) - 0.5
    assert nash.equilibrium(advantage).tolist() == [0, 1, 0, 0]


def test_a_dominated_strategy_is_never_played():
    worse_rock = np.array([0.0, -1, 0.5])  # as rock against paper and scissors, or worse; loses to rock
    game = np.zeros((4, 4))
    game[:3, :3] = ROCK_PAPER_SCISSORS
    game[3] = [-0.1, *worse_rock[1:], 0]
    game[:, 3] = -game[3]
    assert nash.equilibrium(game) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])


def test_twins_share_what_one_would_get():
    twice = [0, 0, 1, 2]  # rock twice
    assert nash.equilibrium(ROCK_PAPER_SCISSORS[np.ix_(twice, twice)]) == pytest.approx(
        [1 / 6, 1 / 6, 1 / 3, 1 / 3]
    )


def test_where_nothing_is_known_everybody_gets_the_same():
    assert nash.equilibrium(np.zeros((4, 4))) == pytest.approx([0.25] * 4)
    assert nash.meta_strategy(np.full((3, 3), np.nan)) == pytest.approx([1 / 3] * 3)


def test_nobody_and_a_single_player():
    assert nash.equilibrium(np.zeros((0, 0))).shape == (0,)
    assert nash.equilibrium(np.zeros((1, 1))).tolist() == [1]


def test_scores_of_both_orders_count():
    # 0 scores .8 by its row and .4 by the other's, so .6.
    assert nash.meta_strategy(np.array([[0.5, 0.8], [0.6, 0.5]])).tolist() == [1, 0]
    assert nash.meta_strategy(np.array([[0.5, 0.7], [0.7, 0.5]])) == pytest.approx([0.5, 0.5])


def test_a_score_that_is_missing_in_one_order_counts_as_even():
    assert nash.meta_strategy(np.array([[0.5, np.nan], [0.3, 0.5]])).tolist() == [1, 0]
    assert nash.meta_strategy(np.array([[0.5, np.nan], [0.7, 0.5]])).tolist() == [0, 1]


def test_rounding_errors_decide_nothing():
    almost = np.array([[0.5, 0.5 + 1e-9, 0.5], [0.5 - 1e-9, 0.5, 0.5], [0.5, 0.5, 0.5]])
    assert nash.meta_strategy(almost) == pytest.approx([1 / 3] * 3)


def test_exploitability_by_hand():
    assert nash.exploitability(ROCK_PAPER_SCISSORS, np.array([1.0, 0, 0])) == 1
    assert nash.exploitability(ROCK_PAPER_SCISSORS, np.array([0.5, 0.5, 0])) == 0.5
    assert nash.exploitability(ROCK_PAPER_SCISSORS, np.full(3, 1 / 3)) == pytest.approx(0)


@given(games())
def test_nobody_wins_against_an_equilibrium(game):
    mixture = nash.equilibrium(game)
    assert mixture.min() >= 0
    assert mixture.sum() == pytest.approx(1)
    assert nash.exploitability(game, mixture) <= 1e-5 * max(np.abs(game).max(), 1e-300)


@given(few_values)
def test_of_many_equilibria_the_flattest_is_taken(game):
    """A general optimiser, begun at the answer, finds no equilibrium with a smaller sum of squares."""
    mixture = nash.equilibrium(game)
    other = minimize(
        lambda p: p @ p,
        mixture,
        jac=lambda p: 2 * p,
        method="SLSQP",
        bounds=[(0, 1)] * len(game),
        constraints=[
            {"type": "eq", "fun": lambda p: p.sum() - 1},
            {"type": "ineq", "fun": lambda p: p @ game},
        ],
    )
    assert mixture @ mixture <= other.fun + 1e-6


@pytest.mark.parametrize("seed", [0, 12, 19])
def test_large_games_of_wins_and_losses_alone(seed):
    """They have one equilibrium (Fisher & Ryan 1992): linear programming finds the same."""
    draws = np.random.default_rng(seed).normal(size=(100, 100))
    game = np.sign(draws - draws.T)
    mixture = nash.equilibrium(game)
    assert nash.exploitability(game, mixture) < 1e-5
    other = linprog(np.zeros(100), A_ub=-game.T, b_ub=np.zeros(100), A_eq=np.ones((1, 100)), b_eq=[1.0])
    assert mixture == pytest.approx(other.x, abs=1e-4)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_players_that_hardly_differ(seed):
    """Mixtures that come ever nearer to a third each: differences from 1 down to the last digit."""
    policy, players = np.random.default_rng(seed).dirichlet(np.ones(3)), []
    for step in range(510):
        if step % 10 == 0:
            players.append(policy)
        logits = 0.925 * np.log(policy) + 0.5 * ROCK_PAPER_SCISSORS @ policy
        policy = np.exp(logits) / np.exp(logits).sum()
    players = np.array(players)
    game = players @ ROCK_PAPER_SCISSORS @ players.T
    mixture = nash.equilibrium((game - game.T) / 2)
    assert nash.exploitability(game, mixture) < 1e-5 * np.abs(game).max()
    assert mixture @ players == pytest.approx([1 / 3] * 3, abs=1e-3)


def test_of_a_game_with_ties_the_flattest_by_hand():
    """Of the mixtures of 2 and 3 that nobody beats, half and half; without the ridge all goes to 2."""
    game = np.array(
        [[0, -1, -1, 0, 0], [1, 0, 0, -1, 1], [1, 0, 0, 0, 1], [0, 1, 0, 0, -1], [0, -1, -1, 1, 0]]
    )
    assert nash.equilibrium(game) == pytest.approx([0, 0, 0.5, 0.5, 0], abs=1e-6)
