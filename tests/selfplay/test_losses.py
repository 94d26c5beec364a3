"""Loss terms against hand-worked numbers, the formulas as printed, and enumeration."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.losses import (
    Elements,
    kl_estimate,
    normalize,
    ppo_loss,
    ppo_policy_loss,
    reference_ppo_loss,
    value_loss,
)

numbers = st.floats(-3, 3, allow_nan=False)


def row(*entries):
    return torch.tensor([entries], dtype=torch.float64)


def of_ratio(ratios, advantages, **options):
    """The loss where the new policy gives `ratios` times the old one's probability."""
    log_ratio = row(*ratios).log()
    old_logp = torch.full_like(log_ratio, -1.5)
    return ppo_policy_loss(old_logp + log_ratio, old_logp, row(*advantages), **options)


def surrogate_as_printed(ratio, advantage, clip, dual_clip):
    held = min(max(ratio, 1 - clip), 1 + clip)
    objective = min(ratio * advantage, held * advantage)
    if dual_clip is not None and advantage < 0:
        objective = max(objective, dual_clip * advantage)
    return -objective


def test_policy_loss_hand_worked():
    # A = 2:  r = 1.1 -> -2.2;   r = 1.5 -> held to 1.2, -2.4;   r = .5 -> not held, -1
    # A = -2: r = .9 -> 1.8;     r = .5 -> held to .8, 1.6;      r = 4 -> not held, 8
    # Outside [.8, 1.2]: 1.5, .5, .5 and 4, four of six.
    result = of_ratio([1.1, 1.5, 0.5, 0.9, 0.5, 4.0], [2, 2, 2, -2, -2, -2], clip=0.2)
    torch.testing.assert_close(result.loss, row(-2.2, -2.4, -1.0, 1.8, 1.6, 8.0))
    assert result.clip_fraction.item() == pytest.approx(4 / 6)


def test_dual_clip_bounds_only_negative_advantages():
    # A = -2, r = 4: max(-8, 3 * -2) = -6, loss 6;  A = -2, r = 2.5: 5;  A = 2, r = 4: -2.4 either way
    result = of_ratio([4.0, 2.5, 4.0], [-2, -2, 2], clip=0.2, dual_clip=3.0)
    torch.testing.assert_close(result.loss, row(6.0, 5.0, -2.4))


def test_policy_loss_gradient_is_zero_exactly_where_the_ratio_is_held():
    # d loss / d logp = -r A while free, 0 while held.
    ratios, advantages = row(1.1, 1.5, 0.5, 0.5, 2.0, 4.0), row(2, 2, 2, -2, -2, -2)
    logp = ratios.log().requires_grad_()
    ppo_policy_loss(logp, torch.zeros_like(logp), advantages, clip=0.2, dual_clip=3.0).loss.sum().backward()
    torch.testing.assert_close(logp.grad, row(-2.2, 0.0, -1.0, 0.0, 4.0, 0.0))


@settings(deadline=None)
@given(
    st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8),
    st.floats(0.05, 0.5),
    st.one_of(st.none(), st.floats(1.01, 5)),
)
def test_policy_loss_is_the_printed_formula(elements, clip, dual_clip):
    logp = row(*(x for x, _ in elements))
    advantage = row(*(a for _, a in elements))
    result = ppo_policy_loss(logp, torch.zeros_like(logp), advantage, clip=clip, dual_clip=dual_clip)
    expected = [surrogate_as_printed(math.exp(x), a, clip, dual_clip) for x, a in elements]
    torch.testing.assert_close(result.loss, row(*expected))


@settings(deadline=None)
@given(st.lists(numbers, min_size=1, max_size=8))
def test_policy_loss_at_the_old_policy_is_the_plain_policy_gradient(advantages):
    logp = torch.full((1, len(advantages)), -1.5, dtype=torch.float64, requires_grad=True)
    result = ppo_policy_loss(logp, logp.detach(), row(*advantages), clip=0.2, dual_clip=3.0)
    result.loss.sum().backward()
    torch.testing.assert_close(result.loss.detach(), -row(*advantages))
    torch.testing.assert_close(logp.grad, -row(*advantages))
    assert result.clip_fraction.item() == 0.0


def test_a_held_ratio_beyond_the_floats_has_no_gradient():
    logp = torch.tensor([[200.0, 200.0, -200.0]], requires_grad=True)
    advantage = torch.tensor([[1.0, -1.0, -1.0]])
    result = ppo_policy_loss(logp, torch.zeros(1, 3), advantage, clip=0.2, dual_clip=3.0)
    result.loss.sum().backward()
    torch.testing.assert_close(result.loss.detach(), torch.tensor([[-1.2, 3.0, 0.8]]))
    assert torch.equal(logp.grad, torch.zeros(1, 3))


def test_losses_refuse_shapes_that_would_broadcast():
    with pytest.raises(AssertionError):
        ppo_policy_loss(torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(4, 1), clip=0.2)
    with pytest.raises(AssertionError):
        value_loss(torch.zeros(4, 3), torch.zeros(4, 3, 1))
    with pytest.raises(AssertionError):
        kl_estimate(torch.zeros(4, 3), torch.zeros(3))


def test_value_loss_hand_worked():
    # (3 - 1)^2 / 2 = 2;  (-1 - 0)^2 / 2 = .5;  gradient value - target = 2, -1
    value = row(3, -1).requires_grad_()
    loss = value_loss(value, row(1, 0))
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), row(2.0, 0.5))
    torch.testing.assert_close(value.grad, row(2.0, -1.0))


def test_kl_estimate_hand_worked():
    # r = 2: 1 - log 2 = .306853;  r = .5: -.5 + log 2 = .193147;  r = 1: 0
    result = kl_estimate(row(2.0, 0.5, 1.0).log(), row(1.0, 1.0, 1.0).log())
    torch.testing.assert_close(result, row(0.30685281944, 0.19314718056, 0.0))


@settings(deadline=None)
@given(st.lists(st.floats(-60, 60, width=32), min_size=1, max_size=20), st.floats(-20, 0, width=32))
def test_kl_estimate_is_never_negative(differences, start):
    old_logp = torch.full((1, len(differences)), start)
    assert (kl_estimate(old_logp + torch.tensor([differences]), old_logp) >= 0).all()


@settings(deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=6))
def test_kl_estimate_averages_to_the_exact_kl_over_the_old_policys_actions(logits):
    old_logp = row(*(x for x, _ in logits)).log_softmax(-1)
    new_logp = row(*(y for _, y in logits)).log_softmax(-1)
    exact = sum(p.exp().item() * (p - q).item() for p, q in zip(old_logp[0], new_logp[0], strict=True))
    assert (old_logp.exp() * kl_estimate(new_logp, old_logp)).sum().item() == pytest.approx(exact, abs=1e-9)


def test_normalize_hand_worked_over_the_whole_batch():
    # mean 2.5, variance (2.25 + .25 + .25 + 2.25) / 4 = 1.25
    result = normalize(torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64))
    expected = torch.tensor([[-1.5, -0.5], [0.5, 1.5]], dtype=torch.float64) / math.sqrt(1.25)
    torch.testing.assert_close(result, expected)


def test_normalize_of_equal_advantages_is_zero():
    assert torch.equal(normalize(torch.full((3, 2), 0.5)), torch.zeros(3, 2))
    assert torch.equal(normalize(torch.full((1, 1), 0.5)), torch.zeros(1, 1))


def loss_and_gradients(function, elements, **options):
    moving = [x.clone().requires_grad_() for x in elements[:3]]
    loss, terms = function(Elements(*moving, *elements[3:]), torch.tensor(2.5), **options)
    return loss.detach(), terms, *torch.autograd.grad(3.0 * loss, moving)


@pytest.mark.parametrize("dual_clip", [None, 3.0])
@pytest.mark.parametrize("spread", [0.0, 0.3, 3.0])
def test_ppo_loss_is_the_definition_with_its_gradients(spread, dual_clip):
    generator = torch.Generator().manual_seed(0)
    old, entropy, value, advantage, target = torch.randn(5, 8, 50, generator=generator)
    advantage[0, :5] = 0.0
    logp = old + spread * torch.randn(8, 50, generator=generator)
    elements = (logp, entropy, value, old, advantage, target)
    options = {"clip": 0.2, "dual_clip": dual_clip, "value_coef": 0.7, "entropy_coef": 0.05}
    wanted = loss_and_gradients(reference_ppo_loss, [x.double() for x in elements], **options)
    for got, exact in zip(loss_and_gradients(ppo_loss, elements, **options), wanted, strict=True):
        torch.testing.assert_close(got, exact.float(), atol=1e-6, rtol=1e-4)


def test_ppo_loss_shows_a_nan_and_refuses_shapes_that_would_broadcast():
    options = {"clip": 0.2, "dual_clip": None, "value_coef": 0.5, "entropy_coef": 0.0}
    one = torch.zeros(3)
    for k in range(6):
        broken = [torch.tensor([0.0, math.nan, 0.0]) if j == k else one for j in range(6)]
        assert ppo_loss(Elements(*broken), torch.tensor(1.0), **options)[0].isnan(), Elements._fields[k]
    with pytest.raises(AssertionError):
        ppo_loss(Elements(one, one, one, one, torch.zeros(1), one), torch.tensor(1.0), **options)
