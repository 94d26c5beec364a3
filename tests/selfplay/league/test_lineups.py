import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.league.lineups import past_rows, spread_draws


def test_draws_follow_the_probabilities():
    p = np.array([0.05, 0.15, 0.3, 0.5])
    rng = np.random.default_rng(0)
    drawn = np.stack([spread_draws(p, 3, 2, rng) for _ in range(4000)])  # [4000, 3, 2]
    for each in drawn.reshape(-1, 6).T:  # every single draw, not only their sum
        assert np.bincount(each, minlength=4) / len(each) == pytest.approx(p, abs=0.03)


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 4), st.integers(0, 1000))
def test_draws_of_a_rollout_differ_where_probabilities_allow(num_past, num_rollouts, each, seed):
    weight = np.random.default_rng(seed).random(num_past) + 0.01
    p = weight / weight.sum()
    drawn = spread_draws(p, num_rollouts, each, np.random.default_rng(seed))
    assert drawn.shape == (num_rollouts, each)
    for past in drawn:
        if p.max() < 1 / each - 1e-9:
            assert len(set(past.tolist())) == each


def test_a_past_self_without_probability_is_never_drawn():
    rng = np.random.default_rng(0)
    drawn = np.stack([spread_draws(np.array([0.0, 1.0, 0.0]), 2, 2, rng) for _ in range(200)])
    assert (drawn == 1).all()


@given(
    st.integers(0, 50),
    st.integers(1, 4),
    st.integers(0, 5),
    st.sampled_from([(0, 1), (0, 0, 1, 1), (0, 1, 2), (1, 0, 0, 1, 2)]),
)
def test_rows_share_opponents_and_teams_evenly(num_rows, num_opponents, first_team, teams):
    team = np.array(teams)
    num_teams = max(teams) + 1
    rows = past_rows(num_rows, num_opponents, first_team % num_teams, team)
    assert rows.shape == (num_rows, len(teams))
    held, met = np.zeros(num_teams, int), np.zeros((num_opponents + 1, num_teams), int)
    for row in rows:
        mine = set(team[row == 0].tolist())
        others = set(row[row != 0].tolist())
        assert len(mine) == 1  # a whole team, and only one
        assert len(others) == 1
        k, opponent = mine.pop(), others.pop()
        assert (team[row == 0] == k).sum() == (team == k).sum()
        held[k] += 1
        met[opponent, k] += 1
    if num_rows:
        assert np.ptp(held) <= 1
        assert np.ptp(met[1:].sum(axis=1)) <= 1
        assert (np.ptp(met[1:], axis=1) <= 1).all()
