import math

import numpy as np
import pytest
from openskill.models import BradleyTerryFull

from selfplay.league.ratings import (
    RANDOM,
    SCALE,
    SIGMA,
    Counts,
    Rating,
    calibrated,
    successor,
    updated,
)


def posterior(prior, matches):
    """Mean and standard deviation of the exact posterior, on a grid: the slow definition."""
    x = np.linspace(prior.mu - 8 * prior.sigma, prior.mu + 8 * prior.sigma, 20_001)
    log_density = -((x - prior.mu) ** 2) / (2 * prior.sigma**2)
    for anchor, (wins, draws, losses) in matches:
        gap = (x - anchor.mu) / SCALE
        log_density -= (wins + draws / 2) * np.logaddexp(0, -gap) + (losses + draws / 2) * np.logaddexp(
            0, gap
        )
    density = np.exp(log_density - log_density.max())
    density /= density.sum()
    mean = (density * x).sum()
    return mean, math.sqrt((density * (x - mean) ** 2).sum())


NEW = Rating(0.0, SIGMA)
BOT = Rating(15.0, 0.0)


def test_the_scale_is_that_of_the_paper():
    assert 1 / (1 + math.exp(-8.3 / SCALE)) == pytest.approx(0.8, abs=0.005)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 0.9])
def test_the_rating_tends_to_the_logit_of_the_score(share):
    counts = Counts(round(1000 * share), 0, round(1000 * (1 - share)))
    rating = updated(NEW, [(RANDOM, counts)])
    assert rating.mu == pytest.approx(SCALE * math.log(share / (1 - share)), abs=0.35)
    assert 1 / (1 + math.exp(-rating.mu / SCALE)) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(
    ("prior", "matches"),
    [
        (NEW, [(RANDOM, Counts(48, 0, 16))]),
        (NEW, [(RANDOM, Counts(0, 64, 0))]),
        (NEW, [(RANDOM, Counts(61, 0, 3))]),
        (NEW, [(RANDOM, Counts(60, 0, 4)), (BOT, Counts(20, 10, 34))]),
        (NEW, [(RANDOM, Counts(64, 0, 0)), (BOT, Counts(0, 0, 64))]),
        (Rating(20.0, SIGMA), [(RANDOM, Counts(48, 0, 16))]),
        (Rating(5.0, 2.0), [(RANDOM, Counts(48, 0, 16))]),
    ],
)
def test_the_rating_is_close_to_the_exact_posterior(prior, matches):
    mean, deviation = posterior(prior, matches)
    rating = updated(prior, matches)
    assert rating.mu == pytest.approx(mean, abs=0.6 * deviation)
    assert rating.sigma == pytest.approx(deviation, rel=0.25)


def test_the_order_of_the_anchors_does_not_matter():
    matches = [(RANDOM, Counts(50, 4, 10)), (BOT, Counts(20, 10, 34))]
    assert updated(NEW, matches) == updated(NEW, matches[::-1])


def test_more_matches_leave_less_doubt_and_none_change_nothing():
    assert updated(NEW, []) == NEW
    assert updated(NEW, [(RANDOM, Counts(0, 0, 0))]) == NEW
    few, many = (updated(NEW, [(RANDOM, Counts(n, 0, n))]).sigma for n in (8, 64))
    assert many < few < SIGMA


def test_wins_raise_losses_lower_and_draws_pull_towards_the_anchor():
    assert updated(NEW, [(RANDOM, Counts(1, 0, 0))]).mu > 0
    assert updated(NEW, [(RANDOM, Counts(0, 0, 1))]).mu < 0
    assert 0 < updated(NEW, [(BOT, Counts(0, 1, 0))]).mu < BOT.mu


def test_calibration_by_hand():
    assert calibrated(Counts(30, 4, 6)).mu == pytest.approx(SCALE * math.log(32.5 / 8.5))
    assert calibrated(Counts(10, 0, 10)) == (0.0, 0.0)


def test_calibration_of_a_perfect_score_is_finite():
    assert calibrated(Counts(64, 0, 0)).mu == pytest.approx(SCALE * math.log(129))
    assert calibrated(Counts(0, 0, 64)).mu == pytest.approx(-SCALE * math.log(129))


def test_a_successor_starts_at_the_mean_with_full_doubt():
    assert successor(Rating(12.0, 0.7)) == (12.0, SIGMA)


def test_the_model_of_the_library_is_as_published():
    """One beats a team of two: "normal" of openskill's own tests/models/data/bradleyterryfull.json."""
    model = BradleyTerryFull(mu=33.93520996667812, sigma=9.863910103294474)
    (one,), two = model.rate([[model.rating()], [model.rating(), model.rating()]])
    assert (one.mu, one.sigma) == pytest.approx((38.60492430454205, 9.771557303944002), rel=1e-12)
    for player in two:
        assert (player.mu, player.sigma) == pytest.approx((29.265495628814193, 9.73289909385935), rel=1e-12)


@pytest.mark.parametrize(
    ("counts", "sign"), [(Counts(1, 0, 0), 1), (Counts(0, 1, 0), 0), (Counts(0, 0, 1), -1)]
)
def test_one_match_against_an_equal_anchor_by_hand(counts, sign):
    """Weng and Lin's algorithm 1 for two players, gamma 1:

        c^2 = sigma^2 + 2 beta^2,  mu += sigma^2 / c (s - p),  sigma^2 *= 1 - (sigma / c)^2 p (1 - p)

    with sigma = 2 beta and p = 1/2: c^2 = 3/2 sigma^2, mu = +-sigma / sqrt(6), and sigma^2 falls by a sixth.
    """
    rating = updated(NEW, [(RANDOM, counts)])
    assert rating.mu == pytest.approx(sign * SIGMA / math.sqrt(6), abs=1e-6)
    assert rating.sigma == pytest.approx(SIGMA * math.sqrt(5 / 6), rel=1e-6)


def test_simulated_players_are_where_their_intervals_say():
    """The truth drawn from the prior lies within 1.96 sigma of the rating about 95 times in 100."""
    rng = np.random.default_rng(0)
    inside = []
    for truth in rng.normal(0, SIGMA, 300):
        matches = []
        for anchor in (RANDOM, BOT, Rating(-10.0, 0.0)):
            won = int(rng.binomial(32, 1 / (1 + math.exp(-(truth - anchor.mu) / SCALE))))
            matches.append((anchor, Counts(won, 0, 32 - won)))
        rating = updated(NEW, matches)
        inside.append(abs(rating.mu - truth) < 1.96 * rating.sigma)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.04)
