"""Images by convolutions, each to one vector."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional

from policies.encoders.scaling import RunningScale
from policies.linear import linear

Sides = tuple[int, int]
"""Something of the height and of the width."""

IMAGE_SIZE = 256
SMALLEST_SIDE = 8
WIDEST_BOUNDS = 1e6  # what reaches further, such as a dtype's own limits, says nothing of the pixels


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """Which axis of a three-dimensional shape is the channels': 0 or 2; None if the image has but two.

    Two neighbouring sides that are equal are the picture's: (8, 8, 111) has 111 channels, last, and
    (17, 9, 9) 17, first. Otherwise the smaller of the first and the last axis is the channels': (3, 120, 160)
    and (120, 160, 3) have three. What that leaves open, such as (8, 8, 8), is taken as channels last.
    """
    if len(shape) == 2:
        return None
    first, middle, last = shape
    if first == middle:
        return 2
    if middle == last:
        return 0
    return 0 if first < last else 2


def _layout(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Height, width and channels."""
    axis = channel_axis(shape)
    if axis is None:
        return shape[0], shape[1], 1
    sides = shape[1:] if axis == 0 else shape[:2]
    return sides[0], sides[1], shape[axis]


def is_image(space: gymnasium.Space) -> bool:
    """A Box of three dimensions, or of two and uint8, whose picture has both sides of 8 or more."""
    if not isinstance(space, spaces.Box):
        return False
    if len(space.shape) != 3 and not (len(space.shape) == 2 and space.dtype == np.uint8):
        return False
    return min(_layout(space.shape)[:2]) >= SMALLEST_SIDE


class Image(nn.Module):
    """Pixels brought to about 1, convolutions, and one linear layer with ReLU.

    Where all channels are bounded, each is scaled from its bounds to [0, 1] (uint8 of 0..255: x / 255);
    otherwise by its running moments, unless normalize is "off".
    """

    low: Tensor  # [C]
    span: Tensor  # [C]

    def __init__(self, space: spaces.Box, kind: str, normalize: str) -> None:
        super().__init__()
        self.axis = channel_axis(space.shape)
        height, width, channels = _layout(space.shape)
        low, high = self._bounds(space, channels)
        bounded = bool((high - low <= WIDEST_BOUNDS).all())
        if not bounded:
            low, high = np.zeros(channels), np.ones(channels)
        self.scale = None if bounded or normalize == "off" else RunningScale((channels,))
        span = np.where(high > low, high - low, 1.0)
        self.register_buffer("low", torch.tensor(low, dtype=torch.float32), persistent=False)
        self.register_buffer("span", torch.tensor(span, dtype=torch.float32), persistent=False)
        self.layers = (_small if kind == "small" else _deep)(height, width, channels)
        with torch.no_grad():
            size = self.layers(torch.zeros(1, channels, height, width)).numel()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(IMAGE_SIZE, size), gain=2**0.5))
        self.bias = nn.Parameter(torch.zeros(IMAGE_SIZE))
        self.output_size = IMAGE_SIZE

    def _bounds(self, space: spaces.Box, channels: int) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest number of each channel [C]."""
        low, high = (np.asarray(x, np.float64) for x in (space.low, space.high))
        if self.axis == 0:
            low, high = np.moveaxis(low, 0, -1), np.moveaxis(high, 0, -1)
        return low.reshape(-1, channels).min(0), high.reshape(-1, channels).max(0)

    def _pixels(self, x: Tensor) -> Tensor:
        """[M, ...] of the space's shape -> [M, height, width, C] float32."""
        if self.axis is None:
            x = x[..., None]
        elif self.axis == 0:
            x = x.movedim(1, -1)
        return x.float()

    def forward(self, x: Tensor) -> Tensor:
        """[M, ...] of the space's shape -> [M, 256]."""
        x = self._pixels(x)
        x = (x - self.low) / self.span if self.scale is None else self.scale(x)
        x = self.layers(x.movedim(-1, 1).contiguous())
        return functional.relu(linear(x.flatten(1).float(), self.weight, self.bias)).float()

    def observe(self, x: Tensor) -> None:
        """Move the running moments with x [M, ...]."""
        if self.scale is not None:
            self.scale.observe(self._pixels(x))


def _both(function: Callable[..., int], *pairs: Sides) -> Sides:
    """The function of the heights and of the widths."""
    height, width = (function(*numbers) for numbers in zip(*pairs, strict=True))
    return height, width


def _convolution(inputs: int, outputs: int, kernel: Sides, stride: Sides) -> nn.Conv2d:
    """Padded, where the stride is 1, so that a side stays what it is."""
    padding = _both(lambda size, step: size // 2 if step == 1 else 0, kernel, stride)
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding)
    nn.init.orthogonal_(layer.weight, gain=2**0.5)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _small(height: int, width: int, channels: int) -> nn.Sequential:
    """Three layers; a side is strided by 4 from 48 on and by 2 from 20 on, so that boards keep their squares.

    At 84 x 84 these are the layers of Mnih et al. 2015, to 9 x 9: kernels 8, 4, 3 and strides 4, 2, 1.
    """
    sides: Sides = (height, width)
    layers: list[nn.Module] = []
    for outputs in (32, 64, 32):
        stride = _both(lambda side: 4 if side >= 48 else 2 if side >= 20 else 1, sides)
        kernel = _both(lambda step: {4: 8, 2: 4, 1: 3}[step], stride)
        layers += [_convolution(channels, outputs, kernel, stride), nn.ReLU()]
        sides = _both(
            lambda side, size, step: side if step == 1 else (side - size) // step + 1, sides, kernel, stride
        )
        channels = outputs
    return nn.Sequential(*layers)


class _Residual(nn.Module):
    """x + conv(relu(conv(relu(x)))); the identity at first, which keeps deep stacks' sizes in hand."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (_convolution(channels, channels, (3, 3), (1, 1)) for _ in range(2))
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(functional.relu(self.first(functional.relu(x))))


def _deep(height: int, width: int, channels: int) -> nn.Sequential:
    """The residual network of IMPALA (Espeholt et al. 2018, arXiv:1802.01561, figure 3).

    Three stages of a convolution, a maximum over 3 x 3 that halves each side of 20 or more, and two
    residual blocks.
    """
    sides: Sides = (height, width)
    layers: list[nn.Module] = []
    for outputs in (16, 32, 32):
        stride = _both(lambda side: 2 if side >= 20 else 1, sides)
        layers.append(_convolution(channels, outputs, (3, 3), (1, 1)))
        if max(stride) == 2:
            layers.append(nn.MaxPool2d(3, stride, padding=1))
        layers += [_Residual(outputs), _Residual(outputs)]
        sides = _both(lambda side, step: -(-side // step), sides, stride)
        channels = outputs
    return nn.Sequential(*layers, nn.ReLU())
