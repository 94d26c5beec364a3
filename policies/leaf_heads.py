"""What a composite head asks of one leaf of the action space: a leaf is k parts of one kind, side by side."""

from __future__ import annotations

from abc import ABC, abstractmethod

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from policies.head_interface import HeadInput


class LeafHead(nn.Module, ABC):
    """k parts, each a choice of n or a number. R rows; m parts of the k, told by a slice.

    params [..., m, p] are what the network says of a part; scores [..., m, n] what that means for it
    (logits, or the one number that is the mean); a value [..., m] is what was taken, as a choice's index or
    as the number given to the game.
    """

    num_parts: int  # k
    num_params: int  # p
    num_inputs: int  # of the flat input, where the parts are independent

    @abstractmethod
    def unpack(self, flat: Tensor) -> Tensor:
        """flat [..., num_inputs] -> params [..., k, p]."""

    @abstractmethod
    def scores(self, params: Tensor, x: HeadInput) -> Tensor:
        """params [..., m, p] -> scores [..., m, n]."""

    @abstractmethod
    def legal(self, mask: Tensor | None, x: HeadInput) -> Tensor | None:
        """The leaf's mask, parts side by side -> bool [..., k, n]; None where all is legal."""

    @abstractmethod
    def draw(
        self, scores: Tensor, legal: Tensor | None, parts: slice, uniform: Tensor
    ) -> tuple[Tensor, Tensor]:
        """uniform [R, m] in [0, 1) -> value [R, m], logp [R, m]."""

    @abstractmethod
    def best(self, scores: Tensor, legal: Tensor | None, parts: slice) -> tuple[Tensor, Tensor]:
        """The likeliest value [R, m], logp [R, m]."""

    def take(
        self, scores: Tensor, legal: Tensor | None, parts: slice, uniform: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """`draw`, or `best` where uniform is None."""
        return (
            self.best(scores, legal, parts) if uniform is None else self.draw(scores, legal, parts, uniform)
        )

    @abstractmethod
    def evaluate(self, scores: Tensor, legal: Tensor | None, value: Tensor) -> tuple[Tensor, Tensor]:
        """Of all parts: logp [..., k] and entropy [..., k] in nats."""

    @abstractmethod
    def kl(self, scores: Tensor, reference: LeafHead, other: Tensor, legal: Tensor | None) -> Tensor:
        """Of all parts: KL(self || reference) [..., k]; other [..., k, n] are the reference's scores."""

    @abstractmethod
    def parse(self, action: Tensor) -> Tensor:
        """Action leaf [..., *shape] -> value [..., k]."""

    @abstractmethod
    def build(self, value: Tensor) -> Tensor:
        """Value [R, k] -> action leaf [R, *shape] in the space's dtype."""


def torch_dtype(space: gymnasium.Space) -> torch.dtype:
    """The dtype of the space's elements in torch."""
    return torch.from_numpy(np.empty(0, space.dtype)).dtype
