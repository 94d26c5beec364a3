import math

import numpy as np
import pytest
from scipy.optimize import minimize

from selfplay.errors import UserError
from selfplay.league import bradley_terry
from selfplay.league.bradley_terry import ELO, fitted, of_payoffs
from selfplay.league.payoffs import Payoffs
from selfplay.league.ratings import RANDOM, SCALE, SIGMA, Counts, Rating, calibrated, updated

TEAMS = ("Baltimore", "Boston", "Cleveland", "Detroit", "Milwaukee", "New York", "Toronto")
# American League, Eastern Division, 1987: wins of the row over the column, home and away together.
# Agresti 2002, Categorical Data Analysis (2nd edition), page 438.
BASEBALL = [
    [0, 1, 7, 4, 2, 3, 1],
    [12, 0, 7, 2, 6, 7, 6],
    [6, 6, 0, 4, 4, 6, 5],
    [9, 11, 9, 0, 6, 5, 7],
    [11, 7, 9, 7, 0, 7, 9],
    [10, 6, 7, 8, 6, 0, 6],
    [12, 7, 8, 6, 4, 7, 0],
]
# The same book, section 10.6: citations of the row's journal by the column's.
JOURNALS = ("Biometrika", "Comm. Statist.", "JASA", "JRSS-B")
CITATIONS = [[0, 730, 498, 221], [33, 0, 68, 17], [320, 813, 0, 142], [284, 276, 325, 0]]


def counts_of(wins, draws=0):
    """Wins [N, N] of row over column, draws [N, N] symmetric -> counts [N, N, 3]."""
    wins = np.asarray(wins)
    return np.stack([wins, np.broadcast_to(draws, wins.shape), wins.T], axis=-1)


def simulated(theta, games, rng, draws=0.0):
    """Every pair plays `games` [N, N] matches, a share of them drawn; theta [N] nats -> counts [N, N, 3]."""
    theta = np.asarray(theta)
    games = np.triu(np.broadcast_to(games, (len(theta),) * 2), 1)
    even = rng.binomial(games, draws)
    won = np.triu(rng.binomial(games - even, 1 / (1 + np.exp(theta - theta[:, None]))), 1)
    return counts_of(won + (games - even - won).T, even + even.T)


def reference(wins, anchor, prior=0.0):
    """Zermelo's and Hunter's MM iteration (Hunter 2004, Annals of Statistics 32, eq. 3), player by player.

    wins [N][N] with draws by half -> nats [N], the anchor at 0. The prior is spread as the module says.
    """
    number = len(wins)
    w = [[float(wins[i][j]) for j in range(number)] for i in range(number)]
    met = [[w[i][j] + w[j][i] for j in range(number)] for i in range(number)]
    for i in range(number):
        for j in range(number):
            if i != anchor and met[i][j] > 0:
                w[i][j] += prior / 2 * met[i][j] / sum(met[i])
                w[j][i] += prior / 2 * met[i][j] / sum(met[i])
    gamma = [1.0] * number
    for _ in range(4000):
        for i in range(number):
            if i != anchor:
                denominator = sum(
                    (w[i][j] + w[j][i]) / (gamma[i] + gamma[j]) for j in range(number) if j != i
                )
                gamma[i] = sum(w[i]) / denominator
    return np.log(np.array(gamma))


def test_the_published_baseball_example():
    """Agresti 2002, table 10.11, column 3, and its 'standard errors of about 0.3'."""
    fit = fitted(TEAMS, counts_of(BASEBALL), {"Baltimore": 0.0}, prior=0)
    nats = dict(zip(TEAMS, np.round(fit.mu / SCALE, 2)))
    assert nats == {
        "Baltimore": 0.0,
        "Boston": 1.11,
        "Cleveland": 0.68,
        "Detroit": 1.44,
        "Milwaukee": 1.58,
        "New York": 1.25,
        "Toronto": 1.29,
    }
    np.testing.assert_array_equal(np.round(fit.sigma()[1:] / SCALE, 1), 0.3)
    # summary(BTm(...)) of the same model in R
    assert fit.sigma()[TEAMS.index("Milwaukee")] / SCALE == pytest.approx(0.3433, abs=5e-5)


def test_the_published_citations_example():
    """Estimates and standard errors as R prints them (Firth 2005, Journal of Statistical Software 12(1))."""
    fit = fitted(JOURNALS, counts_of(CITATIONS), {"Biometrika": 0.0}, prior=0)
    np.testing.assert_allclose(fit.mu / SCALE, [0, -2.94907, -0.47957, 0.26895], atol=5e-6)
    np.testing.assert_allclose(fit.sigma() / SCALE, [0, 0.10255, 0.06059, 0.07083], atol=5e-6)


def test_two_players_by_hand():
    fit = fitted(("random", "a"), counts_of([[0, 20], [60, 0]]), {"random": 0.0}, prior=0)
    assert fit.mu[1] == pytest.approx(SCALE * math.log(3), rel=1e-14)
    assert fit.sigma()[1] == pytest.approx(SCALE * math.sqrt(1 / 60 + 1 / 20), rel=1e-14)
    half = 1.959963984540054 * SCALE * math.sqrt(1 / 60 + 1 / 20)
    np.testing.assert_allclose(fit.interval[1], [fit.mu[1] - half, fit.mu[1] + half], rtol=1e-12)
    assert fit.mu[1] * ELO == pytest.approx(400 * math.log10(3))


@pytest.mark.parametrize("counts", [Counts(30, 4, 6), Counts(64, 0, 0), Counts(0, 0, 64), Counts(0, 9, 0)])
def test_the_prior_against_one_anchor_is_that_of_calibration(counts):
    wins, draws, losses = counts
    fit = fitted(
        ("random", "a"), counts_of([[0, losses], [wins, 0]], [[0, draws], [draws, 0]]), {"random": 0}
    )
    assert fit.mu[1] == pytest.approx(calibrated(counts).mu, rel=1e-12, abs=1e-12)


def test_a_draw_is_half_a_win_and_half_a_loss():
    with_draws = counts_of([[0, 10, 3], [4, 0, 6], [9, 2, 0]], [[0, 6, 2], [6, 0, 0], [2, 0, 0]])
    without = counts_of([[0, 13, 4], [7, 0, 6], [10, 2, 0]])
    one, other = (fitted("abc", counts, {"a": 0.0}) for counts in (with_draws, without))
    np.testing.assert_allclose(one.mu, other.mu, atol=1e-12)
    np.testing.assert_allclose(one.covariance, other.covariance, atol=1e-12)


@pytest.mark.parametrize("prior", [0.0, 1.0])
def test_three_players_against_the_slow_iteration(prior):
    wins = [[0, 7, 2], [5, 0, 11], [8, 4, 0]]
    fit = fitted("abc", counts_of(wins), {"a": 0.0}, prior=prior)
    np.testing.assert_allclose(fit.mu / SCALE, reference(wins, 0, prior), atol=1e-12)


def test_several_anchors_against_a_general_optimiser():
    """Likelihood, estimate and curvature by differences, with nothing of the module's in it."""
    rng = np.random.default_rng(3)
    wins = rng.integers(1, 30, (5, 5))
    anchors = {"a": 0.0, "d": 9.0}
    fit = fitted("abcde", counts_of(wins), anchors, prior=0)

    def loss(free):
        b, c, e = free
        nats = [0.0, b, c, 9.0 / SCALE, e]
        return sum(
            wins[i, j] * math.log1p(math.exp(nats[j] - nats[i])) for i in range(5) for j in range(5) if i != j
        )

    best = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-7})
    np.testing.assert_allclose(fit.mu[[1, 2, 4]] / SCALE, best.x, atol=1e-5)
    assert fit.mu[3] == 9.0
    step = 1e-3 * np.eye(3)
    curvature = np.array(
        [
            [
                (loss(best.x + u + v) - loss(best.x + u - v) - loss(best.x - u + v) + loss(best.x - u - v))
                / 4e-6
                for u in step
            ]
            for v in step
        ]
    )
    free = np.ix_([1, 2, 4], [1, 2, 4])
    np.testing.assert_allclose(fit.covariance[free] / SCALE**2, np.linalg.inv(curvature), rtol=1e-4)
    assert not fit.covariance[[0, 3]].any()


def test_the_maximum_is_exact():
    """Scores expected of the fitted ratings are the scores achieved: the likelihood equations."""
    rng = np.random.default_rng(0)
    theta = np.concatenate([[0], rng.normal(0, 2, 99)])
    counts = simulated(theta, 30, rng)
    fit = fitted([str(i) for i in range(100)], counts, {"0": 0.0}, prior=0)
    nats = fit.mu / SCALE
    expected = (30 / (1 + np.exp(nats - nats[:, None]))).sum(axis=1) - 15
    np.testing.assert_allclose(expected[1:], counts[1:, :, 0].sum(axis=1), rtol=1e-12)


def test_intervals_cover_the_truth_95_times_in_100():
    rng = np.random.default_rng(1)
    theta = np.array([0, -1.0, -0.3, 0.4, 1.0, 1.5])
    inside, apart = [], []
    for _ in range(300):
        fit = fitted("abcdef", simulated(theta, 20, rng), {"a": 0.0})
        inside.append((fit.interval[:, 0] <= theta * SCALE) & (theta * SCALE <= fit.interval[:, 1]))
        gap = fit.difference("f", "c")
        apart.append(abs(gap.mu - 1.8 * SCALE) <= 1.96 * gap.sigma)
    cover = np.mean(inside, axis=0)
    assert cover[0] == 1.0  # the anchor
    np.testing.assert_allclose(cover[1:], 0.95, atol=0.03)  # 2.4 standard errors of a share in 300
    assert np.mean(apart) == pytest.approx(0.95, abs=0.03)


def test_with_draws_intervals_are_wider_than_need_be():
    rng = np.random.default_rng(2)
    theta = np.array([0, 0.5, 1.0])
    fits = [fitted("abc", simulated(theta, 40, rng, draws=0.5), {"a": 0.0}) for _ in range(200)]
    errors = np.array([fit.mu[2] for fit in fits]).std()
    claimed = np.mean([fit.sigma()[2] for fit in fits])
    assert 0.6 * claimed < errors < 0.9 * claimed


def test_a_test_of_two_equal_players_is_wrong_5_times_in_100():
    rng = np.random.default_rng(4)
    theta = np.array([0, 0.7, 0.7, -0.5])
    p_values = [
        fitted("abcd", simulated(theta, 25, rng), {"a": 0.0}).difference("b", "c").p_value for _ in range(400)
    ]
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.025)
    assert np.mean(np.array(p_values) < 0.5) == pytest.approx(0.5, abs=0.06)


def test_names_and_their_order_do_not_matter():
    rng = np.random.default_rng(5)
    counts = simulated(rng.normal(0, 1, 6), rng.integers(0, 9, (6, 6)), rng, draws=0.2)
    order = rng.permutation(6)
    one = fitted("abcdef", counts, {"a": 0.0, "c": 4.0})
    other = fitted([*np.array(list("abcdef"))[order]], counts[np.ix_(order, order)], {"a": 0.0, "c": 4.0})
    np.testing.assert_allclose(one.mu[order], other.mu, atol=1e-10)
    np.testing.assert_allclose(one.interval[order], other.interval, atol=1e-10)
    assert one.difference("b", "e") == pytest.approx(other.difference("b", "e"), abs=1e-10)
    assert one.difference("e", "b").mu == -one.difference("b", "e").mu


def test_the_scale_moves_with_its_anchor():
    rng = np.random.default_rng(6)
    counts = simulated(rng.normal(0, 1, 4), 12, rng)
    one, other = (fitted("abcd", counts, {"a": mu}) for mu in (0.0, 7.0))
    np.testing.assert_allclose(other.mu, one.mu + 7, atol=1e-10)
    np.testing.assert_allclose(other.covariance, one.covariance, atol=1e-10)


def test_equal_records_give_equal_ratings():
    wins = [[0, 3, 3, 9], [7, 0, 4, 8], [7, 4, 0, 8], [1, 2, 2, 0]]
    fit = fitted(("random", "b", "c", "d"), counts_of(wins), {"random": 0.0})
    assert fit.mu[1] == pytest.approx(fit.mu[2], abs=1e-12)
    same = fit.difference("b", "c")
    assert same.p_value == pytest.approx(1.0)
    assert same.sigma < math.hypot(*fit.sigma()[1:3])  # the anchor's error is common to both
    assert fit.difference("b", "b") == (0.0, 0.0, 1.0)
    assert fit.difference("b", "d").p_value < 0.05


def test_who_never_met_an_anchor_has_no_rating():
    wins = np.zeros((6, 6), int)
    wins[0, 1], wins[1, 0], wins[1, 2], wins[2, 1] = 3, 5, 4, 4  # a - b - c
    wins[3, 4], wins[4, 3] = 6, 2  # d - e, and f alone
    fit = fitted("abcdef", counts_of(wins), {"a": 0.0})
    assert np.isfinite(fit.mu[:3]).all()
    assert np.isnan(fit.mu[3:]).all()
    np.testing.assert_array_equal(fit.interval[3:], [[-np.inf, np.inf]] * 3)
    np.testing.assert_array_equal(fit.sigma()[3:], np.inf)
    assert math.isnan(fit.difference("d", "e").p_value)
    assert math.isinf(fit.difference("a", "f").sigma)
    alone = fitted("abc", counts_of(wins[:3, :3]), {"a": 0.0})
    np.testing.assert_array_equal(fit.mu[:3], alone.mu)


def test_what_the_prior_alone_bounds_has_an_open_interval():
    """b always beat the anchor, c and b won and lost, d always lost; e beat c and lost to the anchor."""
    wins = np.zeros((5, 5), int)
    wins[1, 0], wins[1, 2], wins[2, 1], wins[0, 3], wins[4, 2], wins[0, 4] = 20, 3, 3, 9, 1, 1
    fit = fitted("abcde", counts_of(wins), {"a": 0.0})
    assert np.isfinite(fit.mu).all()
    assert fit.mu[1] > 0
    np.testing.assert_array_equal(np.isinf(fit.interval[3]), [True, False])
    np.testing.assert_array_equal(
        np.isinf(fit.interval[[1, 2, 4]]), False
    )  # bounded by e, which the anchor beat
    wins[4, 2] = wins[0, 4] = 0
    fit = fitted("abcde", counts_of(wins), {"a": 0.0})
    np.testing.assert_array_equal(np.isinf(fit.interval[1:3]), [[False, True]] * 2)
    with pytest.raises(UserError, match="without a prior"):
        fitted("abcde", counts_of(wins), {"a": 0.0}, prior=0)


def test_a_long_chain_keeps_its_length():
    """Each beats the one before in three of four matches and meets nobody else: no shrinking with length."""
    number = 60
    wins = np.zeros((number, number), int)
    for k in range(1, number):
        wins[k, k - 1], wins[k - 1, k] = 300, 100
    fit = fitted([str(k) for k in range(number)], counts_of(wins), {"0": 0.0})
    np.testing.assert_allclose(fit.mu / SCALE, np.arange(number) * math.log(3), rtol=0.005)


def test_far_and_contradictory_anchors_still_give_a_maximum():
    wins = [[0, 0, 5], [0, 0, 5], [5, 5, 0]]
    fit = fitted("abc", counts_of(wins), {"a": 0.0, "b": 300.0})
    assert 0 < fit.mu[2] < 300


def test_matches_against_oneself_do_not_count():
    wins = np.array([[0, 3, 5], [7, 0, 4], [2, 9, 0]])
    one, other = (
        fitted("abc", counts_of(wins + np.diag(own)), {"a": 0.0}) for own in ([0] * 3, [40, 30, 20])
    )
    np.testing.assert_array_equal(one.mu, other.mu)


def test_payoffs_of_a_league_are_taken_over_all_teams():
    counts = counts_of([[0, 3], [5, 0]])
    by_team = np.stack([counts, counts], axis=2)
    zeros = np.zeros((2, 2, 2))
    payoffs = Payoffs(("random", "main"), by_team, zeros, zeros, zeros)
    fit = of_payoffs(payoffs, {"random": 0.0})
    assert fit.mu[1] == pytest.approx(calibrated(Counts(10, 0, 6)).mu)
    np.testing.assert_array_equal(fit.mu, fitted(("random", "main"), 2 * counts, {"random": 0.0}).mu)


@pytest.mark.parametrize("anchors", [{}, {"bot:x": 1.0}])
def test_a_scale_without_anchors_is_refused(anchors):
    with pytest.raises(UserError, match="the players are: random, a"):
        fitted(("random", "a"), counts_of([[0, 1], [1, 0]]), anchors)


def test_a_table_that_contradicts_itself_is_refused():
    counts = counts_of([[0, 3], [5, 0]])
    counts[1, 0, 0] += 1
    with pytest.raises(AssertionError):
        fitted("ab", counts, {"a": 0.0})


def test_it_agrees_with_the_rating_of_one_player_at_a_time():
    """The same simulated matches, by openskill's updates and by likelihood: each in the other's interval."""
    rng = np.random.default_rng(7)
    for truth in rng.normal(8, 6, 30):
        shares = 1 / (1 + np.exp(-(truth - np.array([0.0, 15.0])) / SCALE))
        won = rng.binomial(64, shares)
        matches = [(Rating(mu, 0.0), Counts(int(w), 0, 64 - int(w))) for mu, w in zip((0.0, 15.0), won)]
        rating = updated(Rating(0.0, SIGMA), matches)
        wins = np.zeros((3, 3), int)
        wins[2, :2], wins[:2, 2] = won, 64 - won
        fit = fitted(("random", "bot", "a"), counts_of(wins), {"random": RANDOM.mu, "bot": 15.0})
        assert fit.interval[2, 0] < rating.mu < fit.interval[2, 1]
        assert abs(fit.mu[2] - rating.mu) < 1.96 * rating.sigma


# Planted bugs: each makes the suite red where it says.


def test_a_wrong_information_is_noticed(monkeypatch):
    right = bradley_terry._derivatives

    def wrong(score, theta):
        gradient, information = right(score, theta)
        return gradient, information * 2

    monkeypatch.setattr(bradley_terry, "_derivatives", wrong)
    with pytest.raises(AssertionError):
        test_two_players_by_hand()


def test_losses_taken_for_wins_are_noticed(monkeypatch):
    right = bradley_terry._scores
    monkeypatch.setattr(bradley_terry, "_scores", lambda counts: right(counts).T)
    with pytest.raises(AssertionError):
        test_the_published_baseball_example()


def test_a_prior_against_the_origin_is_noticed(monkeypatch):
    def to_the_first(games, fixed, prior):
        virtual = np.zeros_like(games)
        virtual[1:, 0] = virtual[0, 1:] = prior
        return virtual

    monkeypatch.setattr(bradley_terry, "_virtual", to_the_first)
    with pytest.raises(AssertionError):
        test_a_long_chain_keeps_its_length()
