"""Advantages and targets against hand-worked numbers and the textbook sums, lane by lane."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.returns import gae, vtrace

GAMMA, LAM = 0.9, 0.8


def column(*numbers):
    """One lane, [T, 1]."""
    return torch.tensor(numbers, dtype=torch.float64).unsqueeze(1)


def flags(*numbers):
    return torch.tensor(numbers, dtype=torch.bool).unsqueeze(1)


@st.composite
def fragments(draw):
    """A random fragment in which next_value[t] is value[t + 1] wherever the episode goes on."""
    num_steps, num_lanes = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    ending_rate = draw(st.sampled_from([0.0, 0.2, 0.6]))

    def normal():
        return torch.randn(num_steps, num_lanes, generator=generator, dtype=torch.float64)

    def ending():
        return torch.rand(num_steps, num_lanes, generator=generator) < ending_rate

    reward, value, terminated, truncated = normal(), normal(), ending(), ending()
    next_value = normal()
    inside = ~(terminated | truncated)
    inside[-1] = False
    next_value[inside] = value.roll(-1, dims=0)[inside]
    return reward, value, next_value, terminated, truncated


def episode_end(t, lane, terminated, truncated):
    """The last row, from t on, of t's episode within the fragment."""
    num_steps = len(terminated)
    return next((k for k in range(t, num_steps) if terminated[k, lane] or truncated[k, lane]), num_steps - 1)


def each_element(like):
    return ((t, lane) for t in range(like.shape[0]) for lane in range(like.shape[1]))


def td_error(t, lane, reward, value, next_value, terminated, gamma):
    bootstrap = 0.0 if terminated[t, lane] else gamma * next_value[t, lane].item()
    return reward[t, lane].item() + bootstrap - value[t, lane].item()


def gae_by_definition(reward, value, next_value, terminated, truncated, gamma, lam):
    """The explicit sum of (gamma lam)^k delta_{t+k} up to the end of the episode or fragment."""
    result = torch.zeros_like(reward)
    for t, lane in each_element(reward):
        last = episode_end(t, lane, terminated, truncated)
        result[t, lane] = sum(
            (gamma * lam) ** (k - t) * td_error(k, lane, reward, value, next_value, terminated, gamma)
            for k in range(t, last + 1)
        )
    return result


def vtrace_by_definition(fragment, log_ratio, gamma, lam, rho_bar, c_bar):
    """IMPALA's equation 1: v_s = V_s + sum_t gamma^(t-s) (prod c_i) rho_t td_t; then its advantage."""
    reward, value, next_value, terminated, truncated = fragment
    rho = [[min(rho_bar, math.exp(x)) for x in row] for row in log_ratio.tolist()]
    c = [[lam * min(c_bar, math.exp(x)) for x in row] for row in log_ratio.tolist()]
    target, advantage = torch.zeros_like(reward), torch.zeros_like(reward)
    for s, lane in each_element(reward):
        last = episode_end(s, lane, terminated, truncated)
        target[s, lane] = value[s, lane].item() + sum(
            gamma ** (t - s)
            * math.prod(c[i][lane] for i in range(s, t))
            * rho[t][lane]
            * td_error(t, lane, reward, value, next_value, terminated, gamma)
            for t in range(s, last + 1)
        )
    for s, lane in each_element(reward):
        if terminated[s, lane]:
            reached = 0.0
        elif s == episode_end(s, lane, terminated, truncated):
            reached = next_value[s, lane].item()
        else:
            reached = lam * target[s + 1, lane].item() + (1 - lam) * value[s + 1, lane].item()
        estimate = reward[s, lane].item() + gamma * reached
        advantage[s, lane] = rho[s][lane] * (estimate - value[s, lane].item())
    return target, advantage


def test_gae_hand_worked_without_an_ending():
    # delta_0 = 1 + .9 * 3 - 2 = 1.7     delta_1 = 0 + .9 * 4 - 3 = .6     delta_2 = 2 + .9 * 5 - 4 = 2.5
    # A_2 = 2.5     A_1 = .6 + .72 * 2.5 = 2.4     A_0 = 1.7 + .72 * 2.4 = 3.428
    never = flags(0, 0, 0)
    result = gae(column(1, 0, 2), column(2, 3, 4), column(3, 4, 5), never, never, gamma=GAMMA, lam=LAM)
    torch.testing.assert_close(result, column(3.428, 2.4, 2.5))


def test_gae_hand_worked_with_a_termination_in_the_middle():
    # delta_1 = 0 + 0 - 3 = -3: the view reached counts for nothing, and A_1 takes nothing from row 2.
    # A_2 = 2.5     A_1 = -3     A_0 = 1.7 + .72 * -3 = -.46
    fragment = (column(1, 0, 2), column(2, 3, 4), column(3, 7, 5), flags(0, 1, 0), flags(0, 0, 0))
    result = gae(*fragment, gamma=GAMMA, lam=LAM)
    torch.testing.assert_close(result, column(-0.46, -3.0, 2.5))


def test_gae_hand_worked_with_a_truncation_in_the_middle():
    # delta_1 = 0 + .9 * 7 - 3 = 3.3: the view reached counts, but A_1 takes nothing from row 2.
    # A_2 = 2.5     A_1 = 3.3     A_0 = 1.7 + .72 * 3.3 = 4.076
    fragment = (column(1, 0, 2), column(2, 3, 4), column(3, 7, 5), flags(0, 0, 0), flags(0, 1, 0))
    result = gae(*fragment, gamma=GAMMA, lam=LAM)
    torch.testing.assert_close(result, column(4.076, 3.3, 2.5))


def test_gae_both_endings_at_once_is_a_termination():
    both = flags(1)
    result = gae(column(1), column(2), column(7), both, both, gamma=GAMMA, lam=LAM)
    torch.testing.assert_close(result, column(-1.0))


@settings(deadline=None, max_examples=60)
@given(fragments(), st.floats(0, 1), st.floats(0, 1))
def test_gae_is_the_explicit_sum_of_every_lane(fragment, gamma, lam):
    expected = gae_by_definition(*fragment, gamma, lam)
    torch.testing.assert_close(gae(*fragment, gamma=gamma, lam=lam), expected)


@settings(deadline=None, max_examples=60)
@given(fragments(), st.floats(0, 1))
def test_gae_with_lam_1_is_the_discounted_return_minus_the_value(fragment, gamma):
    reward, value, next_value, terminated, truncated = fragment
    result = gae(*fragment, gamma=gamma, lam=1.0)
    for t, lane in each_element(reward):
        last = episode_end(t, lane, terminated, truncated)
        discounted = sum(gamma ** (k - t) * reward[k, lane].item() for k in range(t, last + 1))
        if not terminated[last, lane]:
            discounted += gamma ** (last + 1 - t) * next_value[last, lane].item()
        assert result[t, lane].item() == pytest.approx(discounted - value[t, lane].item(), abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(fragments(), st.floats(0, 1))
def test_gae_with_lam_0_is_the_td_error(fragment, gamma):
    reward, value, next_value, terminated, _ = fragment
    expected = torch.zeros_like(reward)
    for t, lane in each_element(reward):
        expected[t, lane] = td_error(t, lane, reward, value, next_value, terminated, gamma)
    torch.testing.assert_close(gae(*fragment, gamma=gamma, lam=0.0), expected)


@settings(deadline=None, max_examples=40)
@given(fragments())
def test_the_value_after_a_termination_is_never_read(fragment):
    reward, value, next_value, terminated, truncated = fragment
    garbage = next_value.masked_fill(terminated, math.nan)
    before = gae(*fragment, gamma=GAMMA, lam=LAM)
    after = gae(reward, value, garbage, terminated, truncated, gamma=GAMMA, lam=LAM)
    torch.testing.assert_close(after, before)


@settings(deadline=None, max_examples=40)
@given(fragments(), st.integers(0, 8))
def test_nothing_crosses_an_ending_or_a_lane(fragment, row):
    reward, _, _, terminated, truncated = fragment
    row %= len(reward)
    result = gae(*fragment, gamma=GAMMA, lam=LAM)
    changed = reward.clone()
    changed[row, 0] += 1.0
    moved = gae(changed, *fragment[1:], gamma=GAMMA, lam=LAM) != result
    for t, lane in each_element(reward):
        same_episode = t <= row <= episode_end(t, lane, terminated, truncated)
        assert moved[t, lane].item() == (lane == 0 and same_episode)


def test_results_are_constants_and_inputs_stay_as_they_were():
    value = column(2, 3, 4).requires_grad_()
    reward, next_value, never, logp = column(1, 0, 2), column(3, 4, 5), flags(0, 0, 0), column(-1, -2, -3)
    arguments = (reward, value, next_value, never, never)
    copies = [each.detach().clone() for each in (*arguments, logp)]
    assert not gae(*arguments, gamma=GAMMA, lam=LAM).requires_grad
    assert not any(each.requires_grad for each in vtrace(*arguments, logp, logp, gamma=GAMMA, lam=LAM))
    assert all(torch.equal(each, copy) for each, copy in zip((*arguments, logp), copies, strict=True))


def test_a_shape_that_would_broadcast_is_refused():
    never = flags(0, 0, 0)
    with pytest.raises(AssertionError, match=r"\(3, 1\)"):
        gae(column(1, 0, 2), column(2), column(3, 4, 5), never, never, gamma=GAMMA, lam=LAM)


def test_vtrace_hand_worked():
    # pi / mu = 2, .5, .25: rho = 1, .5, .25 and c = .8 * rho = .8, .4, .2 (lam = .8)
    # td = 1.7, .6, 2.5 as in the first GAE test
    # x_2 = .25 * 2.5 = .625
    # x_1 = .5 * .6 + .9 * .4 * .625 = .3 + .225 = .525
    # x_0 = 1 * 1.7 + .9 * .8 * .525 = 1.7 + .378 = 2.078
    # v = value + x = 4.078, 3.525, 4.625
    # A_2 = .25 * 2.5 = .625
    # A_1 = .5 * (.6 + .9 * .8 * .625) = .5 * 1.05 = .525
    # A_0 = 1 * (1.7 + .9 * .8 * .525) = 2.078
    never = flags(0, 0, 0)
    behaviour = column(math.log(0.25), math.log(0.5), math.log(0.8))
    target = column(math.log(0.5), math.log(0.25), math.log(0.2))
    fragment = (column(1, 0, 2), column(2, 3, 4), column(3, 4, 5), never, never)
    result = vtrace(*fragment, behaviour, target, gamma=GAMMA, lam=LAM)
    torch.testing.assert_close(result.target, column(4.078, 3.525, 4.625))
    torch.testing.assert_close(result.advantage, column(2.078, 0.525, 0.625))


def test_vtrace_c_bar_limits_the_trace_and_rho_bar_the_weight():
    # pi / mu = 2 in row 0, 1 in row 1; rho_bar = 1.5, c_bar = .5, lam = 1
    # td = 1.7, .6     x_1 = .6     x_0 = 1.5 * 1.7 + .9 * .5 * .6 = 2.55 + .27 = 2.82
    # A_0 = 1.5 * (1.7 + .9 * .6) = 1.5 * 2.24 = 3.36
    never, mu, pi = flags(0, 0), column(math.log(0.25), -1), column(math.log(0.5), -1)
    fragment = (column(1, 0), column(2, 3), column(3, 4), never, never)
    result = vtrace(*fragment, mu, pi, gamma=GAMMA, lam=1.0, rho_bar=1.5, c_bar=0.5)
    torch.testing.assert_close(result.target, column(4.82, 3.6))
    torch.testing.assert_close(result.advantage, column(3.36, 0.6))


@settings(deadline=None, max_examples=60)
@given(fragments(), st.floats(0, 1), st.floats(0, 1), st.floats(0.5, 3), st.floats(0.5, 3))
def test_vtrace_is_the_papers_sum(fragment, gamma, lam, rho_bar, c_bar):
    generator = torch.Generator().manual_seed(5)
    mu, pi = torch.randn(2, *fragment[0].shape, generator=generator, dtype=torch.float64)
    expected_target, expected_advantage = vtrace_by_definition(fragment, pi - mu, gamma, lam, rho_bar, c_bar)
    result = vtrace(*fragment, mu, pi, gamma=gamma, lam=lam, rho_bar=rho_bar, c_bar=c_bar)
    torch.testing.assert_close(result.target, expected_target)
    torch.testing.assert_close(result.advantage, expected_advantage)


@settings(deadline=None, max_examples=60)
@given(fragments(), st.floats(0, 1), st.floats(0, 1))
def test_vtrace_on_policy_is_gae(fragment, gamma, lam):
    logp = -fragment[0].abs()
    result = vtrace(*fragment, logp, logp, gamma=gamma, lam=lam)
    expected = gae_by_definition(*fragment, gamma, lam)
    torch.testing.assert_close(result.advantage, expected)
    torch.testing.assert_close(result.target, fragment[1] + expected)


def test_vtrace_survives_a_ratio_beyond_the_floats():
    never = flags(0, 0)
    fragment = (column(1, 0), column(2, 3), column(3, 4), never, never)
    result = vtrace(*fragment, column(-2000, -1), column(-1, -2000), gamma=GAMMA, lam=LAM)
    assert all(each.isfinite().all() for each in result)
