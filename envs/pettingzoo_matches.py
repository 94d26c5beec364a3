"""Matches of PettingZoo's games, by each of its interfaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.failures import parts
from envs.masks import MASK, all_legal, divided, takes_mask
from envs.python_games import Match, Moment
from envs.vector import GameError

RESET = ("observations", "infos")
STEP = ("observations", "rewards", "terminations", "truncations", "infos")
"""What calls of the parallel interface return."""


class _Seats(dict[Any, int]):
    """Agent -> its seat."""

    def __missing__(self, agent: Any) -> int:
        raise GameError(f"agent {agent!r} is not among possible_agents, {[*self]}")


_OPEN = ("chess", "connect_four", "go", "tictactoe")
"""Games of which every agent may see everything."""


class _AgentMatch(Match):
    """What both of PettingZoo's interfaces share."""

    def __init__(self, env: Any, agents: Sequence[Any], undeclared: bool, has_state: bool) -> None:
        """undeclared: masks come of which spaces say nothing; has_state: state() is shown at every moment."""
        self._env = env
        self._agents = list(agents)
        self._seat = _Seats({agent: seat for seat, agent in enumerate(agents)})
        self._undeclared = undeclared
        self._maskless = not undeclared and not any(
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
            elif self._undeclared:
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
        obs, infos = parts("reset", self._env.reset(seed=seed % 2**31), RESET)
        self._last = {}
        return self._begun(self._moment(obs, infos, Moment([], {})))

    def step(self, actions: dict[int, Any]) -> Moment:
        agents = self._agents
        self._last = {agents[seat]: action for seat, action in actions.items()}
        return self._after(*parts("step", self._env.step(dict(self._last)), STEP))

    def _after(
        self,
        obs: Mapping[Any, Any],
        reward: Mapping[Any, float],
        terminated: Mapping[Any, bool],
        truncated: Mapping[Any, bool],
        infos: Mapping[Any, Any],
    ) -> Moment:
        """What a step of these results, by agent, comes to."""
        seat = self._seat
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


class CycleMatch(ParallelMatch):
    """The same, in a game in turns that PettingZoo's conversion shows as one at once.

    It is stepped as there, but for looking before each turn at what nobody sees.
    """

    def reset(self, seed: int) -> Moment:
        env = self._env
        env.reset(seed=seed % 2**31)
        self._last = {}
        living = [agent for agent in env.agents if not (env.terminations[agent] or env.truncations[agent])]
        return self._begun(self._moment(self._seen(living), env.infos, Moment([], {})))

    def step(self, actions: dict[int, Any]) -> Moment:
        env, agents = self._env, self._agents
        self._last = {agents[seat]: action for seat, action in actions.items()}
        acting = [*env.agents]
        reward = dict.fromkeys(acting, 0.0)
        for agent in acting:
            if agent != env.agent_selection:
                raise RuntimeError(f"it is the turn of {env.agent_selection}, not of {agent}, as in a cycle")
            env.step(self._last[agent])
            if any(env.rewards.values()):
                for earner in env.agents:
                    reward[earner] = reward.get(earner, 0.0) + env.rewards[earner]
        ends = dict(env.terminations), dict(env.truncations)
        obs, infos = self._seen(env.agents), dict(env.infos)
        while env.agents and (env.terminations[env.agent_selection] or env.truncations[env.agent_selection]):
            env.step(None)
        return self._after(obs, reward, *ends, infos)

    def _seen(self, agents: Sequence[Any]) -> dict[Any, Any]:
        """What each of these observes now."""
        return {agent: self._env.observe(agent) for agent in agents}


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
