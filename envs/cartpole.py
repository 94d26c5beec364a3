"""Cart-pole as Gymnasium's CartPole-v1 has it: one seat, B carts in lockstep in Numba kernels.

Dynamics: Barto, Sutton and Anderson 1983, as corrected by Florian 2007; Euler steps of 20 ms, in
float64 and in Gymnasium's order of operations, so that both give the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box, Discrete
from numba import njit

from envs import native
from envs.bots import by_row
from envs.random_bits import next_random, unit_float
from envs.vector import Bot, Group, Tree

GRAVITY = 9.8
POLE_MASS = 0.1
TOTAL_MASS = POLE_MASS + 1.0
HALF_LENGTH = 0.5  # of the pole
POLE_MOMENT = POLE_MASS * HALF_LENGTH
FORCE = 10.0
STEP_SECONDS = 0.02
MAX_X = 2.4
MAX_ANGLE = 12 * 2 * math.pi / 360
START = 0.05  # each quantity begins uniformly within +-START
MAX_STEPS = 500


class _Matches(NamedTuple):
    """B matches: everything that a kernel reads and writes."""

    physics: np.ndarray  # [B, 4] float64: x, its velocity, the pole's angle, its velocity
    num_steps: np.ndarray  # [B] int64
    obs: np.ndarray  # [B, 1, 4 or 2] float32
    to_act: np.ndarray  # [B, 1] bool
    reward: np.ndarray  # [B, 1] float32
    terminated: np.ndarray  # [B, 1] bool
    truncated: np.ndarray  # [B, 1] bool
    over: np.ndarray  # [B] bool


@njit(cache=True, nogil=True)
def _show(m: _Matches, game: int) -> None:
    """The seat's view: all four quantities, or x and angle alone."""
    width = m.obs.shape[2]
    for k in range(width):
        m.obs[game, 0, k] = m.physics[game, k * 4 // width]


@njit(cache=True, nogil=True)
def _restart(m: _Matches, games: np.ndarray, seeds: np.ndarray) -> None:
    """Open matches in slots games [K] int64 from seeds [K] uint64."""
    for k in range(games.shape[0]):
        game = games[k]
        state = seeds[k]
        for quantity in range(4):
            state, bits = next_random(state)
            m.physics[game, quantity] = START * (2 * unit_float(bits) - 1)
        m.num_steps[game] = 0
        m.to_act[game] = True
        native.clear(game, m.reward, m.terminated, m.over)
        m.truncated[game] = False
        _show(m, game)


@njit(cache=True, nogil=True)
def _first_illegal(m: _Matches, action: np.ndarray) -> int:
    """The first match in play whose action [B, 1] is neither 0 nor 1; -1 if none."""
    for game in range(m.over.shape[0]):
        if not m.over[game] and action[game, 0] != 0 and action[game, 0] != 1:
            return game
    return -1


@njit(cache=True, nogil=True)
def _push(physics: np.ndarray, force: float) -> bool:
    """Advance physics [4] by one step under a force; whether cart or pole is out of bounds then."""
    x, velocity, angle, spin = physics
    cos, sin = math.cos(angle), math.sin(angle)
    swing = (force + POLE_MOMENT * (spin * spin) * sin) / TOTAL_MASS
    spin_rate = (GRAVITY * sin - cos * swing) / (
        HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * (cos * cos) / TOTAL_MASS)
    )
    acceleration = swing - POLE_MOMENT * spin_rate * cos / TOTAL_MASS
    physics[0] = x + STEP_SECONDS * velocity
    physics[1] = velocity + STEP_SECONDS * acceleration
    physics[2] = angle + STEP_SECONDS * spin
    physics[3] = spin + STEP_SECONDS * spin_rate
    return abs(physics[0]) > MAX_X or abs(physics[2]) > MAX_ANGLE


@njit(cache=True, nogil=True)
def _step(m: _Matches, action: np.ndarray) -> None:
    """One step, from legal action [B, 1], of every match that is not over."""
    for game in range(m.over.shape[0]):
        if m.over[game]:
            m.reward[game] = 0
            continue
        fell = _push(m.physics[game], FORCE if action[game, 0] == 1 else -FORCE)
        m.num_steps[game] += 1
        ended = fell or m.num_steps[game] == MAX_STEPS
        m.reward[game, 0] = 1
        m.terminated[game, 0] = fell
        m.truncated[game, 0] = ended and not fell
        m.over[game] = ended
        m.to_act[game, 0] = not ended
        _show(m, game)


@by_row
def linear(obs: Tree, mask: Tree, rng: np.random.Generator) -> Tree:
    """Bot: pushes towards the side to which a weighted sum of the four quantities leans.

    obs "" [R, 4] float32 -> action "" [R] int64.
    """
    lean = obs[""] @ np.array([0.1, 0.4, 1.0, 0.6], np.float32)
    return {"": (lean > 0).astype(np.int64)}


class CartPole:
    """Cart-pole: +1 for every step that the pole stands and the cart stays; cut off after 500 steps.

    The seat sees the cart's x and velocity and the pole's angle and velocity, and pushes left (0) or
    right (1). `mask_velocity` hides both velocities (obs x, angle), so that balancing takes memory.
    """

    id = "cartpole"
    teams = (0,)
    public_actions = True
    seat_names = ("player_0",)
    zero_sum = False
    max_return = float(MAX_STEPS)

    def __init__(self, num_games: int, *, mask_velocity: bool = False) -> None:
        native.check_int(self.id, "num_games", num_games, 1, None)
        native.check_choice(self.id, "mask_velocity", mask_velocity, (False, True))
        self.num_games = num_games
        width = 2 if mask_velocity else 4
        self._matches = m = _Matches(
            physics=np.zeros((num_games, 4)),
            num_steps=np.zeros(num_games, np.int64),
            obs=np.zeros((num_games, 1, width), np.float32),
            truncated=np.zeros((num_games, 1), np.bool_),
            **native.shown(num_games, 1),
        )
        self.to_act, self.reward, self.over = m.to_act, m.reward, m.over
        self.terminated, self.truncated = m.terminated, m.truncated
        bound = np.array([2 * MAX_X, np.inf, 2 * MAX_ANGLE, np.inf], np.float32)[:: 4 // width]
        space = Box(-bound, bound, dtype=np.float32)
        self.groups = (Group("player", (0,), space, Discrete(2), {"": m.obs}),)
        # The bot reads velocities.
        self.bots: Mapping[str, Bot] = {} if mask_velocity else {"linear": linear}

    def restart(self, games: np.ndarray, seeds: np.ndarray) -> None:
        """Open new matches in slots games [K] int64 from seeds [K] uint64."""
        _restart(self._matches, *native.check_restart(self.id, self.num_games, games, seeds))

    def step(self, actions: tuple[Tree, ...]) -> None:
        """Push by action "" [B, 1] int64; if one is illegal, nothing moves."""
        action = actions[0][""]
        native.check_array(self.id, "the action", action, self.to_act.shape, np.int64)
        game = _first_illegal(self._matches, action)
        if game >= 0:
            raise native.illegal_action(self.id, game, 0, action[game, 0], [0, 1])
        _step(self._matches, action)

    def state(self) -> Tree:
        """A copy of every array that the matches consist of, [B, ...] each."""
        return native.copy_state(self._matches._asdict())

    def set_state(self, state: Tree) -> None:
        """Go on from what `state` of as many games gave."""
        native.load_state(self.id, self._matches._asdict(), state)

    def render(self, game: int, seat: int | None = None) -> str:
        """The cart's place between its limits, the pole's angle, and the steps so far."""
        x, _, angle, _ = self._matches.physics[game]
        width = 41
        track = ["-"] * width
        track[round((np.clip(x / MAX_X, -1, 1) + 1) / 2 * (width - 1))] = "#"
        lean = "/" if angle > MAX_ANGLE / 3 else "\\" if angle < -MAX_ANGLE / 3 else "|"
        pole = "".join(lean if cell == "#" else " " for cell in track).rstrip()
        numbers = (
            f"x {x:+.2f}  angle {math.degrees(angle):+.1f} degrees  step {self._matches.num_steps[game]}"
        )
        return "\n".join([pole, "".join(track), numbers])

    def action_names(self, game: int) -> list[str]:
        """What the two actions push to."""
        return ["left", "right"]
