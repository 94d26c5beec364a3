"""Random bits for kernels: a generator whose state is one integer, so that a seed alone makes a match."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def next_random(state: np.uint64) -> tuple[np.uint64, np.uint64]:
    """One step of splitmix64: (next state, 64 random bits). Source: Steele et al. 2014, OOPSLA."""
    state += np.uint64(0x9E3779B97F4A7C15)
    bits = state
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state, bits ^ (bits >> np.uint64(31))


@njit(cache=True, nogil=True)
def unit_float(bits: np.uint64) -> float:
    """64 random bits as a float64 uniform in [0, 1)."""
    return np.float64(bits >> np.uint64(11)) * (1.0 / 9007199254740992.0)  # 2^-53
