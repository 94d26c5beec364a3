"""What an action head is: the policy's last layer as a distribution over the action space's leaves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

Leaves = dict[str, Tensor]  # by path, as `policies.spaces.leaves` names them


class HeadInput(NamedTuple):
    """What the network gives a head. E entities of a set, D numbers of an embedding."""

    flat: Tensor  # [..., n] the output projection's share of the head
    entities: Mapping[str, Tensor] = {}  # observation path of an entity set -> its embeddings [..., E, D]
    present: Mapping[str, Tensor] = {}  # the same path -> bool [..., E]


class Head(nn.Module, ABC):
    """A distribution over actions. Masks and actions are leaves by path, actions in their space's dtype.

    A leaf's mask is bool [..., sum of its parts' choices], True where legal, the parts side by side. A
    leaf without one may take everything. A part without any legal choice is drawn as the value just
    below the space (-1 for Discrete(n)), for the game to refuse.
    """

    num_inputs: int  # n, numbers of HeadInput.flat
    num_uniforms: int  # random numbers that one decision takes

    @abstractmethod
    def sample(self, x: HeadInput, mask: Leaves, uniform: Tensor) -> tuple[Leaves, Tensor]:
        """Rows R and uniform [R, num_uniforms] in [0, 1) -> action leaves [R, ...], their logp [R]."""

    @abstractmethod
    def best(self, x: HeadInput, mask: Leaves) -> tuple[Leaves, Tensor]:
        """The likeliest action of rows R, part by part -> action leaves [R, ...], their logp [R]."""

    @abstractmethod
    def evaluate(self, x: HeadInput, mask: Leaves, action: Leaves) -> tuple[Tensor, Tensor]:
        """logp [...] of the actions taken, and entropy [...] in nats; any leading dimensions."""

    @abstractmethod
    def kl(
        self, x: HeadInput, reference: Head, reference_x: HeadInput, mask: Leaves, action: Leaves
    ) -> Tensor:
        """KL(self || reference) [...] in nats, given the actions taken; reference is a head of its kind."""
