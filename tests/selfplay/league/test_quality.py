import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.league.quality import MAX_DROP, after_wins, joining, probabilities

finite = st.lists(st.floats(-50, 50), min_size=1, max_size=20)


def test_probabilities_are_the_softmax_of_the_qualities():
    assert probabilities(np.log([1.0, 2.0, 5.0])) == pytest.approx([0.125, 0.25, 0.625])


def test_probabilities_of_huge_qualities_stay_finite():
    assert probabilities(np.array([1e6, 1e6, -1e6])) == pytest.approx([0.5, 0.5, 0.0])


def test_no_past_selves():
    assert probabilities(np.zeros(0)).shape == (0,)
    assert after_wins(np.zeros(0), np.zeros(0), lr=0.01).shape == (0,)
    assert joining(np.zeros(0)) == 0


@given(finite)
def test_probabilities_sum_to_one(quality):
    assert probabilities(np.array(quality)).sum() == pytest.approx(1)


def test_the_drop_after_wins_by_hand():
    # N = 2, p = (1/4, 3/4): three wins over the first cost .01 * 3 / (2 * 1/4) = .06,
    # two over the second .01 * 2 / (2 * 3/4) = .01333.
    quality = np.log([1.0, 3.0])
    after = after_wins(quality, np.array([3, 2]), lr=0.01)
    assert after - quality == pytest.approx([-0.06, -0.02 / 1.5])


def test_nothing_changes_without_a_win():
    quality = np.array([0.5, -1.0])
    assert np.array_equal(after_wins(quality, np.zeros(2), lr=0.01), quality)


def test_the_arguments_are_left_alone():
    quality = np.array([0.0, 0.0])
    after_wins(quality, np.array([5, 0]), lr=0.01)
    assert quality.tolist() == [0.0, 0.0]


def test_one_update_costs_at_most_the_cap_even_where_the_probability_underflows():
    after = after_wins(np.array([0.0, -2000.0]), np.array([0, 1]), lr=0.01)
    assert after.tolist() == [0.0, -2000.0 - MAX_DROP]


@given(finite, st.integers(0, 10_000))
def test_only_the_beaten_one_falls_and_never_rises(quality, wins):
    before = np.array(quality)
    after = after_wins(before, np.array([wins] + [0] * (len(quality) - 1)), lr=0.01)
    assert np.array_equal(after[1:], before[1:])
    assert before[0] - MAX_DROP - 1e-9 <= after[0] <= before[0]


def test_equally_weak_past_selves_keep_equal_qualities_on_average():
    """The 1 / p_i makes the mean drop a match the same, however seldom one is drawn."""
    p = np.array([0.1, 0.9])
    mean_drop = np.zeros(2)
    for i in range(2):
        wins = np.eye(2)[i]
        mean_drop += p[i] * (np.log(p) - after_wins(np.log(p), wins, lr=0.01))
    assert mean_drop == pytest.approx([0.005, 0.005])


def test_a_new_past_self_joins_at_the_top():
    assert joining(np.array([-3.0, 1.5, 0.0])) == 1.5
    assert math.isclose(probabilities(np.array([1.5, 1.5]))[0], 0.5)
