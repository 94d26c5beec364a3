"""Pong on a court from -1 to 1 both ways, with continuous actions: B matches in lockstep in Numba kernels.

Seat 0 has the paddle at x = -1 and seat 1 at x = 1; each sees itself on the left. Heights are y.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict
from numba import njit

from envs import native
from envs.bots import by_row
from envs.random_bits import next_random, unit_float
from envs.vector import Bot, Group, Tree

PADDLE_SPEED = 0.06  # per step, at full action
HALF_PADDLE = 0.2
SERVE_SPEED = 0.08  # of the ball along x, per step
SPEED_GAIN = 1.1  # with every hit
MAX_SPEED = 0.2
MAX_SLOPE = 1.2  # of the ball's flight, at full swing
PIXELS = 16
BALL_X, BALL_Y, SPEED_X, SPEED_Y = range(4)  # columns of the ball
OBSERVATIONS = ("vector", "image", "both")


class _Matches(NamedTuple):
    """B matches: everything that a kernel reads and writes."""

    ball: np.ndarray  # [B, 4] float64: x, y and their changes per step
    paddle: np.ndarray  # [B, 2] float64, height of each seat's paddle
    num_steps: np.ndarray  # [B] int64
    hits: np.ndarray  # [B] int64, returned balls
    vector: np.ndarray  # [B, 2, 6] float32: ball x, y, their changes, own paddle, the other's
    image: np.ndarray  # [B or 0, 2, 3, 16, 16] uint8: own paddle, the other's, ball; row 0 at the top
    to_act: np.ndarray  # [B, 2] bool
    reward: np.ndarray  # [B, 2] float32
    terminated: np.ndarray  # [B, 2] bool
    truncated: np.ndarray  # [B, 2] bool
    over: np.ndarray  # [B] bool


@njit(cache=True, nogil=True)
def _draw_paddle(column: np.ndarray, height: float) -> None:
    """What share of each pixel of column [16] uint8 a paddle at this height covers."""
    top = (1 - height - HALF_PADDLE) / 2 * PIXELS
    bottom = (1 - height + HALF_PADDLE) / 2 * PIXELS
    for row in range(max(int(top), 0), min(math.ceil(bottom), PIXELS)):
        share = min(bottom, row + 1.0) - max(top, float(row))
        column[row] = np.uint8(255 * share)


@njit(cache=True, nogil=True)
def _draw_ball(plane: np.ndarray, x: float, y: float) -> None:
    """Light of the ball on plane [16, 16] uint8, shared out by distance among the four nearest pixels."""
    row = min(max((1 - y) / 2 * PIXELS - 0.5, 0.0), PIXELS - 1.0)
    column = min(max((1 + x) / 2 * PIXELS - 0.5, 0.0), PIXELS - 1.0)
    first_row, first_column = min(int(row), PIXELS - 2), min(int(column), PIXELS - 2)
    down, right = row - first_row, column - first_column
    plane[first_row, first_column] = np.uint8(255 * (1 - down) * (1 - right))
    plane[first_row, first_column + 1] = np.uint8(255 * (1 - down) * right)
    plane[first_row + 1, first_column] = np.uint8(255 * down * (1 - right))
    plane[first_row + 1, first_column + 1] = np.uint8(255 * down * right)


@njit(cache=True, nogil=True)
def _show(m: _Matches, game: int) -> None:
    """Each seat's view, mirrored so that its own paddle is on the left."""
    ball = m.ball[game]
    for seat in range(2):
        side = 1 - 2 * seat
        view = m.vector[game, seat]
        view[0] = side * ball[BALL_X]
        view[1] = ball[BALL_Y]
        view[2] = side * ball[SPEED_X] / MAX_SPEED
        view[3] = ball[SPEED_Y] / (MAX_SPEED * MAX_SLOPE)
        view[4] = m.paddle[game, seat]
        view[5] = m.paddle[game, 1 - seat]
        if m.image.shape[0] > 0:
            image = m.image[game, seat]
            image[:] = 0
            _draw_paddle(image[0, :, 0], m.paddle[game, seat])
            _draw_paddle(image[1, :, PIXELS - 1], m.paddle[game, 1 - seat])
            _draw_ball(image[2], side * ball[BALL_X], ball[BALL_Y])


@njit(cache=True, nogil=True)
def _restart(m: _Matches, games: np.ndarray, seeds: np.ndarray) -> None:
    """Serve from the middle in slots games [K] int64, as seeds [K] uint64 draw side, height and slope."""
    for k in range(games.shape[0]):
        game = games[k]
        state, side = next_random(seeds[k])
        state, height = next_random(state)
        state, slope = next_random(state)
        m.ball[game, BALL_X] = 0
        m.ball[game, BALL_Y] = unit_float(height) - 0.5
        m.ball[game, SPEED_X] = SERVE_SPEED if side & np.uint64(1) else -SERVE_SPEED
        m.ball[game, SPEED_Y] = SERVE_SPEED * MAX_SLOPE * (2 * unit_float(slope) - 1)
        m.paddle[game] = 0
        m.num_steps[game] = 0
        m.hits[game] = 0
        m.to_act[game] = True
        native.clear(game, m.reward, m.terminated, m.over)
        m.truncated[game] = False
        _show(m, game)


@njit(cache=True, nogil=True)
def _show_all(m: _Matches) -> None:
    """Each seat's view of every match."""
    for game in range(m.over.shape[0]):
        _show(m, game)


@njit(cache=True, nogil=True)
def _first_illegal(m: _Matches, action: np.ndarray) -> int:
    """2 * match + seat of the first action [B, 2, 2] in play that is not within [-1, 1]; -1 if none."""
    for game in range(m.over.shape[0]):
        if m.over[game]:
            continue
        for seat in range(2):
            for part in range(2):
                if not -1 <= action[game, seat, part] <= 1:  # nan is refused too
                    return 2 * game + seat
    return -1


@njit(cache=True, nogil=True)
def _fly(m: _Matches, game: int, action: np.ndarray) -> int:
    """Move the ball by one step, off walls and paddles; the seat that missed it, or -1.

    action [2, 2]: the swing of the seat that hits sets the slope at which the ball leaves.
    """
    ball = m.ball[game]
    ball[BALL_X] += ball[SPEED_X]
    ball[BALL_Y] += ball[SPEED_Y]
    if abs(ball[BALL_Y]) > 1:
        ball[BALL_Y] = math.copysign(2.0, ball[BALL_Y]) - ball[BALL_Y]
        ball[SPEED_Y] = -ball[SPEED_Y]
    if abs(ball[BALL_X]) < 1:
        return -1
    seat = 0 if ball[BALL_X] < 0 else 1
    side = 1 - 2 * seat  # the direction in which this seat plays
    ball[BALL_X] = -side
    if abs(ball[BALL_Y] - m.paddle[game, seat]) > HALF_PADDLE:
        return seat
    speed = min(abs(ball[SPEED_X]) * SPEED_GAIN, MAX_SPEED)
    ball[SPEED_X] = side * speed
    ball[SPEED_Y] = action[seat, 1] * MAX_SLOPE * speed
    m.hits[game] += 1
    return -1


@njit(cache=True, nogil=True)
def _step(m: _Matches, action: np.ndarray, max_steps: int) -> None:
    """One step, from legal action [B, 2, 2], of every match that is not over."""
    limit = 1 - HALF_PADDLE
    for game in range(m.over.shape[0]):
        m.reward[game] = 0
        if m.over[game]:
            continue
        for seat in range(2):
            height = m.paddle[game, seat] + PADDLE_SPEED * action[game, seat, 0]
            m.paddle[game, seat] = min(max(height, -limit), limit)
        loser = _fly(m, game, action[game])
        m.num_steps[game] += 1
        missed = loser >= 0
        if missed:
            m.reward[game, loser] = -1
            m.reward[game, 1 - loser] = 1
        ended = missed or m.num_steps[game] == max_steps
        m.terminated[game] = missed
        m.truncated[game] = ended and not missed
        m.over[game] = ended
        m.to_act[game] = not ended
        _show(m, game)


class Pong:
    """Pong: two seats act at once; whoever misses the ball loses the match: -1, and +1 to the other.

    An action is (move, swing), both from -1 to 1: the paddle's speed upwards, and the slope at which
    it returns the ball. Every return makes the ball faster. After `max_steps` a match is cut off.
    Each seat sees itself on the left: as `observation="vector"` (ball x, y, their speeds, own paddle,
    the other's; from -1 to 1), as "image" (own paddle, the other's, ball: no speeds), or "both".
    """

    id = "pong"
    teams = (0, 1)
    public_actions = True
    seat_names = ("player_0", "player_1")
    zero_sum = True

    def __init__(self, num_games: int, *, observation: str = "vector", max_steps: int = 500) -> None:
        native.check_int(self.id, "num_games", num_games, 1, None)
        native.check_choice(self.id, "observation", observation, OBSERVATIONS)
        native.check_int(self.id, "max_steps", max_steps, 1, None)
        self.num_games = num_games
        self._max_steps = max_steps
        self._matches = m = _new_matches(num_games, draws=observation != "vector")
        self.to_act, self.reward, self.over = m.to_act, m.reward, m.over
        self.terminated, self.truncated = m.terminated, m.truncated
        vector = Box(-1, 1, (6,), np.float32)
        image = Box(0, 255, m.image.shape[2:], np.uint8)
        space, obs = {
            "vector": (vector, {"": m.vector}),
            "image": (image, {"": m.image}),
            "both": (Dict(image=image, vector=vector), {"image": m.image, "vector": m.vector}),
        }[observation]
        self.groups = (Group("player", (0, 1), space, Box(-1, 1, (2,), np.float32), obs),)
        self.privileged_space: gymnasium.Space = vector  # as seat 0 sees it
        self.privileged: Tree = {"": m.vector[:, 0]}
        self.bots: Mapping[str, Bot] = {"tracker": track_image if observation == "image" else track_vector}

    def restart(self, games: np.ndarray, seeds: np.ndarray) -> None:
        """Open new matches in slots games [K] int64 from seeds [K] uint64."""
        _restart(self._matches, *native.check_restart(self.id, self.num_games, games, seeds))

    def step(self, actions: tuple[Tree, ...]) -> None:
        """Move and swing by action "" [B, 2, 2] float32; if one is illegal, nothing moves."""
        action = actions[0][""]
        native.check_array(self.id, "the action", action, (self.num_games, 2, 2), np.float32)
        illegal = _first_illegal(self._matches, action)
        if illegal >= 0:
            game, seat = divmod(illegal, 2)
            legal = "move and swing from -1 to 1"
            raise native.illegal_action(self.id, game, seat, action[game, seat].tolist(), legal)
        _step(self._matches, action, self._max_steps)

    def state(self) -> Tree:
        """A copy of every array that the matches consist of, [B, ...] each; views are drawn from them."""
        return native.copy_state(self._own())

    def set_state(self, state: Tree) -> None:
        """Go on from what `state` of as many games gave."""
        native.load_state(self.id, self._own(), state)
        _show_all(self._matches)

    def _own(self) -> Tree:
        return {name: x for name, x in self._matches._asdict().items() if name not in ("vector", "image")}

    def render(self, game: int, seat: int | None = None) -> str:
        """The court, seat 0 on the left, and the hits so far."""
        m = self._matches
        rows, columns = 11, 31
        cells = np.full((rows, columns), " ")
        height = 1 - 2 * (np.arange(rows) + 0.5) / rows  # of each row's middle
        for column, paddle in ((0, m.paddle[game, 0]), (columns - 1, m.paddle[game, 1])):
            cells[np.abs(height - paddle) <= HALF_PADDLE, column] = "|"
        x, y = m.ball[game, BALL_X], m.ball[game, BALL_Y]
        cells[np.abs(height - y).argmin(), round((x + 1) / 2 * (columns - 1))] = "o"
        wall = "-" * columns
        lines = [wall, *("".join(row) for row in cells), wall, f"hits {m.hits[game]}"]
        return "\n".join(lines)

    def action_names(self, game: int) -> None:
        """Numbers."""


@by_row
def track_vector(obs: Tree, mask: Tree, rng: np.random.Generator) -> Tree:
    """Bot: keeps its paddle at the ball's height and returns it at a random slope.

    obs "" or "vector" [R, 6] -> action "" [R, 2] float32.
    """
    vector = obs["vector"] if "vector" in obs else obs[""]
    return _track(vector[:, 1], vector[:, 4], rng)


@by_row
def track_image(obs: Tree, mask: Tree, rng: np.random.Generator) -> Tree:
    """The same bot by sight: obs "" [R, 3, 16, 16] -> action "" [R, 2] float32."""
    light = obs[""].sum(axis=3, dtype=np.float64)  # [R, 3, rows]
    height = 1 - (2 * np.arange(PIXELS) + 1) / PIXELS
    mean = light @ height / light.sum(axis=2)
    return _track(mean[:, 2], mean[:, 0], rng)


def _track(ball: np.ndarray, paddle: np.ndarray, rng: np.random.Generator) -> Tree:
    """ball and paddle [R] are heights."""
    move = np.clip((ball - paddle) / PADDLE_SPEED, -1, 1)
    return {"": np.stack([move, rng.uniform(-1, 1, len(move))], axis=1).astype(np.float32)}


def _new_matches(num_games: int, *, draws: bool) -> _Matches:
    """B matches that are over."""
    return _Matches(
        ball=np.zeros((num_games, 4)),
        paddle=np.zeros((num_games, 2)),
        num_steps=np.zeros(num_games, np.int64),
        hits=np.zeros(num_games, np.int64),
        vector=np.zeros((num_games, 2, 6), np.float32),
        image=np.zeros((num_games if draws else 0, 2, 3, PIXELS, PIXELS), np.uint8),
        truncated=np.zeros((num_games, 2), np.bool_),
        **native.shown(num_games, 2),
    )
