"""Games whose seats are one part, in few words."""

import numpy as np

from selfplay.evaluate import evaluate
from selfplay.parts import split
from selfplay.rollout import Matches, Rollout


def make_matches(env, seed, *, cyclic, spread=1):
    """seed: a number, or a SeedSequence."""
    sequence = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    return Matches(env, split(env, ["group"]), sequence, cyclic=cyclic, spread=spread)


def make_rollout(env, main, *, length, seed=0, spread=None):
    """main: the PolicyPlayer of the only part; spread: None: as a worker has it."""
    matches = make_matches(env, seed, cyclic=True, spread=spread or length)
    return Rollout(matches, [main], length=length)


def alone(players):
    """Players by name, each for the only part."""
    return {name: (player,) for name, player in players.items()}


def evaluate_alone(env, players, **options):
    """`evaluate` with players of the only part."""
    return evaluate(env, split(env, ["group"]), [(player,) for player in players], **options)
