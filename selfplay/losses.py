"""The loss: its terms as pure functions of tensors, per element ([T, N]), and `ppo_loss`, their mean."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class PolicyLoss(NamedTuple):
    """PPO's policy loss; see `ppo_policy_loss`."""

    loss: Tensor  # [T, N] to be minimised
    clip_fraction: Tensor  # [] share of the elements with |ratio - 1| > clip


def ppo_policy_loss(
    logp: Tensor, old_logp: Tensor, advantage: Tensor, *, clip: float, dual_clip: float | None = None
) -> PolicyLoss:
    """PPO's clipped surrogate, negated; every array is [T, N].

        r = exp(logp - old_logp)
        L = -min(r A, clip(r, 1 - clip, 1 + clip) A)                              for A >= 0, or no dual clip
        L = -max(min(r A, clip(r, 1 - clip, 1 + clip) A), dual_clip A)            for A < 0

    Computed as -A times r held to its one-sided range: at most 1 + clip for A >= 0; at least 1 - clip, and
    at most dual_clip, for A < 0. It is held before the exponential, so that the gradient of a held ratio
    is 0 even where exp would overflow.
    Sources: Schulman et al. 2017, arXiv:1707.06347; dual clip: Ye et al. 2020, arXiv:1912.09729.
    """
    assert logp.shape == old_logp.shape == advantage.shape, (logp.shape, old_logp.shape, advantage.shape)
    assert 0 < clip < 1, clip
    assert dual_clip is None or dual_clip > 1, dual_clip
    log_ratio = logp - old_logp
    lowest, highest = math.log1p(-clip), math.log1p(clip)
    cap = math.inf if dual_clip is None else math.log(dual_clip)
    held = torch.where(advantage >= 0, log_ratio.clamp(max=highest), log_ratio.clamp(lowest, cap))
    loss = -advantage * held.exp()
    outside = (log_ratio.detach() < lowest) | (log_ratio.detach() > highest)
    return PolicyLoss(loss, outside.to(log_ratio.dtype).mean())


def value_loss(value: Tensor, target: Tensor) -> Tensor:
    """Half the squared error, (value - target)^2 / 2; both and the result are [T, N].

    Source: Schulman et al. 2017, arXiv:1707.06347, equation 9, without a clip of the value.
    """
    assert value.shape == target.shape, (value.shape, target.shape)
    return 0.5 * (value - target).square()


def kl_estimate(logp: Tensor, old_logp: Tensor) -> Tensor:
    """KL(old || new) from actions of the old policy, per element; all [T, N].

        r = exp(logp - old_logp);    k3 = (r - 1) - log r  >=  0

    Unbiased, never negative, of low variance. Source: Schulman 2020, joschu.net/blog/kl-approx.html.
    """
    assert logp.shape == old_logp.shape, (logp.shape, old_logp.shape)
    log_ratio = logp - old_logp
    return torch.expm1(log_ratio) - log_ratio


def normalize(advantage: Tensor, *, eps: float = 1e-8) -> Tensor:
    """(A - mean) / (std + eps) over the whole batch, any shape; std of the batch as a population.

    Source: the common detail of PPO implementations, Engstrom et al. 2020, arXiv:2005.12729.
    """
    std, mean = torch.std_mean(advantage, correction=0)
    return (advantage - mean) / (std + eps)


class Elements(NamedTuple):
    """What the loss is of: every array [T, N]."""

    logp: Tensor  # of the actions taken, under the policy that learns
    entropy: Tensor
    value: Tensor
    old_logp: Tensor
    advantage: Tensor
    target: Tensor


def ppo_loss(
    elements: Elements,
    unit: Tensor,
    *,
    clip: float,
    dual_clip: float | None,
    value_coef: float,
    entropy_coef: float | Tensor,
) -> tuple[Tensor, Tensor]:
    """Mean loss [] with gradients, and the means [5] of its terms without.

        loss = policy + value_coef * value - entropy_coef * entropy

    The terms are policy, value, entropy, KL from the old policy, and the share of ratios outside the clip.
    unit []: values and targets are divided by it, so that the value's weight means the same whatever the
    rewards' size.
    """
    if elements.logp.device.type == "cpu" and elements.logp.dtype == torch.float32:
        bounds = (math.log1p(-clip), math.log1p(clip), math.inf if dual_clip is None else math.log(dual_clip))
        flat = (x.reshape(-1) for x in elements)
        return _PPOLoss.apply(*flat, float(unit), bounds, value_coef, entropy_coef)
    return reference_ppo_loss(
        elements, unit, clip=clip, dual_clip=dual_clip, value_coef=value_coef, entropy_coef=entropy_coef
    )


def reference_ppo_loss(
    elements: Elements,
    unit: Tensor,
    *,
    clip: float,
    dual_clip: float | None,
    value_coef: float,
    entropy_coef: float | Tensor,
) -> tuple[Tensor, Tensor]:
    """`ppo_loss` by its definition, on any device."""
    logp, entropy, value, old_logp, advantage, target = elements
    surrogate = ppo_policy_loss(logp, old_logp, advantage, clip=clip, dual_clip=dual_clip)
    terms = (
        surrogate.loss.mean(),
        value_loss(value / unit, target / unit).mean(),
        entropy.mean(),
        kl_estimate(logp.detach(), old_logp).mean(),
        surrogate.clip_fraction,
    )
    loss = terms[0] + value_coef * terms[1] - entropy_coef * terms[2]
    return loss, torch.stack([term.detach() for term in terms])


class _PPOLoss(torch.autograd.Function):
    """`reference_ppo_loss` on a CPU: values and gradients in one pass."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        from selfplay import loss_kernels

        *elements, unit, bounds, value_coef, entropy_coef = arguments
        assert len({x.shape for x in elements}) == 1, [x.shape for x in elements]
        size = len(elements[0])
        sums, grads = np.empty(5), elements[0].new_empty(2, size)
        arrays = [x.numpy() for x in elements]
        loss_kernels.ppo(*arrays, np.float32(unit), np.array(bounds, np.float32), sums, *grads.numpy())
        means = sums / size
        grads[1] *= value_coef
        ctx.save_for_backward(grads)
        ctx.size, ctx.entropy_coef = size, entropy_coef
        loss = means[0] + value_coef * means[1] - entropy_coef * means[2]
        terms = torch.from_numpy(means.astype(np.float32))
        ctx.mark_non_differentiable(terms)
        return torch.tensor(loss, dtype=torch.float32), terms

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (own,) = ctx.saved_tensors
        scale = grads[0] / ctx.size
        logp, value = own * scale
        return logp, (-ctx.entropy_coef * scale).expand(ctx.size), value, *(None,) * 7
