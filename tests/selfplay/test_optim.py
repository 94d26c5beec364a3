"""Per-parameter clipping against hand-worked numbers and a plain element-by-element definition."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.optim import SecondMoment, clip_per_parameter_


def parameter(*grad):
    param = torch.nn.Parameter(torch.zeros(len(grad), dtype=torch.float64))
    param.grad = torch.tensor(grad, dtype=torch.float64)
    return param


def clip_by_definition(history, sigma, decay):
    """The last of one element's gradients, clipped; history holds it and all before it, unclipped."""
    num_updates = len(history)
    weights = [(1 - decay) * decay ** (num_updates - 1 - k) for k in range(num_updates)]
    v = sum(w * g * g for w, g in zip(weights, history, strict=True)) / (1 - decay**num_updates)
    bound = sigma * math.sqrt(v)
    return max(-bound, min(bound, history[-1]))


def test_hand_worked():
    # decay .5, sigma 1.  First update: m = .5 * g^2, v = m / .5 = g^2, bound |g|: nothing is clipped.
    # Second, g = 1, 7, -7:  m = .5 * .5 * (1, 1, 1) + .5 * (1, 49, 49) = .75, 24.75, 24.75
    # v = m / .75 = 1, 33, 33;  bounds 1, sqrt 33 = 5.744563
    param = parameter(1, 1, -1)
    state = SecondMoment.zeros([param])
    clip_per_parameter_([param], state, sigma=1.0, decay=0.5)
    torch.testing.assert_close(param.grad, torch.tensor([1, 1, -1], dtype=torch.float64))
    param.grad = torch.tensor([1, 7, -7], dtype=torch.float64)
    clip_per_parameter_([param], state, sigma=1.0, decay=0.5)
    torch.testing.assert_close(
        param.grad, torch.tensor([1, math.sqrt(33), -math.sqrt(33)], dtype=torch.float64)
    )
    torch.testing.assert_close(state.average[0], torch.tensor([0.75, 24.75, 24.75], dtype=torch.float64))
    assert state.num_updates == 2


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 8), st.floats(0.3, 5), st.floats(0.1, 0.9999), st.integers(0, 2**32 - 1))
def test_every_update_is_the_definition_of_every_element(num_updates, sigma, decay, seed):
    generator = torch.Generator().manual_seed(seed)
    params = [torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for shape in ((2, 3), (3,), ())]
    state = SecondMoment.zeros(params)
    histories = [[] for _ in params]
    for _ in range(num_updates):
        for param, history in zip(params, histories, strict=True):
            # Heavy tails, so that some elements are clipped.
            param.grad = torch.randn(param.shape, generator=generator, dtype=torch.float64) ** 3
            history.append(param.grad.flatten().tolist())
        clip_per_parameter_(params, state, sigma=sigma, decay=decay)
        for param, history in zip(params, histories, strict=True):
            expected = [clip_by_definition(element, sigma, decay) for element in zip(*history, strict=True)]
            assert param.grad.flatten().tolist() == pytest.approx(expected, rel=1e-9)


def test_a_spike_is_cut_to_five_sigma_of_its_own_history():
    # 5000 gradients of +-1e-3: v = 1e-6. Then 1: v = .999e-6 + .001 = .001000999 (within 1%, for m has
    # seen 5000 of them), bound 5 * .0316386 = .158193. The neighbour, always 1, stays as it is.
    param = parameter(0, 0)
    state = SecondMoment.zeros([param])
    for update in range(5000):
        param.grad = torch.tensor([1e-3 * (-1) ** update, 1.0], dtype=torch.float64)
        clip_per_parameter_([param], state)
    param.grad = torch.ones(2, dtype=torch.float64)
    clip_per_parameter_([param], state)
    assert param.grad.tolist() == pytest.approx([0.158193, 1.0], rel=0.01)


def test_history_is_of_unclipped_gradients():
    # sigma .1 clips all of them, each to .1 * sqrt(v); were the clipped ones remembered, v would shrink.
    param = parameter(2.0)
    state = SecondMoment.zeros([param])
    for _ in range(6):
        param.grad = torch.tensor([2.0], dtype=torch.float64)
        clip_per_parameter_([param], state, sigma=0.1, decay=0.9)
        assert param.grad.item() == pytest.approx(0.2)


def test_a_missing_gradient_counts_as_zero():
    without, with_zero = parameter(3.0), parameter(3.0)
    states = [SecondMoment.zeros([without]), SecondMoment.zeros([with_zero])]
    for grads in ((3.0, 3.0), (None, 0.0), (9.0, 9.0)):
        for param, grad, state in zip((without, with_zero), grads, states, strict=True):
            param.grad = None if grad is None else torch.tensor([grad], dtype=torch.float64)
            clip_per_parameter_([param], state, sigma=0.7, decay=0.8)
    assert torch.equal(without.grad, with_zero.grad)
    assert torch.equal(states[0].average[0], states[1].average[0])


def test_a_zero_gradient_stays_zero_and_a_nan_stays_where_it_is():
    params = [parameter(0.0, math.nan), parameter(1.0)]
    state = SecondMoment.zeros(params)
    clip_per_parameter_(params, state)
    assert params[0].grad[0] == 0
    assert params[0].grad[1].isnan()
    assert params[1].grad.item() == 1


def test_the_state_of_a_copy_goes_on_alike():
    param, twin = parameter(1.0, -2.0), parameter(1.0, -2.0)
    state = SecondMoment.zeros([param])
    clip_per_parameter_([param], state)
    restored = copy.deepcopy(state)
    for each, moments in ((param, state), (twin, restored)):
        each.grad = torch.tensor([50.0, 0.1], dtype=torch.float64)
        clip_per_parameter_([each], moments, sigma=1.1)
    assert torch.equal(param.grad, twin.grad)
    assert state.num_updates == restored.num_updates == 2


def test_another_number_of_parameters_is_refused():
    state = SecondMoment.zeros([parameter(1.0)])
    with pytest.raises(AssertionError):
        clip_per_parameter_([parameter(1.0), parameter(1.0)], state)
