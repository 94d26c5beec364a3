"""splitmix64 against its published numbers."""

from __future__ import annotations

import numpy as np

from envs.random_bits import next_random


def test_next_random_is_splitmix64():
    """First outputs from seed 1234567, as in Vigna's splitmix64.c."""
    state, drawn = 1234567, []
    for _ in range(5):
        state, bits = next_random(np.uint64(state))
        drawn.append(bits)
    assert drawn == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
