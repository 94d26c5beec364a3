"""Clipping and Adam's step by kernels against torch's own calls in float64."""

import math

import numpy as np
import pytest
import torch

from selfplay import optim, optim_kernels
from selfplay.optim import SecondMoment, adam_step_, clip_gradient_, clip_per_parameter_
from tests.selfplay.test_learner import ALL_ON, fragments_of, make_learner

CLIPS = [(None, None), (None, 0.5), (1.2, None), (1.2, 0.5), (1.2, 1e9)]


def vector(size, dtype, lr=0.01):
    """A vector of parameters, its optimiser and its history."""
    param = torch.randn(size, generator=torch.Generator().manual_seed(size)).to(dtype)
    return param, torch.optim.Adam([param], lr=lr, eps=1e-5, fused=True), SecondMoment.zeros([param])


def gradients(size, updates):
    """Heavy tails, so that some elements are clipped; every other norm is small."""
    generator = torch.Generator().manual_seed(1)
    for update in range(updates):
        yield torch.randn(size, generator=generator) ** 3 * (1.0, 1e-3 / size)[update % 2]


def agree(size=37, sigma=1.2, limit=0.5, dtype=torch.float32, updates=6):
    """Several steps with another rate each."""
    param, adam, moment = vector(size, dtype)
    exact, exact_adam, exact_moment = vector(size, torch.float64)
    exact.copy_(param)
    for update, grad in enumerate(gradients(size, updates), start=1):
        adam.param_groups[0]["lr"] = exact_adam.param_groups[0]["lr"] = 0.02 / update
        param.grad, exact.grad = grad.to(dtype), grad.double()
        clip_gradient_(param, moment, sigma, norm := torch.empty((), dtype=dtype))
        adam_step_(adam, norm.item(), limit)
        if sigma is not None:
            clip_per_parameter_([exact], exact_moment, sigma=sigma)
        exact_norm = torch.nn.utils.clip_grad_norm_([exact], math.inf if limit is None else limit)
        exact_adam.step()
        assert norm.item() == pytest.approx(exact_norm.item(), rel=1e-6)
        torch.testing.assert_close(param.double(), exact, rtol=2e-6, atol=2e-7)
        close = {"rtol": 1e-5, "atol": 1e-12}
        torch.testing.assert_close(moment.average[0].double(), exact_moment.average[0], **close)
        for name in ("exp_avg_sq", "step"):
            ours, theirs = adam.state[param][name], exact_adam.state[exact][name]
            torch.testing.assert_close(ours.double(), theirs.double(), **close)
        # A sum whose terms may cancel.
        ours, theirs = adam.state[param]["exp_avg"], exact_adam.state[exact]["exp_avg"]
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6 * float(theirs.abs().max()))
    assert moment.num_updates == exact_moment.num_updates


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("sigma", "limit"), CLIPS)
def test_steps_are_torchs(sigma, limit, dtype):
    agree(sigma=sigma, limit=limit, dtype=dtype)


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 31, 64, 65, 4099, 100_003])
def test_sizes(size):
    agree(size)


def test_the_first_step_hand_worked():
    # Norm 5, limit 1: g = (.6, -.8) but for 1e-6 of it. m / (1 - .9) = g, v / (1 - .999) = g^2,
    # so each moves by lr |g| / (|g| + 1e-5) against its gradient.
    param, adam, moment = vector(2, torch.float32, lr=0.5)
    param.zero_()
    param.grad = torch.tensor([3.0, -4.0])
    clip_gradient_(param, moment, None, norm := torch.empty(()))
    assert norm.item() == 5
    adam_step_(adam, norm.item(), 1.0)
    assert param.tolist() == pytest.approx([-0.5 * 0.6 / 0.60001, 0.5 * 0.8 / 0.80001], rel=1e-6)


@pytest.mark.parametrize("sigma", [None, 5.0])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30])
def test_what_is_not_finite_shows_wherever_it_is(value, sigma):
    """Nor does a gradient pass whose square is too large for the history."""
    for place in range(37):
        param, _, moment = vector(37, torch.float32)
        param.grad = torch.ones(37)
        param.grad[place] = value
        clip_gradient_(param, moment, sigma, norm := torch.empty(()))
        assert not norm.isfinite()


def uncorrected_step(monkeypatch):
    kernel = optim_kernels.adam
    monkeypatch.setattr(optim_kernels, "adam", lambda *arguments: kernel(*arguments[:-1], 1e6))


def uncorrected_bound(monkeypatch):
    kernel = optim_kernels.clip
    monkeypatch.setattr(optim_kernels, "clip", lambda *arguments: kernel(*arguments[:-1], 10**6))


def norm_before_clipping(monkeypatch):
    kernel = optim_kernels.clip

    def clip(grad, *history):
        norm = optim_kernels.norm(grad)
        kernel(grad, *history)
        return norm

    monkeypatch.setattr(optim_kernels, "clip", clip)


def history_of_clipped_gradients(monkeypatch):
    kernel = optim_kernels.clip

    def clip(grad, average, sigma, decay, num_updates):
        before = average.copy()
        norm = kernel(grad, average, sigma, decay, num_updates)
        average[:] = decay * before + (1 - decay) * grad**2
        return norm

    monkeypatch.setattr(optim_kernels, "clip", clip)


def unscaled(monkeypatch):
    kernel = optim_kernels.adam
    monkeypatch.setattr(optim_kernels, "adam", lambda *arguments: kernel(*arguments[:4], 1.0, *arguments[5:]))


def squares_of_unscaled_gradients(monkeypatch):
    kernel = optim_kernels.adam

    def adam(param, grad, exp_avg, exp_avg_sq, scale, lr, beta1, beta2, eps, step):
        kernel(param, grad, exp_avg, exp_avg_sq, scale, lr, beta1, beta2, eps, step)
        exp_avg_sq += (1 - beta2) * (1 - scale**2) * grad**2

    monkeypatch.setattr(optim_kernels, "adam", adam)


@pytest.mark.parametrize(
    "plant",
    [
        uncorrected_step,
        uncorrected_bound,
        norm_before_clipping,
        history_of_clipped_gradients,
        unscaled,
        squares_of_unscaled_gradients,
    ],
)
def test_a_broken_kernel_is_seen(monkeypatch, plant):
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        agree()


# The learner.


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("changes", [{}, ALL_ON], ids=["plain", "all on"])
def test_nothing_moves_where_the_loss_or_the_gradient_is_not_finite(monkeypatch, changes, where):
    policy, (fragment,) = fragments_of("brawl")
    learner = make_learner(policy, **changes)
    learner.update([fragment])
    before, _ = learner.state()
    original = learner._gradients

    def gradients(batch, entropy_coef, grads):
        terms = original(batch, entropy_coef, grads)
        (terms if where == "loss" else grads[1].view(-1))[1] = math.nan
        return terms

    monkeypatch.setattr(learner, "_gradients", gradients)
    batch, _ = learner._prepare(fragment, torch.as_tensor(fragment.reward))
    with pytest.raises(FloatingPointError, match="loss/value"):
        learner._step(batch, None, torch.arange(fragment.num_lanes), 0.03)
    after, _ = learner.state()
    for name, x in before.items():
        if not name.startswith("second_moment:"):
            assert np.array_equal(x, after[name]), name


@pytest.mark.parametrize("changes", [{}, ALL_ON], ids=["plain", "all on"])
def test_a_run_that_torch_began_goes_on(monkeypatch, changes):
    """State has the same names, types and shapes by either way, also before the first step."""
    policy, fragments = fragments_of("brawl", collects=3)
    torchs, ours, heir = (make_learner(policy, **changes) for _ in range(3))

    def assert_alike():
        (left, left_meta), (right, right_meta) = torchs.state(), ours.state()
        assert left_meta == right_meta
        assert list(left) == list(right)
        for name, x in left.items():
            assert (x.dtype, x.shape) == (right[name].dtype, right[name].shape), name
            np.testing.assert_allclose(x, right[name], rtol=1e-4, atol=1e-6, err_msg=name)

    assert_alike()
    for fragment in fragments[:2]:
        ours.update([fragment])
        with monkeypatch.context() as patch:
            patch.setattr(optim, "_by_kernels", lambda param: False)
            torchs.update([fragment])
        assert_alike()
    heir.set_state(*torchs.state())
    heir.update(fragments[2:])
    with monkeypatch.context() as patch:
        patch.setattr(optim, "_by_kernels", lambda param: False)
        torchs.update(fragments[2:])
    for name, x in torchs.weights().items():
        np.testing.assert_allclose(heir.weights()[name], x, rtol=1e-4, atol=1e-5, err_msg=name)
