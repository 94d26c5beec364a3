"""RLlib at the edge: its environments as games, our games and policies in RLlib, and a Tune trainable.

Importing this package makes the ids "rllib:package.module:Class" known; `ray.rllib` itself, which takes
seconds, is imported where it is used.
"""

from __future__ import annotations

from envs.registry import EnvFactory, register_source

FORM = "rllib:package.module:Class"


def _load(id: str, target: str) -> EnvFactory:
    from selfplay.rllib.games import load

    return load(id, target)


register_source("rllib", FORM, _load)
