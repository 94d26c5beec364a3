"""Matchmakers: probabilities worked by hand, distributions always, and players that are alike get alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.league import matchmaking
from selfplay.league.matchmaking import Field, probabilities

MAIN, HUNTER, SWEEPER = "main", "main_exploiter", "league_exploiter"
ANONYMOUS = ("quality", "pfsp_hard", "pfsp_variance", "nash")
"""Matchmakers to whom the order of joining says nothing."""


def field(score, *, quality=None, payoff=None, kind=None) -> Field:
    num = len(score)
    return Field(
        np.array(score, float),
        np.zeros(num) if quality is None else np.array(quality, float),
        np.full((num, num), np.nan) if payoff is None else np.array(payoff, float),
        (MAIN,) * num if kind is None else kind,
    )


def drawn(matchmaker, seen: Field, window: float = 0.5, power: float = 2.0) -> list[float]:
    return probabilities(matchmaker, seen, window=window, power=power).tolist()


@st.composite
def fields(draw, min_size: int = 0) -> Field:
    num = draw(st.integers(min_size, 5))
    scores = st.floats(0, 1)
    counted = st.integers(0, 20).map(lambda points: points / 20) | st.just(np.nan)
    return field(
        draw(st.lists(scores, min_size=num, max_size=num)),
        quality=draw(st.lists(st.floats(-40, 40), min_size=num, max_size=num)),
        payoff=np.reshape(draw(st.lists(counted, min_size=num**2, max_size=num**2)), (num, num)),
        kind=draw(st.lists(st.sampled_from([MAIN, HUNTER, SWEEPER]), min_size=num, max_size=num)),
    )


def assert_distribution(probability: np.ndarray, num: int) -> None:
    assert probability.shape == (num,)
    assert probability.dtype == np.float64
    assert (probability >= 0).all()
    assert num == 0 or probability.sum() == pytest.approx(1)


# Each by hand


def test_latest_by_hand():
    assert drawn("latest", field([0.9, 0.1, 0.5])) == [0, 0, 1]


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (0.0, [0.2] * 5),
        (0.5, [0, 0, 1 / 3, 1 / 3, 1 / 3]),  # floor(.5 * 5) = 2
        (0.6, [0, 0, 0, 0.5, 0.5]),  # .6 * 5 is 3: version 3 belongs
        (0.59, [0, 0, 1 / 3, 1 / 3, 1 / 3]),
        (0.8, [0, 0, 0, 0, 1]),
        (1.0, [0, 0, 0, 0, 1]),
    ],
)
def test_uniform_window_by_hand(window, expected):
    assert drawn("uniform", field([0.5] * 5), window=window) == pytest.approx(expected)


def test_the_window_begins_where_the_product_is_whole_though_floats_fall_short():
    assert 0.29 * 100 < 29
    assert np.flatnonzero(matchmaking.uniform(100, 0.29))[0] == 29


def test_quality_by_hand():
    assert drawn("quality", field([0.5] * 3, quality=np.log([1, 2, 5]))) == pytest.approx(
        [0.125, 0.25, 0.625]
    )


def test_pfsp_by_hand():
    seen = field([0.0, 0.5, 0.9])
    # Squared: 1, .25, .01 of 1.26. Linear: 1, .5, .1 of 1.6. Variance: 0, .25, .09 of .34.
    assert drawn("pfsp_hard", seen) == pytest.approx([1 / 1.26, 0.25 / 1.26, 0.01 / 1.26])
    assert drawn("pfsp_hard", seen, power=1.0) == pytest.approx([1 / 1.6, 0.5 / 1.6, 0.1 / 1.6])
    assert drawn("pfsp_variance", seen) == pytest.approx([0, 0.25 / 0.34, 0.09 / 0.34])


def test_pfsp_among_players_that_are_all_beaten_surely_is_uniform():
    assert drawn("pfsp_hard", field([1.0] * 4)) == [0.25] * 4
    assert drawn("pfsp_variance", field([1.0, 0.0])) == [0.5, 0.5]


def test_nash_by_hand():
    # Three players in a circle, scores 1, and a fourth that everyone beats.
    payoff = [[0.5, 0, 1, 1], [1, 0.5, 0, 1], [0, 1, 0.5, 1], [0, 0, 0, 0.5]]
    third = 1 / 3
    assert drawn("nash", field([0.5] * 4, payoff=payoff)) == pytest.approx([third, third, third, 0])


def test_nash_takes_unknown_scores_for_even():
    assert drawn("nash", field([0.9, 0.2])) == [0.5, 0.5]
    beaten = [[0.5, np.nan, 0.8], [np.nan, 0.5, 0.8], [0.2, 0.2, 0.5]]
    assert drawn("nash", field([0.5] * 3, payoff=beaten)) == pytest.approx([0.5, 0.5, 0])


def test_a_mix_by_hand():
    seen = field([0.0, 0.5, 0.9])
    half = drawn({"latest": 2, "uniform": 1, "pfsp_variance": 1}, seen, window=0.0)
    twelfth = 1 / 12
    expected = [twelfth, twelfth + 0.25 * 0.25 / 0.34, 0.5 + twelfth + 0.25 * 0.09 / 0.34]
    assert half == pytest.approx(expected)
    assert drawn({"latest": 0.2, "nash": 0.0}, seen) == [0, 0, 1]


def test_weights_of_a_mix_must_have_a_sum():
    with pytest.raises(AssertionError):
        drawn({"latest": 0.0}, field([0.5]))


# AlphaStar's roles


def test_main_agent_before_anybody_joined_plays_itself():
    share, probability = matchmaking.main_agent(field([]))
    assert share == 1
    assert probability.shape == (0,)


def test_main_agent_that_forgot_nobody_gives_the_rest_to_self_play():
    seen = field([0.9, 0.7, 0.5])  # ever less towards the newest: progress
    share, probability = matchmaking.main_agent(seen)
    assert share == pytest.approx(0.5)
    assert probability == pytest.approx([0.01 / 0.35, 0.09 / 0.35, 0.25 / 0.35])


def test_main_agent_meets_forgotten_mains_by_hand():
    # The third is beaten more than the second, so the first three are looked at, and .4 < .7 among them.
    seen = field([0.8, 0.4, 0.6, 0.5])
    assert matchmaking.verified(seen).tolist() == [True, True, True, False]
    share, probability = matchmaking.main_agent(seen)
    assert share == pytest.approx(0.35)
    everybody = np.array([0.04, 0.36, 0.16, 0.25]) / 0.81
    forgotten = np.array([0.04, 0.36, 0.16, 0.0]) / 0.56
    assert (1 - share) * probability == pytest.approx(0.5 * everybody + 0.15 * forgotten)


def test_a_rise_among_mains_that_are_all_well_beaten_is_no_forgetting():
    assert not matchmaking.verified(field([0.75, 0.7, 0.9, 0.5])).any()


def test_forgetting_looks_at_past_mains_alone():
    seen = field([0.9, 0.1, 0.8, 0.7], kind=(MAIN, SWEEPER, MAIN, MAIN))
    assert not matchmaking.verified(seen).any()


def test_strong_exploiters_come_before_forgotten_mains():
    kind = (MAIN, HUNTER, MAIN, HUNTER, SWEEPER)
    assert matchmaking.verified(field([0.4, 0.29, 0.6, 0.9, 0.1], kind=kind)).tolist() == [0, 1, 0, 1, 0]
    assert matchmaking.verified(field([0.4, 0.3, 0.6, 0.9, 0.1], kind=kind)).tolist() == [1, 0, 1, 0, 0]
    share, probability = matchmaking.main_agent(field([0.5, 0.2], kind=(MAIN, HUNTER)))
    assert share == pytest.approx(0.35)
    # PFSP .25 : .64 of .89 for half of the matches, the exploiter alone for 15%.
    assert (1 - share) * probability == pytest.approx([0.5 * 0.25 / 0.89, 0.5 * 0.64 / 0.89 + 0.15])


def test_league_exploiter_is_pfsp_over_all():
    seen = field([0.0, 0.5, 0.9], kind=(MAIN, HUNTER, SWEEPER))
    assert matchmaking.league_exploiter(seen) == pytest.approx([1 / 1.26, 0.25 / 1.26, 0.01 / 1.26])


def test_main_exploiter_by_hand():
    seen = field([0.0, 0.5, 0.9, 0.5], kind=(MAIN, MAIN, MAIN, HUNTER))
    past = [0, 0.25 / 0.34, 0.09 / 0.34, 0]
    for score, expected in ((0.5, 1.0), (0.2, 1.0), (0.19, 0.5), (0.0, 0.5)):
        share, probability = matchmaking.main_exploiter(score, seen)
        assert share == expected
        assert probability == pytest.approx(past)


def test_main_exploiter_without_past_mains_plays_the_current_one():
    share, probability = matchmaking.main_exploiter(0.0, field([0.4, 0.6], kind=(HUNTER, SWEEPER)))
    assert share == 1
    assert_distribution(probability, 2)


# Always


@given(fields(), st.floats(0, 1), st.floats(0, 8))
def test_every_matchmaker_gives_a_distribution(seen, window, power):
    for name in matchmaking.NAMES:
        assert_distribution(probabilities(name, seen, window=window, power=power), len(seen.score))
    mix = {name: float(k + 1) for k, name in enumerate(matchmaking.MATCHMAKERS)}
    assert_distribution(probabilities(mix, seen, window=window, power=power), len(seen.score))


@given(fields(), st.floats(0, 1))
def test_every_role_gives_a_share_and_a_distribution(seen, score):
    for share, probability in (matchmaking.main_agent(seen), matchmaking.main_exploiter(score, seen)):
        assert 0 <= share <= 1
        assert_distribution(probability, len(seen.score))
    assert_distribution(matchmaking.league_exploiter(seen), len(seen.score))


@given(fields(min_size=1), st.randoms(use_true_random=False))
def test_whoever_joined_when_is_nothing_to_most_matchmakers(seen, random):
    order = list(range(len(seen.score)))
    random.shuffle(order)
    shuffled = Field(
        seen.score[order],
        seen.quality[order],
        seen.payoff[np.ix_(order, order)],
        [seen.kind[i] for i in order],
    )
    for name in ANONYMOUS:
        assert drawn(name, shuffled) == pytest.approx(np.array(drawn(name, seen))[order].tolist(), abs=1e-5)


@given(st.integers(1, 60), st.floats(0, 1))
def test_the_window_holds_the_newest_and_no_more_than_its_part(num, window):
    held = np.flatnonzero(matchmaking.uniform(num, window))
    assert held[-1] == num - 1
    assert (np.diff(held) == 1).all()
    assert abs(len(held) - (1 - window) * num) <= 1 + 1e-6


@given(fields(min_size=1))
def test_hard_pfsp_prefers_whom_the_learner_beats_less(seen):
    order = np.argsort(seen.score)
    assert (np.diff(matchmaking.pfsp_hard(seen.score, 2.0)[order]) <= 1e-12).all()


def test_the_field_is_left_alone():
    seen = field([0.9, 0.4, 0.6], payoff=[[0.5, 1, 0], [np.nan, 0.5, 1], [1, 0, 0.5]], quality=[0, 1, 2])
    before = [array.copy() for array in (seen.score, seen.quality, seen.payoff)]
    for name in matchmaking.NAMES:
        drawn(name, seen)
    for array, copy in zip((seen.score, seen.quality, seen.payoff), before):
        np.testing.assert_array_equal(array, copy)
