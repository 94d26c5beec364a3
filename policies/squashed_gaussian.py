"""Leaves made of numbers: a Gaussian, squashed by tanh into the bounds where there are some."""

from __future__ import annotations

import math

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn.functional import softplus

from policies.head_interface import HeadInput
from policies.leaf_heads import LeafHead, torch_dtype

UNBOUNDED = 1e30  # bounds beyond this are none: scaling to them would overflow
LOG_STD = (-5.0, 2.0)  # beyond, the density's gradient or the squashed samples are all extreme
NEAR_UNIFORM = (
    0.874  # the standard deviation of the greatest entropy around the middle, .01 nats below uniform
)
NODES = 32  # of the quadrature: entropy within 2e-4 nats up to std 2


class SquashedGaussian(LeafHead):
    """Numbers a [k] in a Box of floats: u ~ N(mean, std^2), a = mid + radius tanh(u); without bounds: u.

        log p(a) = log N(u; mean, std) - log |da/du|
        log |da/du| = log radius + 2 (log 2 - u - softplus(-2u))
        H = log(std sqrt(2 pi e)) + E[log |da/du|], by Gauss-Hermite quadrature
        KL(p || q) = log(std_q / std_p) + (std_p^2 + (mean_p - mean_q)^2) / (2 std_q^2) - 1/2

    u is found from the number as given to the game, a float of limited precision, in sampling too, so that
    a replay gives the same logp. Where the number lies within a rounding or so of a bound, u cannot be
    found; there log p is that of all that rounds to it, log P(|u| >= edge), which keeps the whole at 1 and
    lets a saturated policy learn in the right direction. The standard deviation does not depend on
    the state: parameter log_std [k], held to [-5, 2]. Beyond, its gradient still brings it back.

    Source: Haarnoja et al. 2018, arXiv:1801.01290, appendix C. Units: nats.
    """

    low: Tensor  # [k] in the space's dtype
    high: Tensor
    bounded: Tensor  # [k] bool
    mid: Tensor  # [k] float32, as the following
    radius: Tensor
    edge: Tensor  # |y| from which on a rounds to a bound, for y = (a - mid) / radius
    nodes: Tensor  # [NODES] of the quadrature
    weights: Tensor  # [NODES], of sum 1

    def __init__(self, space: spaces.Box, name: str) -> None:
        super().__init__()
        low, high = space.low.reshape(-1), space.high.reshape(-1)
        bounded, mid, radius, edge = _scale(low, high, name)
        self.shape, self.dtype = space.shape, torch_dtype(space)
        self.num_parts = self.num_inputs = len(low)
        self.num_params = 1
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        buffers = {
            "mid": mid,
            "radius": radius,
            "edge": edge,
            "nodes": nodes,
            "weights": weights / weights.sum(),
        }
        for key, array in buffers.items():
            self.register_buffer(key, torch.tensor(array, dtype=torch.float32), persistent=False)
        for key, array in {"low": low, "high": high, "bounded": bounded}.items():
            self.register_buffer(key, torch.tensor(array), persistent=False)
        self.log_std = nn.Parameter(torch.where(self.bounded, math.log(NEAR_UNIFORM), 0.0))

    def unpack(self, flat: Tensor) -> Tensor:
        return flat[..., None]

    def scores(self, params: Tensor, x: HeadInput) -> Tensor:
        return params

    def legal(self, mask: Tensor | None, x: HeadInput) -> Tensor | None:
        return None

    def draw(
        self, scores: Tensor, legal: Tensor | None, parts: slice, uniform: Tensor
    ) -> tuple[Tensor, Tensor]:
        mean, log_std = scores[..., 0], self._log_std()[parts]
        value = self._to_box(mean + log_std.exp() * _normal(uniform), parts)
        return value, self._logp(mean, log_std, value, parts)

    def best(self, scores: Tensor, legal: Tensor | None, parts: slice) -> tuple[Tensor, Tensor]:
        """The median, mid + radius tanh(mean): the mode of a wide squashed Gaussian would be a bound."""
        mean = scores[..., 0]
        value = self._to_box(mean, parts)
        return value, self._logp(mean, self._log_std()[parts], value, parts)

    def evaluate(self, scores: Tensor, legal: Tensor | None, value: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = scores[..., 0], self._log_std()
        u = mean[..., None] + log_std.exp()[:, None] * self.nodes
        stretch = (self._log_stretch(u, self.radius[:, None]) * self.weights).sum(dim=-1)
        entropy = log_std + 0.5 * math.log(2 * math.pi * math.e) + stretch.where(self.bounded, 0.0)
        return self._logp(mean, log_std, value, slice(None)), entropy

    def kl(self, scores: Tensor, reference: LeafHead, other: Tensor, legal: Tensor | None) -> Tensor:
        assert isinstance(reference, SquashedGaussian)
        p, q = self._log_std(), reference._log_std()
        distance = (scores - other)[..., 0].square()
        return q - p + 0.5 * ((2 * (p - q)).exp() + distance * (-2 * q).exp() - 1)

    def parse(self, action: Tensor) -> Tensor:
        lead = action.shape[: action.dim() - len(self.shape)]
        return action.reshape(*lead, self.num_parts)

    def build(self, value: Tensor) -> Tensor:
        return value.reshape(len(value), *self.shape)

    def unit(self, value: Tensor, parts: slice) -> Tensor:
        """Numbers as given to the game -> float32 in about [-1, 1], also those without bounds."""
        y = (value.float() - self.mid[parts]) / self.radius[parts]
        return torch.where(self.bounded[parts], y, y / (1 + y.abs()))

    def _log_std(self) -> Tensor:
        return self.log_std + (self.log_std.clamp(*LOG_STD) - self.log_std).detach()

    def _to_box(self, u: Tensor, parts: slice) -> Tensor:
        """u [R, m] -> the numbers given to the game, in the space's dtype, never beyond a bound."""
        y = torch.where(self.bounded[parts], u.tanh(), u)
        value = (self.mid[parts] + self.radius[parts] * y).to(self.dtype)
        return value.clamp(self.low[parts], self.high[parts])

    def _logp(self, mean: Tensor, log_std: Tensor, value: Tensor, parts: slice) -> Tensor:
        bounded, edge = self.bounded[parts], self.edge[parts]
        y = (value.float() - self.mid[parts]) / self.radius[parts]
        inside = y.clamp(-edge, edge)
        u = torch.where(bounded, inside.atanh(), y)
        std = log_std.exp()
        density = -0.5 * ((u - mean) / std).square() - log_std - 0.5 * math.log(2 * math.pi)
        density = density - self._log_stretch(u, self.radius[parts]).where(bounded, 0.0)
        beyond = _log_ndtr((mean - u) / std * y.sign())
        return torch.where(bounded & (y.abs() >= edge), beyond, density)

    def _log_stretch(self, u: Tensor, radius: Tensor) -> Tensor:
        """log |da/du| of a bounded number."""
        return radius.log() + 2 * (math.log(2) - u - softplus(-2 * u))


def _scale(low: np.ndarray, high: np.ndarray, name: str) -> tuple[np.ndarray, ...]:
    """Bounds [k] -> bounded, mid, radius, edge [k]."""
    unit = np.finfo(low.dtype if low.dtype.itemsize < 4 else np.float32).eps
    low, high = low.astype(np.float64), high.astype(np.float64)
    bounded, unbounded = (low > -UNBOUNDED) & (high < UNBOUNDED), (low <= -UNBOUNDED) & (high >= UNBOUNDED)
    low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
    radius, mid = (high - low) / 2, (high + low) / 2
    # The spacing of floats at the outer bound, and a half for the rounding itself.
    spacing = unit * np.maximum(np.abs(low), np.abs(high)) / np.maximum(radius, np.finfo(np.float64).tiny)
    for wrong in np.flatnonzero(~(bounded | unbounded) | (spacing > 0.1)):
        raise ValueError(
            f"no action head for {name}: its number {wrong} has a single bound, or two that are too close; "
            f"allowed: low < high, both finite or both infinite"
        )
    return bounded, mid, radius, 1 - 1.5 * spacing


def _log_ndtr(x: Tensor) -> Tensor:
    """log of the standard normal's distribution function; unlike torch's, of finite gradient far down."""
    near, far = x.clamp(min=-30), x.clamp(max=-30)
    tail = -0.5 * far.square() - (-far).log() - 0.5 * math.log(2 * math.pi) - far.square().reciprocal()
    return torch.where(x < -30, tail, torch.special.log_ndtr(near))


def _normal(uniform: Tensor) -> Tensor:
    """uniform in [0, 1), multiples of 2^-24 -> standard normal, finite: each stands for its cell's middle."""
    middle = 2 * uniform - (1 - 2.0**-24)
    return math.sqrt(2) * middle.clamp(-(1 - 2.0**-24), 1 - 2.0**-24).erfinv()
