"""The loss's gradient by one kernel against autograd's."""

import contextlib
import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from policies import gemm, linear, lstm
from policies.policy import Policy, PolicySpec
from selfplay import compiled_gradients
from selfplay.compiled_gradients import CompiledGradients, obstacle
from selfplay.config import PPOConfig
from selfplay.learner import Batch, Learner

pytestmark = pytest.mark.skipif(not gemm.AVAILABLE, reason="kernels cannot call the GEMM that is used here")

CHOICES = 6
NETWORKS = {
    "usual": {"encoder": (16,), "hidden_size": 24},
    "no encoder": {"encoder": (), "hidden_size": 8},
    "deep": {"encoder": (16, 9), "hidden_size": 17, "num_layers": 3},
}


def make(network="usual", config=None, start=0, threads=1):
    torch.manual_seed(0)
    box = spaces.Box(-5, 5, (3, 2))
    policy = Policy(box, spaces.Discrete(CHOICES, start=start), PolicySpec(**NETWORKS[network]))
    with torch.no_grad():
        for param in policy.parameters():
            param.add_(torch.randn_like(param) * 0.2)
        policy.value_mean.fill_(0.4)
        policy.value_std.fill_(1.7)
    return Learner(policy, config or PPOConfig(), seed=0, num_threads=threads)


def draw(learner, length=9, lanes=13, masked=True, seed=1):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    legal = torch.rand(length, lanes, CHOICES, generator=generator) < 0.7
    legal[..., 2] = True
    choice = torch.where(normal(length, lanes) > 0, 2, legal.byte().argmax(-1)) + learner.policy.head.start
    return Batch(
        obs={"": normal(length, lanes, 3, 2)},
        mask={"": legal} if masked else {},
        is_first=torch.rand(length, lanes, generator=generator) < 0.2,
        action={"": choice},
        logp=-normal(length, lanes).abs() - 0.5,
        advantage=normal(length, lanes),
        target=normal(length, lanes) * 2,
        state=normal(learner.policy.state_shape[0], 2, lanes, learner.policy.state_shape[2]),
    )


def both(learner, batch, entropy_coef=0.03, lanes=None):
    """(terms, gradients) by the kernel and by autograd."""
    assert learner.compiled.usable
    found, lanes = [], torch.arange(batch.is_first.shape[1]) if lanes is None else lanes
    for arrays in (learner._arrays(batch), None):
        row = learner._shared_gradients(batch, arrays, lanes, entropy_coef)
        found.append((row[len(learner.flat) : -2].clone(), row[: len(learner.flat)].clone()))
    return found


def agree(learner, batch, **options):
    (terms, grad), (wanted_terms, wanted) = both(learner, batch, **options)
    torch.testing.assert_close(terms, wanted_terms, rtol=2e-5, atol=1e-6)
    assert float((grad - wanted).abs().max()) < 3e-6 * float(wanted.abs().max())
    for own, other in zip(
        grad.split([x.numel() for x in learner.params]),
        wanted.split([x.numel() for x in learner.params]),
        strict=True,
    ):
        assert float((own - other).abs().max()) < 3e-5 * float(other.abs().max())


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_networks(network, masked):
    learner = make(network)
    agree(learner, draw(learner, masked=masked))


@pytest.mark.parametrize(("length", "lanes"), [(1, 1), (1, 40), (30, 1), (16, 70), (100, 47)])
def test_sizes(length, lanes):
    learner = make()
    agree(learner, draw(learner, length, lanes))


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_networks_in_uneven_pieces(network):
    learner = make(network)
    agree(learner, draw(learner, 100, 47, masked=False))


def test_some_lanes_of_a_batch():
    learner = make()
    agree(learner, draw(learner), lanes=torch.tensor([11, 3, 0, 7]))


def test_coefficients():
    learner = make(config=PPOConfig(clip=0.1, dual_clip=2.0, value_coef=1.3), start=3)
    agree(learner, draw(learner), entropy_coef=0.2)


def test_lanes_shared_among_threads():
    learner = make(threads=2)
    agree(learner, draw(learner))


def test_which_losses_it_is_for():
    policy = make().policy
    assert CompiledGradients.of(policy, PPOConfig()) is not None
    assert CompiledGradients.of(policy, PPOConfig(magnet_coef=0.1)) is None
    assert CompiledGradients.of(policy, PPOConfig(autocast=True)) is not None
    box, choice = spaces.Box(-1, 1, (3,)), spaces.Discrete(3)
    for space, action, spec, why in (
        (box, choice, PolicySpec(core="gru"), "policy.core='gru'"),
        (box, choice, PolicySpec(critic="separate"), "policy.critic='separate'"),
        (box, spaces.MultiDiscrete([2, 3]), PolicySpec(), "actions of other kinds than one choice"),
        (spaces.Discrete(100), choice, PolicySpec(), "observations of"),  # an embedding, which is learned too
        (spaces.Box(0, 255, (3, 40, 40), np.uint8), choice, PolicySpec(), "observations of"),
    ):
        other = Policy(space, action, spec)
        assert CompiledGradients.of(other, PPOConfig()) is None
        assert str(obstacle(other, PPOConfig())).startswith(why)
    assert obstacle(policy, PPOConfig(magnet_coef=0.1)) == "ppo.magnet_coef=0.1"


def test_what_is_not_finite_shows():
    learner = make()
    batch = draw(learner)
    batch.obs[""][3, 2] = math.nan
    (terms, _), _ = both(learner, batch)
    assert not torch.isfinite(terms[:4]).all()


# Broken kernels: the comparison must see each of them.

ARGUMENTS = (
    "x", "is_first", "state", "legal", "choice", "elements", "lanes", "address", "widths", "half",
    "grad_address", "value_mean", "value_std", "bounds", "value_coef", "entropy_coef", "sums",
)  # fmt: skip


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("is_first", np.zeros_like),
        ("state", np.zeros_like),
        ("legal", np.ones_like),
        ("choice", np.zeros_like),
        ("elements", np.zeros_like),
        ("lanes", np.zeros_like),
        ("value_mean", np.zeros_like),
        ("value_std", np.ones_like),
        ("entropy_coef", np.zeros_like),
        ("value_coef", np.zeros_like),
        ("grad_address", lambda x: np.concatenate((x[:1], x[:1], x[2:]))),
    ],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)
def test_a_broken_kernel_is_seen(monkeypatch, argument, change):
    original: Any = compiled_gradients._gradients

    def broken(*arguments):
        named = dict(zip(ARGUMENTS, arguments, strict=True))
        named[argument] = change(named[argument])[()]
        original(*named.values())

    learner = make()
    batch = draw(learner)
    learner.grads.fill_(7.0)
    monkeypatch.setattr(compiled_gradients, "_gradients", broken)
    with pytest.raises(AssertionError):
        agree(learner, batch)


# In bfloat16: all factors of products rounded, sums and everything else in float32.


@contextlib.contextmanager
def factors_rounded():
    """Within this, autograd's way rounds both factors of each product, and does all else as before."""

    def rounded(x):
        return x.bfloat16().float()

    def matmul_t(x, weight, bias=None):
        return torch.nn.functional.linear(rounded(x), rounded(weight), bias)

    def weight_gradient(grad, x):
        return rounded(grad).t() @ rounded(x)

    with pytest.MonkeyPatch.context() as patch, gemm.left_to_torch():
        for module in (linear, lstm):
            patch.setattr(module, "matmul_t", matmul_t)
            patch.setattr(module, "weight_gradient", weight_gradient)
        yield


def distance(grad, wanted):
    """Of two gradients, of the longer one's length."""
    return float((grad - wanted).norm() / wanted.norm())


def in_half(learner, batch):
    """(terms, gradients) by the kernel, and by autograd with rounded factors and with exact ones."""
    arrays, lanes = learner._arrays(batch), torch.arange(batch.is_first.shape[1])
    found = []
    for way in (contextlib.nullcontext(arrays), factors_rounded(), contextlib.nullcontext()):
        with way as own:
            row = learner._shared_gradients(batch, own, lanes, 0.03)
        found.append((row[len(learner.flat) : -2].clone(), row[: len(learner.flat)].clone()))
    return found


def agree_in_half(learner, batch):
    (terms, grad), (wanted_terms, wanted), (_, exact) = in_half(learner, batch)
    # Where sums in another order are rounded to the other side, a factor differs by 2^-8 of itself.
    torch.testing.assert_close(terms, wanted_terms, rtol=1e-3, atol=1e-4)
    error = distance(exact, wanted)
    assert error > 1e-3
    assert distance(grad, wanted) < error / 50


@pytest.mark.parametrize(("length", "lanes"), [(9, 13), (1, 40), (16, 70), (100, 47)])
@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_in_half_precision_factors_are_rounded_and_nothing_else(network, length, lanes):
    learner = make(network, PPOConfig(autocast=True))
    agree_in_half(learner, draw(learner, length, lanes))


def test_what_is_not_finite_shows_in_half_precision():
    learner = make(config=PPOConfig(autocast=True))
    batch = draw(learner)
    batch.obs[""][3, 2] = math.nan
    assert not torch.isfinite(in_half(learner, batch)[0][0][:4]).all()


def test_weights_are_rounded_anew_each_time():
    learner = make(config=PPOConfig(autocast=True))
    batch = draw(learner)
    agree_in_half(learner, batch)
    with torch.no_grad():
        learner.flat.add_(torch.randn_like(learner.flat) * 0.3)
    agree_in_half(learner, batch)
