"""Who can sit in a seat during a match: policies and scripted bots. (People: `selfplay.human`.)"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch

from envs.vector import Bot, Tree
from policies.policy import Policy

NO_STATE = (0, 1, 1)


class Decision(NamedTuple):
    """R decisions of one player."""

    action: Tree  # leaf -> [R, ...]
    logp: np.ndarray | None  # [R]; None for players that are not learned from
    value: np.ndarray | None  # [R]
    state: np.ndarray  # [L, S, R, H] after the decision


class Player(Protocol):
    """Whoever plays a part: many seats at once, each with its own recurrent state."""

    state_shape: tuple[int, int, int]
    extras: tuple[str, ...]  # leaves that it sees beside the game's observation (`selfplay.part_play`)

    def act(
        self, obs: Tree, mask: Tree, is_first: np.ndarray, state: np.ndarray, rng: np.random.Generator
    ) -> Decision:
        """obs leaves [R, ...], mask leaves [R, n], is_first [R], state [L, S, R, H] entering."""
        ...


class PolicyPlayer:
    """Samples from a policy, or plays its likeliest action."""

    def __init__(self, policy: Policy, *, greedy: bool = False) -> None:
        self.policy = policy
        self.greedy = greedy
        self.state_shape = policy.state_shape
        self.extras = tuple(path for path in policy.inputs if path.startswith("@"))

    @torch.inference_mode()
    def act(
        self, obs: Tree, mask: Tree, is_first: np.ndarray, state: np.ndarray, rng: np.random.Generator
    ) -> Decision:
        out = self.policy.step(_tensors(obs), torch.from_numpy(is_first), torch.from_numpy(state))
        head, legal = self.policy.head, _tensors(mask)
        if self.greedy:
            action, logp = head.best(out.head, legal)
        else:
            uniform = rng.random((len(is_first), head.num_uniforms), dtype=np.float32)
            action, logp = head.sample(out.head, legal, torch.from_numpy(uniform))
        actions = {path: leaf.numpy() for path, leaf in action.items()}
        return Decision(actions, logp.numpy(), out.value.numpy(), out.state.numpy())

    @torch.inference_mode()
    def value(self, obs: Tree, is_first: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Value [R] of views in which nothing more is decided (a match was cut off there)."""
        out = self.policy.step(_tensors(obs), torch.from_numpy(is_first), torch.from_numpy(state))
        return out.value.numpy()


class BotPlayer:
    """A scripted player of the game."""

    state_shape = NO_STATE
    extras: tuple[str, ...] = ()

    def __init__(self, bot: Bot) -> None:
        self.bot = bot

    def act(
        self, obs: Tree, mask: Tree, is_first: np.ndarray, state: np.ndarray, rng: np.random.Generator
    ) -> Decision:
        return Decision(self.bot(obs, mask, rng), None, None, state)


def _tensors(tree: Tree) -> dict[str, torch.Tensor]:
    return {path: torch.from_numpy(leaf) for path, leaf in tree.items()}
