"""The equilibrium of a symmetric zero-sum game of N strategies: which mixture of players nobody beats."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.optimize import linprog, nnls

ROUNDING = 1e-9
"""Probabilities below are 0."""

SLACK = 1e-6
"""How much least squares' equilibrium may lose to a pure strategy, of the largest entry of the game."""

FLATNESS = 1e-5
"""What linear programming may give away, in the same unit, for a largest probability of 0 instead of 1."""


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
    mixture = _cleaned(_least_squares(matrix))
    if exploitability(matrix, mixture) >= SLACK:
        mixture = _cleaned(_least_maximum(matrix))
        assert exploitability(matrix, mixture) < 2 * FLATNESS, "a finite game has an equilibrium"
    return mixture


def _cleaned(weight: np.ndarray) -> np.ndarray:
    """weight [N] without rounding errors, and with the sum 1; equal shares where nothing is left."""
    weight = np.maximum(weight, 0.0)
    mixture = weight / weight.sum() if weight.sum() > 0 else np.full(len(weight), 1 / len(weight))
    mixture[mixture < ROUNDING] = 0.0
    return mixture / mixture.sum()


def _least_squares(matrix: np.ndarray) -> np.ndarray:
    """The answer [N], up to a factor, as a least-distance problem by non-negative least squares.

    Source: Lawson & Hanson 1974, "Solving Least Squares Problems", chapter 23.
    """
    num = len(matrix)
    # Rows of G p >= h: p >= 0, p A >= 0 and sum p >= 1, which the smallest p meets with equality.
    bounds = np.concatenate([np.eye(num), matrix.T, np.ones((1, num))])
    system = np.concatenate([bounds.T, np.eye(1, 2 * num + 1, 2 * num)])
    target = np.eye(1, num + 1, num)[0]
    weights, _ = nnls(system, target, maxiter=30 * len(bounds))
    return system[:num] @ weights


def _least_maximum(matrix: np.ndarray) -> np.ndarray:
    """An equilibrium [N] with a small largest entry, by linear programming.

        max v - FLATNESS * m   over   p >= 0,  sum_i p_i = 1,  (p A)_j >= v,  p_i <= m

    For the tables on which SciPy's least squares break down: players that differ in the seventh digit, and
    some of those with a hundred players or more that hold wins and losses alone. The latter, without draws,
    have one equilibrium (Fisher & Ryan 1992, "Optimal strategies for a generalized 'scissors, paper, and
    stone' game"), so that the answer is the same.
    """
    num = len(matrix)
    one, zero = np.ones((num, 1)), np.zeros((num, 1))
    # Of (p, m, v): v - (p A)_j <= 0 and p_i - m <= 0.
    tight = np.block([[-matrix.T, zero, one], [np.eye(num), -one, zero]])
    found = linprog(
        np.concatenate([np.zeros(num), [FLATNESS, -1.0]]),
        A_ub=tight,
        b_ub=np.zeros(2 * num),
        A_eq=np.concatenate([np.ones(num), np.zeros(2)])[None],
        b_eq=[1.0],
        bounds=[(0, None)] * (num + 1) + [(None, None)],
    )
    assert found.x is not None, found.message
    return found.x[:num]


def meta_strategy(payoff: np.ndarray) -> np.ndarray:
    """PSRO's mixture [N] over players from their scores payoff [N, N] against each other, .5 where NaN.

    The game's entries are payoff - 1/2; what two players scored in both orders is averaged, so that the
    game is antisymmetric. Source: Lanctot et al. 2017, arXiv:1711.00832.
    """
    centred = np.nan_to_num(np.asarray(payoff, np.float64), nan=0.5) - 0.5
    return _solved(((centred - centred.T) / 2).tobytes(), len(centred)).copy()


@lru_cache(maxsize=2)
def _solved(advantage: bytes, num: int) -> np.ndarray:
    """`equilibrium`, which takes a while among many, once for the draws between two changes of the pool."""
    return equilibrium(np.frombuffer(advantage).reshape(num, num))
