"""Game ids: a native name, or a prefix that says where the game comes from.

A new native game is a line in `_NATIVE`; a new source of games is a line in `_SOURCES`.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from envs.checks import Checked
from envs.failures import describe
from envs.modules import import_module, one_line
from envs.vector import GameError, VectorEnv

EnvFactory = Callable[..., VectorEnv]
"""(num_games, **kwargs) -> the game with B = num_games matches."""

_NATIVE = {
    "connect_four": "envs.connect_four:ConnectFour",
    "matrix_game": "envs.matrix_game:MatrixGame",
    "phantom_tic_tac_toe": "envs.phantom_tic_tac_toe:PhantomTicTacToe",
    "rock_paper_scissors": "envs.matrix_game:RockPaperScissors",
    "tic_tac_toe": "envs.tic_tac_toe:TicTacToe",
    "kuhn_poker": "envs.kuhn_poker:KuhnPoker",
    "leduc_poker": "envs.leduc_poker:LeducPoker",
    "cartpole": "envs.cartpole:CartPole",
    "signalling": "envs.signalling:Signalling",
    "pong": "envs.pong:Pong",
}


def make(id: str, num_games: int, **kwargs: Any) -> VectorEnv:
    """The game called `id` with `num_games` matches; a mistake is a ValueError of one line.

    Games that do not come with this package are checked after every step (see `envs.checks`).
    """
    factory = _factory(id)
    _check_kwargs(id, factory, kwargs)
    try:
        env = factory(num_games, **kwargs)
    except SystemExit as error:  # it must not end our process
        raise ValueError(f"game {id!r}: cannot be made: {describe(error)}") from error
    if id in _NATIVE:
        return env
    try:
        return Checked(env, num_games)
    except GameError as error:
        raise GameError(f"game {id!r}: {error}") from error


def native_games() -> dict[str, EnvFactory]:
    """The games that come with this package, by id."""
    return {name: _load(name, target) for name, target in _NATIVE.items()}


def source_forms() -> list[str]:
    """How ids of games from elsewhere look."""
    return [form for form, _ in _SOURCES.values()]


def _factory(id: str) -> EnvFactory:
    source, colon, rest = id.partition(":")
    if colon and source in _SOURCES:
        return _SOURCES[source][1](id, rest)
    if id in _NATIVE:
        return _load(id, _NATIVE[id])
    known = ", ".join([*_NATIVE, *source_forms()])
    near = _nearest(source, _SOURCES) if colon else _nearest(id, _NATIVE)
    raise ValueError(f"unknown game {id!r}{near}; known are {known}")


def _load(id: str, target: str) -> EnvFactory:
    """The factory that `target` = "package.module:factory" names."""
    module_name, _, name = target.partition(":")
    if not (module_name and name):
        raise ValueError(f"game {id!r} must have the form {_SOURCES['python'][0]}")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module may fail in any way while it is imported
        raise ValueError(f"game {id!r}: cannot import {module_name}: {one_line(error)}") from error
    if not hasattr(module, name):
        raise ValueError(f"game {id!r}: {module_name} has no {name!r}{_nearest(name, vars(module))}")
    factory: EnvFactory = getattr(module, name)
    if not callable(factory):
        raise ValueError(f"game {id!r}: {name} is not callable; it must be factory(num_games, **kwargs)")
    return factory


def _check_kwargs(id: str, factory: EnvFactory, kwargs: dict[str, Any]) -> None:
    """Raises ValueError unless factory(num_games, **kwargs) fits the factory's signature."""
    parameters = list(inspect.signature(factory).parameters.values())
    if not parameters:
        raise ValueError(f"game {id!r}: its factory must take num_games")
    rest = parameters[1:]
    required = {
        p.name: p.default is p.empty for p in rest if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    }
    allowed = f"allowed are {', '.join(required) or 'none'}"
    takes_any = any(p.kind is p.VAR_KEYWORD for p in rest)
    for name in kwargs:
        if name not in required and not takes_any:
            raise ValueError(f"game {id!r} has no kwarg {name!r}{_nearest(name, required)}; {allowed}")
    for name in required:
        if required[name] and name not in kwargs:
            raise ValueError(f"game {id!r} needs the kwarg {name!r}; {allowed}")


def _nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the nearest right spelling; empty if nothing is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def register_source(prefix: str, form: str, load: Callable[[str, str], EnvFactory]) -> None:
    """Make ids "prefix:REST" known: load(id, REST) gives the factory; form is how an id looks like."""
    _SOURCES[prefix] = (form, load)


def _library(adapter: str, library: str) -> Callable[[str, str], EnvFactory]:
    """The load of an adapter's module, which is imported, as its library is, when it is asked for a game."""

    def load(id: str, rest: str) -> EnvFactory:
        import_module(id, library)
        factory: EnvFactory = importlib.import_module(adapter).load(id, rest)
        return factory

    return load


# prefix -> (its form, (id, what follows the prefix) -> factory)
_SOURCES: dict[str, tuple[str, Callable[[str, str], EnvFactory]]] = {
    "pettingzoo": ("pettingzoo:MODULE", _library("envs.pettingzoo_games", "pettingzoo")),
    "openspiel": ("openspiel:GAME(PARAMS)", _library("envs.openspiel_games", "pyspiel")),
    "gymnasium": ("gymnasium:ID", _library("envs.gymnasium_games", "gymnasium")),
    "python": ("python:package.module:factory", _load),
}
