"""The network: encoder -> recurrent core -> action head and value head, built from spaces.

One LSTM output feeds both heads by one linear projection, as in OpenAI Five (arXiv:1912.06680,
section 2.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import gymnasium
import torch
from torch import Tensor, nn

from policies.encoders import MLP, VectorInput
from policies.heads import CategoricalHead
from policies.linear import linear
from policies.lstm import LSTM

Leaves = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """What, beside the spaces, fixes the network's shape."""

    encoder: tuple[int, ...] = (128,)  # widths of the hidden layers before the core
    core: str = "lstm"  # "lstm" or "none"
    hidden_size: int = 128
    num_layers: int = 1


class Output(NamedTuple):
    """What one forward gives. T time, N lanes, n head inputs."""

    logits: Tensor  # [T, N, n]
    value: Tensor  # [T, N] in units of reward
    state: Tensor  # [L, S, N, H] after t = T - 1


class NoCore(nn.Module):
    """The core of a policy without memory. State [0, 1, N, 1]."""

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.state_shape = (0, 1, 1)
        self.output_size = input_size

    def forward(self, x: Tensor, is_first: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return x, state


class Policy(nn.Module):
    """A recurrent actor and critic. Its value is real units: raw * value_std + value_mean."""

    value_mean: Tensor
    value_std: Tensor

    def __init__(
        self, observation_space: gymnasium.Space, action_space: gymnasium.Space, spec: PolicySpec
    ) -> None:
        super().__init__()
        self.spec = spec
        self.input = VectorInput(observation_space)
        self.encoder = MLP(self.input.output_size, spec.encoder)
        self.core: LSTM | NoCore
        if spec.core == "lstm":
            self.core = LSTM(self.encoder.output_size, spec.hidden_size, spec.num_layers)
        else:
            self.core = NoCore(self.encoder.output_size)
        self.head = CategoricalHead(action_space)
        # The policy's rows and, last, the value's row. Small policy rows: first play is near uniform.
        num_outputs = self.head.num_inputs + 1
        weight = torch.empty(num_outputs, self.core.output_size)
        nn.init.orthogonal_(weight[:-1], gain=0.01)
        nn.init.orthogonal_(weight[-1:], gain=1.0)
        self.output_weight = nn.Parameter(weight)
        self.output_bias = nn.Parameter(torch.zeros(num_outputs))
        self.register_buffer("value_mean", torch.zeros(()))
        self.register_buffer("value_std", torch.ones(()))

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """(L, S, H): layers, state vectors of a layer, their width."""
        return self.core.state_shape

    def unroll(self, obs: Leaves, is_first: Tensor, state: Tensor) -> Output:
        """obs leaves [T, N, ...], is_first [T, N] bool, state [L, S, N, H] entering t = 0."""
        length, lanes = is_first.shape
        rows = {path: leaf.reshape(length * lanes, *leaf.shape[2:]) for path, leaf in obs.items()}
        x = self.encoder(self.input(rows)).reshape(length, lanes, -1)
        x, state = self.core(x, is_first, state)
        y = linear(x.reshape(length * lanes, -1), self.output_weight, self.output_bias)
        y = y.reshape(length, lanes, -1).float()  # log-probabilities need more bits than autocast leaves
        return Output(y[..., :-1], y[..., -1] * self.value_std + self.value_mean, state)

    def step(self, obs: Leaves, is_first: Tensor, state: Tensor) -> Output:
        """`unroll` of one decision: leaves [R, ...] and is_first [R]; logits [R, n], value [R]."""
        out = self.unroll({k: leaf[None] for k, leaf in obs.items()}, is_first[None], state)
        return Output(out.logits[0], out.value[0], out.state)
