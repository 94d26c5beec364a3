"""The replay check: learning must see what acting saw.

Unrolling a fragment from its stored state with the weights that played it must reproduce the logged
log-probabilities and values: the probability ratio is 1. A state that was reset a step early or late,
shuffled lanes, a wrong mask or a seat whose state moved while it waited all show here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from policies.policy import Policy
from selfplay.fragments import Fragment

TOLERANCE = 1e-3


class ReplayError(RuntimeError):
    """Replayed fragments differ from what was logged: the learner would improve another policy."""


class ReplayDifference(NamedTuple):
    """Largest differences over the decisions that the given version took."""

    ratio: float  # max |exp(logp replayed - logp logged) - 1|
    value: float  # max |value replayed - value logged| / (1 + |value logged|)


@torch.no_grad()
def replay_difference(policy: Policy, fragment: Fragment, version: int) -> ReplayDifference | None:
    """Unroll lanes of which `version` took every decision, and compare; None without any such lane."""
    lanes = np.flatnonzero((fragment.version == version).all(axis=0))
    if not len(lanes):
        return None
    device = next(policy.parameters()).device
    part = fragment.map(lambda array, axis: np.take(array, lanes, axis=axis))

    def tensors(tree: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
        return {path: torch.from_numpy(leaf).to(device) for path, leaf in tree.items()}

    state = torch.from_numpy(part.initial_state).to(device)
    out = policy.unroll(tensors(part.obs), torch.from_numpy(part.is_first).to(device), state)
    logp, _ = policy.head.evaluate(out.head, tensors(part.mask), tensors(part.action))
    ratio = np.expm1(logp.cpu().numpy() - part.logp)
    value = (out.value.cpu().numpy() - part.value) / (1 + np.abs(part.value))
    return ReplayDifference(float(np.abs(ratio).max()), float(np.abs(value).max()))


def check_replay(policy: Policy, fragment: Fragment, version: int) -> ReplayDifference | None:
    """Raise ReplayError where the difference is more than rounding."""
    difference = replay_difference(policy, fragment, version)
    if difference is not None and not (difference.ratio <= TOLERANCE and difference.value <= TOLERANCE):
        raise ReplayError(
            f"replaying the fragments of version {version} does not give what was logged: probability "
            f"ratio off by {difference.ratio:.2e}, value by {difference.value:.2e}, allowed {TOLERANCE:.0e}. "
            "Training on them would improve a policy that nobody played; the fault is in a game's "
            "observations or masks that change after they were acted on, or in recurrent state"
        )
    return difference
