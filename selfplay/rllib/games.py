"""RLlib environments as our games: the way from `MultiAgentEnv` to the vector protocol."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from envs.modules import import_module, one_line
from envs.pettingzoo_games import team_numbers
from envs.python_games import Match, Moment, PythonGames, Seat
from envs.registry import EnvFactory
from envs.rows import num_choices
from envs.vector import GameError, VectorEnv

ALL = "__all__"
MASK = "action_mask"
SEEN = ("observations", "observation", "obs")  # what stands beside a mask

MAX_IDLE_STEPS = 10_000
"""Steps in a row in which nobody acts, after which a match counts as stuck."""


class _View(NamedTuple):
    """How an agent's observation divides into what its policy sees and its legal actions."""

    space: gymnasium.Space  # of what it sees
    key: str | None  # under which that lies; None: in all of the observation, but for a mask
    has_mask: bool

    def seen(self, obs: Any) -> Any:
        if not self.has_mask:
            return obs
        return obs[self.key] if self.key else {key: part for key, part in obs.items() if key != MASK}


def _view(space: gymnasium.Space, action_space: gymnasium.Space) -> _View:
    """An "action_mask" in a Dict is one if it has an entry for each choice of the action."""
    num_entries = (sum(num_choices(action_space)),)
    if not isinstance(space, spaces.Dict) or MASK not in space.spaces or space[MASK].shape != num_entries:
        return _View(space, None, False)
    rest = {key: part for key, part in space.spaces.items() if key != MASK}
    if len(rest) == 1 and (key := next(iter(rest))) in SEEN:
        return _View(rest[key], key, True)
    return _View(spaces.Dict(rest), None, True)


class EnvMatch(Match):
    """A `MultiAgentEnv` played again and again. An agent acts when an observation of it arrives."""

    def __init__(self, env: MultiAgentEnv, agents: Sequence[Any], views: Sequence[_View]) -> None:
        self._env, self._agents, self._views = env, agents, views
        self._seat = {agent: seat for seat, agent in enumerate(agents)}
        self._last: dict[int, Any] = {}  # seat -> the newest observation of it in this match
        self._ended: set[int] = set()
        self._text = ""

    def reset(self, seed: int) -> Moment:
        self._last, self._ended, self._text = {}, set(), "at the start"
        # Environments that hand the seed on to NumPy's old generators take 32 bits.
        obs, _ = self._env.reset(seed=seed % 2**32)
        return self._until_someone_acts(self._moment(obs, {}, {}, {}))

    def step(self, actions: dict[int, Any]) -> Moment:
        self._text = f"after {dict(self._named(actions))}"
        return self._until_someone_acts(self._one_step(actions))

    def _one_step(self, actions: dict[int, Any]) -> Moment:
        obs, reward, terminated, truncated, _ = self._env.step(dict(self._named(actions)))
        return self._moment(obs, reward, terminated, truncated)

    def _until_someone_acts(self, moment: Moment) -> Moment:
        """RLlib steps on with no actions where nobody is to act; what happens on the way adds up."""
        for _ in range(MAX_IDLE_STEPS):
            if len(moment.to_act) or len(self._ended) == len(self._agents):
                return moment
            following = self._one_step({})
            reward = dict(moment.reward)
            for seat, amount in following.reward.items():
                reward[seat] = reward.get(seat, 0.0) + amount
            following.reward = reward
            following.terminated = {*moment.terminated, *following.terminated}
            following.truncated = {*moment.truncated, *following.truncated}
            following.obs = {**moment.obs, **following.obs}
            moment = following
        raise GameError(f"no agent acted in {MAX_IDLE_STEPS} steps, and the episode did not end")

    def _moment(
        self,
        obs: Mapping[Any, Any],
        reward: Mapping[Any, float],
        terminated: Mapping[Any, bool],
        truncated: Mapping[Any, bool],
    ) -> Moment:
        """What RLlib's dicts by agent say, by seat."""
        self._last |= self._seated(obs, "an observation")
        earned = {seat: float(amount or 0.0) for seat, amount in self._seated(reward, "a reward").items()}
        stopped = self._flagged(terminated, "a termination") - self._ended
        cut = self._flagged(truncated, "a truncation") - self._ended - stopped
        rest = set(range(len(self._agents))) - self._ended - stopped - cut
        if terminated.get(ALL, False):
            stopped |= rest
        elif truncated.get(ALL, False):
            cut |= rest
        # Who never saw anything has nothing that could be worth something.
        unseen = cut - self._last.keys()
        stopped, cut = stopped | unseen, cut - unseen
        self._ended |= stopped | cut
        to_act = [seat for agent in obs if (seat := self._seat[agent]) not in self._ended]
        return Moment(
            to_act,
            {seat: self._views[seat].seen(self._last[seat]) for seat in [*to_act, *cut]},
            {seat: np.asarray(self._last[seat][MASK]) > 0 for seat in to_act if self._views[seat].has_mask},
            earned,
            stopped,
            cut,
        )

    def _seated(self, by_agent: Mapping[Any, Any], what: str) -> dict[int, Any]:
        """seat -> what was given for its agent."""
        for agent in by_agent:
            if agent not in self._seat and agent != ALL:
                raise GameError(f"it gave {what} for {agent!r}, which is none of its agents {self._agents}")
        return {self._seat[agent]: value for agent, value in by_agent.items() if agent != ALL}

    def _flagged(self, by_agent: Mapping[Any, bool], what: str) -> set[int]:
        return {seat for seat, flag in self._seated(by_agent, what).items() if flag}

    def _named(self, actions: dict[int, Any]) -> list[tuple[Any, Any]]:
        return [(self._agents[seat], action) for seat, action in actions.items()]

    def render(self) -> str:
        """What the environment draws as text, else the last actions."""
        drawn = self._env.render()
        return drawn if isinstance(drawn, str) else self._text

    def has_board(self) -> bool:
        return isinstance(self._env.render(), str)

    def close(self) -> None:
        self._env.close()


def load(id: str, target: str) -> EnvFactory:
    """The game that `target` = "package.module:Class" names; Class may be any env_config -> environment."""
    module_name, _, name = target.partition(":")
    if not (module_name and name):
        raise ValueError(f"game {id!r} must have the form rllib:package.module:Class")
    module = import_module(id, module_name)
    if not callable(getattr(module, name, None)):
        near = difflib.get_close_matches(name, vars(module), n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"game {id!r}: {module_name} has no class {name!r}{hint}")
    return partial(_make_games, id, getattr(module, name))


def _make_games(
    id: str,
    make_env: Callable[[EnvContext], MultiAgentEnv],
    num_games: int,
    /,
    *,
    teams: Mapping[str, Sequence[str]] | None = None,
    zero_sum: bool = False,
    **env_config: Any,
) -> VectorEnv:
    """num_games matches of an RLlib environment, whose config is the keyword arguments.

    teams: name -> patterns of its agents, such as {"good": ["agent_*"], "bad": ["adversary_?"]}; without
    it every agent is a team of its own. zero_sum: the rewards of all agents sum to 0 at every step.
    """
    first = _open(id, make_env, env_config)
    agents = _agents(id, first)
    names = [agent if isinstance(agent, str) else f"agent_{agent}" for agent in agents]
    seats, views = [], []
    for agent, name in zip(agents, names):
        space, action_space = _spaces(id, first, agent)
        view = _view(space, action_space)
        seats.append(Seat(name, view.space, action_space, view.has_mask))
        views.append(view)
    numbers = list(range(len(names))) if teams is None else team_numbers(id, names, teams)
    spare = [first]

    def make_match() -> EnvMatch:
        return EnvMatch(spare.pop() if spare else _open(id, make_env, env_config), agents, views)

    return PythonGames(id, make_match, num_games, seats, numbers, zero_sum=zero_sum)


def _open(
    id: str, make_env: Callable[[EnvContext], MultiAgentEnv], env_config: Mapping[str, Any]
) -> MultiAgentEnv:
    """An environment of its own copy of env_config."""
    try:
        env = make_env(EnvContext(dict(env_config), worker_index=0))
    except (Exception, SystemExit) as error:  # a user's constructor may fail in any way
        raise ValueError(f"game {id!r} cannot be made of {dict(env_config)}: {one_line(error)}") from error
    if not isinstance(env, MultiAgentEnv):
        kind = type(env).__name__
        raise ValueError(f"game {id!r}: {kind} is not an RLlib MultiAgentEnv (one agent: gymnasium:ID)")
    return env


def _agents(id: str, env: MultiAgentEnv) -> list[Any]:
    """Every agent that may appear, in an order that does not change."""
    agents = env.possible_agents or env.agents or list(env.observation_spaces or ())
    if not agents:
        raise ValueError(f"game {id!r}: the environment names no possible_agents")
    return sorted(agents, key=str) if isinstance(agents, set | frozenset) else list(agents)


def _spaces(id: str, env: MultiAgentEnv, agent: Any) -> tuple[gymnasium.Space, gymnasium.Space]:
    """The agent's spaces, from dicts by agent or the older form, one space for all."""
    found = []
    for word, get in (("observation", env.get_observation_space), ("action", env.get_action_space)):
        try:
            space = get(agent)
        except KeyError:
            space = None
        if not isinstance(space, gymnasium.Space):
            raise ValueError(f"game {id!r}: agent {agent!r} has no {word} space in {word}_spaces")
        found.append(space)
    return found[0], found[1]
