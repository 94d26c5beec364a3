"""OpenSpiel's games by their strings, and what a seat sees of a state.

What cannot be played here says so in one line: mean-field games, games without tensors, without the
parameters they need, or with chance that no seed reproduces.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import numpy as np
import pyspiel

from envs.modules import one_line
from envs.native import check_choice

Observer = Callable[[Any, int], np.ndarray]
"""(OpenSpiel state, seat) -> the seat's observation, float32 in the shape of `observation_shape`."""

KINDS = ("observation", "information_state")

_SEEDS = ("rng_seed", "seed")  # parameters that make a game of sampled chance reproducible


def load_game(id: str, game_string: str) -> Any:
    """The pyspiel.Game; ValueError of one line naming `id` if there is none or it cannot be played here."""
    name = game_string.partition("(")[0].strip()
    types = {kind.short_name: kind for kind in pyspiel.registered_games()}
    if name not in types:
        near = difflib.get_close_matches(name, types, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "selfplay envs 'openspiel:*' lists them"
        raise ValueError(f"game {id!r}: OpenSpiel has no {name!r} ({hint})")
    if "(" not in game_string and not types[name].default_loadable:
        needs = ", ".join(types[name].parameter_specification)
        raise ValueError(f"game {id!r} needs parameters, as in openspiel:{name}(...); it takes {needs}")
    try:
        game = pyspiel.load_game(game_string)
    except Exception as error:  # whatever a game's constructor raises, the string is at fault
        raise ValueError(f"game {id!r}: OpenSpiel cannot make it: {one_line(error)}") from error
    _check_playable(id, game)
    return game


def _check_playable(id: str, game: Any) -> None:
    kind = game.get_type()
    if kind.dynamics == pyspiel.GameType.Dynamics.MEAN_FIELD:
        raise ValueError(f"game {id!r} is a mean-field game: it has a population, not seats")
    if not (kind.provides_observation_tensor or kind.provides_information_state_tensor):
        raise ValueError(f"game {id!r} gives neither an observation tensor nor an information state tensor")
    if _samples_chance(game):
        seed = seed_parameter(game)
        if seed is None:
            raise ValueError(f"game {id!r} draws chance unseen and takes no seed: no match can be repeated")
        if game.get_parameters()[seed] != game.get_type().parameter_specification[seed]:
            raise ValueError(f"game {id!r}: leave out {seed}; each match takes its own from the match's seed")
    observer(id, game)


def _samples_chance(game: Any) -> bool:
    return bool(game.get_type().chance_mode == pyspiel.GameType.ChanceMode.SAMPLED_STOCHASTIC)


def seed_parameter(game: Any) -> str | None:
    """The parameter that makes chance which the game draws unseen reproducible; None: there is none."""
    return next((name for name in _SEEDS if _samples_chance(game) and name in game.get_parameters()), None)


def observation_kind(id: str, game: Any, observation: str = "auto") -> str:
    """Which of KINDS is shown: "auto" is the observation tensor where the game has one."""
    has = game.get_type()
    provided = [has.provides_observation_tensor, has.provides_information_state_tensor]
    kinds = [kind for kind, there in zip(KINDS, provided) if there]
    check_choice(id, "observation", observation, ["auto", *kinds])
    return kinds[0] if observation == "auto" else observation


def observation_shape(id: str, game: Any, observation: str = "auto") -> tuple[int, ...]:
    """Shape of what a seat sees: three axes as OpenSpiel has them (a board), else one."""
    whole = observation_kind(id, game, observation) == "observation"
    shape = game.observation_tensor_shape() if whole else game.information_state_tensor_shape()
    return tuple(shape) if len(shape) == 3 else (int(np.prod(shape)),)


def observer(id: str, game: Any, observation: str = "auto") -> Observer:
    """The function that gives what a seat sees in a state; its result is overwritten by the next call.

    It is exactly what the game `id` with the same `observation` shows that seat.
    """
    recall = pyspiel.IIGObservationType(
        perfect_recall=observation_kind(id, game, observation) == "information_state"
    )
    try:
        shape = observation_shape(id, game, observation)
        view = pyspiel._Observation(game, game.make_observer(recall, {}))
    except pyspiel.SpielError as error:  # a game may promise tensors and have none
        raise ValueError(f"game {id!r} promises a tensor and gives none: {one_line(error)}") from error
    buffer = np.frombuffer(view, np.float32).reshape(shape)

    def observe(state: Any, seat: int) -> np.ndarray:
        view.set_from(state, seat)
        return buffer

    return observe
