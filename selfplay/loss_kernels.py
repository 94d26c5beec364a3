"""The loss of a minibatch and its gradient on a CPU in one pass over the elements."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(nogil=True, cache=True, error_model="numpy")
def ppo(  # type: ignore[no-untyped-def]
    logp, entropy, value, old_logp, advantage, target, unit, bounds, sums, grad_logp, grad_value
):
    """Sums of `selfplay.losses.ppo_loss`'s terms over M elements: sums [5] is written.

    bounds: log(1 - clip), log(1 + clip), log(dual_clip). grad_logp [M] and grad_value [M], written: the
    gradients of the policy's and of the value's sum.
    """
    lowest, highest, cap = bounds
    policy = squares = entropies = kl = 0.0
    outside = 0
    for m in range(logp.shape[0]):
        log_ratio = logp[m] - old_logp[m]
        held, moves = log_ratio, np.float32(1.0)
        if advantage[m] >= 0:
            if log_ratio > highest:
                held, moves = highest, np.float32(0.0)
        elif log_ratio < lowest:
            held, moves = lowest, np.float32(0.0)
        elif log_ratio > cap:
            held, moves = cap, np.float32(0.0)
        loss = -advantage[m] * np.exp(held)
        policy += loss
        grad_logp[m] = loss if moves else np.float32(0.0)
        error = (value[m] - target[m]) / unit
        squares += error * error
        grad_value[m] = error / unit
        entropies += entropy[m]
        kl += np.expm1(log_ratio) - log_ratio
        outside += log_ratio < lowest or log_ratio > highest
    sums[0], sums[1], sums[2], sums[3], sums[4] = policy, 0.5 * squares, entropies, kl, outside
