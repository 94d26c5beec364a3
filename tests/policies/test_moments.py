"""Running moments against hand-worked numbers and moments of the whole data."""

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.moments import RunningMoments

batches = st.lists(st.lists(st.floats(-1e3, 1e3), max_size=6), min_size=1, max_size=6)


def double(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def of(*chunks, shape=()):
    moments = RunningMoments(shape)
    for chunk in chunks:
        moments.update(chunk)
    return moments


def test_two_updates_hand_worked():
    # {1, 3}: mean 2, m2 = 1 + 1 = 2.  {5, 7, 9}: mean 7, m2 = 4 + 0 + 4 = 8.  Together d = 5:
    # mean = 2 + 5 * 3/5 = 5, m2 = 2 + 8 + 25 * 2 * 3 / 5 = 40, var = 40 / 5 = 8
    moments = of(double([1, 3]), double([5, 7, 9]))
    assert (moments.count, moments.mean, moments.m2, moments.var) == (5, 5, 40, 8)
    # (9 - 5) / sqrt 8 = 1.414214
    assert moments.normalize(double(9.0)).item() == pytest.approx(math.sqrt(2))


@settings(deadline=None)
@given(batches)
def test_moments_are_those_of_all_samples_together(chunks):
    moments = of(*(double(chunk) for chunk in chunks))
    samples = [x for chunk in chunks for x in chunk]
    assert moments.count == len(samples)
    assert moments.mean.item() == pytest.approx(statistics.fmean(samples) if samples else 0, abs=1e-9)
    assert moments.var.item() == pytest.approx(statistics.pvariance(samples) if samples else 1, abs=1e-6)


def test_features_are_kept_apart_and_leading_axes_are_samples():
    # Samples (1, 10), (3, 30), (5, 20), (7, 20): means 4 and 20, variances (9+1+1+9)/4 = 5, (100+100)/4 = 50
    x = torch.tensor([[[1.0, 10.0], [3.0, 30.0]], [[5.0, 20.0], [7.0, 20.0]]])
    moments = of(x, shape=(2,))
    assert moments.count == 4
    assert moments.mean.tolist() == [4, 20]
    assert moments.var.tolist() == [5, 50]
    assert moments.normalize(x).shape == x.shape
    with pytest.raises(AssertionError):
        moments.update(torch.zeros(2, 3))


def test_before_any_sample_nothing_changes():
    moments, x = RunningMoments(), torch.tensor([-3.0, 40.0])
    moments.update(torch.empty(0))
    assert torch.equal(moments.normalize(x), x)


def test_empty_batches_of_features_count_nothing():
    moments = RunningMoments((3,))
    moments.update(torch.empty(0, 3))
    assert moments.count == 0
    assert RunningMoments((0,)).normalize(torch.empty(4, 0)).shape == (4, 0)


def test_clip_and_equal_samples():
    # Three times 2: std 0, held to .5 here. (10 - 2) / .5 = 16, clipped to 5; (2 - 2) / .5 = 0
    moments = RunningMoments(min_std=0.5)
    moments.update(torch.full((3,), 2.0))
    assert moments.normalize(torch.tensor([10.0, 2.0, -10.0]), clip=5.0).tolist() == [5.0, 0.0, -5.0]
    assert moments.normalize(torch.tensor(10.0)).item() == 16.0


def test_a_far_mean_does_not_swallow_the_variance():
    # 1e8 +- 1: E[x^2] - E[x]^2 in float32 would be noise of order 1e9.
    moments = of(*(double([1e8 - 1, 1e8 + 1]) for _ in range(50)))
    assert moments.var.item() == pytest.approx(1.0)


def test_float32_batches_are_summed_in_float64_and_come_back_as_float32():
    moments = of(torch.full((100_001,), 0.1))
    assert moments.mean.item() == pytest.approx(float(torch.tensor(0.1)), rel=1e-12)
    assert moments.mean.dtype == torch.float64
    assert moments.normalize(torch.zeros(2)).dtype == torch.float32


def test_a_state_dict_carries_everything_and_nothing_moves():
    moments, restored = of(torch.tensor([1.0, 5.0])), RunningMoments()
    restored.load_state_dict(moments.state_dict())
    assert set(moments.state_dict()) == {"count", "mean", "m2"}
    held = [x.data_ptr() for x in moments.state_dict().values()]
    moments.update(torch.tensor([100.0]))
    assert (restored.count, restored.mean, restored.var) == (2, 3, 4)
    assert held == [x.data_ptr() for x in moments.state_dict().values()]  # a CUDA graph reads them there
