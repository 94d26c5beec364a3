"""From observation leaves to one vector per decision, every leaf by the encoder of its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, cast

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from policies.encoders.entities import MASK, EntitySet, is_entity_set
from policies.encoders.images import Image, is_image
from policies.encoders.vectors import Choices, Flat
from policies.spaces import describe, dtype_of


class Encoded(NamedTuple):
    """M rows of an observation."""

    x: Tensor  # [M, K]
    entities: dict[str, Tensor]  # by path of an entity set: embeddings [M, E, D]
    present: dict[str, Tensor]  # the same paths: [M, E] bool


class LeafEncoder(Protocol):
    """What turns one leaf into its share of the vector."""

    output_size: int

    def __call__(self, x: Tensor) -> Tensor:
        """[M, ...] of the leaf's shape -> [M, output_size] float32, each row by itself."""

    def observe(self, x: Tensor) -> None:
        """Move running statistics, if there are any, with x [M, ...]."""


def make_leaf_encoder(path: str, space: gymnasium.Space, *, cnn: str, normalize: str) -> LeafEncoder:
    """The encoder for a leaf by its kind."""
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return Choices(space)
    if isinstance(space, spaces.Box) and dtype_of(space).kind in "fiub":
        return Image(space, cnn, normalize) if is_image(space) else Flat(space, normalize)
    if isinstance(space, spaces.MultiBinary):
        return Flat(space, normalize)
    raise ValueError(
        f"no encoder for observation{describe(path, space)}; allowed: Box of real numbers, Discrete, "
        "MultiDiscrete, MultiBinary, and Dict or Tuple of these"
    )


class ObservationInput(nn.Module):
    """The encoded leaves side by side: leaves in their order, then the pools of entity sets."""

    def __init__(self, leaves: Mapping[str, gymnasium.Space], *, cnn: str, normalize: str) -> None:
        super().__init__()
        siblings = dict(leaves)
        self.set_paths = tuple(p for p, space in leaves.items() if is_entity_set(p, space, siblings))
        taken = {*self.set_paths, *(path + MASK for path in self.set_paths)}
        self.leaf_paths = tuple(path for path in leaves if path not in taken)
        encoders = [
            make_leaf_encoder(path, leaves[path], cnn=cnn, normalize=normalize) for path in self.leaf_paths
        ]
        sets = [EntitySet(cast(spaces.Box, leaves[path]), normalize) for path in self.set_paths]
        self.output_size = sum(x.output_size for x in encoders) + sum(x.output_size for x in sets)
        if self.output_size == 0:
            raise ValueError("no encoder for an observation without numbers")
        self.leaf = nn.ModuleList(cast(list[nn.Module], encoders))
        self.set = nn.ModuleList(sets)
        pairs = [(path, x) for path, x in zip(self.leaf_paths, encoders, strict=True) if type(x) is Flat]
        self._all_flat = pairs if len(pairs) == len(encoders) and not sets else None

    def forward(self, obs: Mapping[str, Tensor]) -> Encoded:
        """Leaves [M, ...] by path; those of other paths are not looked at."""
        parts = [encoder(obs[path]) for path, encoder in zip(self.leaf_paths, self.leaf, strict=True)]
        entities, present = {}, {}
        for path, encoder in zip(self.set_paths, self.set, strict=True):
            pool, entities[path], present[path] = encoder(obs[path], obs[path + MASK])
            parts.append(pool)
        return Encoded(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1), entities, present)

    def reader(self) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
        """`forward`'s x [M, K] of leaves [M, ...] as arrays, on a CPU and without gradients.

        By the parameters and moments where they lie now: look it up again once they are moved.
        """
        if self._all_flat is None:
            return self._read
        readers = [(path, encoder.reader()) for path, encoder in self._all_flat]
        if len(readers) > 1:
            return lambda obs: np.concatenate([read(obs[path]) for path, read in readers], axis=1)
        ((only, read),) = readers
        return lambda obs: read(obs[only])

    @torch.no_grad()
    def _read(self, obs: Mapping[str, np.ndarray]) -> np.ndarray:
        x = self({path: torch.as_tensor(leaf) for path, leaf in obs.items()}).x
        return x.contiguous().numpy()

    @torch.no_grad()
    def observe(self, obs: Mapping[str, Tensor]) -> None:
        """Move the running statistics with leaves [M, ...]."""
        for path, encoder in zip(self.leaf_paths, cast(list[LeafEncoder], self.leaf), strict=True):
            encoder.observe(obs[path])
        for path, entity_set in zip(self.set_paths, cast(list[EntitySet], self.set), strict=True):
            entity_set.observe(obs[path], obs[path + MASK])
