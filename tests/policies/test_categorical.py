"""KL of masked categorical choices: by hand, by the sum over legal actions, with nothing of the illegal."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.categorical import kl

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
