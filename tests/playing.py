"""Games whose seats are one part, in few words."""

import numpy as np

from selfplay.evaluate import evaluate
from selfplay.parts import split
from selfplay.rollout import Matches, Rollout


def make_matches(env, seed, *, cyclic):
    """seed: a number, or a SeedSequence."""
    sequence = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    return Matches(env, split(env, ["group"]), sequence, cyclic=cyclic)


def make_rollout(env, main, *, length, seed=0):
    """main: the PolicyPlayer of the only part."""
    return Rollout(make_matches(env, seed, cyclic=True), [main], length=length)


def alone(players):
    """Players by name, each for the only part."""
    return {name: (player,) for name, player in players.items()}


def evaluate_alone(env, players, **options):
    """`evaluate` with players of the only part."""
    return evaluate(env, split(env, ["group"]), [(player,) for player in players], **options)
