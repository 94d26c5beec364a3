"""The equilibrium of a symmetric zero-sum game of N strategies: which mixture of players nobody beats."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.optimize import nnls

ROUNDING = 1e-6
"""Probabilities below are 0."""

SLACK = 1e-5
"""How much an equilibrium may lose to a pure strategy, of the largest entry of the game."""

RIDGE = 1e-6
"""Keeps the columns of the least squares independent."""


def exploitability(advantage: np.ndarray, mixture: np.ndarray) -> float:
    """What the best pure strategy wins against a mixture p: max_j -(p A)_j, 0 at an equilibrium.

    advantage A [N, N] antisymmetric, of row over column; mixture p [N]; in units of `advantage`.
    """
    return float(np.max(-(mixture @ advantage)))


def equilibrium(advantage: np.ndarray) -> np.ndarray:
    """The Nash equilibrium p [N] with the least sum of squares; advantage [N, N] antisymmetric.

        min sum_i p_i^2   over   p >= 0,  sum_i p_i = 1,  (p A)_j >= 0 for all j

    A symmetric zero-sum game has the value 0, so these p are all its equilibria, a convex set, and the
    nearest to uniform is unique. So the answer depends neither on the players' order nor on a solver's
    choice of corner: players that are alike get alike, and a game about which nothing is known gives
    everybody the same.
    """
    num = len(advantage)
    if num == 0:
        return np.zeros(0)
    scale = float(np.abs(advantage).max())
    matrix = np.asarray(advantage, np.float64) / (scale if scale > 0 else 1.0)
    weight = np.maximum(_least_distance(matrix), 0.0)
    mixture = weight / weight.sum()
    mixture[mixture < ROUNDING] = 0.0
    mixture /= mixture.sum()
    assert exploitability(matrix, mixture) < SLACK, "a finite game has an equilibrium"
    return mixture


def _least_distance(matrix: np.ndarray) -> np.ndarray:
    """The answer [N], up to a factor, as a least-distance problem by non-negative least squares.

    Source: Lawson & Hanson 1974, "Solving Least Squares Problems", chapter 23. Games with ties, with hundreds
    of players or with players that hardly differ make columns dependent, on which SciPy's solver ends at
    wrong answers without a word. The ridge forbids that, and moves the answer by less than SLACK.
    """
    num = len(matrix)
    # Rows of G p >= h: p >= 0, p A >= 0 and sum p >= 1, which the smallest p meets with equality.
    bounds = np.concatenate([np.eye(num), matrix.T, np.ones((1, num))])
    last = np.eye(1, len(bounds), 2 * num)
    system = np.concatenate([bounds.T, last, RIDGE * np.eye(len(bounds))])
    target = np.eye(1, len(system), num)[0]
    weights, _ = nnls(system, target, maxiter=30 * len(bounds))
    return system[:num] @ weights


def meta_strategy(payoff: np.ndarray) -> np.ndarray:
    """PSRO's mixture [N] over players from their scores payoff [N, N] against each other, .5 where NaN.

    The game's entries are payoff - 1/2; what two players scored in both orders is averaged, so that the
    game is antisymmetric. Less than a millionth is rounding and decides nothing.
    Source: Lanctot et al. 2017, arXiv:1711.00832.
    """
    centred = np.nan_to_num(np.asarray(payoff, np.float64), nan=0.5) - 0.5
    return _solved(np.round((centred - centred.T) / 2, 6).tobytes(), len(centred)).copy()


@lru_cache(maxsize=2)
def _solved(advantage: bytes, num: int) -> np.ndarray:
    """`equilibrium`, which takes a while among many, once for the draws between two changes of the pool."""
    return equilibrium(np.frombuffer(advantage).reshape(num, num))
