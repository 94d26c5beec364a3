"""The squashed Gaussian against torch.distributions, integrals over fine grids, and its edges."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.distributions import AffineTransform, Normal, TanhTransform, TransformedDistribution

from policies.heads import HeadInput, make_head

LOW, HIGH = np.array([-1, 0, 10], np.float32), np.array([1, 5, 12], np.float32)


def head_of(low, high, log_std, dtype=np.float32):
    low, high = np.asarray(low, dtype), np.asarray(high, dtype)
    head = make_head(spaces.Box(low, high, low.shape, dtype))
    with torch.no_grad():
        head.leaf[0].log_std.copy_(torch.tensor(log_std))
    return head


def reference(mean, std, low, high):
    """torch's own, in double precision."""
    mid, radius = (low.astype(np.float64) + high) / 2, (high.astype(np.float64) - low) / 2
    transforms = [
        TanhTransform(cache_size=1),
        AffineTransform(torch.from_numpy(mid), torch.from_numpy(radius)),
    ]
    return TransformedDistribution(Normal(mean.double(), std.double()), transforms)


def test_logp_is_that_of_torch():
    log_std = [-0.5, 0.0, 0.3]
    head, generator = head_of(LOW, HIGH, log_std), torch.Generator().manual_seed(0)
    mean = torch.randn(5, 400, 3, generator=generator)
    u = mean + torch.tensor(log_std).exp() * torch.randn(5, 400, 3, generator=generator)
    inside = u.clamp(-3, 3)
    action = torch.from_numpy((LOW + HIGH) / 2) + torch.from_numpy((HIGH - LOW) / 2) * inside.tanh()
    logp, _ = head.evaluate(HeadInput(mean), {}, {"": action})
    wanted = reference(mean, torch.tensor(log_std).exp(), LOW, HIGH).log_prob(action.double()).sum(-1)
    torch.testing.assert_close(logp, wanted.float(), atol=2e-3, rtol=0)  # floats near 12 know u to 1e-4


def test_plain_gaussian_without_bounds_is_that_of_torch():
    head, generator = head_of([-np.inf] * 3, [np.inf] * 3, [-1.0, 0.0, 1.0]), torch.Generator().manual_seed(0)
    mean, action = torch.randn(2, 50, 3, generator=generator), torch.randn(2, 50, 3, generator=generator) * 9
    wanted = Normal(mean, torch.tensor([-1.0, 0.0, 1.0]).exp())
    logp, entropy = head.evaluate(HeadInput(mean), {}, {"": action})
    torch.testing.assert_close(logp, wanted.log_prob(action).sum(-1))
    torch.testing.assert_close(entropy, wanted.entropy().sum(-1))


@pytest.mark.parametrize("log_std", [-1.0, -0.1])
@pytest.mark.parametrize("mean", [0.0, -1.5])
@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 5), (-30, -10)])
def test_density_sums_to_one_and_entropy_is_its_own(low, high, mean, log_std):
    head = head_of([low], [high], [log_std])
    edges = torch.linspace(low, high, 100_001, dtype=torch.float64)
    middle = ((edges[1:] + edges[:-1]) / 2)[:, None]
    rows = HeadInput(torch.full((len(middle), 1), mean))
    logp, entropy = head.evaluate(rows, {}, {"": middle.float()})
    logp, cell = logp.double(), (high - low) / 100_000
    assert (logp.exp() * cell).sum().item() == pytest.approx(1, abs=1e-3)
    assert -(logp.exp() * logp * cell).sum().item() == pytest.approx(entropy[0].item(), abs=5e-3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("low", "high"), [(-1, 1), (10, 12)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_saturated_number_has_the_probability_of_all_that_round_to_it(dtype, low, high, sign):
    head = head_of([low], [high], [0.0], dtype)
    leaf, draws = head.leaf[0], 20_000
    mean = torch.full((draws, 1), sign * math.atanh(leaf.edge.item()))  # half of what is drawn
    uniform = torch.rand(draws, 1, generator=torch.Generator().manual_seed(1))
    action, logp = head.sample(HeadInput(mean), {}, uniform)
    assert action[""].numpy().dtype == dtype
    assert all(spaces.Box(low, high, (1,), dtype).contains(row) for row in action[""].numpy()[:200])
    y = (action[""].float() - (low + high) / 2) / ((high - low) / 2)
    saturated = (y * sign >= leaf.edge)[:, 0]
    assert logp[saturated].exp().tolist() == pytest.approx([0.5] * saturated.sum().item(), abs=1e-4)
    assert saturated.float().mean().item() == pytest.approx(0.5, abs=0.06)  # the rounding's own width
    torch.testing.assert_close(head.evaluate(HeadInput(mean), {}, action)[0], logp, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mean", [-1e4, -60.0, -9.0, 0.0, 8.0, 9.0, 60.0, 1e4])
@pytest.mark.parametrize("log_std", [-50.0, -5.0, 0.0, 2.0, 50.0])
def test_extremes_replay_and_have_finite_gradients(mean, log_std):
    head = head_of([-1, 0, -np.inf], [1, 5, np.inf], [log_std] * 3)
    flat = torch.full((4, 3), mean, requires_grad=True)
    uniform = torch.tensor([[0.0], [1e-45], [0.5], [1 - 2**-24]]).expand(4, 3)
    action, logp = head.sample(HeadInput(flat), {}, uniform)
    assert head.best(HeadInput(flat), {})[1].isfinite().all()
    again, entropy = head.evaluate(HeadInput(flat), {}, action)
    torch.testing.assert_close(again, logp, atol=1e-5, rtol=0)
    corners = {"": torch.tensor([[-1.0, 0, 0], [1, 5, 0], [-1, 5, 0], [0, 0, 0]])}
    off, _ = head.evaluate(HeadInput(flat), {}, corners)
    kl = head.kl(HeadInput(flat), head, HeadInput(-flat.detach()), {}, action)
    grads = torch.autograd.grad((again + entropy + off + kl).sum(), [flat, *head.parameters()])
    assert all(grad.isfinite().all() for grad in grads)
    assert off.isfinite().all()


def test_a_saturated_number_draws_the_mean_towards_it_and_lets_go():
    """A good bound is held, a bad one is left: the gradient of its log-probability points outwards."""
    head = head_of([-1], [1], [0.0])
    for mean in (7.0, 9.0):
        for side in (-1.0, 1.0):
            flat = torch.tensor([[side * mean]], requires_grad=True)
            logp, _ = head.evaluate(HeadInput(flat), {}, {"": torch.tensor([[side]])})
            assert torch.autograd.grad(logp.sum(), flat)[0].item() * side > 0


def test_quadrature_of_the_entropy_is_that_of_many_draws():
    log_std = [-2.0, -0.1, math.log(2)]
    head = head_of(LOW, HIGH, log_std)
    mean = torch.tensor([[0.3, -2.0, 1.0]])
    _, entropy = head.evaluate(HeadInput(mean), {}, {"": torch.tensor([[0.0, 1.0, 11.0]])})
    steps = torch.linspace(-9, 9, 20_001, dtype=torch.float64)[:, None]
    weight = torch.softmax(-0.5 * steps.square(), dim=0)
    u = mean.double() + torch.tensor(log_std, dtype=torch.float64).exp() * steps
    stretch = torch.log(torch.from_numpy((HIGH - LOW) / 2)) - 2 * torch.log(torch.cosh(u))
    wanted = Normal(0, torch.tensor(log_std).exp()).entropy() + (weight * stretch).sum(0)
    assert entropy.item() == pytest.approx(wanted.sum().item(), abs=3e-4)


def test_draws_are_distributed_as_the_density_says():
    head, draws = head_of([-1], [1], [-0.5]), 40_000
    x = HeadInput(torch.full((draws, 1), 0.7))
    uniform = np.random.default_rng(0).random((draws, 1), dtype=np.float32)
    action, _ = head.sample(x, {}, torch.from_numpy(uniform))
    seen = np.histogram(action[""].numpy(), np.linspace(-1, 1, 21))[0]
    bounds = torch.atanh(torch.linspace(-1, 1, 21).clamp(-1 + 1e-7, 1 - 1e-7))
    wanted = Normal(0.7, math.exp(-0.5)).cdf(bounds).diff().numpy() * draws
    assert ((seen - wanted) ** 2 / wanted)[wanted > 5].sum() < 19 + 4.5 * math.sqrt(38)


def test_kl_is_that_of_torch():
    one, two = head_of(LOW, HIGH, [-1.0, 0.0, 0.5]), head_of(LOW, HIGH, [0.3, -0.4, 0.5])
    generator = torch.Generator().manual_seed(0)
    p, q = torch.randn(4, 5, 3, generator=generator), torch.randn(4, 5, 3, generator=generator)
    wanted = torch.distributions.kl_divergence(
        Normal(p, one.leaf[0].log_std.detach().exp()), Normal(q, two.leaf[0].log_std.detach().exp())
    ).sum(-1)
    kl = one.kl(HeadInput(p), two, HeadInput(q), {}, {"": torch.zeros(4, 5, 3)})
    torch.testing.assert_close(kl, wanted)


def test_first_play_is_near_uniform():
    head = make_head(spaces.Box(-3, 3, (1,)))
    uniform = torch.rand(20_000, 1, generator=torch.Generator().manual_seed(0))
    action, _ = head.sample(HeadInput(torch.zeros(20_000, 1)), {}, uniform)
    share = np.histogram(action[""].numpy(), np.linspace(-3, 3, 7))[0] / 20_000
    assert np.abs(share - 1 / 6).max() < 0.02
    assert head.best(HeadInput(torch.zeros(1, 1)), {})[0][""].item() == 0


def test_log_std_beyond_its_range_comes_back():
    head = head_of([-1], [1], [-9.0])
    flat = torch.zeros(1, 1)
    logp, entropy = head.evaluate(HeadInput(flat), {}, {"": torch.tensor([[0.5]])})
    (grad,) = torch.autograd.grad(entropy.sum(), list(head.parameters()))
    assert grad.item() > 0.9
    floor, _ = head_of([-1], [1], [-5.0]).evaluate(HeadInput(flat), {}, {"": torch.tensor([[0.5]])})
    assert logp.item() == floor.item()
