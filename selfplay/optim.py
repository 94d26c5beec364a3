"""Parameters as one vector, its gradient's clipping (OpenAI Five's, then by the norm) and Adam's step."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from selfplay import optim_kernels

DECAY = 0.999


def flatten_(params: Sequence[Tensor]) -> Tensor:
    """One vector of all numbers, of which the parameters become views: what is done to it is done to them.

    Adam, clipping and norms over one tensor are one call each, where many small tensors are many.
    """
    flat = torch.cat([param.detach().reshape(-1) for param in params])
    for param, view in zip(params, views(flat, params), strict=True):
        param.data = view
    return flat


def views(flat: Tensor, params: Sequence[Tensor]) -> list[Tensor]:
    """A vector's pieces in the shapes of the parameters, in their order."""
    pieces = flat.split([param.numel() for param in params])
    return [piece.view(param.shape) for piece, param in zip(pieces, params, strict=True)]


@dataclass(slots=True)
class SecondMoment:
    """State of `clip_per_parameter_`, kept and saved by its caller."""

    average: list[Tensor]  # as each parameter: running average of its squared unclipped gradient, from 0
    num_updates: int = 0

    @classmethod
    def zeros(cls, params: Iterable[Tensor]) -> Self:
        """The state before the first update; params in the order in which they will be clipped."""
        return cls([torch.zeros_like(param, requires_grad=False) for param in params])


@torch.no_grad()
def clip_per_parameter_(
    params: Iterable[Tensor], second_moment: SecondMoment, *, sigma: float = 5.0, decay: float = DECAY
) -> None:
    """Clip every gradient element to +-sigma * sqrt(v), in place; update second_moment, in place.

        m <- decay * m + (1 - decay) * g^2        (g the unclipped gradient)
        v  = m / (1 - decay^num_updates)
        g <- min(max(g, -sigma sqrt(v)), sigma sqrt(v))

    v holds the present gradient too, so the first update clips nothing, and a parameter that had no gradient
    before may still move; once the history is long, no element passes with more than sigma * sqrt(1 - decay)
    (0.16) of itself where its history is 0. A missing gradient counts as 0. Nothing here waits for the
    device; a gradient that is not finite goes through and stays in m, so check the norm where that matters.
    Source: Berner et al. 2019, arXiv:1912.06680; v kept as in Adam, with its bias correction.
    """
    params = list(params)
    assert len(params) == len(second_moment.average), (len(params), len(second_moment.average))
    second_moment.num_updates += 1
    torch._foreach_mul_(second_moment.average, decay)
    pairs = zip(params, second_moment.average, strict=True)
    present = [(param.grad, average) for param, average in pairs if param.grad is not None]
    if not present:
        return
    grads = [grad for grad, _ in present]
    averages = [average for _, average in present]
    torch._foreach_addcmul_(averages, grads, grads, value=1 - decay)
    bounds = torch._foreach_sqrt(averages)
    torch._foreach_mul_(bounds, sigma / math.sqrt(1 - decay**second_moment.num_updates))
    torch._foreach_minimum_(grads, bounds)
    torch._foreach_neg_(bounds)
    torch._foreach_maximum_(grads, bounds)


def clip_gradient_(param: Tensor, second_moment: SecondMoment, sigma: float | None, norm: Tensor) -> None:
    """`clip_per_parameter_` of one vector unless sigma is None; its gradient's norm is written to norm [].

    On a CPU in float32 by kernels, as `adam_step_`; few calls of torch, since each costs 20 to 100 us when
    the gradient has just been through the cache.
    """
    grad, (average,) = param.grad, second_moment.average
    assert grad is not None
    if not _by_kernels(param):
        if sigma is not None:
            clip_per_parameter_([param], second_moment, sigma=sigma)
        torch.linalg.vector_norm(grad, out=norm)
    elif sigma is None:
        norm.numpy()[()] = optim_kernels.norm(grad.numpy())
    else:
        second_moment.num_updates += 1
        history = average.numpy(), sigma, DECAY, second_moment.num_updates
        norm.numpy()[()] = optim_kernels.clip(grad.numpy(), *history)


def adam_step_(adam: torch.optim.Adam, norm: float, limit: float | None) -> None:
    """The step of Adam's one vector, whose gradient has this norm; above limit it is scaled down to it.

    g <- g * min(1, limit / (norm + 1e-6))        (as torch.nn.utils.clip_grad_norm_)
    """
    (group,) = adam.param_groups
    (param,) = group["params"]
    scale = 1.0 if limit is None else min(1.0, limit / (norm + 1e-6))
    if not _by_kernels(param):
        param.grad.mul_(scale)
        adam.step()
        return
    state = adam.state[param]
    if not state:  # as torch begins
        moments = {name: torch.zeros_like(param) for name in ("exp_avg", "exp_avg_sq")}
        state.update(step=torch.zeros(()), **moments)
    step = state["step"].numpy()
    step += 1
    arrays = (x.numpy() for x in (param, param.grad, state["exp_avg"], state["exp_avg_sq"]))
    optim_kernels.adam(*arrays, scale, group["lr"], *group["betas"], group["eps"], float(step))


def _by_kernels(param: Tensor) -> bool:
    return param.is_cpu and param.dtype == torch.float32
