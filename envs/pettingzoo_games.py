"""PettingZoo's games: `pettingzoo:MODULE`, where MODULE has `parallel_env` or `env` (AEC).

Seats are the agents of `possible_agents`, in that order. An agent's reward is what its next `last()`
would show, given at once; masks come from observation["action_mask"] or infos["action_mask"].
"""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from envs.failures import RAISED, describe, parts
from envs.masks import MASK, has_own_mask, takes_mask, without_mask
from envs.modules import exists, import_module, modules_of, one_line
from envs.pettingzoo_matches import RESET, AecMatch, CycleMatch, ParallelMatch
from envs.python_games import Match, PythonGames, Seat
from envs.vector import GameError, VectorEnv

_COOPERATIVE = (
    "*.cooperative_pong_v*", "*.knights_archers_zombies_v*", "*.pistonball_v*", "*.multiwalker_v*",
    "*.pursuit_v*", "*.waterworld_v*", "*.hanabi_v*", "*.simple_spread_v*", "*.simple_reference_v*",
    "*.simple_speaker_listener_v*", "*.collect_treasure_v*", "*.simple_formation_v*", "*.simple_line_v*",
)  # fmt: skip
_ZERO_SUM = (
    "*.classic.chess_v*", "*.classic.connect_four_v*", "*.classic.go_v*", "*.classic.leduc_holdem_v*",
    "*.classic.rps_v*", "*.classic.texas_holdem*_v*", "*.classic.tictactoe_v*",
)  # fmt: skip
_LEAVES_TRACES = ("*.knights_archers_zombies_v*",)
"""Games whose reset does not undo everything: what was played before shows in the next match."""

_CHECKS = ("AssertOutOfBoundsWrapper", "OrderEnforcingWrapper", "TerminateIllegalWrapper")
"""Wrappers that only look for what the vector game refuses anyway."""

_PACKAGES = ("pettingzoo.classic", "pettingzoo.butterfly", "pettingzoo.sisl", "pettingzoo.atari", "mpe2")
"""Where to look for a game whose package was left out."""

_LOOKED_AT_ONCE = ("pettingzoo.*", "mpe2.*")
"""Games in which looking changes nothing, so that once is enough."""

EnvFactory = Callable[..., VectorEnv]


def load(id: str, module_name: str) -> EnvFactory:
    """The factory (num_games, **kwargs) of the module's game; ValueError of one line if there is none."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # it goes to stdout
    if f"{module_name}.".startswith("pettingzoo.mpe."):
        new = module_name.replace("pettingzoo.mpe", "mpe2")
        raise ValueError(f"game {id!r}: PettingZoo's MPE is now mpe2: pip install mpe2, and pettingzoo:{new}")
    if "." not in module_name and not exists(module_name):
        raise ValueError(f"game {id!r}: there is no module {module_name}{_where(module_name)}")
    module = import_module(id, module_name)
    if not (hasattr(module, "env") or hasattr(module, "parallel_env")):
        raise ValueError(f"game {id!r}: {module_name} has neither parallel_env nor env")

    def make(
        num_games: int,
        *,
        api: str = "auto",
        teams: Mapping[str, Sequence[str]] | None = None,
        zero_sum: bool | None = None,
        privileged: bool = False,
        fresh: bool | None = None,
        **kwargs: Any,
    ) -> VectorEnv:
        """api: parallel, aec, or auto (parallel if there is one); teams: name -> patterns of agents;
        privileged: also show the game's state(), which costs time; fresh: a new object for each match
        (None, and zero_sum None: as it is known of the game). Other kwargs go to its constructor.
        """
        options = _Options(
            _is_parallel(id, module, api),
            teams,
            _matches(module_name, _ZERO_SUM) if zero_sum is None else zero_sum,
            privileged,
            _matches(module_name, _LEAVES_TRACES) if fresh is None else fresh,
        )
        return _make(id, module, num_games, options, kwargs)

    return make


def _where(name: str) -> str:
    """The modules of known packages whose own name is like this one."""
    known = {module: package for package in _PACKAGES for module in modules_of(package)}
    near = difflib.get_close_matches(name, known, n=3)
    return f" (near is {', '.join(f'{known[module]}.{module}' for module in near)})" if near else ""


class _Options(NamedTuple):
    """What the user chose, or what is known of the game."""

    parallel: bool
    teams: Mapping[str, Sequence[str]] | None
    zero_sum: bool
    privileged: bool
    fresh: bool


def _make(
    id: str, module: ModuleType, num_games: int, options: _Options, kwargs: dict[str, Any]
) -> PythonGames:
    parallel, teams = options.parallel, options.teams
    construct = module.parallel_env if parallel else module.env
    env = _construct(id, module, construct, kwargs)
    if "render_mode" not in kwargs and "ansi" in getattr(env, "metadata", {}).get("render_modes", ()):
        kwargs = kwargs | {"render_mode": "ansi"}
    agents = getattr(env, "possible_agents", None)
    if not agents:
        given = "it has none" if agents is None else f"it is {agents!r}"
        raise ValueError(
            f"game {id!r}: possible_agents must name its agents, as its seats are fixed; {given}"
        )
    names = [str(agent) for agent in agents]
    undeclared = _first_look(id, env, parallel)
    seats = [_seat(id, env, agent, name, undeclared) for agent, name in zip(agents, names)]
    state_space = _state_space(id, env) if options.privileged else None
    kind = ParallelMatch if parallel else AecMatch

    def make_match() -> Match:
        env = bare(construct(**kwargs))
        if (in_turns := _in_turns(module.__name__, env)) is not None:
            return CycleMatch(in_turns, agents, undeclared, state_space is not None)
        return kind(env, agents, undeclared, state_space is not None)

    with contextlib.suppress(Exception):  # it was made for a look only
        env.close()
    return PythonGames(
        id,
        make_match,
        num_games,
        seats,
        team_numbers(id, names, teams) if teams is not None else default_teams(module.__name__, names),
        zero_sum=options.zero_sum,
        privileged_space=state_space,
        fresh=options.fresh,
    )


def _is_parallel(id: str, module: ModuleType, api: str) -> bool:
    """Whether the module's parallel_env is to be played."""
    offered = [name for name, attr in (("parallel", "parallel_env"), ("aec", "env")) if hasattr(module, attr)]
    if api != "auto" and api not in offered:
        raise ValueError(f"game {id!r}: api={api!r} must be one of {', '.join(['auto', *offered])}")
    return api == "parallel" or (api == "auto" and "parallel" in offered)


def _construct(id: str, module: ModuleType, construct: Callable[..., Any], kwargs: dict[str, Any]) -> Any:
    if kwargs.get("render_mode") != "human":
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame must not look for a screen
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    try:
        return construct(**kwargs)
    except RAISED as error:
        allowed = f"; its kwargs are {', '.join(_kwargs(module))}" if kwargs else ""
        raise ValueError(f"game {id!r}: cannot be made: {one_line(error)}{allowed}") from error


def _kwargs(module: ModuleType) -> list[str]:
    """Names of the constructor's arguments, as far as its signatures tell, and our own."""
    names: list[str] = []
    for attr in ("raw_env", "env", "parallel_env"):
        if hasattr(module, attr):
            for name, parameter in inspect.signature(getattr(module, attr)).parameters.items():
                if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                    names.append(name)
    return [*dict.fromkeys(names), "api", "teams", "zero_sum", "privileged", "fresh"]


def bare(env: Any) -> Any:
    """The game without wrappers that repeat our checks at every call."""
    if hasattr(env, "aec_env"):  # a game in turns shown as one at once
        env.aec_env = bare(env.aec_env)
    while type(env).__name__ in _CHECKS and type(env).__module__.startswith("pettingzoo."):
        env = env.env
    return env


def _in_turns(module_name: str, env: Any) -> Any:
    """The game in turns that PettingZoo shows as one at once, where we may step it; else None."""
    shown = type(env).__name__ == "aec_to_parallel_wrapper" and type(env).__module__.startswith("pettingzoo.")
    return env.aec_env if shown and _matches(module_name, _LOOKED_AT_ONCE) else None


def _first_look(id: str, env: Any, parallel: bool) -> bool:
    """Whether a reset shows masks of which spaces say nothing: in infos, or in observations all the same."""
    try:
        result = env.reset(seed=0)
        if parallel:
            seen, infos = parts("reset", result, RESET)
        else:
            seen, infos = {env.agent_selection: env.observe(env.agent_selection)}, env.infos
        brought = any(
            isinstance(obs, Mapping)
            and MASK in obs
            and not isinstance(env.observation_space(agent), spaces.Dict)
            for agent, obs in seen.items()
        )
        return brought or any(MASK in info for info in infos.values() if info)
    except GameError as error:
        raise ValueError(f"game {id!r}: {error}") from error
    except RAISED as error:
        raise ValueError(f"game {id!r}: its reset fails: {one_line(error)}") from error


def _seat(id: str, env: Any, agent: Any, name: str, undeclared: bool) -> Seat:
    """undeclared: there are masks of which spaces say nothing."""
    found = []
    for word in ("observation_space", "action_space"):
        try:
            found.append(getattr(env, word)(agent))
        except RAISED as error:
            raise ValueError(f"game {id!r}: {word}({agent!r}) fails: {describe(error)}") from error
    space, action_space = found
    if has_own_mask(space, action_space):
        return Seat(name, without_mask(space), action_space, has_mask=True)
    return Seat(name, space, action_space, undeclared and takes_mask(action_space))


def _state_space(id: str, env: Any) -> spaces.Box:
    """The space of the game's state()."""
    try:
        value = np.asarray(env.state())
    except Exception as error:  # most games have none, and say so in various ways
        raise ValueError(f"game {id!r}: privileged=True, but its state() fails: {one_line(error)}") from error
    space = getattr(env, "state_space", None)
    if isinstance(space, spaces.Box) and space.shape == value.shape:
        return space
    if value.dtype.kind not in "biuf" or value.ndim == 0:
        raise ValueError(f"game {id!r}: privileged=True, but its state() is {value.dtype} {value.shape}")
    return spaces.Box(-np.inf, np.inf, value.shape, np.float32)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def default_teams(module_name: str, names: Sequence[str]) -> list[int]:
    """The team of each agent: known cooperative games one team; adversaries (in simple_crypto: eve)
    against the rest; otherwise every agent is a team of its own.
    """
    if _matches(module_name, _COOPERATIVE):
        return [0] * len(names)
    foe = "eve*" if _matches(module_name, ("*.simple_crypto_v*",)) else "*adversary*"
    against = [fnmatch.fnmatchcase(name, foe) for name in names]
    if any(against) and not all(against):
        return [int(is_foe != against[0]) for is_foe in against]
    return list(range(len(names)))


def team_numbers(id: str, names: Sequence[str], teams: Mapping[str, Sequence[str]]) -> list[int]:
    """The team of each agent by the user's table: team -> patterns, of which one team's must fit."""
    numbers = []
    for name in names:
        fits = [k for k, patterns in enumerate(teams.values()) if _matches(name, _as_list(patterns))]
        if len(fits) != 1:
            which = "no team" if not fits else f"the teams {', '.join([*teams][k] for k in fits)}"
            raise ValueError(
                f"game {id!r}: teams puts the agent {name!r} in {which}; agents are {', '.join(names)}"
            )
        numbers.append(fits[0])
    for k, team in enumerate(teams):
        if k not in numbers:
            raise ValueError(
                f"game {id!r}: teams has {team!r} without any agent; agents are {', '.join(names)}"
            )
    return numbers


def _as_list(patterns: Sequence[str]) -> Sequence[str]:
    return [patterns] if isinstance(patterns, str) else patterns
