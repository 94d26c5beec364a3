"""A policy of ours as an RLModule of RLlib's new API stack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchMultiCategorical
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.utils.torch_utils import convert_to_torch_tensor
from torch import Tensor

from policies.policy import Leaves, Output, Policy, PolicySpec
from policies.spaces import PREVIOUS_ACTION, PREVIOUS_REWARD, REWARD_SPACE, previous_space

OBSERVATIONS, ACTION_MASK = "observations", "action_mask"
"""Keys of an observation that comes with its legal actions, as RLlib's own examples have them."""

LAST_ACTION, LAST_REWARD = "previous_action", "previous_reward"
"""Keys beside them for a policy whose inputs they are; zeros before the first action."""


def module_space(
    observation_space: gymnasium.Space, action_space: gymnasium.Space, *, mask_size: int, previous: bool
) -> gymnasium.Space:
    """What a module observes: the game's own observations, or a Dict with them and what comes beside.

    mask_size: entries of the action mask, 0 for none.
    """
    beside: dict[str, gymnasium.Space] = {}
    if mask_size:
        beside[ACTION_MASK] = spaces.MultiBinary(mask_size)
    if previous:
        beside |= {LAST_ACTION: previous_space(action_space), LAST_REWARD: REWARD_SPACE}
    return spaces.Dict({OBSERVATIONS: observation_space, **beside}) if beside else observation_space


def check_exportable(action_space: gymnasium.Space, spec: PolicySpec) -> None:
    """Raises ValueError, in one line, for a policy whose distribution RLlib has no name for."""
    reason, words = "", " ".join(str(action_space).split())
    if spec.autoregressive:
        reason = "its actions are autoregressive (policy.autoregressive)"
    elif spec.points:
        reason = "its actions point to observed entities (policy.points)"
    elif not isinstance(action_space, spaces.Discrete | spaces.MultiDiscrete):
        reason = f"its actions are {words}"
    elif np.any(action_space.start):
        reason = f"its actions are {words}, and RLlib's categorical choices begin at 0"
    elif isinstance(action_space, spaces.MultiDiscrete) and action_space.nvec.ndim != 1:
        reason = f"its actions are {words}, and RLlib's categorical choices lie in one row"
    if reason:
        raise ValueError(
            f"RLlib has no action distribution for this policy: {reason}; "
            "allowed: Discrete(n) and MultiDiscrete([n, ...]) from 0, with or without masks"
        )


class PolicyModule(TorchRLModule, ValueFunctionAPI):
    """Observations -> logits (illegal ones at the lowest float), value and recurrent state.

    It is rebuilt from its spaces and model_config: "spec", the fields of `PolicySpec`; "masked", whether
    observations come with an action mask; "max_seq_len", the length to which RLlib cuts sequences; for a
    privileged critic "state_space". B sequences of T decisions; state_in and state_out are
    {"state": [B, L, S, H]}. A policy without memory has no state and takes observations [B, ...].
    """

    def setup(self) -> None:
        config = self.model_config
        spec = PolicySpec(**{**config["spec"], "encoder": tuple(config["spec"]["encoder"])})
        check_exportable(self.action_space, spec)
        self.masked, self.previous = bool(config["masked"]), spec.previous
        seen = self.observation_space
        self.seen_space = seen[OBSERVATIONS] if self.masked or self.previous else seen
        self.policy = Policy(self.seen_space, self.action_space, spec, config.get("state_space"))
        if isinstance(self.action_space, spaces.MultiDiscrete):
            sizes = [int(n) for n in self.action_space.nvec]
            self.action_dist_cls = TorchMultiCategorical.get_partial_dist_cls(input_lens=sizes)

    @classmethod
    def of(
        cls,
        policy: Policy,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        *,
        masked: bool,
        max_seq_len: int,
        state_space: gymnasium.Space | None = None,
    ) -> PolicyModule:
        """The module of a policy of these spaces, with its weights copied."""
        spec = policy.spec
        check_exportable(action_space, spec)
        config: dict[str, Any] = {"spec": _plain(spec), "masked": masked, "max_seq_len": max_seq_len}
        if state_space is not None:
            config["state_space"] = state_space
        module = cls(
            observation_space=module_space(
                observation_space,
                action_space,
                mask_size=policy.head.num_inputs if masked else 0,
                previous=spec.previous,
            ),
            action_space=action_space,
            inference_only=False,
            model_config=config,
        )
        module.policy.load_state_dict(policy.state_dict())
        return module

    def get_initial_state(self) -> dict[str, np.ndarray]:
        """The state before an episode's first decision, without a batch."""
        shape = self.policy.state_shape
        return {"state": np.zeros(shape, np.float32)} if shape[0] else {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """RLlib's own passes over weights that are missing; a policy with some of another is none."""
        self.load_state_dict(convert_to_torch_tensor(dict(state)))

    def _forward(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        outputs, _ = self._unroll(batch)
        return outputs

    def _forward_train(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        if self.policy.privileged:
            raise ValueError(
                "RLlib cannot train this policy: its critic sees the game's whole state, which RLlib does "
                "not hand to modules; let it act only, or train it with policy.critic='separate'"
            )
        outputs, value = self._unroll(batch)
        # PPO hands them back to `compute_values`, so that one forward serves both.
        return outputs | {Columns.EMBEDDINGS: value}

    def compute_values(self, batch: Mapping[str, Any], embeddings: Any | None = None) -> Tensor:
        """Values [B, T], or [B] without memory, in units of reward; 0 of a privileged critic."""
        if embeddings is not None:
            return embeddings
        return self._unroll(batch)[1]

    def _unroll(self, batch: Mapping[str, Any]) -> tuple[dict[str, Any], Tensor]:
        """RLlib's columns -> action_dist_inputs and state_out; values."""
        obs = batch[Columns.OBS]
        stateful = self.is_stateful()
        seen = self._leaves(obs)
        if stateful:
            seen = {path: leaf.transpose(0, 1) for path, leaf in seen.items()}
            state = batch[Columns.STATE_IN]["state"].permute(1, 2, 0, 3).contiguous()
        else:
            seen = {path: leaf[None] for path, leaf in seen.items()}
            state = self._no_state(seen)
        # Where an episode begins RLlib hands over a state of zeros, which is what a reset would make of it.
        steps = next(iter(seen.values())).shape[:2]
        is_first = torch.zeros(steps, dtype=torch.bool, device=state.device)
        out: Output = self.policy.unroll(seen, is_first, state)
        flat = out.head.flat
        logits, value = (flat.transpose(0, 1), out.value.t()) if stateful else (flat[0], out.value[0])
        if self.masked:
            logits = logits.masked_fill(obs[ACTION_MASK] == 0, torch.finfo(logits.dtype).min)
        outputs: dict[str, Any] = {Columns.ACTION_DIST_INPUTS: logits.contiguous()}
        if stateful:
            outputs[Columns.STATE_OUT] = {"state": out.state.permute(2, 0, 1, 3).contiguous()}
        return outputs, value.contiguous()

    def _leaves(self, obs: Any) -> Leaves:
        """What the policy reads by path, as RLlib batches it."""
        if not (self.masked or self.previous):
            return _flatten(self.seen_space, obs, "")
        found = _flatten(self.seen_space, obs[OBSERVATIONS], "")
        if self.previous:
            found |= _flatten(previous_space(self.action_space), obs[LAST_ACTION], PREVIOUS_ACTION)
            found[PREVIOUS_REWARD] = obs[LAST_REWARD]
        return found

    def _no_state(self, seen: Leaves) -> Tensor:
        """The empty state [0, S, B, H] of a policy without memory."""
        layers, vectors, width = self.policy.state_shape
        leaf = next(iter(seen.values()))
        return torch.zeros(layers, vectors, leaf.shape[1], width, device=leaf.device)


def _plain(spec: PolicySpec) -> dict[str, Any]:
    """The spec's fields as lists, dicts and scalars."""
    uses = {leaf: {key: list(choices) for key, choices in by.items()} for leaf, by in spec.uses.items()}
    fields = asdict(replace(spec, uses=uses, points=dict(spec.points)))
    return fields | {"encoder": list(spec.encoder)}


def _flatten(space: gymnasium.Space, value: Any, path: str) -> Leaves:
    """A batched, nested value of a space -> tensors by path, zeros of padding made values of the space."""
    if isinstance(space, spaces.Dict):
        children = [(key, child, value[key]) for key, child in space.spaces.items()]
    elif isinstance(space, spaces.Tuple):
        children = [(str(k), child, value[k]) for k, child in enumerate(space.spaces)]
    else:
        return {path: _inside(space, value)}
    found: Leaves = {}
    for key, child, part in children:
        found |= _flatten(child, part, f"{path}/{key}" if path else key)
    return found


def _inside(space: gymnasium.Space, leaf: Tensor) -> Tensor:
    """A leaf of choices that do not count from 0, held to its space; others as they are."""
    if isinstance(space, spaces.Discrete) and space.start:
        return leaf.clamp(int(space.start), int(space.start) + int(space.n) - 1)
    if isinstance(space, spaces.MultiDiscrete) and np.any(space.start):
        low = torch.as_tensor(space.start, device=leaf.device)
        return leaf.clamp(low, low + torch.as_tensor(space.nvec - 1, device=leaf.device))
    return leaf
