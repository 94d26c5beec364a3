"""A minibatch's gradient as one CUDA graph: the unroll's hundreds of short launches become one.

A graph is a record of kernels with their addresses. So the lanes of a minibatch are copied to where they lay
when it was recorded, and parameters and buffers must stay where they were: they are changed in place only.
Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from selfplay.learner import Batch

WARM_UPS = 3
"""Runs before the recording, in which libraries choose and set up their kernels."""

MOST_SHAPES = 4
"""Shapes of a minibatch that are recorded, each with memory of its own; further ones run as they are."""

Gradients = Callable[["Batch", Tensor], Tensor]
"""A minibatch and the entropy bonus [] -> means of the loss's terms; gradients go where they always go."""

Replay = Callable[[], Tensor]


def record(function: Replay) -> Replay:
    """Record the function's kernels; each call of the result runs them again, into the same output."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = function()

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay


class _Recorded(NamedTuple):
    batch: Batch  # what the kernels read
    entropy_coef: Tensor  # []
    replay: Replay
    addresses: list[int]  # of what else they read and write


class GraphedGradients:
    """`gradients` of some lanes of a batch, recorded once for every shape."""

    def __init__(
        self,
        gradients: Gradients,
        held: Callable[[], Iterable[Tensor]],
        record: Callable[[Replay], Replay] = record,
    ) -> None:
        """held: the tensors, beside a batch, that `gradients` reads and writes."""
        self._gradients, self._held, self._record = gradients, held, record
        self._recorded: dict[tuple[int, ...], _Recorded] = {}

    def __call__(self, batch: Batch, lanes: Tensor, entropy_coef: float) -> Tensor:
        """Means of the loss's terms over these lanes [K] of the batch; the next call overwrites them."""
        shape = (batch.is_first.shape[0], len(lanes))
        if shape not in self._recorded:
            coef = batch.logp.new_tensor(entropy_coef)
            part = batch.lanes(lanes)
            if len(self._recorded) == MOST_SHAPES:
                return self._gradients(part, coef)
            replay = self._record(lambda: self._gradients(part, coef))
            self._recorded[shape] = _Recorded(part, coef, replay, self._addresses())
        recorded = self._recorded[shape]
        assert recorded.addresses == self._addresses(), "a recorded parameter or buffer has moved"
        _copy_lanes(batch, lanes, recorded.batch)
        recorded.entropy_coef.fill_(entropy_coef)
        return recorded.replay()

    def _addresses(self) -> list[int]:
        return [x.data_ptr() for x in self._held()]


def _copy_lanes(batch: Batch, lanes: Tensor, to: Batch) -> None:
    """`batch.lanes(lanes)`, written where `to` lies."""
    for leaves, targets in ((batch.obs, to.obs), (batch.mask, to.mask), (batch.action, to.action)):
        for path, leaf in leaves.items():
            torch.index_select(leaf, 1, lanes, out=targets[path])
    torch.index_select(batch.state, 2, lanes, out=to.state)
    for name in ("is_first", "logp", "advantage", "target"):
        torch.index_select(getattr(batch, name), 1, lanes, out=getattr(to, name))
