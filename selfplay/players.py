"""Who can sit in a seat during a match: policies and scripted bots. (People: `selfplay.human`.)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
import torch

from envs.vector import Bot, Tree
from policies.categorical_head import CategoricalHead
from policies.policy import Output, Policy
from selfplay.draws import Draws, ask_bot, uniform
from selfplay.transfer import to_device, to_host
from selfplay.weights import load_weights

NO_STATE = (0, 1, 1)


class Decision(NamedTuple):
    """R decisions of one player."""

    action: Tree  # leaf -> [R, ...]
    logp: np.ndarray | None  # [R]; None for players that are not learned from
    value: np.ndarray | None  # [R]
    state: np.ndarray  # [L, S, R, H] after the decision; where they go on in place, of all rows


class Player(Protocol):
    """Whoever plays a part: many seats at once, each with its own recurrent state."""

    state_shape: tuple[int, int, int]
    extras: tuple[str, ...]  # leaves that it sees beside the game's observation (`selfplay.part_play`)

    def act(self, obs: Tree, mask: Tree, is_first: np.ndarray, state: np.ndarray, rng: Draws) -> Decision:
        """obs leaves [R, ...], mask leaves [R, n], is_first [R], state [L, S, R, H] entering.

        Whoever draws does so by `selfplay.draws`, so that a row need not depend on those beside it.
        """
        ...


class Learning(Player, Protocol):
    """A player that is learned from."""

    policy: Policy

    def load(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        """Play with these weights from the next decision on."""
        ...

    def value(self, obs: Tree, is_first: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Value [R] of views in which nothing more is decided (a match was cut off there)."""
        ...


class PolicyPlayer:
    """Samples from a policy, or plays its likeliest action; on whatever device the policy is."""

    def __init__(self, policy: Policy, *, greedy: bool = False) -> None:
        self.policy = policy
        self.greedy = greedy
        self.device = policy.value_std.device
        self.state_shape = policy.state_shape
        self.extras = extras(policy)

    def load(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        load_weights(self.policy, weights)

    def act(self, obs: Tree, mask: Tree, is_first: np.ndarray, state: np.ndarray, rng: Draws) -> Decision:
        drawn = None if self.greedy else draw_uniform(self.policy, len(is_first), rng)
        return self.decide(obs, mask, is_first, state, drawn)

    def decide(
        self, obs: Tree, mask: Tree, is_first: np.ndarray, state: np.ndarray, uniform: np.ndarray | None
    ) -> Decision:
        """What follows from uniform [R, U] in [0, 1); None: the likeliest actions."""
        if uniform is not None and self._compiled:
            return self._decide_at(obs, mask, is_first, state.copy(), np.arange(len(is_first)), uniform)
        return self._decide(obs, mask, is_first, state, uniform)

    @property
    def in_place(self) -> bool:
        """Whether `act_at` may be called now, and is all that this player does when it acts."""
        own = type(self).act is _ACT and type(self).decide is _DECIDE
        return own and not self.greedy and self._compiled

    def act_at(
        self, obs: Tree, mask: Tree, is_first: np.ndarray, state: np.ndarray, rows: np.ndarray, rng: Draws
    ) -> Decision:
        """`act` of those whose states are these rows [R] of the Q in state [L, S, Q, H], in place."""
        drawn = draw_uniform(self.policy, len(is_first), rng)
        return self._decide_at(obs, mask, is_first, state, rows, drawn)

    @property
    def _compiled(self) -> bool:
        compiled = self.policy.compiled
        return type(self.policy.head) is CategoricalHead and compiled is not None and compiled.usable

    def _decide_at(
        self, obs: Tree, mask: Tree, is_first: np.ndarray, state: np.ndarray, rows: np.ndarray,
        uniform: np.ndarray,
    ) -> Decision:  # fmt: skip
        head, compiled = self.policy.head, self.policy.compiled
        assert isinstance(head, CategoricalHead)
        assert compiled is not None
        choice, logp, value, after = compiled.draw(obs, mask.get(""), is_first, state, rows, uniform[:, 0])
        return Decision({"": head.action(choice)}, logp, value, after)

    @torch.inference_mode()
    def _decide(
        self, obs: Tree, mask: Tree, is_first: np.ndarray, state: np.ndarray, uniform: np.ndarray | None
    ) -> Decision:
        out, head, legal = self._step(obs, is_first, state), self.policy.head, self._tensors(mask)
        if uniform is None:
            action, logp = head.best(out.head, legal)
        else:
            action, logp = head.sample(out.head, legal, to_device(uniform, self.device))
        *actions, logps, value, after = to_host([*action.values(), logp, out.value, out.state])
        return Decision(dict(zip(action, actions, strict=True)), logps, value, after)

    def value(self, obs: Tree, is_first: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Value [R] of views in which nothing more is decided (a match was cut off there)."""
        compiled = self.policy.compiled
        if compiled is not None and compiled.usable:
            return compiled.step(obs, is_first, state).value
        return self._value(obs, is_first, state)

    @torch.inference_mode()
    def _value(self, obs: Tree, is_first: np.ndarray, state: np.ndarray) -> np.ndarray:
        return to_host([self._step(obs, is_first, state).value])[0]

    def _step(self, obs: Tree, is_first: np.ndarray, state: np.ndarray) -> Output:
        inputs = to_device(is_first, self.device), to_device(state, self.device)
        return self.policy.step(self._tensors(obs), *inputs)

    def _tensors(self, tree: Tree) -> dict[str, torch.Tensor]:
        return {path: to_device(leaf, self.device) for path, leaf in tree.items()}


_ACT, _DECIDE = PolicyPlayer.act, PolicyPlayer.decide


def extras(policy: Policy) -> tuple[str, ...]:
    """Leaves that a policy sees beside the game's observation."""
    return tuple(path for path in policy.inputs if path.startswith("@"))


def draw_uniform(policy: Policy, rows: int, rng: Draws) -> np.ndarray:
    """[R, U] in [0, 1), what so many decisions of this policy are drawn with."""
    return uniform(rng, rows, policy.head.num_uniforms)


class BotPlayer:
    """A scripted player of the game."""

    state_shape = NO_STATE
    extras: tuple[str, ...] = ()

    def __init__(self, bot: Bot) -> None:
        self.bot = bot

    def act(self, obs: Tree, mask: Tree, is_first: np.ndarray, state: np.ndarray, rng: Draws) -> Decision:
        return Decision(ask_bot(self.bot, obs, mask, len(is_first), rng), None, None, state)
