"""The random player keeps to what is legal: masks, and the entities that are there."""

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary

from envs.bots import random_bot

ACTION = Dict(target=Discrete(4), move=Discrete(2))
OBS = Dict(units=Box(-1, 1, (4, 2)), units_mask=MultiBinary(4))
POINTS = {"target": "units"}


def test_it_points_to_those_present_alone():
    rng = np.random.default_rng(0)
    present = rng.random((2000, 4)) < 0.5
    present[:, 1] |= ~present.any(axis=1)
    obs = {"units": np.zeros((2000, 4, 2), np.float32), "units_mask": present.astype(np.int8)}
    target = random_bot(ACTION, POINTS)(obs, {}, rng)["target"]
    assert present[np.arange(2000), target].all()
    shares = np.bincount(target[present.all(axis=1)], minlength=4) / present.all(axis=1).sum()
    assert (np.abs(shares - 0.25) < 0.12).all()
    assert not present[np.arange(2000), random_bot(ACTION)(obs, {}, rng)["target"]].all()


def test_a_mask_decides_alone():
    obs = {
        "units": np.zeros((50, 4, 2), np.float32),
        "units_mask": np.eye(4, dtype=np.int8)[np.zeros(50, int)],
    }
    only_third = np.tile([False, False, True, False], (50, 1))
    action = random_bot(ACTION, POINTS)(obs, {"target": only_third}, np.random.default_rng(0))
    assert (action["target"] == 2).all()
