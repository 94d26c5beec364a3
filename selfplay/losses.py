"""The terms of the loss: pure functions of tensors, per element ([T, N]), left to the caller to average."""

import math
from typing import NamedTuple

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
