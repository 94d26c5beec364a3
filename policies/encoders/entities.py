"""Sets of entities (units, cards, messages): one small network for each, then each feature's maximum."""

from __future__ import annotations

import gymnasium
from gymnasium import spaces
from torch import Tensor, nn

from policies.encoders.mlp import MLP
from policies.encoders.scaling import RunningScale, is_normalized
from policies.spaces import dtype_of

ENTITY_SIZE = 64
MASK = "_mask"


def is_entity_set(path: str, space: gymnasium.Space, siblings: dict[str, gymnasium.Space]) -> bool:
    """A Box [E, F] of floats at PATH beside a MultiBinary(E) at PATH_mask, its entities' presence."""
    if not isinstance(space, spaces.Box) or dtype_of(space).kind != "f" or len(space.shape) != 2:
        return False
    mask = siblings.get(path + MASK) if path else None
    return isinstance(mask, spaces.MultiBinary) and mask.shape == space.shape[:1] and 0 not in space.shape


class EntitySet(nn.Module):
    """Two layers for each entity, the maximum over those present; where there is none, zeros.

    The order of entities changes nothing, and what stands in the places of absent ones does not either.
    Source: Berner et al. 2019, arXiv:1912.06680, appendix on the observation's processing.
    """

    def __init__(self, space: spaces.Box, normalize: str) -> None:
        super().__init__()
        self.output_size = ENTITY_SIZE
        size = space.shape[1]
        self.scale = RunningScale((size,)) if is_normalized(space, normalize) else None
        self.layers = MLP(size, (ENTITY_SIZE, ENTITY_SIZE))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [M, E, F], mask [M, E] -> pool [M, D], embeddings [M, E, D], present [M, E] bool."""
        rows, number, size = x.shape
        present = mask.bool()
        # Zeroed, not merely left out of the maximum: even a NaN in an empty place is without effect.
        x = x.float().masked_fill(~present[..., None], 0.0)
        if self.scale is not None:
            x = self.scale(x)
        embeddings = self.layers(x.reshape(rows * number, size)).reshape(rows, number, -1)
        # After a ReLU nothing is below 0, which therefore never wins against one that is present.
        pool = embeddings.masked_fill(~present[..., None], 0.0).amax(dim=1)
        return pool, embeddings, present

    def observe(self, x: Tensor, mask: Tensor) -> None:
        """Move the running moments with the entities that are present: x [M, E, F], mask [M, E]."""
        if self.scale is not None:
            self.scale.observe(x[mask.bool()])
