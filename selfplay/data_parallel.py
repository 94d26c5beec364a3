"""Learners that share each batch: every one takes some lanes, and all take the same steps.

What depends on more than one lane is made of all learners' lanes: gradients, advantages' mean and deviation,
running moments, metrics. So parameters, optimisers and moments stay equal on all, bit for bit, and N learners
are one learner with N times the lanes, to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple, Protocol, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore as TCPStore  # type: ignore[attr-defined]

from policies.moments import RunningMoments
from policies.policy import Leaves, Policy
from selfplay import losses
from selfplay.fragments import Fragment, concatenate

TIMEOUT = timedelta(minutes=5)
"""How long learners wait for each other: an update's own differences, or a sibling that is out of reach."""

T = TypeVar("T")


class Siblings(Protocol):
    """All learners of a run, as one of them sees them; each calls the same methods in the same order."""

    rank: int

    def all(self, mine: T) -> list[T]:
        """What each brought, in order of rank."""
        ...

    def add_(self, x: Tensor) -> None:
        """Make x, in place, the sum of everybody's."""
        ...


class Distributed:
    """`Siblings` in processes of their own: gloo between CPUs, NCCL between GPUs."""

    def __init__(self, device: str, store: TCPStore, rank: int, size: int) -> None:
        """store: by which they find each other."""
        self.rank, self._size = rank, size
        backend = "nccl" if device == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)

    def all(self, mine: T) -> list[T]:
        found: list[T | None] = [None] * self._size
        dist.all_gather_object(found, mine)
        return cast(list[T], found)

    def add_(self, x: Tensor) -> None:
        dist.all_reduce(x)


class Brought(NamedTuple):
    """What one learner brings to an update."""

    lanes: int
    steps: int  # decisions
    staleness: int  # sum over them
    staleness_max: int
    shape: Fragment | None  # without lanes


def bring(fragments: Sequence[Fragment], version: int, siblings: Siblings | None) -> list[Brought]:
    """What all learners bring to an update at this version, in order of rank; fragments: this one's."""
    mine = Brought(0, 0, 0, 0, None)
    if fragments:
        staleness = np.concatenate([version - each.version for each in fragments], axis=1)
        shape = fragments[0].map(lambda array, axis: np.take(array, np.arange(0), axis=axis))
        mine = Brought(staleness.shape[1], staleness.size, int(staleness.sum()), int(staleness.max()), shape)
    return [mine] if siblings is None else siblings.all(mine)


def side_by_side(fragments: Sequence[Fragment], brought: Sequence[Brought]) -> Fragment:
    """The fragments as one; of no lanes where only siblings have some."""
    shapes = [each.shape for each in brought if each.shape is not None]
    return concatenate(fragments or shapes[:1])


class Moments(NamedTuple):
    """Of samples: their number [], mean [...] and sum of squared deviations from it [...], float64."""

    number: Tensor
    mean: Tensor
    m2: Tensor


def merged(parts: Sequence[Moments]) -> Moments:
    """Moments of all samples together; see `policies.moments.RunningMoments`."""
    number, mean, m2 = parts[0]
    for other in parts[1:]:
        total = number + other.number
        share = other.number / total.clamp(min=1)
        distance = other.mean - mean
        m2 = m2 + other.m2 + distance.square() * number * share
        mean = mean + distance * share
        number = total
    return Moments(number, mean, m2)


def moments(x: Tensor, siblings: Siblings) -> Moments:
    """Of the elements of everybody's x, of any shape; [] each, on x's device."""
    own = RunningMoments().to(x.device)
    own.update(x)
    return _of_all([own], siblings)[0]


def _of_all(running: Sequence[RunningMoments], siblings: Siblings) -> list[Moments]:
    """Each module's moments and those of its equals at all siblings, merged in order of rank."""
    mine = [Moments(*(x.cpu() for x in _read(each))) for each in running]
    found = zip(*siblings.all(mine), strict=True)
    return [Moments(*(x.to(running[0].count.device) for x in merged(each))) for each in found]


def variance(x: Tensor, siblings: Siblings | None) -> Tensor:
    """[] variance, unbiased, of the elements of everybody's x."""
    if siblings is None:
        return x.var()
    found = moments(x, siblings)
    return found.m2 / (found.number - 1)


def normalize(advantage: Tensor, siblings: Siblings | None) -> Tensor:
    """`losses.normalize` by the mean and deviation of everybody's advantages."""
    if siblings is None:
        return losses.normalize(advantage)
    number, mean, m2 = moments(advantage, siblings)
    return ((advantage - mean) / ((m2 / number).sqrt() + 1e-8)).to(advantage.dtype)


def update(running: RunningMoments, x: Tensor, siblings: Siblings | None) -> None:
    """Add the elements of everybody's x."""
    if siblings is None:
        running.update(x)
    else:
        _write(running, merged([_read(running), moments(x, siblings)]))


def observe(policy: Policy, obs: Leaves, siblings: Siblings | None) -> None:
    """Move the running moments of the policy's inputs by everybody's obs, leaves [T, N, ...]."""
    running = [each for each in policy.modules() if isinstance(each, RunningMoments)]
    if siblings is None or not running:
        policy.observe(obs)
        return
    before = [Moments(*(x.clone() for x in _read(each))) for each in running]
    for each in running:
        _write(each, Moments(*map(torch.zeros_like, _read(each))))
    if next(iter(obs.values())).shape[1]:
        policy.observe(obs)
    for each, then, new in zip(running, before, _of_all(running, siblings), strict=True):
        _write(each, merged([then, new]))


def _read(running: RunningMoments) -> Moments:
    return Moments(running.count, running.mean, running.m2)


def _write(running: RunningMoments, state: Moments) -> None:
    """In place, since a recorded CUDA graph reads them where they lie."""
    for own, new in zip(_read(running), state, strict=True):
        own.copy_(new)
