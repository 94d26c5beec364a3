"""Which leaves an action uses: a target matters only if what was chosen to be done has one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import gymnasium
import torch
from gymnasium import spaces
from torch import Tensor, nn

Uses = Mapping[str, Mapping[str, Sequence[int]]]


class Conditions(nn.Module):
    """uses: {leaf: {primary leaf: [actions of it that use the leaf]}}; several primaries: any of them.

    A primary must be Discrete. One that is itself not used, uses nothing. Source: the heads masked out of
    the loss in OpenAI et al. 2019, arXiv:1912.06680.
    """

    def __init__(self, leaves: Mapping[str, gymnasium.Space], uses: Uses) -> None:
        super().__init__()
        self.tables: dict[str, dict[str, str]] = {}  # leaf -> primary -> name of the buffer bool [n]
        for leaf, rule in uses.items():
            self.tables[leaf] = {primary: f"{len(self.tables)}_{k}" for k, primary in enumerate(rule)}
            for primary, actions in rule.items():
                table = _table(leaves, leaf, primary, actions)
                self.register_buffer(self.tables[leaf][primary], table, persistent=False)
        self.order = self._order(list(leaves))  # as the space's, but a primary before what it uses

    def _order(self, paths: list[str]) -> list[str]:
        order: list[str] = []
        waiting = paths
        while waiting:
            ready = [path for path in waiting if set(self.tables.get(path, ())) <= set(order)]
            if not ready:
                raise ValueError(f"uses: the action leaves {waiting} use each other in a circle")
            order.append(ready[0])
            waiting = [path for path in waiting if path != ready[0]]
        return order

    def used(self, path: str, choice: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> Tensor | None:
        """Whether a leaf is used, bool [...]; None for a leaf without a condition.

        choice: primary leaf -> index of its choice [..., 1]; known: what this gave for the primaries.
        """
        result: Tensor | None = None
        for primary, table in self.tables.get(path, {}).items():
            # A primary with nothing legal has choice -1; the game will refuse it, here it uses something.
            uses = self.get_buffer(table)[choice[primary][..., 0].clamp(min=0)]
            if primary in known:
                uses = uses & known[primary]
            result = uses if result is None else result | uses
        return result


def _table(leaves: Mapping[str, gymnasium.Space], leaf: str, primary: str, actions: Sequence[int]) -> Tensor:
    """The actions of the primary leaf that use the leaf: bool [n]."""
    for path in (leaf, primary):
        if path not in leaves:
            raise ValueError(f"uses: there is no action leaf {path!r}; allowed: {sorted(leaves)}")
    space = leaves[primary]
    if not isinstance(space, spaces.Discrete):
        raise ValueError(f"uses: action leaf {primary!r} of {leaf!r} is {space}; allowed: Discrete")
    table = torch.zeros(int(space.n), dtype=torch.bool)
    for action in actions:
        if not space.contains(int(action)):
            raise ValueError(f"uses: {action} of {leaf!r} is no action of leaf {primary!r}, {space}")
        table[int(action) - int(space.start)] = True
    return table
