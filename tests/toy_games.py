"""Small games, slow and obvious, that stress what a board game does not; one Python object a match.

Every observation holds fresh noise of its match, so that no two decisions look alike and a decision
can be found again by what was seen. Rows that are not valid hold NaN: whoever reads them, sees it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from gymnasium import spaces

from envs.vector import Bot, GameError, Group, Tree

LONGEST = 32


class Brawl:
    """Two teams of two act at once. Seats die one by one; the rest go on until one team is left, or
    time is up: then the living are truncated. A kill is paid to the other team, the waiting dead too."""

    teams = (0, 0, 1, 1)
    num_actions = 4
    space = spaces.Box(-4, 4, (5,))
    has_state = True

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.time, self.alive = rng, 0, np.ones(4, bool)
        self.limit = int(rng.integers(3, 10))
        self.see()

    def see(self) -> None:
        self.noise = self.rng.uniform(-1, 1, 4).astype(np.float32)
        self.mask = self.rng.random((4, 4)) < 0.6
        self.mask[np.arange(4), self.rng.integers(0, 4, 4)] = True
        self.to_act = self.alive.copy()

    def obs(self, seat: int) -> Tree:
        return {"": np.array([self.noise[seat], *self.alive], np.float32)}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.time += 1
        risk = np.where(action == 3, 0.3, 0.1)
        died = self.alive & (self.rng.random(4) < risk)
        self.alive &= ~died
        reward = np.where(self.alive, 0.125 * self.time, 0.0) - died
        for seat in np.flatnonzero(died):
            reward += np.where(np.array(self.teams) != self.teams[seat], 0.5, 0.0)
        truncated = np.zeros(4, bool)
        left = {self.teams[seat] for seat in np.flatnonzero(self.alive)}
        if len(left) < 2:
            died |= self.alive
            self.alive[:] = False
        elif self.time == self.limit:
            truncated, self.alive = self.alive.copy(), np.zeros(4, bool)
        self.see()
        return reward, died, truncated


class Turns:
    """Three seats, one at a time in random order; everybody is paid at every step, whoever acts.

    In some matches a seat never acts. Half of the matches end by the rules, half by time.
    """

    teams = (0, 1, 2)
    num_actions = 3
    space = spaces.Dict(
        {"clock": spaces.Discrete(LONGEST), "noise": spaces.Box(-4, 4, (2,)), "seat": spaces.MultiBinary(3)}
    )
    has_state = True

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.time, self.alive = rng, 0, np.ones(3, bool)
        self.limit, self.cut = int(rng.integers(1, 14)), rng.random() < 0.5
        self.absent = int(rng.integers(0, 9))  # 3 and above: nobody
        self.see()

    def see(self) -> None:
        self.noise = self.rng.uniform(-1, 1, (3, 2)).astype(np.float32)
        self.mask = np.ones((3, 3), bool)
        self.mask[np.arange(3), self.rng.integers(0, 3, 3)] = False
        seats = [seat for seat in range(3) if seat != self.absent]
        self.to_act = np.zeros(3, bool)
        self.to_act[self.rng.choice(seats)] = self.alive.any()

    def obs(self, seat: int) -> Tree:
        return {
            "clock": np.int64(self.time),
            "noise": self.noise[seat],
            "seat": np.eye(3, dtype=np.int8)[seat],
        }

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.time += 1
        reward = self.rng.integers(-8, 9, 3) / 8
        ended = np.full(3, self.time == self.limit)
        self.alive &= ~ended
        self.see()
        return reward, ended & (not self.cut), ended & self.cut


class Cutoff:
    """One seat, always cut off by time, where it sees what it would go on from."""

    teams = (0,)
    num_actions = 2
    space = spaces.Box(-4, 4, (3,))
    has_state = False

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.time, self.place = rng, 0, 0.0
        self.limit = int(rng.integers(1, 8))
        self.see()

    def see(self) -> None:
        self.noise = float(self.rng.uniform(-1, 1))
        self.mask, self.to_act = np.ones((1, 2), bool), np.array([self.time < self.limit])

    def obs(self, seat: int) -> Tree:
        return {"": np.array([self.noise, self.place / 4, self.time / 8], np.float32)}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.time += 1
        self.place += 1.0 if action[0] else -1.0
        self.see()
        return np.array([self.place]), np.zeros(1, bool), np.array([self.time == self.limit])


class Memory:
    """Two seats at once. The first observation shows a cue; two noisy steps later the seat must name it."""

    teams = (0, 1)
    num_actions = 2
    space = spaces.Box(-4, 4, (3,))
    has_state = False
    length = 3

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.time = rng, 0
        self.cue = rng.integers(0, 2, 2)
        self.see()

    def see(self) -> None:
        self.noise = self.rng.uniform(-1, 1, 2).astype(np.float32)
        self.mask, self.to_act = np.ones((2, 2), bool), np.full(2, self.time < self.length)

    def obs(self, seat: int) -> Tree:
        cue = float(2 * self.cue[seat] - 1) if self.time == 0 else 0.0
        return {"": np.array([cue, self.noise[seat] / 8, float(self.time == self.length - 1)], np.float32)}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.time += 1
        ended = np.full(2, self.time == self.length)
        reward = np.where(ended, np.where(action == self.cue, 1.0, -1.0), 0.0)
        self.see()
        return reward, ended, np.zeros(2, bool)


class Bandit(Memory):
    """`Memory` with nothing to remember: the cue is asked for at once."""

    length = 1


class ToyGame:
    """Any of the games above as a vector env. Its state is its arrays and every match's history."""

    zero_sum = False
    bots: Mapping[str, Bot] = {}

    def __init__(self, num_games: int, rules: type) -> None:
        seats = len(rules.teams)
        self.id, self.teams, self.num_games, self.rules = (
            rules.__name__.lower(),
            rules.teams,
            num_games,
            rules,
        )
        self.to_act = np.zeros((num_games, seats), bool)
        self.reward = np.zeros((num_games, seats), np.float32)
        self.terminated = np.zeros((num_games, seats), bool)
        self.truncated = np.zeros((num_games, seats), bool)
        self.over = np.ones(num_games, bool)
        self.ended = np.ones((num_games, seats), bool)
        leaves = rules.space.spaces if isinstance(rules.space, spaces.Dict) else {"": rules.space}
        obs = {path: np.zeros((num_games, seats, *leaf.shape), leaf.dtype) for path, leaf in leaves.items()}
        mask = {"": np.zeros((num_games, seats, rules.num_actions), bool)}
        action_space = spaces.Discrete(rules.num_actions)
        self.groups = (Group("seat", tuple(range(seats)), rules.space, action_space, obs, mask),)
        self.matches: list = [None] * num_games
        self.seed = np.zeros(num_games, np.uint64)
        self.time = np.zeros(num_games, np.int64)
        self.history = np.zeros((num_games, LONGEST, seats), np.int64)

    def restart(self, games: np.ndarray, seeds: np.ndarray) -> None:
        self.seed[games], self.time[games], self.history[games] = seeds, 0, 0
        self.reward[games], self.over[games] = 0, False
        self.terminated[games] = self.truncated[games] = self.ended[games] = False
        for game, seed in zip(games.tolist(), seeds.tolist(), strict=True):
            self.matches[game] = self.rules(np.random.default_rng(seed))
            self._show(game)

    def step(self, actions: tuple[Tree, ...]) -> None:
        action = actions[0][""]
        mask = self.groups[0].mask[""]
        known = mask & (action[..., None] == np.arange(mask.shape[-1]))
        for game, seat in np.argwhere(self.to_act & ~known.any(axis=-1)):
            chosen, legal = action[game, seat], np.flatnonzero(mask[game, seat])
            raise GameError(f"{self.id}, match {game}, seat {seat}: action {chosen} is not of {legal}")
        self.reward[self.over] = 0
        played = np.where(self.to_act, action, 0)
        for game in np.flatnonzero(~self.over):
            chosen = played[game]
            self.history[game, self.time[game]] = chosen
            self.time[game] += 1
            reward, terminated, truncated = self.matches[game].step(chosen)
            self.reward[game], self.terminated[game], self.truncated[game] = reward, terminated, truncated
            self.ended[game] |= terminated | truncated
            self.over[game] = self.ended[game].all()
            self._show(game)

    def _show(self, game: int) -> None:
        match, group = self.matches[game], self.groups[0]
        to_act = self.to_act[game] = match.to_act & ~self.over[game]
        group.mask[""][game] = match.mask & to_act[:, None]
        for leaf in group.obs.values():
            leaf[game] = np.nan if leaf.dtype == np.float32 else 0
        for seat in np.flatnonzero(to_act | self.truncated[game]):
            for path, x in match.obs(seat).items():
                group.obs[path][game, seat] = x

    def _arrays(self) -> Tree:
        names = ("to_act", "reward", "terminated", "truncated", "over", "ended", "seed", "time", "history")
        own = {name: getattr(self, name) for name in names} | {"mask": self.groups[0].mask[""]}
        return own | {f"obs:{path}": leaf for path, leaf in self.groups[0].obs.items()}

    def state(self) -> Tree | None:
        if not self.rules.has_state:
            return None
        return {name: array.copy() for name, array in self._arrays().items()}

    def set_state(self, state: Tree) -> None:
        for name, array in self._arrays().items():
            array[...] = state[name]
        for game in range(self.num_games):
            self.matches[game] = self.rules(np.random.default_rng(int(self.seed[game])))
            for action in self.history[game, : self.time[game]]:
                self.matches[game].step(action)

    def render(self, game: int) -> str:
        return f"{self.id} at step {self.time[game]}"

    def action_names(self, game: int) -> list[str] | None:
        return None


def brawl(num_games: int) -> ToyGame:
    return ToyGame(num_games, Brawl)


def turns(num_games: int) -> ToyGame:
    return ToyGame(num_games, Turns)


def cutoff(num_games: int) -> ToyGame:
    return ToyGame(num_games, Cutoff)


def memory(num_games: int) -> ToyGame:
    return ToyGame(num_games, Memory)


def bandit(num_games: int) -> ToyGame:
    return ToyGame(num_games, Bandit)


TOYS = {"brawl": brawl, "turns": turns, "cutoff": cutoff, "memory": memory, "bandit": bandit}
