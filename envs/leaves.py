"""The leaves of a nested Gymnasium space, by path."""

from __future__ import annotations

from gymnasium import spaces


def leaf_spaces(space: spaces.Space, path: str = "") -> dict[str, spaces.Space]:
    """A space's leaves in order: "" for a leaf alone, "a/b" within Dict and Tuple ("0", "1", ...)."""
    if isinstance(space, spaces.Dict):
        children = list(space.items())
    elif isinstance(space, spaces.Tuple):
        children = [(str(index), child) for index, child in enumerate(space)]
    else:
        return {path: space}
    leaves: dict[str, spaces.Space] = {}
    for key, child in children:
        leaves |= leaf_spaces(child, f"{path}/{key}" if path else str(key))
    return leaves
