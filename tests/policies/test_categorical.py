"""Masked categorical choices: KL by hand and by the sum over legal actions; the kernels by the definition."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.categorical import evaluate, kl, reference_evaluate

numbers = st.floats(-3, 3, allow_nan=False)


def row(*entries):
    return torch.tensor([entries], dtype=torch.float64)


def test_kl_hand_worked():
    # p = (.5, .5), q = (.25, .75): .5 log 2 + .5 log(2/3) = .143841; the third is illegal.
    p, q = row(0.5, 0.5, 9.0).log(), row(0.25, 0.75, 0.001).log()
    mask = torch.tensor([[True, True, False]])
    torch.testing.assert_close(kl(p, q, mask), torch.tensor([0.14384103622], dtype=torch.float64))


@settings(deadline=None)
@given(st.lists(st.tuples(numbers, numbers, st.booleans()), min_size=1, max_size=7))
def test_kl_is_the_sum_over_legal_actions(actions):
    p, q = row(*(x for x, _, _ in actions)), row(*(y for _, y, _ in actions))
    mask = torch.tensor([[legal for _, _, legal in actions]])
    weights = [(math.exp(x), math.exp(y)) for x, y, legal in actions if legal]
    total_p, total_q = sum(x for x, _ in weights), sum(y for _, y in weights)
    expected = sum(x / total_p * math.log(x / total_p / (y / total_q)) for x, y in weights)
    assert kl(p, q, mask).item() == pytest.approx(expected, abs=1e-9)
    assert kl(p, p, mask).item() == 0.0


@pytest.mark.parametrize("hole", [0.0, math.inf, -math.inf, math.nan])
def test_kl_ignores_illegal_logits_and_gives_them_no_gradient(hole):
    mask = torch.tensor([[[True, True, False], [True, False, False], [False, False, False]]])
    generator = torch.Generator().manual_seed(1)
    p, q = (torch.randn(1, 3, 3, generator=generator).masked_fill(~mask, hole) for _ in range(2))
    p.requires_grad_(), q.requires_grad_()
    result = kl(p, q, mask)
    result.sum().backward()
    assert result.shape == (1, 3)
    assert result[0, 0] > 0
    assert (result[0, 1:] == 0).all()
    for gradient in (p.grad, q.grad):
        assert gradient.isfinite().all()
        assert (gradient[~mask] == 0).all()
        assert (gradient[0, 0, :2] != 0).all()


def test_kl_of_two_precisions():
    # Autocast gives bfloat16 logits on one side only; its 8 bits of 1.25 and -.5 are exact.
    logits, mask = torch.tensor([[1.25, -0.5, 7.0]]), torch.tensor([[True, True, False]])
    for p, q in ((logits, logits.bfloat16()), (logits.bfloat16(), logits)):
        assert kl(p, q, mask).item() == pytest.approx(0, abs=0.01)


def evaluated(function, logits, legal, choice):
    """logp, entropy and the gradient of a weighted sum of both, where upstream gradients exceed 1 too."""
    logits = logits.clone().requires_grad_()
    logp, entropy = function(logits, legal, choice)
    weights = torch.linspace(-3, 3, choice.numel(), dtype=logits.dtype).reshape(choice.shape)
    (grad,) = torch.autograd.grad((weights * logp + weights.flip(0) * entropy).sum(), logits)
    return logp.detach(), entropy.detach(), grad


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("shape", [(1,), (40,), (5, 3), (4, 2, 3)])
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_evaluate_is_the_definition_with_its_gradient(shape, scale, masked):
    generator = torch.Generator().manual_seed(len(shape))
    logits = scale * torch.randn(*shape, 6, generator=generator)
    legal = torch.rand(*shape, 6, generator=generator) < 0.6
    choice = torch.randint(6, shape, generator=generator)
    legal.scatter_(-1, choice[..., None], True)
    seen = legal if masked else None
    # In double precision what is illegal, at -1.8e308, has no share in products either.
    wanted = evaluated(reference_evaluate, logits.double(), seen, choice)
    for got, exact in zip(evaluated(evaluate, logits, seen, choice), wanted, strict=True):
        torch.testing.assert_close(got, exact.float(), atol=2e-5, rtol=1e-4)
    if masked:
        assert (evaluated(evaluate, logits, seen, choice)[2][~legal] == 0).all()


def test_evaluate_of_the_illegal_is_finite_and_moves_nothing_illegal():
    logits = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    legal = torch.tensor([[True, True, False], [False, False, False]])
    logp, entropy, grad = evaluated(evaluate, logits, legal, torch.tensor([2, 0]))
    assert (logp < -1e38).all()
    assert logp.isfinite().all()
    assert entropy.tolist() == pytest.approx([0.5822, 0.0], abs=1e-4)  # of p = (.2689, .7311)
    assert (grad[~legal] == 0).all()
    assert grad.isfinite().all()


def test_evaluate_lets_a_nan_through():
    logp, entropy, _ = evaluated(evaluate, torch.tensor([[0.0, math.nan]]), None, torch.tensor([0]))
    assert logp.isnan().all()
    assert entropy.isnan().all()
