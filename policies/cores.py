"""The cores: what a policy remembers from one decision to the next.

A core
  * has `state_shape` (L, S, H): layers, vectors of a layer, their width. Everyone else stores float32
    arrays of that shape for each seat and never looks inside;
  * zeroes the state itself, before step t, in the lanes where `is_first[t]`. Nobody else does: a
    fragment has several matches in one lane, and the state handed in may be a finished match's;
  * takes each lane by itself, draws nothing and depends neither on T nor on N: acting runs T = 1 on
    whoever acts, learning whole fragments;
  * sends no gradient into the state handed in, and does not write to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor, nn

from policies.gru import GRU
from policies.lstm import LSTM
from policies.lstm_layer_norm import LayerNormLSTM


class Core(Protocol):
    """What Policy asks of a core; see the rules above."""

    state_shape: tuple[int, int, int]  # (L, S, H)
    output_size: int  # K' of what the heads read

    def __call__(self, x: Tensor, is_first: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x [T, N, K], is_first [T, N] bool, state [L, S, N, H] entering t = 0 -> y [T, N, K'], state."""


class NoCore(nn.Module):
    """The core of a policy without memory. State [0, 1, N, 1]."""

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.state_shape = (0, 1, 1)
        self.output_size = input_size

    def forward(self, x: Tensor, is_first: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return x, state


CORES: Mapping[str, Callable[[int, int, int], Core]] = {
    "lstm": LSTM,
    "lstm_layer_norm": LayerNormLSTM,
    "gru": GRU,
    "none": lambda input_size, hidden_size, num_layers: NoCore(input_size),
}
"""By the name in `policy.core`: (input_size, hidden_size, num_layers) -> core."""
