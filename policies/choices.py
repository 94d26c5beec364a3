"""Leaves made of choices: Discrete, MultiDiscrete, MultiBinary, and pointers to the entities of a set."""

from __future__ import annotations

import math

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from policies import categorical
from policies.head_interface import HeadInput
from policies.leaf_heads import LeafHead, torch_dtype

ChoiceSpace = spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary


def counts(space: ChoiceSpace) -> np.ndarray:
    """Choices of each part [k]: one part for Discrete, parts of two for MultiBinary."""
    if isinstance(space, spaces.Discrete):
        return np.array([space.n], np.int64)
    if isinstance(space, spaces.MultiBinary):
        return np.full(math.prod(space.shape), 2, np.int64)
    return space.nvec.reshape(-1).astype(np.int64)


class Choices(LeafHead):
    """k independent choices, padded to the most choices n of a part. Padding is illegal."""

    start: Tensor  # [k] the value of choice 0
    real: Tensor  # [k, n] bool: no padding
    column: Tensor  # [k * n] where a part's choice lies in the flat input and in the mask

    def __init__(self, space: ChoiceSpace) -> None:
        super().__init__()
        count = counts(space)
        self.num_parts, self.num_params = len(count), int(count.max())
        self.num_inputs = int(count.sum())
        self.shape, self.dtype = space.shape or (), torch_dtype(space)
        self.padded = bool((count < count.max()).any())
        start = np.broadcast_to(getattr(space, "start", 0), self.shape).reshape(-1)
        real = np.arange(self.num_params) < count[:, None]
        column = np.where(real, np.cumsum(count)[:, None] - count[:, None] + np.arange(self.num_params), 0)
        self.register_buffer("start", torch.tensor(start.astype(np.int64)), persistent=False)
        self.register_buffer("real", torch.from_numpy(real), persistent=False)
        self.register_buffer("column", torch.from_numpy(column.reshape(-1)), persistent=False)

    def unpack(self, flat: Tensor) -> Tensor:
        if self.padded:
            flat = flat.index_select(-1, self.column)
        return flat.unflatten(-1, (self.num_parts, self.num_params))

    def scores(self, params: Tensor, x: HeadInput) -> Tensor:
        return params

    def legal(self, mask: Tensor | None, x: HeadInput) -> Tensor | None:
        if mask is None:
            lead = x.flat.shape[:-1]
            return self.real.expand(*lead, *self.real.shape) if self.padded else None
        legal = self.unpack(mask)
        return legal & self.real if self.padded else legal

    def draw(
        self, scores: Tensor, legal: Tensor | None, parts: slice, uniform: Tensor
    ) -> tuple[Tensor, Tensor]:
        return categorical.draw(scores, legal, uniform)

    def best(self, scores: Tensor, legal: Tensor | None, parts: slice) -> tuple[Tensor, Tensor]:
        return categorical.best(scores, legal)

    def evaluate(self, scores: Tensor, legal: Tensor | None, value: Tensor) -> tuple[Tensor, Tensor]:
        return categorical.evaluate(scores, legal, value)

    def kl(self, scores: Tensor, reference: LeafHead, other: Tensor, legal: Tensor | None) -> Tensor:
        return categorical.kl(scores, other, legal)

    def parse(self, action: Tensor) -> Tensor:
        lead = action.shape[: action.dim() - len(self.shape)]
        return action.reshape(*lead, self.num_parts).long() - self.start

    def build(self, value: Tensor) -> Tensor:
        return (value + self.start).to(self.dtype).reshape(len(value), *self.shape)


class Pointer(Choices):
    """One choice among the E entities of a set: logit_e = query . embedding_e / sqrt(D).

    The query [..., D] is the leaf's params. The leaf's mask decides alone what is legal; where the game
    gives none, an entity is legal if it is present. Source: OpenAI et al. 2019, arXiv:1912.06680
    (unit targets); Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1 for the scale.
    """

    def __init__(self, space: spaces.Discrete, entities: str, entity_size: int) -> None:
        super().__init__(space)
        self.entities, self.num_entities = entities, int(space.n)
        self.num_params = self.num_inputs = entity_size

    def embeddings(self, x: HeadInput) -> Tensor:
        """The set's embeddings [..., E, D], as many as there are choices."""
        embeddings = x.entities[self.entities].float()
        if embeddings.shape[-2:] != (self.num_entities, self.num_params):
            raise ValueError(
                f"an action of {self.num_entities} choices points to observation {self.entities!r} of "
                f"{embeddings.shape[-2]} entities; allowed: one choice for each entity"
            )
        return embeddings

    def scores(self, params: Tensor, x: HeadInput) -> Tensor:
        return params @ self.embeddings(x).mT / math.sqrt(self.num_params)

    def legal(self, mask: Tensor | None, x: HeadInput) -> Tensor | None:
        return (x.present[self.entities] if mask is None else mask)[..., None, :]
