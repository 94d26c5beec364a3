"""Several policies of one network in one forward: weights and rows stacked, a first dimension of policies.

On a GPU a small batch costs its launches, whatever its size, so that K opponents one after another take K
times as long as one. On a CPU one after another is faster (docs/performance.md).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from envs.vector import Tree
from policies.encoders.scaling import RunningScale
from policies.lstm import LSTM
from policies.policy import Leaves, Policy
from selfplay.players import Decision
from selfplay.transfer import to_device, to_host


class Rows(NamedTuple):
    """R decisions that one policy is to make."""

    obs: Tree  # leaves [R, ...]
    mask: Tree  # leaves [R, n]
    is_first: np.ndarray  # [R]
    state: np.ndarray  # [L, S, R, H]
    uniform: np.ndarray  # [R, U]


class _Acting(nn.Module):
    """A policy's decision as a module's forward, which is what torch.func calls."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def forward(
        self, obs: Leaves, mask: Leaves, is_first: Tensor, state: Tensor, uniform: Tensor
    ) -> tuple[Leaves, Tensor, Tensor, Tensor]:
        out = self.policy.step(obs, is_first, state)
        action, logp = self.policy.head.sample(out.head, mask, uniform)
        return action, logp, out.value, out.state


class Stack:
    """K policies of the same network on the same device."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.policies = tuple(policies)
        self.device = policies[0].value_std.device
        self._weights = stack_module_state([_Acting(policy) for policy in policies])
        self._network = _Acting(copy.deepcopy(policies[0]))
        for module in self._network.modules():
            if isinstance(module, LSTM | RunningScale):
                module.plain = True  # torch.func does not see into kernels

    @torch.inference_mode()
    def decide(self, asked: Sequence[Rows]) -> list[Decision]:
        """What `PolicyPlayer.decide` gives for each policy's rows, as many of each as there are."""
        sizes = [len(rows.is_first) for rows in asked]
        widest = max(sizes)
        obs = {path: self._stacked([rows.obs[path] for rows in asked], widest) for path in asked[0].obs}
        mask = {path: self._stacked([rows.mask[path] for rows in asked], widest) for path in asked[0].mask}
        is_first = self._stacked([rows.is_first for rows in asked], widest)
        state = self._stacked([rows.state for rows in asked], widest, axis=2)
        uniform = self._stacked([rows.uniform for rows in asked], widest)
        found = vmap(self._act)(*self._weights, obs, mask, is_first, state, uniform)
        action, logp, value, state = found
        *actions, logps, values, states = to_host([*action.values(), logp, value, state])
        return [
            Decision(
                {path: leaf[k, :size] for path, leaf in zip(action, actions, strict=True)},
                logps[k, :size],
                values[k, :size],
                states[k, :, :, :size],
            )
            for k, size in enumerate(sizes)
        ]

    def _act(
        self, params: dict[str, Tensor], buffers: dict[str, Tensor], *inputs: Leaves | Tensor
    ) -> tuple[Leaves, Tensor, Tensor, Tensor]:
        return functional_call(self._network, (params, buffers), inputs)

    def _stacked(self, arrays: Sequence[np.ndarray], widest: int, axis: int = 0) -> Tensor:
        """[K, ...] on the device, each padded along its rows."""
        padded = np.stack([x.take(_padding(x.shape[axis], widest), axis=axis) for x in arrays])
        return to_device(padded, self.device)


def _padding(rows: int, widest: int) -> np.ndarray:
    """Indices [widest] of rows, then of the first again, since padding must be a legal row too."""
    index = np.zeros(widest, np.intp)
    index[:rows] = np.arange(rows)
    return index
