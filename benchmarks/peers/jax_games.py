"""Games in jax.numpy, by the rules of ours of the same name: a rollout of them compiles with the network's.

B games, R rows of the network in a step. Every step plays in every game; one that ends starts again at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

State = Any


class Step(NamedTuple):
    """What one step of B games gave, after those that ended have started again."""

    state: State
    reward: jax.Array  # [R] of the rows that acted
    late: jax.Array  # [R] for the decision before, of a seat that waited in this step; 0 where none did
    over: jax.Array  # [R] bool, the row's match ended


class Game(NamedTuple):
    """One game as pure functions."""

    obs_size: int
    num_actions: int
    rows: int  # R = rows * B
    turns: int  # seats that share a row by turns, so that each acts in every turns-th step: 1 or 2
    decides: float  # share of the rows that decide; the others are stepped while they wait
    start: Callable[[jax.Array, int], State]  # (key, B) -> state
    view: Callable[[State], tuple[jax.Array, jax.Array | None]]  # -> obs [R, obs_size], mask [R, n] or None
    step: Callable[[State, jax.Array, jax.Array], Step]  # (state, action [R], key)


def _again(over: jax.Array, new: State, old: State) -> State:
    """New where a game is over [B], else old; leaves [B, ...]."""
    return jax.tree.map(lambda a, b: jnp.where(over.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old)


# Cart-pole: state (physics [B, 4], steps [B])


def _cartpole_start(key: jax.Array, num_games: int) -> State:
    physics = jax.random.uniform(key, (num_games, 4), minval=-0.05, maxval=0.05)
    return physics, jnp.zeros(num_games, jnp.int32)


def _cartpole_step(state: State, action: jax.Array, key: jax.Array) -> Step:
    """Euler's step of 20 ms; the cut after 500 steps ends the match as a fall does, as is usual here."""
    x, velocity, angle, spin = state[0].T
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    swing = (jnp.where(action == 1, 10.0, -10.0) + 0.05 * spin**2 * sin) / 1.1
    spin_rate = (9.8 * sin - cos * swing) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
    acceleration = swing - 0.05 * spin_rate * cos / 1.1
    x, velocity = x + 0.02 * velocity, velocity + 0.02 * acceleration
    angle, spin = angle + 0.02 * spin, spin + 0.02 * spin_rate
    steps = state[1] + 1
    over = (jnp.abs(x) > 2.4) | (jnp.abs(angle) > 12 * 2 * np.pi / 360) | (steps == 500)
    old = jnp.stack([x, velocity, angle, spin], 1), steps
    state = _again(over, _cartpole_start(key, len(over)), old)
    return Step(state, jnp.ones_like(x), jnp.zeros_like(x), over)


# Rock, paper, scissors: state (last actions [2, B], -1 before the first, rounds played [B])

ROUNDS = 10


def _rps_start(key: jax.Array, num_games: int) -> State:
    return jnp.full((num_games, 2), -1), jnp.zeros(num_games, jnp.int32)


def _rps_view(state: State) -> tuple[jax.Array, None]:
    """Rows: seat 0 of all games, then seat 1; each sees the other's last action, its own, and the time."""
    last, played = state
    shown = jax.nn.one_hot(last, 3)  # [B, 2, 3]
    time = (played / ROUNDS)[:, None]
    seats = [jnp.concatenate([shown[:, 1 - seat], shown[:, seat], time], 1) for seat in (0, 1)]
    return jnp.concatenate(seats), None


def _rps_step(state: State, action: jax.Array, key: jax.Array) -> Step:
    row, column = action.reshape(2, -1)
    won = (row - column) % 3
    reward = jnp.where(won == 2, -1.0, won)
    played = state[1] + 1
    over = played == ROUNDS
    state = _again(over, _rps_start(key, len(over)), (jnp.stack([row, column], 1), played))
    reward = jnp.concatenate([reward, -reward])
    return Step(state, reward, jnp.zeros_like(reward), jnp.tile(over, 2))


# Connect Four: state (board [B, 84] of 0 and 1: cells of the seat to move, then the other's; turn [B])


def _lines() -> np.ndarray:
    """[42, 69]: which cells, 7 * row + column, each four in a line covers."""
    lines = []
    for row, column in np.ndindex(6, 7):
        for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
            cells = [(row + k * down, column + k * right) for k in range(4)]
            if all(r < 6 and 0 <= c < 7 for r, c in cells):
                lines.append(np.isin(np.arange(42), [7 * r + c for r, c in cells]))
    return np.array(lines, np.float32).T


LINES = _lines()


def _four_start(key: jax.Array, num_games: int) -> State:
    return jnp.zeros((num_games, 84), jnp.int8), jnp.zeros(num_games, jnp.int32)


def _legal(board: jax.Array) -> jax.Array:
    """board [B, 84] -> [B, 7] bool, columns with a free top cell."""
    return (board[:, 35:42] + board[:, 77:84]) == 0


def _four_view(state: State) -> tuple[jax.Array, jax.Array]:
    return state[0], _legal(state[0])


def _drop(state: State, action: jax.Array, key: jax.Array) -> tuple[State, jax.Array, jax.Array]:
    """The seat to move plays columns [B] -> (state, won [B], over [B])."""
    board, turn = state
    own, other = board[:, :42], board[:, 42:]
    height = (own + other).reshape(-1, 6, 7).sum(1, dtype=jnp.int8)  # [B, 7]
    cell = 7 * jnp.take_along_axis(height, action[:, None], 1) + action[:, None]
    own = own | (jnp.arange(42) == cell)
    won = (own.astype(jnp.float32) @ LINES == 4).any(1)
    over = won | (own + other).all(1)
    old = jnp.concatenate([other, own], 1), 1 - turn
    return _again(over, _four_start(key, len(over)), old), won, over


def _four_step(state: State, action: jax.Array, key: jax.Array) -> Step:
    state, won, over = _drop(state, action, key)
    reward = won.astype(jnp.float32)
    return Step(state, reward, -reward, over)


def _both_view(state: State) -> tuple[jax.Array, jax.Array]:
    """Rows: seat 0 of all games, then seat 1; the waiting seat has one legal action, which is ignored."""
    board, turn = state
    other = jnp.concatenate([board[:, 42:], board[:, :42]], 1)
    first = (turn == 0)[:, None]
    obs = jnp.concatenate([jnp.where(first, board, other), jnp.where(first, other, board)])
    moves = jnp.concatenate([turn == 0, turn == 1])[:, None]
    return obs, jnp.where(moves, jnp.tile(_legal(board), (2, 1)), jnp.arange(7) == 0)


def _both_step(state: State, action: jax.Array, key: jax.Array) -> Step:
    first, second = action.reshape(2, -1)
    turn = state[1]
    state, won, over = _drop(state, jnp.where(turn == 0, first, second), key)
    reward = jnp.where(turn == 0, 1.0, -1.0) * won
    reward = jnp.concatenate([reward, -reward])
    return Step(state, reward, jnp.zeros_like(reward), jnp.tile(over, 2))


CARTPOLE = Game(4, 2, 1, 1, 1, _cartpole_start, lambda state: (state[0], None), _cartpole_step)
ROCK_PAPER_SCISSORS = Game(7, 3, 2, 1, 1, _rps_start, _rps_view, _rps_step)
CONNECT_FOUR = Game(84, 7, 2, 1, 0.5, _four_start, _both_view, _both_step)
CONNECT_FOUR_IN_TURN = Game(84, 7, 1, 2, 1, _four_start, _four_view, _four_step)
