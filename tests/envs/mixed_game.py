"""A game with one of everything: seats with different spaces, every kind of action leaf, masks."""

from __future__ import annotations

import dataclasses

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from envs.python_games import Match, Moment, PythonGames, Seat

ACTOR = Dict(
    aim=Box(-1.0, 1.0, (2,)),
    move=Discrete(3, start=1),  # only 3 uses the target
    target=Discrete(4),
)
HELPER = Tuple((MultiDiscrete([3, 2]), MultiBinary(2)))
OBS = Dict(last=Box(-np.inf, np.inf, (2,)), left=Discrete(6))


class MixedMatch(Match):
    """Five rounds in which both seats act at once; the aim's sum and the switches that are on pay."""

    def reset(self, seed: int) -> Moment:
        self.left = 5
        self.level = float(seed % 7)
        return self.moment({})

    def step(self, actions):
        actor, (dials, switches) = actions[0], actions[1]
        paid = float(actor["aim"].sum()) + int(actor["move"]) - int(dials.sum()) - int(switches.sum())
        self.level = 0.5 * self.level + paid + (int(actor["target"]) if actor["move"] == 3 else 0)
        self.left -= 1
        return self.moment({0: self.level, 1: -self.level})

    def moment(self, reward):
        obs = {"last": np.array([self.level, self.left], np.float32), "left": self.left}
        state = np.array([self.level], np.float32)
        if self.left == 0:
            return Moment((), {}, reward=reward, terminated=(0, 1), state=state)
        even = self.left % 2 == 0
        mask = {
            0: {"move": [True, True, even], "target": [True, False, even, True]},
            1: ([even, True, True, False, True], [True, even, True, True]),
        }
        return Moment((0, 1), {0: obs, 1: obs}, mask, reward, state=state)

    def render(self):
        return f"level {self.level:g}, {self.left} rounds left"

    def save(self):
        return np.array([self.level, self.left]).tobytes()

    def load(self, saved):
        self.level, self.left = np.frombuffer(saved).tolist()
        self.left = int(self.left)


class MixedGame(PythonGames):
    """B matches of it, with a bot for each group and an action leaf that not every move uses."""

    match = MixedMatch

    def __init__(self, num_games: int) -> None:
        seats = [Seat("actor_0", OBS, ACTOR, True), Seat("helper_0", OBS, HELPER, True)]
        bots = {"still": (still_actor, still_helper)}
        super().__init__(
            "mixed", self.match, num_games, seats, (0, 1), zero_sum=True, bots=bots,
            privileged_space=Box(-np.inf, np.inf, (1,)),
        )  # fmt: skip
        actor, helper = self.groups
        self.groups = (dataclasses.replace(actor, uses={"target": {"move": (3,)}}), helper)


def still_actor(obs, mask, rng):
    rows = len(obs["left"])
    zero = np.zeros(rows, np.int64)
    return {"aim": np.zeros((rows, 2), np.float32), "move": zero + 1, "target": zero}


def still_helper(obs, mask, rng):
    rows = len(obs["left"])
    return {"0": np.tile([1, 1], (rows, 1)) * mask["0"][:, [1, 4]], "1": np.zeros((rows, 2), np.int8)}
