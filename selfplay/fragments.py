"""Fragments: what rollouts hand to the learner. T decisions, N lanes, time-major."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

Tree = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Fragment:
    """T consecutive decisions of N lanes. A lane may hold the end of one match and the start of the next."""

    obs: Tree  # leaf -> [T, N, ...]
    mask: Tree  # leaf -> [T, N, n] bool, legal actions
    is_first: np.ndarray  # [T, N] bool, obs[t] opens an episode: zero the state before it
    action: Tree  # leaf -> [T, N, ...]
    logp: np.ndarray  # [T, N] of the action under the policy that took it
    value: np.ndarray  # [T, N]
    reward: np.ndarray  # [T, N] earned from this decision until the next
    terminated: np.ndarray  # [T, N] bool
    truncated: np.ndarray  # [T, N] bool
    next_value: np.ndarray  # [T, N] value of the view reached, before any restart
    initial_state: np.ndarray  # [L, S, N, H] recurrent state entering t = 0
    version: np.ndarray  # [T, N] int32, weights that took the decision, for staleness

    def map(self, function: Callable[[np.ndarray, int], np.ndarray]) -> Fragment:
        """The fragment with function(array, lane_axis) applied to every array."""

        def apply(name: str) -> Any:
            value = getattr(self, name)
            axis = 2 if name == "initial_state" else 1
            if isinstance(value, dict):
                return {path: function(leaf, axis) for path, leaf in value.items()}
            return function(value, axis)

        return Fragment(**{field.name: apply(field.name) for field in fields(self)})

    @property
    def num_lanes(self) -> int:
        return self.is_first.shape[1]


def concatenate(parts: Sequence[Fragment]) -> Fragment:
    """Fragments of several rollouts side by side, in their order."""
    if len(parts) == 1:
        return parts[0]

    def join(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        axis = 2 if name == "initial_state" else 1
        if isinstance(values[0], dict):
            return {path: np.concatenate([v[path] for v in values], axis) for path in values[0]}
        return np.concatenate(values, axis)

    return Fragment(**{field.name: join(field.name) for field in fields(Fragment)})
