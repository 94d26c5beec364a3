"""Action heads from action spaces: what the policy's last layer means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import gymnasium
import numpy as np
from gymnasium import spaces

from policies.autoregressive_head import AutoregressiveHead
from policies.categorical_head import CategoricalHead
from policies.choices import Choices, Pointer
from policies.composite_head import CompositeHead, IndependentHead
from policies.conditions import Conditions
from policies.head_interface import Head, HeadInput, Leaves
from policies.leaf_heads import LeafHead
from policies.spaces import leaves
from policies.squashed_gaussian import SquashedGaussian

__all__ = [
    "AutoregressiveHead",
    "CategoricalHead",
    "CompositeHead",
    "Head",
    "HeadInput",
    "IndependentHead",
    "Leaves",
    "make_head",
]


def make_head(
    action_space: gymnasium.Space,
    *,
    autoregressive: bool = False,
    uses: Mapping[str, Mapping[str, Sequence[int]]] = {},
    points: Mapping[str, str] = {},
    entity_size: int = 0,
) -> Head:
    """The head of any nesting of Discrete, MultiDiscrete, MultiBinary and Box of floats.

    autoregressive: parts see the parts before them. uses: {leaf: {primary leaf: [actions that use it]}}.
    points: {action leaf Discrete(E): observation path of a set of E entities}, whose embeddings are of
    entity_size.
    """
    by_path = leaves(action_space)
    for path in points:
        if not isinstance(by_path.get(path), spaces.Discrete):
            allowed = sorted(path for path, leaf in by_path.items() if isinstance(leaf, spaces.Discrete))
            raise ValueError(f"points: {path!r} is no Discrete action leaf; allowed: {allowed}")
    conditions = Conditions(by_path, uses)
    if isinstance(action_space, spaces.Discrete) and not points:
        return CategoricalHead(action_space)
    heads = {path: _leaf_head(path, leaf, points.get(path), entity_size) for path, leaf in by_path.items()}
    if not heads:
        raise ValueError(f"no action head for {action_space}: it has no leaves; {_ALLOWED}")
    return (AutoregressiveHead if autoregressive else IndependentHead)(heads, conditions)


_ALLOWED = "allowed: Discrete, MultiDiscrete, MultiBinary, Box of floats, and Dict or Tuple of these"


def _leaf_head(path: str, space: gymnasium.Space, points_to: str | None, entity_size: int) -> LeafHead:
    name = " ".join(f"{space} at {path!r}".split()) if path else " ".join(str(space).split())
    if isinstance(space, spaces.Discrete) and points_to is not None:
        if entity_size < 1:
            raise ValueError(f"no action head for {name}: {points_to!r} is no entity set that is encoded")
        return Pointer(space, points_to, entity_size)
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        return Choices(space)
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return SquashedGaussian(space, name)
    raise ValueError(f"no action head for {name}; {_ALLOWED}")
