"""A player whose decisions are made by the inference server."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from envs.vector import Tree
from policies.policy import Policy
from selfplay.draws import Draws
from selfplay.inference.channel import Channel, Kind, under
from selfplay.players import Decision, draw_uniform, extras


class RemotePlayer:
    """Decides as `selfplay.players.PolicyPlayer` does, draws included, to rounding."""

    def __init__(self, channel: Channel, policy: Policy, name: str) -> None:
        """policy: one of the same network, whose weights are not looked at; name: of the player."""
        self.channel, self.policy, self.name = channel, policy, name
        self.state_shape = policy.state_shape
        self.extras = extras(policy)
        self._held = ""
        self._release: Callable[[], object] = lambda: None

    def load(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        """Play with these weights from the next decision on."""
        held = f"{self.name}@{version}"
        if held == self._held:
            return
        self._release()
        self.channel.hold(held, weights, tuple(self.policy.state_dict()))
        self._held = held
        self._release = weakref.finalize(self, self.channel.let_go, held)

    def act(self, obs: Tree, mask: Tree, is_first: np.ndarray, state: np.ndarray, rng: Draws) -> Decision:
        inputs = _named(obs, is_first, state) | {f"mask:{path}": leaf for path, leaf in mask.items()}
        inputs["uniform"] = draw_uniform(self.policy, len(is_first), rng)
        found = self._ask(Kind.DRAW, inputs, self.channel.outputs)
        return Decision(under("action:", found), found["logp"], found["value"], found["next_state"])

    def value(self, obs: Tree, is_first: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Value [R] of views in which nothing more is decided."""
        return self._ask(Kind.VALUE, _named(obs, is_first, state), ("value",))["value"]

    def _ask(self, kind: Kind, inputs: Tree, outputs: Sequence[str]) -> Tree:
        """The rows' outputs, asked for in as many portions as the shared memory needs."""
        rows, capacity = len(inputs["is_first"]), self.channel.capacity
        portions = []
        for start in range(0, rows, capacity):
            stop = min(start + capacity, rows)
            shared = self.channel.arrays(stop - start)
            for name, array in inputs.items():
                assert array.dtype == shared[name].dtype, (name, array.dtype, shared[name].dtype)
                shared[name][...] = array[:, :, start:stop] if name == "state" else array[start:stop]
            self.channel.ask(kind, stop - start, self._held)
            portions.append({name: shared[name].copy() for name in outputs})
        if len(portions) == 1:
            return portions[0]
        return {
            name: np.concatenate([x[name] for x in portions], axis=2 if name == "next_state" else 0)
            for name in outputs
        }


def _named(obs: Tree, is_first: np.ndarray, state: np.ndarray) -> Tree:
    return {f"obs:{path}": leaf for path, leaf in obs.items()} | {"is_first": is_first, "state": state}
