"""Any vector game as a PettingZoo environment, so that other libraries can train on it or play it.

Observation and action spaces are the game's own; the agents are its seats by name. What an agent may
do is in `infos[agent]["action_mask"]`, in the form that `action_space(agent).sample(mask)` takes, in
games that have masks. An agent sees the observation of its last turn until its next. What it is paid
after its own end is not shown: it is no longer there.

An illegal action ends the match for all, as with PettingZoo's own classic games: -1 for the agent, 0
for the others, and the reason in `infos[agent]["illegal_action"]`; with illegal="raise" it is a
GameError.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv

from envs.one_match import OneMatch, check_illegal, check_render_mode
from envs.registry import EnvFactory
from envs.vector import GameError

ILLEGAL_REWARD = -1.0


def parallel_env(
    game: str | EnvFactory, *, render_mode: str | None = None, illegal: str = "terminate", **kwargs: Any
) -> ParallelGame:
    """The game, an id or a factory of vector games with their kwargs, in which all agents act at once.

    An agent that is not to act stays among `agents`; its action may be left out and is ignored, and
    `infos[agent]["to_act"]` is False.
    """
    return ParallelGame(OneMatch(game, kwargs), render_mode, illegal)


def aec_env(
    game: str | EnvFactory, *, render_mode: str | None = None, illegal: str = "terminate", **kwargs: Any
) -> AECGame:
    """The game, an id or a factory of vector games with their kwargs, in which agents act one by one.

    Only agents that are to act are selected; those that act at once are asked in the order of their
    seats, and none sees what the others chose.
    """
    return AECGame(OneMatch(game, kwargs), render_mode, illegal)


class _Agents:
    """What both kinds of environment know of the match's agents."""

    def __init__(self, match: OneMatch, render_mode: str | None, illegal: str) -> None:
        check_illegal(illegal)
        check_render_mode(render_mode)
        self.match = match
        self.illegal = illegal
        self.seat = {name: seat for seat, name in enumerate(match.seat_names)}
        self._rng = np.random.default_rng()

    def restart(self, seed: int | None) -> None:
        """A new match; from now on everything follows from the seed, if one is given."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self.match.restart(self._rng)

    def names_to_act(self) -> list[str]:
        return [self.match.seat_names[seat] for seat in self.match.to_act()]

    def put(self, name: str, action: Any) -> str | None:
        """Takes an action; why it is illegal, if it is and that shall end the match."""
        refusal = self.match.put(self.seat[name], action)
        if refusal and self.illegal == "raise":
            raise GameError(refusal)
        return refusal

    def observation(self, name: str) -> Any:
        return self.match.observation(self.seat[name])

    def reward(self, name: str) -> float:
        return float(self.match.env.reward[0, self.seat[name]])

    def terminated(self, name: str) -> bool:
        return bool(self.match.env.terminated[0, self.seat[name]])

    def truncated(self, name: str) -> bool:
        return bool(self.match.env.truncated[0, self.seat[name]])

    def info(self, name: str) -> dict[str, Any]:
        """Empty for an agent whose game has no masks."""
        mask = self.match.action_mask(self.seat[name])
        return {} if mask is None else {"action_mask": mask}


class ParallelGame(ParallelEnv):
    """A vector game's match as a PettingZoo ParallelEnv; see `parallel_env`."""

    def __init__(self, match: OneMatch, render_mode: str | None, illegal: str) -> None:
        self._agents = _Agents(match, render_mode, illegal)
        self.metadata = {"name": match.env.id, "render_modes": ["ansi"]}
        self.render_mode = render_mode
        self.possible_agents = list(match.seat_names)
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> spaces.Space:
        return self._agents.match.observation_spaces[self._agents.seat[agent]]

    def action_space(self, agent: str) -> spaces.Space:
        return self._agents.match.action_spaces[self._agents.seat[agent]]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """A new match: observations and infos by agent."""
        self._agents.restart(seed)
        self.agents = list(self.possible_agents)
        return self._observations(), self._infos()

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Observations, rewards, terminations, truncations and infos of the agents that were alive."""
        refusals = {}
        for name in self._agents.names_to_act():
            if name not in actions:
                raise GameError(f"{self.metadata['name']}: agent {name!r} must act, and gives no action")
            refusals[name] = self._agents.put(name, actions[name])
        illegal = {name: refusal for name, refusal in refusals.items() if refusal}
        if illegal:
            return self._break_off(illegal)
        self._agents.match.step()
        rewards = {name: self._agents.reward(name) for name in self.agents}
        terminations = {name: self._agents.terminated(name) for name in self.agents}
        truncations = {name: self._agents.truncated(name) for name in self.agents}
        observations, infos = self._observations(), self._infos()
        self.agents = [name for name in self.agents if not (terminations[name] or truncations[name])]
        return observations, rewards, terminations, truncations, infos

    def render(self) -> str | None:
        """The match as text, if the render mode is "ansi"."""
        return self._agents.match.env.render(0) if self.render_mode == "ansi" else None

    def close(self) -> None:
        """There is nothing to release."""

    def _break_off(self, illegal: dict[str, str]) -> Any:
        """The match is over for all because of what some agents did, and why."""
        names, self.agents = self.agents, []
        observations = {name: self._agents.observation(name) for name in names}
        infos = {name: {"illegal_action": illegal[name]} if name in illegal else {} for name in names}
        rewards = {name: ILLEGAL_REWARD if name in illegal else 0.0 for name in names}
        return observations, rewards, dict.fromkeys(names, True), dict.fromkeys(names, False), infos

    def _observations(self) -> dict[str, Any]:
        return {name: self._agents.observation(name) for name in self.agents}

    def _infos(self) -> dict[str, dict[str, Any]]:
        acting = self._agents.names_to_act()
        return {name: {**self._agents.info(name), "to_act": name in acting} for name in self.agents}


class AECGame(AECEnv):
    """A vector game's match as a PettingZoo AECEnv; see `aec_env`."""

    agent_selection: str

    def __init__(self, match: OneMatch, render_mode: str | None, illegal: str) -> None:
        super().__init__()
        self._agents = _Agents(match, render_mode, illegal)
        self.metadata = {"name": match.env.id, "render_modes": ["ansi"], "is_parallelizable": False}
        self.render_mode = render_mode
        self.possible_agents = list(match.seat_names)
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> spaces.Space:
        return self._agents.match.observation_spaces[self._agents.seat[agent]]

    def action_space(self, agent: str) -> spaces.Space:
        return self._agents.match.action_spaces[self._agents.seat[agent]]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """A new match; its first agent is selected."""
        self._agents.restart(seed)
        self.agents = list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos = {name: self._agents.info(name) for name in self.agents}
        self._skip_agent_selection: str | None = None  # of AECEnv, while dead agents take their last step
        self._open_turn()

    def observe(self, agent: str) -> Any:
        """What the agent saw at its last turn."""
        return self._agents.observation(agent)

    def step(self, action: Any) -> None:
        """The selected agent's action; the match goes on when all that act at once have given theirs."""
        name = self.agent_selection
        if self.terminations[name] or self.truncations[name]:
            self._was_dead_step(action)
            return
        refusal = self._agents.put(name, action)
        self._cumulative_rewards[name] = 0.0
        self._clear_rewards()
        if refusal:
            self._break_off(name, refusal)
        elif self._waiting:
            self.agent_selection = self._waiting.pop(0)
        else:
            self._agents.match.step()
            self._show()

    def render(self) -> str | None:
        """The match as text, if the render mode is "ansi"."""
        return self._agents.match.env.render(0) if self.render_mode == "ansi" else None

    def close(self) -> None:
        """There is nothing to release."""

    def _show(self) -> None:
        """What the step of the match brought."""
        for name in self.agents:
            self.rewards[name] = self._agents.reward(name)
            self.terminations[name] = self._agents.terminated(name)
            self.truncations[name] = self._agents.truncated(name)
            self.infos[name] = self._agents.info(name)
        self._accumulate_rewards()
        self._open_turn()
        self._deads_step_first()

    def _open_turn(self) -> None:
        """Selects the first agent to act; the others that act at once wait."""
        self._waiting = self._agents.names_to_act()
        if self._waiting:
            self.agent_selection = self._waiting.pop(0)

    def _break_off(self, name: str, refusal: str) -> None:
        """The match is over for all because of what one agent did."""
        self._waiting = []
        self.rewards[name] = ILLEGAL_REWARD
        self.infos[name] = {"illegal_action": refusal}
        self.terminations = dict.fromkeys(self.agents, True)
        self._accumulate_rewards()
        self._deads_step_first()
