"""Ratings of all players at once, with intervals, from the table of who beat whom. N players.

    P(i beats j) = 1 / (1 + exp(-(mu_i - mu_j) / SCALE))

The scale is that of selfplay.league.ratings; some players are anchors, whose ratings are given. Source:
Bradley and Terry 1952, Biometrika 39. Two choices of ours:

- A draw is half a win and half a loss. The variance of such a score is at most that of wins and losses
  with the same mean, so that with draws intervals are if anything too wide. Davidson's model (1970), with a
  parameter for draws, would be another.
- Every rated player has one more match than it played, half won and half lost, spread over its opponents as
  its matches are. So whoever always won stays finite, and no rating depends on players never met. Against
  anchors alone this is Jeffreys' prior for a proportion, as in `ratings.calibrated`.

Meetings count as independent. Those of one match of more than two teams are not quite, nor are those of a
player that learns one player's: take frozen players.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import erfc, expit

from selfplay.errors import UserError
from selfplay.evaluate import Z95
from selfplay.league.payoffs import Payoffs
from selfplay.league.ratings import SCALE

ELO = 400 / math.log(10) / SCALE
"""Elo for each rating point: multiply ratings, deviations and interval ends by it."""
PRIOR = 1.0
"""Matches that every rated player has beside those played, half won and half lost."""

_MOST_STEPS = 500
_CONVERGED = 1e-9  # nats of the last step: the error left is of its square's order


class Difference(NamedTuple):
    """How far one player is above another, in rating points."""

    mu: float
    sigma: float  # standard error
    p_value: float  # two-sided, of no difference; NaN where either is not rated


@dataclass(frozen=True, slots=True)
class Strengths:
    """Ratings in points; Elo by the factor ELO. NaN and infinite where no matches lead to an anchor."""

    players: tuple[str, ...]  # [N]
    mu: np.ndarray  # [N] float64
    covariance: np.ndarray  # [N, N] points^2, 0 for anchors; of the unrated NaN, infinite on the diagonal
    interval: np.ndarray  # [N, 2] 95%; infinite ends where no result bounds the rating, as after wins alone

    def sigma(self) -> np.ndarray:
        """[N] standard error; infinite where unrated. Finite by the prior where an interval is open."""
        return np.sqrt(np.diagonal(self.covariance))

    def difference(self, player: str, other: str) -> Difference:
        """mu_i - mu_j, its standard error from the covariance, and Wald's test of a difference."""
        i, j = self.players.index(player), self.players.index(other)
        if not (np.isfinite(self.mu[i]) and np.isfinite(self.mu[j])):
            return Difference(math.nan, math.inf, math.nan)
        gap = float(self.mu[i] - self.mu[j])
        variance = self.covariance[i, i] + self.covariance[j, j] - 2 * self.covariance[i, j]
        sigma = math.sqrt(max(float(variance), 0.0))
        if sigma == 0.0:  # anchors, or the same player: known
            return Difference(gap, 0.0, 1.0 if gap == 0 else 0.0)
        return Difference(gap, sigma, float(erfc(abs(gap) / sigma / math.sqrt(2))))


def of_payoffs(payoffs: Payoffs, anchors: Mapping[str, float]) -> Strengths:
    """The ratings from a league's payoffs, all teams together."""
    return fitted(payoffs.players, payoffs.counts.sum(axis=2), anchors)


def fitted(
    players: Sequence[str], counts: np.ndarray, anchors: Mapping[str, float], *, prior: float = PRIOR
) -> Strengths:
    """Ratings of greatest posterior likelihood and the inverse of the observed Fisher information.

        sum_ij s_ij log P(i beats j) -> max,  s_ij = wins + draws/2 + share of the prior
        I_ij = -n_ij p_ij (1 - p_ij) for i != j,  I_ii = sum_j n_ij p_ij (1 - p_ij),  n = s + s^T

    counts: [N, N, 3] wins, draws, losses of row against column, each match in both its rows; the diagonal
    does not count. anchors: rating points by name. prior: see PRIOR; 0 is plain maximum likelihood, which
    has no maximum where an interval is open: a UserError then.

    Intervals are mu -+ 1.96 sigma (Wald's, in log-odds). An end is open where the prior alone bounds it: no
    chain of matches not lost (below) or not won (above) leads from the player to an anchor.
    """
    unknown = sorted(anchors.keys() - set(players))
    if unknown or not anchors:
        raise UserError(
            f"ratings need anchors among the players; got {', '.join(unknown) or 'none'}, "
            f"the players are: {', '.join(players)}"
        )
    score = _scores(counts)
    fixed = np.array([name in anchors for name in players])
    games = score + score.T
    rated = _reaching(games > 0, fixed)
    open_end = ~np.stack([_reaching(score > 0, fixed), _reaching(score.T > 0, fixed)], axis=1)  # [N, 2]
    if prior == 0 and (open_end & rated[:, None]).any():
        raise UserError("without a prior some ratings are infinite: players that always won or always lost")
    nats = np.array([anchors.get(name, 0.0) for name in players]) / SCALE
    score = score + _virtual(games, fixed, prior) / 2
    free = rated & ~fixed
    nats, variance = _maximum(score, nats, free)
    covariance = SCALE**2 * variance
    covariance[~rated] = covariance[:, ~rated] = np.nan
    covariance[~rated, ~rated] = np.inf
    mu = np.where(rated, SCALE * nats, np.nan)
    half = Z95 * np.sqrt(np.diagonal(covariance))
    ends = np.stack([mu - half, mu + half], axis=1)
    interval = np.where(open_end, [-np.inf, np.inf], ends)
    return Strengths(tuple(players), mu, covariance, interval)


def _scores(counts: np.ndarray) -> np.ndarray:
    """[N, N, 3] -> [N, N] float64 matches that the row won, draws by half."""
    counts = np.asarray(counts, np.float64)
    score = counts[..., 0] + counts[..., 1] / 2
    lost = counts[..., 2] + counts[..., 1] / 2
    np.fill_diagonal(score, 0.0)
    np.fill_diagonal(lost, 0.0)
    assert np.allclose(score, lost.T), "the losses of row against column are the wins of column against row"
    return score


def _reaching(edge: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Who gets to a goal along edges from row to column: edge [N, N] bool, goal [N] bool -> [N] bool."""
    reached, newest = goal.copy(), goal
    while newest.any():
        newest = edge[:, newest].any(axis=1) & ~reached
        reached |= newest
    return reached


def _virtual(games: np.ndarray, fixed: np.ndarray, prior: float) -> np.ndarray:
    """games [N, N] -> [N, N] the prior's matches, spread over each rated player's own as those are."""
    total = games.sum(axis=1, keepdims=True)
    spread = prior * np.divide(games, total, out=np.zeros_like(games), where=(total > 0) & ~fixed[:, None])
    return spread + spread.T


def _maximum(score: np.ndarray, start: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Newton's method on the concave log-likelihood, in nats.

    score [N, N], start [N], free [N] bool -> where the likelihood of the free ones is greatest [N], and
    its covariance [N, N], 0 for the others.
    """
    theta, variance = start.copy(), np.zeros_like(score)
    who = np.flatnonzero(free)
    met = np.flatnonzero(free | ((score + score.T)[:, free] > 0).any(axis=1))  # the others change nothing
    score, inner = score[np.ix_(met, met)], np.searchsorted(met, who)
    rounding = 4 * np.finfo(np.float64).eps * (score + score.T).sum(axis=1)  # of the gradient
    if len(who) == 0:
        return theta, variance
    height = _log_likelihood(score, theta[met])
    for _ in range(_MOST_STEPS):
        gradient, information = _derivatives(score, theta[met])
        level = np.abs(gradient[inner]) <= rounding[inner]
        step = np.zeros_like(theta)
        step[who] = np.linalg.solve(information[np.ix_(inner, inner)], gradient[inner])
        while (reached := _log_likelihood(score, (theta + step)[met])) < height - 1e-9 * abs(height):
            step /= 2
        theta, height = theta + step, reached
        if np.abs(step).max() < _CONVERGED or level.all():
            _, information = _derivatives(score, theta[met])
            variance[np.ix_(who, who)] = np.linalg.inv(information[np.ix_(inner, inner)])
            return theta, variance
    raise ArithmeticError("the ratings' likelihood was not maximised")


def _derivatives(score: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the log-likelihood: gradient [N] and information (minus the second derivative) [N, N]."""
    p = expit(theta[:, None] - theta)
    gradient = (score * p.T - score.T * p).sum(axis=1)
    information = -(score + score.T) * p * p.T
    np.fill_diagonal(information, 0.0)
    np.fill_diagonal(information, -information.sum(axis=1))
    return gradient, information


def _log_likelihood(score: np.ndarray, theta: np.ndarray) -> float:
    return -float((score * np.logaddexp(0.0, theta - theta[:, None])).sum())
