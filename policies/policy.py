"""The network: encoder -> recurrent core -> action head and value head, built from spaces.

One core's output feeds both heads by one linear projection, as in OpenAI Five (arXiv:1912.06680,
section 2.2), unless the critic is a network of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from gymnasium import Space
from torch import Tensor, nn

from policies.compiled import Compiled
from policies.cores import CORES, Core
from policies.encoders.entities import ENTITY_SIZE
from policies.encoders.mlp import MLP
from policies.encoders.observation import Encoded, ObservationInput
from policies.heads import Head, HeadInput, make_head
from policies.linear import linear
from policies.lstm import LSTM
from policies.spaces import (
    PREVIOUS_ACTION,
    PREVIOUS_REWARD,
    PRIVILEGED,
    REWARD_SPACE,
    leaves,
    previous_space,
)

Leaves = dict[str, Tensor]

CRITICS = ("shared", "separate", "privileged")
CNNS = ("small", "deep")
NORMALIZE = ("auto", "on", "off")


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """What, beside the spaces, fixes the network's shape."""

    encoder: tuple[int, ...] = (128,)  # widths of the hidden layers before the core
    core: str = "lstm"  # a name in `policies.cores.CORES`
    hidden_size: int = 128
    num_layers: int = 1
    critic: str = "shared"  # "separate": a network of its own; "privileged": one that also sees "@state"
    cnn: str = "small"  # of image leaves; "deep": residual
    normalize: str = "auto"  # running mean and std of Box leaves: "auto" beyond +-1, "on" all, "off" none
    previous: bool = False  # previous action and reward as inputs
    autoregressive: bool = False  # parts of an action see those before them
    uses: Mapping[str, Mapping[str, Sequence[int]]] = field(default_factory=dict)  # see make_head
    points: Mapping[str, str] = field(default_factory=dict)  # action leaf -> path of an entity set

    def __post_init__(self) -> None:
        allowed = {"core": tuple(CORES), "critic": CRITICS, "cnn": CNNS, "normalize": NORMALIZE}
        for name, values in allowed.items():
            value = getattr(self, name)
            if value not in values:
                raise ValueError(f"policy.{name}={value!r} is not allowed; it is one of {', '.join(values)}")


class Output(NamedTuple):
    """What one forward gives. T time, N lanes."""

    head: HeadInput  # leading dims [T, N]
    value: Tensor  # [T, N] in units of reward
    state: Tensor  # [L, S, N, H] after t = T - 1


def input_spaces(observation_space: Space, action_space: Space, *, previous: bool) -> dict[str, Space]:
    """The leaves an actor reads, by path."""
    found = leaves(observation_space)
    reserved = [path for path in found if path.startswith("@")]
    if reserved:
        raise ValueError(f"observation leaf {reserved[0]!r}: names that begin with @ are the policy's own")
    if previous:
        found |= leaves(previous_space(action_space), PREVIOUS_ACTION) | {PREVIOUS_REWARD: REWARD_SPACE}
    return found


def _layers(inputs: Mapping[str, Space], spec: PolicySpec) -> tuple[ObservationInput, MLP, Core]:
    """What lies between an observation and a head."""
    observation = ObservationInput(inputs, cnn=spec.cnn, normalize=spec.normalize)
    encoder = MLP(observation.output_size, spec.encoder)
    return observation, encoder, CORES[spec.core](encoder.output_size, spec.hidden_size, spec.num_layers)


def _forward(
    layers: tuple[ObservationInput, MLP, Core], rows: Leaves, is_first: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Encoded]:
    """rows [T * N, ...], is_first [T, N], state [L, S, N, H] -> y [T * N, K], state, the encoded leaves."""
    observation, encoder, core = layers
    encoded = observation(rows)
    y, state = core(encoder(encoded.x).reshape(*is_first.shape, -1), is_first, state)
    return y.reshape(is_first.numel(), -1), state, encoded


class Critic(nn.Module):
    """A value network that shares nothing with the actor."""

    def __init__(self, inputs: Mapping[str, Space], spec: PolicySpec) -> None:
        super().__init__()
        self.input, self.encoder, self.core = _layers(inputs, spec)
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(1, self.core.output_size)))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, rows: Leaves, is_first: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """rows [T * N, ...], is_first [T, N], state [L, S, N, H] -> raw value [T, N], state."""
        y, state, _ = _forward((self.input, self.encoder, self.core), rows, is_first, state)
        return linear(y, self.weight, self.bias).reshape(is_first.shape).float(), state


class Policy(nn.Module):
    """A recurrent actor and critic. Its value is real units: raw * value_std + value_mean."""

    value_mean: Tensor
    value_std: Tensor

    def __init__(
        self,
        observation_space: Space,
        action_space: Space,
        spec: PolicySpec,
        state_space: Space | None = None,
    ) -> None:
        """state_space: of the whole game's state, which a privileged critic sees as well."""
        super().__init__()
        self.spec = spec
        self.inputs = input_spaces(observation_space, action_space, previous=spec.previous)
        self.input, self.encoder, self.core = _layers(self.inputs, spec)
        self.head: Head = make_head(
            action_space,
            autoregressive=spec.autoregressive,
            uses=spec.uses,
            points=spec.points,
            entity_size=ENTITY_SIZE,
        )
        self._check_points(leaves(observation_space), leaves(action_space))
        # The policy's rows and, last, a shared critic's. Small policy rows: first play is near uniform.
        num_inputs = self.head.num_inputs
        weight = torch.empty(num_inputs + (spec.critic == "shared"), self.core.output_size)
        nn.init.orthogonal_(weight[:num_inputs], gain=0.01)
        if spec.critic == "shared":
            nn.init.orthogonal_(weight[num_inputs:], gain=1.0)
        self.output_weight = nn.Parameter(weight)
        self.output_bias = nn.Parameter(torch.zeros(len(weight)))
        self.privileged: tuple[str, ...] = ()
        self.critic = None if spec.critic == "shared" else self._make_critic(state_space)
        self.register_buffer("value_mean", torch.zeros(()))
        self.register_buffer("value_std", torch.ones(()))
        self.compiled: Compiled | None = None
        if self.critic is None and not spec.points and type(self.core) is LSTM:
            self.compiled = Compiled(self, self.core)

    def _check_points(self, seen: Mapping[str, Space], acted: Mapping[str, Space]) -> None:
        sets = self.input.set_paths
        for leaf, path in self.spec.points.items():
            if path not in sets:
                raise ValueError(
                    f"action {leaf or 'leaf'!r} points to {path!r}, which is no entity set; "
                    f"these are: {', '.join(sets) or 'none'}"
                )
            number = (seen[path].shape or (0,))[0]
            choices = int(getattr(acted[leaf], "n", 0))
            if choices != number:
                raise ValueError(
                    f"action {leaf or 'leaf'!r} has {choices} choices but points to {path!r} of {number}; "
                    "it must have as many"
                )

    def _make_critic(self, state_space: Space | None) -> Critic:
        if self.spec.critic == "separate":
            return Critic(self.inputs, self.spec)
        if state_space is None:
            raise ValueError('policy.critic="privileged" needs a game that shows its whole state')
        whole = leaves(state_space, PRIVILEGED)
        self.privileged = tuple(whole)
        self.inputs = self.inputs | whole
        return Critic(self.inputs, self.spec)

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """(L, S, H): layers, state vectors of a layer, their width; a critic's layers follow the actor's."""
        layers, vectors, width = self.core.state_shape
        return (layers if self.critic is None else 2 * layers), vectors, width

    def unroll(self, obs: Leaves, is_first: Tensor, state: Tensor) -> Output:
        """obs leaves [T, N, ...], is_first [T, N] bool, state [L, S, N, H] entering t = 0.

        Without any of the privileged leaves, hence in play, a privileged critic's value is 0.
        """
        length, lanes = is_first.shape
        rows = self._rows(obs)
        own, critics = state, state[:0]
        if self.critic is not None:
            own, critics = state.tensor_split(2)
        y, own, encoded = _forward((self.input, self.encoder, self.core), rows, is_first, own)
        y = linear(y, self.output_weight, self.output_bias)
        y = y.reshape(length, lanes, -1).float()  # log-probabilities need more bits than autocast leaves
        head = self._head_input(y[..., : self.head.num_inputs], encoded)
        if self.critic is None:
            return Output(head, y[..., -1] * self.value_std + self.value_mean, own)
        if self.privileged and not any(path in rows for path in self.privileged):
            return Output(head, y.new_zeros(length, lanes), torch.cat((own, critics)))
        raw, critics = self.critic(rows, is_first, critics)
        return Output(head, raw * self.value_std + self.value_mean, torch.cat((own, critics)))

    def step(self, obs: Leaves, is_first: Tensor, state: Tensor) -> Output:
        """`unroll` of one decision: leaves [R, ...], is_first [R]; the head's input [R, ...], value [R]."""
        if self.compiled is not None and self.compiled.usable and not torch.is_grad_enabled():
            arrays = {path: leaf.numpy() for path, leaf in obs.items()}
            stepped = self.compiled.step(arrays, is_first.numpy(), state.numpy())
            y, value, after = map(torch.from_numpy, stepped)
            return Output(HeadInput(y[:, : self.head.num_inputs]), value, after)
        out = self.unroll({k: leaf[None] for k, leaf in obs.items()}, is_first[None], state)
        flat, entities, present = out.head
        head = HeadInput(
            flat[0], {k: x[0] for k, x in entities.items()}, {k: x[0] for k, x in present.items()}
        )
        return Output(head, out.value[0], out.state)

    def observe(self, obs: Leaves) -> None:
        """Move the running normalisation of inputs with obs leaves [T, N, ...]; between updates only."""
        rows = self._rows(obs)
        self.input.observe(rows)
        if self.critic is not None and all(path in rows for path in self.privileged):
            self.critic.input.observe(rows)

    def value_layer(self) -> tuple[Tensor, Tensor]:
        """Views of the value's row: weight [1, K] and bias [1], to be rescaled in place (PopArt)."""
        if self.critic is not None:
            return self.critic.weight.detach(), self.critic.bias.detach()
        return self.output_weight.detach()[-1:], self.output_bias.detach()[-1:]

    def _rows(self, obs: Leaves) -> Leaves:
        """The leaves that are read, [T, N, ...] -> [T * N, ...]."""
        return {path: leaf.flatten(0, 1) for path, leaf in obs.items() if path in self.inputs}

    def _head_input(self, flat: Tensor, encoded: Encoded) -> HeadInput:
        """flat [T, N, n] with the sets [T, N, E, ...] that an action points to."""
        steps, paths = flat.shape[:2], set(self.spec.points.values())
        entities = {path: encoded.entities[path].float().unflatten(0, steps) for path in paths}
        return HeadInput(flat, entities, {path: encoded.present[path].unflatten(0, steps) for path in paths})
