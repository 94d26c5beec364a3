"""Clipping and Adam's step on a CPU, each in one pass over the vector of all parameters."""

from __future__ import annotations

import numba
import numpy as np

from policies.activations import F32, JIT


@numba.njit(**JIT)
def norm(grad):  # type: ignore[no-untyped-def]
    """Euclidean norm of grad [P], summed in float64; infinite where its square is, in float32."""
    total = 0.0
    for k in range(grad.shape[0]):
        total += np.float64(grad[k]) * np.float64(grad[k])
    return np.sqrt(F32(total))


@numba.njit(**JIT)
def clip(grad, average, sigma, decay, num_updates):  # type: ignore[no-untyped-def]
    """`selfplay.optim.clip_per_parameter_` of grad and average [P], both written; `norm` of the result."""
    bound = F32(sigma / np.sqrt(1.0 - decay**num_updates))
    keep, add = F32(decay), F32(1.0 - decay)
    total = 0.0
    for k in range(grad.shape[0]):
        g = grad[k]
        m = keep * average[k] + add * g * g
        average[k] = m
        most = bound * np.sqrt(m)
        g = most if g > most else g  # as comparisons, which let NaN through
        g = -most if g < -most else g
        grad[k] = g
        total += np.float64(g) * np.float64(g)
    return np.sqrt(F32(total))


@numba.njit(**JIT)
def adam(  # type: ignore[no-untyped-def]
    param, grad, exp_avg, exp_avg_sq, scale, lr, beta1, beta2, eps, step
):
    """Adam's step number `step`, from 1, with scale * grad; all but grad [P] are written.

        m <- beta1 m + (1 - beta1) g
        v <- beta2 v + (1 - beta2) g^2
        param <- param - lr m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + eps)

    Source: Kingma and Ba 2015, arXiv:1412.6980; eps where torch.optim.Adam has it.
    """
    scale, eps = F32(scale), F32(eps)
    keep1, add1, keep2, add2 = F32(beta1), F32(1.0 - beta1), F32(beta2), F32(1.0 - beta2)
    rate, root = F32(lr / (1.0 - beta1**step)), F32(1.0 / np.sqrt(1.0 - beta2**step))
    for k in range(grad.shape[0]):
        g = scale * grad[k]
        m = keep1 * exp_avg[k] + add1 * g
        v = keep2 * exp_avg_sq[k] + add2 * g * g
        exp_avg[k] = m
        exp_avg_sq[k] = v
        param[k] -= rate * m / (root * np.sqrt(v) + eps)
