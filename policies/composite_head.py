"""Actions of several parts: nested Dicts and Tuples of choices and numbers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from policies.choices import Choices
from policies.conditions import Conditions
from policies.head_interface import Head, HeadInput, Leaves
from policies.leaf_heads import LeafHead

Uniforms = Mapping[str, Tensor | None]  # every leaf's uniform numbers [R, k]; None for the likeliest values


class CompositeHead(Head):
    """A distribution over leaves of k parts each, whose logp is the sum over the parts that are used.

    Where the primary action taken does not use a leaf, the leaf is drawn all the same (legally; as its
    first choice where nothing is legal), and its logp, entropy and KL are 0. Entropy and KL of such leaves
    are along the action taken: unbiased estimates of the joint's where the action is the policy's own.
    """

    def __init__(self, leaves: Mapping[str, LeafHead], conditions: Conditions) -> None:
        super().__init__()
        self.paths = conditions.order
        self.leaf = torch.nn.ModuleList(leaves[path] for path in self.paths)
        self.conditions = conditions
        self.num_uniforms = sum(leaf.num_parts for leaf in leaves.values())

    @abstractmethod
    def take(self, x: HeadInput, mask: Leaves, uniform: Uniforms) -> tuple[Leaves, Leaves]:
        """Rows R -> every leaf's values [R, k] and their logp [R, k]."""

    @abstractmethod
    def scores(self, x: HeadInput, value: Leaves, used: Leaves) -> Leaves:
        """Every leaf's scores [..., k, n], given all values [..., k] where they matter."""

    def leaves(self) -> dict[str, LeafHead]:
        """The leaves by path, primary leaves before those that they use."""
        return dict(zip(self.paths, self.leaf))  # type: ignore[arg-type]

    def sample(self, x: HeadInput, mask: Leaves, uniform: Tensor) -> tuple[Leaves, Tensor]:
        return self._play(x, mask, uniform)

    def best(self, x: HeadInput, mask: Leaves) -> tuple[Leaves, Tensor]:
        return self._play(x, mask, None)

    @torch.no_grad()
    def _play(self, x: HeadInput, mask: Leaves, uniform: Tensor | None) -> tuple[Leaves, Tensor]:
        sizes = [leaf.num_parts for leaf in self.leaves().values()]
        shares = [None] * len(sizes) if uniform is None else uniform.split(sizes, dim=-1)
        with _in_float32(x):
            value, logp = self.take(x, mask, dict(zip(self.paths, shares)))
        used, action = self._used(value), {}
        for path, leaf in self.leaves().items():
            if path in used and isinstance(leaf, Choices):
                value[path] = torch.where(used[path][..., None], value[path], value[path].clamp(min=0))
            action[path] = leaf.build(value[path])
        return action, _total(logp, used)

    def evaluate(self, x: HeadInput, mask: Leaves, action: Leaves) -> tuple[Tensor, Tensor]:
        value = {path: leaf.parse(action[path]) for path, leaf in self.leaves().items()}
        used, logp, entropy = self._used(value), {}, {}
        with _in_float32(x):
            scores = self.scores(x, value, used)
            for path, leaf in self.leaves().items():
                legal = leaf.legal(mask.get(path), x)
                logp[path], entropy[path] = leaf.evaluate(scores[path], legal, value[path])
        return _total(logp, used), _total(entropy, used)

    def kl(
        self, x: HeadInput, reference: Head, reference_x: HeadInput, mask: Leaves, action: Leaves
    ) -> Tensor:
        assert isinstance(reference, CompositeHead), reference
        value = {path: leaf.parse(action[path]) for path, leaf in self.leaves().items()}
        used, kl, others = self._used(value), {}, reference.leaves()
        with _in_float32(x):
            scores, other = self.scores(x, value, used), reference.scores(reference_x, value, used)
            for path, leaf in self.leaves().items():
                legal = leaf.legal(mask.get(path), x)
                kl[path] = leaf.kl(scores[path], others[path], other[path], legal)
        return _total(kl, used)

    def _used(self, value: Leaves) -> Leaves:
        """Whether a leaf is used, bool [...], for the leaves with a condition."""
        used: Leaves = {}
        for path in self.paths:
            known = self.conditions.used(path, value, used)
            if known is not None:
                used[path] = known
        return used


class IndependentHead(CompositeHead):
    """Parts independent of each other, given the network's output. HeadInput.flat: leaves side by side."""

    def __init__(self, leaves: Mapping[str, LeafHead], conditions: Conditions) -> None:
        super().__init__(leaves, conditions)
        self.sizes = [leaves[path].num_inputs for path in self.paths]
        self.num_inputs = sum(self.sizes)

    def take(self, x: HeadInput, mask: Leaves, uniform: Uniforms) -> tuple[Leaves, Leaves]:
        value, logp, scores = {}, {}, self.scores(x, {}, {})
        for path, leaf in self.leaves().items():
            legal, parts = leaf.legal(mask.get(path), x), slice(0, leaf.num_parts)
            value[path], logp[path] = leaf.take(scores[path], legal, parts, uniform[path])
        return value, logp

    def scores(self, x: HeadInput, value: Leaves, used: Leaves) -> Leaves:
        shares = x.flat.float().split(self.sizes, dim=-1)
        return {
            path: leaf.scores(leaf.unpack(share), x)
            for (path, leaf), share in zip(self.leaves().items(), shares)
        }


def _in_float32(x: HeadInput) -> torch.autocast:
    """Log-probabilities need more bits than autocast leaves."""
    return torch.autocast(x.flat.device.type, enabled=False)


def _total(parts: Leaves, used: Leaves) -> Tensor:
    """Leaves of [..., k] -> their sum [...], without the leaves that are not used."""
    total: Tensor | None = None
    for path, leaf in parts.items():
        share = leaf.sum(dim=-1)
        share = share.where(used[path], 0.0) if path in used else share
        total = share if total is None else total + share
    assert total is not None
    return total
