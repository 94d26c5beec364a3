"""PettingZoo's games: `pettingzoo:MODULE`, where MODULE has `parallel_env` or `env` (AEC).

Seats are the agents of `possible_agents`, in that order. An agent's reward is what its next `last()`
would show, given at once; masks come from observation["action_mask"] or infos["action_mask"].
"""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from envs.failures import RAISED, describe, parts
from envs.masks import MASK, all_legal, divided, has_own_mask, takes_mask, without_mask
from envs.modules import exists, import_module, modules_of, one_line
from envs.python_games import Match, Moment, PythonGames, Seat
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
    shown = _first_look(id, env, parallel)
    seats = [_seat(id, env, agent, name, shown) for agent, name in zip(agents, names)]
    state_space = _state_space(id, env) if options.privileged else None
    kind = ParallelMatch if parallel else AecMatch
    infos_mask = any(MASK in info for info in shown.values())

    def make_match() -> Match:
        env = bare(construct(**kwargs))
        if _matches(module.__name__, _LOOKED_AT_ONCE):
            _look_once(env)
        return kind(env, agents, infos_mask, state_space is not None)

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


def _look_once(env: Any) -> None:
    """Where a game in turns is shown as one at once: leave out what nobody sees.

    PettingZoo's conversion asks `last()` what each agent sees before its turn, which it drops.
    """
    if type(env).__name__ == "aec_to_parallel_wrapper" and type(env).__module__.startswith("pettingzoo."):
        env.aec_env.last = functools.partial(env.aec_env.last, observe=False)


def _first_look(id: str, env: Any, parallel: bool) -> dict[Any, Mapping[str, Any]]:
    """Infos by agent after a reset: they tell whether masks come that way."""
    try:
        result = env.reset(seed=0)
        infos = parts("reset", result, _RESET)[1] if parallel else env.infos
        return {agent: info or {} for agent, info in infos.items()}
    except GameError as error:
        raise ValueError(f"game {id!r}: {error}") from error
    except RAISED as error:
        raise ValueError(f"game {id!r}: its reset fails: {one_line(error)}") from error


_RESET = ("observations", "infos")
_STEP = ("observations", "rewards", "terminations", "truncations", "infos")


def _seat(id: str, env: Any, agent: Any, name: str, infos: Mapping[Any, Mapping[str, Any]]) -> Seat:
    found = []
    for word in ("observation_space", "action_space"):
        try:
            found.append(getattr(env, word)(agent))
        except RAISED as error:
            raise ValueError(f"game {id!r}: {word}({agent!r}) fails: {describe(error)}") from error
    space, action_space = found
    if has_own_mask(space, action_space):
        return Seat(name, without_mask(space), action_space, has_mask=True)
    has_mask = takes_mask(action_space) and any(MASK in info for info in infos.values())
    return Seat(name, space, action_space, has_mask)


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


class _Seats(dict[Any, int]):
    """Agent -> its seat."""

    def __missing__(self, agent: Any) -> int:
        raise GameError(f"agent {agent!r} is not among possible_agents, {[*self]}")


_OPEN = ("chess", "connect_four", "go", "tictactoe")
"""Games of which every agent may see everything."""


class _AgentMatch(Match):
    """What both of PettingZoo's interfaces share."""

    def __init__(self, env: Any, agents: Sequence[Any], infos_mask: bool, has_state: bool) -> None:
        """infos_mask: masks come in infos; has_state: state() is shown at every moment."""
        self._env = env
        self._agents = list(agents)
        self._seat = _Seats({agent: seat for seat, agent in enumerate(agents)})
        self._infos_mask = infos_mask
        self._maskless = not infos_mask and not any(
            isinstance(env.observation_space(agent), spaces.Dict) for agent in agents
        )
        masked = {agent: env.action_space(agent) for agent in agents if takes_mask(env.action_space(agent))}
        self._all_legal = {agent: all_legal(space) for agent, space in masked.items()}
        self._has_state = has_state
        self._last: dict[Any, Any] = {}  # agent -> its last action, for render

    def _show(self, moment: Moment, agent: Any, obs: Any, info: Mapping[str, Any] | None) -> None:
        """Add what an agent sees to a moment whose obs and mask are dicts."""
        seat = self._seat[agent]
        if agent in self._all_legal:
            given = info.get(MASK) if info and isinstance(info, Mapping) else None
            if not isinstance(obs, np.ndarray) and isinstance(obs, Mapping) and MASK in obs:
                obs, moment.mask[seat] = divided(obs)  # type: ignore[index]
            elif self._infos_mask:
                moment.mask[seat] = self._all_legal[agent] if given is None else given  # type: ignore[index]
            elif given is not None:
                raise GameError(
                    f"{agent}'s infos have an {MASK!r}, but those of reset have none; give it in both"
                )
        moment.obs[seat] = obs  # type: ignore[index]

    def _begun(self, moment: Moment) -> Moment:
        """What a reset shows: somebody is there."""
        if not self._env.agents:
            raise GameError("its reset leaves no agents")
        return moment

    def _finish(self, moment: Moment) -> Moment:
        """Once no agent is left, the seats that never ended (or never came) end with the match."""
        if not self._env.agents:
            moment.to_act = []
            moment.terminated = set(range(len(self._agents))) - set(moment.truncated)
        if self._has_state:
            moment.state = self._env.state()
        return moment

    def render(self) -> str:
        """The game's own text where it has one, else what each agent did last."""
        drawn = self._env.render() if self.has_board() else None
        if isinstance(drawn, str):
            return drawn
        lines = [f"{agent}: {self._last.get(agent, '-')}" for agent in self._agents]
        return "\n".join(["last actions", *lines])

    def render_seat(self, seat: int) -> str:
        """All of it, in the games that are known to hide nothing."""
        name = str(getattr(self._env, "metadata", {}).get("name", ""))
        return self.render() if name.rpartition("_v")[0] in _OPEN else ""

    def has_board(self) -> bool:
        return getattr(self._env, "render_mode", None) == "ansi"

    def close(self) -> None:
        self._env.close()


class ParallelMatch(_AgentMatch):
    """All living agents act at once."""

    def reset(self, seed: int) -> Moment:
        obs, infos = parts("reset", self._env.reset(seed=seed % 2**31), _RESET)
        self._last = {}
        return self._begun(self._moment(obs, infos, Moment([], {})))

    def step(self, actions: dict[int, Any]) -> Moment:
        agents, seat = self._agents, self._seat
        self._last = {agents[own]: action for own, action in actions.items()}
        obs, reward, terminated, truncated, infos = parts("step", self._env.step(dict(self._last)), _STEP)
        moment = Moment([], {}, reward={seat[agent]: value for agent, value in reward.items()})
        if any(terminated.values()) or any(truncated.values()):
            moment.terminated = {seat[agent] for agent, ends in terminated.items() if ends}
            moment.truncated = {seat[agent] for agent, ends in truncated.items() if ends}
        return self._moment(obs, infos, moment)

    def _moment(self, obs: Mapping[Any, Any], infos: Mapping[Any, Any], moment: Moment) -> Moment:
        if self._maskless and not any(infos.values()):
            seat = self._seat
            moment.obs = {seat[agent]: own for agent, own in obs.items()}
        else:
            for agent, own in obs.items():
                self._show(moment, agent, own, infos.get(agent))
        living = [self._seat[agent] for agent in self._env.agents if agent in obs]
        if moment.terminated or moment.truncated:
            ended = {*moment.terminated, *moment.truncated}
            living = [seat for seat in living if seat not in ended]
        moment.to_act = living
        return self._finish(moment)


class AecMatch(_AgentMatch):
    """Agents act in turn; the steps of dead ones, which PettingZoo asks for, are taken here."""

    def reset(self, seed: int) -> Moment:
        self._env.reset(seed=seed % 2**31)
        self._last = {}
        self._paid: dict[Any, float] = dict.fromkeys(self._env.agents, 0.0)  # rewards counted so far
        return self._begun(self._moment())

    def step(self, actions: dict[int, Any]) -> Moment:
        ((_, action),) = actions.items()
        agent = self._env.agent_selection
        self._last[agent] = action
        # What it earned before was counted; that the game itself forgets it here, not every one does.
        self._env._cumulative_rewards[agent] = self._paid[agent] = 0.0
        self._env.step(action)
        return self._moment()

    def _moment(self) -> Moment:
        """Count rewards, let the dead go, and show the agent whose turn it is."""
        env = self._env
        reward: dict[int, float] = {}
        terminated, truncated = set[int](), set[int]()
        moment = Moment([], {}, reward=reward, terminated=terminated, truncated=truncated)
        self._count(reward)
        while env.agents:
            agent = env.agent_selection
            if not (env.terminations[agent] or env.truncations[agent]):
                break
            if env.terminations[agent]:
                terminated.add(self._seat[agent])
            else:
                truncated.add(self._seat[agent])
                self._show(moment, agent, env.observe(agent), env.infos.get(agent))
            env.step(None)
            self._count(reward)
        if env.agents:
            moment.to_act = [self._seat[env.agent_selection]]
            self._show(
                moment, env.agent_selection, env.observe(env.agent_selection), env.infos[env.agent_selection]
            )
        return self._finish(moment)

    def _count(self, reward: dict[int, float]) -> None:
        """Add what the agents earned since the last count."""
        for agent, total in self._env._cumulative_rewards.items():
            earned = total - self._paid.get(agent, 0.0)
            if earned:
                seat = self._seat[agent]
                reward[seat] = reward.get(seat, 0.0) + float(earned)
                self._paid[agent] = total
