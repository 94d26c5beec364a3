"""Actions whose parts see the parts before them, so that they can depend on each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from policies.choices import Choices, Pointer
from policies.composite_head import CompositeHead, Uniforms
from policies.conditions import Conditions
from policies.head_interface import HeadInput, Leaves
from policies.leaf_heads import LeafHead
from policies.squashed_gaussian import SquashedGaussian

WIDTH = 64  # W


class AutoregressiveHead(CompositeHead):
    """Part i sees parts j < i, in the order of the leaves, primary leaves before those that they use.

        z_i = relu(base + c_i + sum_{j<i} embed_j(a_j)),    params_i = V_i z_i

    base is HeadInput.flat [..., W]; c_i, embed_j and V_i are parameters. A leaf that is not used adds
    nothing, for what was drawn for it means nothing. `evaluate` is teacher-forced: all parts at once.

    The entropy is sum_i H(a_i | a_1..a_{i-1}) along the action taken: by the chain rule an unbiased
    estimate of the joint's entropy, where the action is the policy's own; the KL likewise.
    Source: AlphaStar's action heads, Vinyals et al. 2019, Nature 575.
    """

    def __init__(self, leaves: Mapping[str, LeafHead], conditions: Conditions) -> None:
        super().__init__(leaves, conditions)
        self.num_inputs = WIDTH
        self.sizes = [leaf.num_parts for leaf in self.leaves().values()]
        self.offset = nn.Parameter(torch.randn(self.num_uniforms, WIDTH))  # c
        self.embed = nn.ModuleList(_embedding(leaf) for leaf in self.leaves().values())
        self.readout = nn.ParameterList(_readout(leaf) for leaf in self.leaves().values())

    def take(self, x: HeadInput, mask: Leaves, uniform: Uniforms) -> tuple[Leaves, Leaves]:
        value: Leaves = {}
        logp: Leaves = {}
        used: Leaves = {}
        context = x.flat.float()  # [R, W]: base and what the parts so far add
        for path, leaf, embed, offset, readout in self._layers():
            legal, parts = leaf.legal(mask.get(path), x), []
            known = self.conditions.used(path, value, used)
            if known is not None:
                used[path] = known
            for k in range(leaf.num_parts):
                part = slice(k, k + 1)
                scores = leaf.scores(_params(context[:, None], offset[part], readout[part]), x)
                number, allowed = uniform[path], None if legal is None else legal[:, part]
                parts.append(leaf.take(scores, allowed, part, None if number is None else number[:, part]))
                added = embed(leaf, parts[-1][0], part, x)[:, 0]
                context = context + (added if known is None else added.where(known[:, None], 0.0))
            value[path], logp[path] = (torch.cat(column, dim=-1) for column in zip(*parts))
        return value, logp

    def scores(self, x: HeadInput, value: Leaves, used: Leaves) -> Leaves:
        added = []
        for path, leaf, embed, _, _ in self._layers():
            share = embed(leaf, value[path], slice(0, leaf.num_parts), x)  # [..., k, W]
            added.append(share.where(used[path][..., None, None], 0.0) if path in used else share)
        every = torch.cat([x.flat.float()[..., None, :], *added], dim=-2)  # [..., 1 + parts, W]
        contexts = every.cumsum(dim=-2)[..., :-1, :].split(self.sizes, dim=-2)
        return {
            path: leaf.scores(_params(context, offset, readout), x)
            for context, (path, leaf, _, offset, readout) in zip(contexts, self._layers())
        }

    def _layers(self) -> Iterator[tuple[str, LeafHead, nn.Module, Tensor, Tensor]]:
        """Every leaf with its path, embedding, offsets [k, W] and readout [k, p, W]."""
        leaves = self.leaves()
        yield from zip(leaves, leaves.values(), self.embed, self.offset.split(self.sizes), self.readout)


def _params(context: Tensor, offset: Tensor, readout: Tensor) -> Tensor:
    """context [..., m, W], offset [m, W], readout [m, p, W] -> params [..., m, p]."""
    return torch.einsum("...mw,mpw->...mp", (context + offset).relu(), readout)


def _readout(leaf: LeafHead) -> nn.Parameter:
    """V [k, p, W] of a leaf. Small: first play is near uniform."""
    weight = torch.empty(leaf.num_parts * leaf.num_params, WIDTH)
    nn.init.orthogonal_(weight, gain=0.01)
    return nn.Parameter(weight.reshape(leaf.num_parts, leaf.num_params, WIDTH))


def _embedding(leaf: LeafHead) -> nn.Module:
    if isinstance(leaf, Pointer):
        return PointerEmbedding(leaf)
    if isinstance(leaf, Choices):
        return ChoiceEmbedding(leaf)
    assert isinstance(leaf, SquashedGaussian)
    return NumberEmbedding(leaf)


class ChoiceEmbedding(nn.Module):
    """One vector for every choice of every part."""

    def __init__(self, leaf: Choices) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(leaf.num_parts * leaf.num_params, WIDTH))

    def forward(self, leaf: Choices, value: Tensor, parts: slice, x: HeadInput) -> Tensor:
        """Choices [..., m] of the leaf's parts -> [..., m, W]; nothing legal counts as choice 0."""
        first = torch.arange(parts.start, parts.stop, device=value.device) * leaf.num_params
        return embedding(first + value.clamp(min=0), self.table)


class PointerEmbedding(nn.Module):
    """A projection of the embedding of the entity chosen, so that the order of entities does not matter."""

    def __init__(self, leaf: Pointer) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, leaf.num_params) / leaf.num_params**0.5)

    def forward(self, leaf: Pointer, value: Tensor, parts: slice, x: HeadInput) -> Tensor:
        """Choice [..., 1] -> [..., 1, W]."""
        embeddings = leaf.embeddings(x)
        where = value.clamp(min=0)[..., None].expand(*value.shape, embeddings.shape[-1])
        return embeddings.gather(-2, where) @ self.weight.mT


class NumberEmbedding(nn.Module):
    """A vector for every number, times the number scaled to about [-1, 1]."""

    def __init__(self, leaf: SquashedGaussian) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(leaf.num_parts, WIDTH))

    def forward(self, leaf: SquashedGaussian, value: Tensor, parts: slice, x: HeadInput) -> Tensor:
        """Numbers [..., m] as given to the game -> [..., m, W]."""
        return leaf.unit(value, parts)[..., None] * self.weight[parts]
