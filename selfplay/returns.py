"""Advantages and value targets of fragments: pure functions of time-major tensors [T, N].

`next_value[t]` is the value of the view reached after decision t. Within an episode it equals
`value[t + 1]`; at a truncation, and in a fragment's last row, it is the value that only it knows; at a
termination it is never read. All results are constants of the loss: no gradient flows through them.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class VTrace(NamedTuple):
    """V-trace of a fragment; see `vtrace`."""

    target: Tensor  # [T, N] value target v_t
    advantage: Tensor  # [T, N] policy-gradient advantage, weighted by rho_t


@torch.no_grad()
def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    lam: float,
) -> Tensor:
    """Generalised advantage estimates; every array and the result are [T, N].

        delta_t = reward_t + gamma * (1 - terminated_t) * next_value_t - value_t
        A_t     = delta_t + gamma * lam * (1 - ended_t) * A_{t+1},    A_T = 0

    Only `terminated` stops bootstrapping; either ending stops the recursion. The value target is A + value.
    Source: Schulman et al. 2016, arXiv:1506.02438.
    """
    _check_shapes(reward, value, next_value, terminated, truncated)
    delta = reward + gamma * next_value.masked_fill(terminated, 0.0) - value
    goes_on = (~(terminated | truncated)).to(delta.dtype)
    return _discounted_sum(delta, gamma * lam * goes_on)


@torch.no_grad()
def vtrace(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    logp_behaviour: Tensor,
    logp_target: Tensor,
    *,
    gamma: float,
    lam: float,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
) -> VTrace:
    """Off-policy value targets and advantages; every array is [T, N], endings as in `gae`.

        rho_t   = min(rho_bar, pi_t / mu_t),    c_t = lam * min(c_bar, pi_t / mu_t)
        delta_t = rho_t * (reward_t + gamma * (1 - terminated_t) * next_value_t - value_t)
        x_t     = delta_t + gamma * (1 - ended_t) * c_t * x_{t+1},    x_T = 0
        v_t     = value_t + x_t
        A_t     = rho_t * (reward_t + gamma * ((1 - terminated_t) * next_value_t
                                               + (1 - ended_t) * lam * x_{t+1}) - value_t)

    mu is the policy that acted (`logp_behaviour`), pi the one that learns (`logp_target`). With mu = pi and
    rho_bar = c_bar = 1, A is `gae`'s advantage and v its value target; with lam = 1 as well, the n-step
    return. A already carries the weight rho, so a PPO ratio on top of it is taken against pi, not mu:
    pass `logp_target` as its `old_logp`.
    Source: Espeholt et al. 2018, arXiv:1802.01561, equation 1 and remark 2 for lam; A with lam as in rlax.
    """
    _check_shapes(reward, value, next_value, terminated, truncated, logp_behaviour, logp_target)
    ratio = (logp_target - logp_behaviour).exp()
    rho = ratio.clamp(max=rho_bar)
    one_step = reward + gamma * next_value.masked_fill(terminated, 0.0) - value
    goes_on = gamma * lam * (~(terminated | truncated)).to(one_step.dtype)
    correction = _discounted_sum(rho * one_step, goes_on * ratio.clamp(max=c_bar))
    following = torch.zeros_like(correction)  # x_{t+1}
    following[:-1] = correction[1:]
    return VTrace(value + correction, rho * (one_step + goes_on * following))


def _discounted_sum(delta: Tensor, discount: Tensor) -> Tensor:
    """x_t = delta_t + discount_t * x_{t+1} with x_T = 0; all [T, N]. T steps, each over all lanes."""
    total = delta.clone()
    for t in range(len(total) - 2, -1, -1):
        total[t].addcmul_(discount[t], total[t + 1])
    return total


def _check_shapes(reward: Tensor, *others: Tensor) -> None:
    """One shape for all: broadcasting [T, N] against [T, N, 1] or [N] would be silently wrong."""
    assert reward.dim() == 2, f"expected [T, N], got {tuple(reward.shape)}"
    shapes = [tuple(each.shape) for each in others]
    assert all(shape == tuple(reward.shape) for shape in shapes), f"{tuple(reward.shape)} against {shapes}"
