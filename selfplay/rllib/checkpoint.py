"""From a run's configuration and weights to RLModules, one for each policy of the player."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from selfplay.config import Config
from selfplay.errors import UserError
from selfplay.rllib.module import PolicyModule
from selfplay.weights import by_part, load_weights
from selfplay.worker import make_game, make_parts, make_policies


def make_modules(label: str, config: Config, weights: Mapping[str, np.ndarray]) -> dict[str, PolicyModule]:
    """The module of each part of the seats, by the part's name."""
    env = make_game(config, 1)
    parts = make_parts(config, env)
    policies = make_policies(config, env, 0)
    modules = {}
    for part, own in zip(parts, by_part(weights, list(policies)), strict=True):
        policy, group = policies[part.name], env.groups[part.group]
        try:
            load_weights(policy, own)
            modules[part.name] = PolicyModule.of(
                policy,
                group.observation_space,
                group.action_space,
                masked=bool(group.mask),
                max_seq_len=config.rollout.fragment_length,
                state_space=getattr(env, "privileged_space", None) if policy.privileged else None,
            )
        except (RuntimeError, ValueError) as error:
            cause = str(error).splitlines()[-1].strip().rstrip(".")
            raise UserError(f"{label} cannot be exported to RLlib: {cause}") from error
    return modules
