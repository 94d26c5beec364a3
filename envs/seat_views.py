"""What one seat may be told of a match: the board as it may know it, and the names of its actions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from envs.vector import VectorEnv


def takes_seat(method: Callable[..., Any]) -> bool:
    """Whether a game's `render` or `action_names` can be asked for one seat."""
    return "seat" in inspect.signature(method).parameters


def render_seat(env: VectorEnv, game: int, seat: int) -> str:
    """What the seat may see of the board; empty where the game does not say what that is."""
    render: Callable[..., str] = env.render
    return render(game, seat) if takes_seat(render) else ""


def names_of(env: VectorEnv, game: int, seat: int) -> list[str] | None:
    """What a person calls the seat's discrete actions; None: by their numbers."""
    names: Callable[..., list[str] | None] = env.action_names
    return names(game, seat) if takes_seat(names) else names(game)
