"""Reward scale and PopArt against hand-worked numbers."""

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.moments import RunningMoments
from selfplay.normalize import RewardScale, popart_
from selfplay.returns import gae


def double(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def test_reward_scale_hand_worked():
    # Nothing known: rewards stay. Targets 3, 7: std 2, so a reward of 6 becomes 3.
    # Targets 1, 2 then, in units of 2, are 2 and 4: all are 3, 7, 2, 4 with mean 4 and
    # variance (1 + 9 + 4 + 0) / 4 = 3.5; a reward of 6 becomes 6 / 1.870829 = 3.207135
    scale, reward = RewardScale(), torch.tensor([[6.0]])
    assert scale.scale(reward).item() == 6.0
    scale.update(torch.tensor([[3.0], [7.0]]))
    assert scale.scale(reward).item() == 3.0
    scale.update(torch.tensor([[1.0], [2.0]]))
    assert scale.scale(reward).item() == pytest.approx(3.207135)


@pytest.mark.parametrize("unit", [1.0, 1000.0, 0.001])
def test_reward_scale_makes_the_unit_of_rewards_irrelevant(unit):
    generator = torch.Generator().manual_seed(3)
    scale, never, zero = RewardScale(), torch.zeros(16, 64, dtype=torch.bool), torch.zeros(16, 64)
    for _ in range(20):
        reward = unit * torch.randn(16, 64, generator=generator)
        target = gae(scale.scale(reward), zero, zero, never, never, gamma=0.9, lam=1.0)
        scale.update(target)
    # A sum of k terms has variance 1 + .81 + .81^2 ... = (1 - .81^k) / .19, for k of 1 to 16 equally often.
    std = math.sqrt(statistics.fmean((1 - 0.81**k) / 0.19 for k in range(1, 17)))
    assert scale.moments.std.item() == pytest.approx(unit * std, rel=0.03)
    assert target.std().item() == pytest.approx(1.0, rel=0.1)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_popart_leaves_outputs_in_reward_units_unchanged(seed, per_output):
    generator = torch.Generator().manual_seed(seed)
    head = torch.nn.Linear(5, 3, dtype=torch.float64)
    hidden = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    shape = (3,) if per_output else ()
    old_mean, new_mean = torch.randn(2, *shape, generator=generator, dtype=torch.float64) * 10
    old_std, new_std = torch.rand(2, *shape, generator=generator, dtype=torch.float64) + 0.1
    before = head(hidden) * old_std + old_mean
    normalized = head(hidden).detach()
    popart_(head.weight, head.bias, old_mean, old_std, new_mean, new_std)
    torch.testing.assert_close(head(hidden) * new_std + new_mean, before)
    assert not torch.allclose(head(hidden), normalized)


def test_popart_hand_worked_with_the_moments_of_two_updates():
    # Mean 5, std sqrt 8 as in the first test, from mean 0, std 1:
    # w = 4 / 2.828427 = 1.414214, b = (1 + 0 - 5) / 2.828427 = -1.414214
    head = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(head.weight, 4.0)
    torch.nn.init.constant_(head.bias, 1.0)
    moments = RunningMoments()
    old_mean, old_std = moments.mean.clone(), moments.std
    moments.update(double([1, 3, 5, 7, 9]))
    popart_(head.weight, head.bias, old_mean, old_std, moments.mean, moments.std)
    assert head.weight.item() == pytest.approx(math.sqrt(2))
    assert head.bias.item() == pytest.approx(-math.sqrt(2))
