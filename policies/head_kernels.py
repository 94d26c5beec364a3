"""A masked categorical on a CPU in one pass: at acting's and a minibatch's sizes torch's calls cost more."""

from __future__ import annotations

import numba
import numpy as np

_LOWEST = np.finfo(np.float32).min


@numba.njit(nogil=True, cache=True, error_model="numpy")
def sample(logits, legal, uniform, action, logp):  # type: ignore[no-untyped-def]
    """Rows R: logits [R, n], legal [R, n] bool, uniform [R] in [0, 1) -> action [R], logp [R] written."""
    rows, choices = logits.shape
    weight = np.empty(choices, np.float32)
    for r in range(rows):
        top = np.float32(-np.inf)
        for a in range(choices):
            if legal[r, a] and logits[r, a] > top:
                top = logits[r, a]
        total = np.float32(0.0)
        for a in range(choices):
            weight[a] = np.exp(logits[r, a] - top) if legal[r, a] else np.float32(0.0)
            total += weight[a]
        target, passed, chosen = uniform[r] * total, np.float32(0.0), -1
        for a in range(choices):
            if legal[r, a]:
                chosen = a
                passed += weight[a]
                if passed > target:
                    break
        action[r] = chosen
        logp[r] = logits[r, chosen] - top - np.log(total)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def evaluate(logits, legal, choice, prob, log_total, logp, entropy):  # type: ignore[no-untyped-def]
    """Rows R: logits [R, n], legal [R, n] bool, choice [R] -> prob [R, n], logp, entropy [R] written.

    log p of a legal action is its logit less log_total [R], written too; prob is 0 where illegal, and logp
    of an illegal choice the lowest number. Where nothing is legal the entropy is 0.
    """
    rows, choices = logits.shape
    for r in range(rows):
        top = np.float32(-np.inf)
        for a in range(choices):
            if legal[r, a] and not logits[r, a] <= top:
                top = logits[r, a]
        total = np.float32(0.0)
        mean = np.float32(0.0)  # of the logits less their top, weighted
        for a in range(choices):
            weight = np.float32(0.0)
            if legal[r, a]:
                weight = np.exp(logits[r, a] - top)
                mean += weight * (logits[r, a] - top)
            prob[r, a] = weight
            total += weight
        if total == np.float32(0.0):  # nothing is legal
            top, total = np.float32(0.0), np.float32(1.0)
        for a in range(choices):
            prob[r, a] /= total
        log_total[r] = top + np.log(total)
        entropy[r] = np.log(total) - mean / total
        logp[r] = logits[r, choice[r]] - log_total[r] if legal[r, choice[r]] else _LOWEST


@numba.njit(nogil=True, cache=True, error_model="numpy")
def evaluate_backward(  # type: ignore[no-untyped-def]
    logits, legal, choice, prob, log_total, entropy, grad_logp, grad_entropy, grad
):
    """grad [R, n] of the logits, written: d logp = 1[choice] - p and d entropy = -p (log p + entropy)."""
    rows, choices = prob.shape
    for r in range(rows):
        for a in range(choices):
            grad[r, a] = np.float32(0.0)
            if legal[r, a]:
                pull = grad_entropy[r] * (logits[r, a] - log_total[r] + entropy[r])
                grad[r, a] = -prob[r, a] * (grad_logp[r] + pull)
        if legal[r, choice[r]]:
            grad[r, choice[r]] += grad_logp[r]
