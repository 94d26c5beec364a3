"""Which past self to meet: OpenAI Five's quality scores. N past selves.

Source: Dota 2 with Large Scale Deep Reinforcement Learning, arXiv:1912.06680.
"""

from __future__ import annotations

import numpy as np

MAX_DROP = 1.0
"""Nats that one opponent's quality may lose in one update."""


def probabilities(quality: np.ndarray) -> np.ndarray:
    """p_i = exp(q_i) / sum_j exp(q_j); quality [N] -> [N] float64, which sums to 1 (empty for N = 0)."""
    if len(quality) == 0:
        return np.zeros(0)
    weight = np.exp(np.asarray(quality, np.float64) - np.max(quality))
    return weight / weight.sum()


def after_wins(quality: np.ndarray, wins: np.ndarray, *, lr: float) -> np.ndarray:
    """Qualities after the current self beat past self i `wins[i]` times; all arrays and the result [N].

        q_i <- q_i - min(lr * wins_i / (N * p_i), MAX_DROP),  p the probabilities before the update

    Nothing changes on a loss or a draw. The division by p_i makes the expected drop independent of how
    often i is drawn. It also needs a bound: a rollout keeps a drawn opponent for a whole block of matches,
    so one unlikely draw brings many wins at once, and their sum over a p_i that tends to 0 diverges, which
    would expel the opponent for good.
    """
    p = probabilities(quality)
    if len(p) == 0:
        return p
    drop = lr * np.asarray(wins, np.float64) / (len(p) * np.maximum(p, 1e-300))  # p_i may underflow to 0
    return np.asarray(quality, np.float64) - np.minimum(drop, MAX_DROP)


def joining(quality: np.ndarray) -> float:
    """The quality at which a new past self joins: the highest of all, or 0 in an empty pool."""
    return float(np.max(quality)) if len(quality) else 0.0
