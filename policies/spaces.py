"""Gymnasium spaces as flat trees: nested Dict and Tuple spaces become leaves by path."""

from __future__ import annotations

import gymnasium
from gymnasium import spaces


def leaves(space: gymnasium.Space, path: str = "") -> dict[str, gymnasium.Space]:
    """The leaf spaces by path: "" for a leaf itself, "a/b" inside Dicts, "0/1" inside Tuples."""
    if isinstance(space, spaces.Dict):
        children = list(space.spaces.items())
    elif isinstance(space, spaces.Tuple):
        children = [(str(k), child) for k, child in enumerate(space.spaces)]
    else:
        return {path: space}
    return {
        leaf: child_space
        for name, child in children
        for leaf, child_space in leaves(child, f"{path}/{name}" if path else name).items()
    }
