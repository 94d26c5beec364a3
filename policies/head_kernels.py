"""Sampling a masked categorical on a CPU in one pass: at acting's batch sizes torch's calls cost more."""

from __future__ import annotations

import numba
import numpy as np


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
