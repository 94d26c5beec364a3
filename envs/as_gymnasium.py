"""Any vector game as a Gymnasium environment of one seat, the others played by fixed opponents.

Spaces are the seat's own. What it may do is in `info["action_mask"]`, in the form that
`action_space.sample(mask)` takes, in games that have masks.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from envs.bots import random_bot
from envs.one_match import OneMatch, check_illegal, check_render_mode
from envs.registry import EnvFactory
from envs.vector import Bot, GameError, VectorEnv

ILLEGAL_REWARD = -1.0
MAX_RESTARTS = 1000  # matches in a row that are over before the seat has a turn


def single_agent_env(
    game: str | EnvFactory,
    *,
    opponent: str | Bot = "random",
    seat: int | str = 0,
    render_mode: str | None = None,
    illegal: str = "terminate",
    **kwargs: Any,
) -> SingleAgentGame:
    """The game, an id or a factory of vector games with their kwargs, as one of its seats meets it.

    opponent: plays every other seat: "random", the name of one of the game's bots, or a bot
    (obs leaves [R, ...], mask leaves [R, n], generator) -> action leaves [R, ...].
    seat: its number; or, where all seats have equal spaces, "alternate" (0, 1, .. from match to match;
    a seed begins at 0 again) or "random". `info["seat"]` tells which it is.
    illegal: an illegal action ends the match with -1 and its reason in `info["illegal_action"]`
    ("terminate"), or is a GameError ("raise").
    """
    return SingleAgentGame(OneMatch(game, kwargs), opponent, seat, render_mode, illegal)


class SingleAgentGame(gymnasium.Env):
    """One seat of a vector game's match; see `single_agent_env`.

    A step lasts from the seat's decision to its next, or to the end of its episode, and pays all that
    the seat earns in between; what it earns before its first decision comes with its first step.
    """

    def __init__(
        self, match: OneMatch, opponent: str | Bot, seat: int | str, render_mode: str | None, illegal: str
    ) -> None:
        check_illegal(illegal)
        check_render_mode(render_mode)
        _check_seat(match.env, seat)
        self.metadata = {"name": match.env.id, "render_modes": ["ansi"]}
        self.render_mode = render_mode
        self._match = match
        self._bots = _find_bots(match.env, opponent)
        self._illegal = illegal
        self._seating = seat
        self._seat = seat if isinstance(seat, int) else 0
        self._num_resets = 0
        self._early_reward = 0.0  # earned before the first decision
        self._playing = False
        self.observation_space = match.observation_spaces[self._seat]
        self.action_space = match.action_spaces[self._seat]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """A new match, played up to the seat's first decision: (observation, info)."""
        super().reset(seed=seed)
        if seed is not None:
            self._num_resets = 0
        num_seats = len(self._match.env.teams)
        if self._seating == "alternate":
            self._seat = self._num_resets % num_seats
        elif self._seating == "random":
            self._seat = int(self.np_random.integers(num_seats))
        self._num_resets += 1
        for _ in range(MAX_RESTARTS):
            self._match.restart(self.np_random)
            self._early_reward = self._wait()
            self._playing = bool(self._match.env.to_act[0, self._seat])
            if self._playing:
                return self._match.observation(self._seat), self._info()
        raise GameError(f"{self._match.env.id}: seat {self._seat} had no turn in {MAX_RESTARTS} matches")

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """(observation, reward, terminated, truncated, info) at the seat's next decision, or its end."""
        env = self._match.env
        if not self._playing:
            raise GameError(f"{env.id}: the episode is over; reset begins another")
        refusal = self._match.put(self._seat, action)
        if refusal:
            return self._refuse(refusal)
        self._put_others()
        self._match.step()
        reward = self._early_reward + float(env.reward[0, self._seat])
        self._early_reward = 0.0
        if not self._ended():
            reward += self._wait()
        self._playing = not self._ended()
        terminated, truncated = bool(env.terminated[0, self._seat]), bool(env.truncated[0, self._seat])
        return self._match.observation(self._seat), reward, terminated, truncated, self._info()

    def render(self) -> str | None:  # type: ignore[override]
        """The match as text, if the render mode is "ansi"."""
        return self._match.env.render(0) if self.render_mode == "ansi" else None

    def _wait(self) -> float:
        """Lets the others play until the seat is to act or has ended; what it earns meanwhile."""
        env, reward = self._match.env, 0.0
        while not env.to_act[0, self._seat] and not self._ended():
            self._put_others()
            self._match.step()
            reward += float(env.reward[0, self._seat])
        return reward

    def _ended(self) -> bool:
        env = self._match.env
        return bool(env.terminated[0, self._seat] or env.truncated[0, self._seat])

    def _put_others(self) -> None:
        """The opponents choose the actions of all other seats that are to act."""
        env = self._match.env
        for index, (group, bot) in enumerate(zip(env.groups, self._bots)):
            seats = np.array(group.seats)
            places = np.flatnonzero(env.to_act[0, seats] & (seats != self._seat))
            if places.size:
                obs, mask = (
                    {path: leaf[0, places] for path, leaf in tree.items()} for tree in (group.obs, group.mask)
                )
                self._match.put_rows(index, places, bot(obs, mask, self.np_random))

    def _refuse(self, refusal: str) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """The match is over because of an illegal action."""
        if self._illegal == "raise":
            raise GameError(refusal)
        self._playing = False
        info = {"seat": self._seat, "illegal_action": refusal}
        reward = self._early_reward + ILLEGAL_REWARD
        return self._match.observation(self._seat), reward, True, False, info

    def _info(self) -> dict[str, Any]:
        mask = self._match.action_mask(self._seat)
        return {"seat": self._seat} if mask is None else {"seat": self._seat, "action_mask": mask}


def _check_seat(env: VectorEnv, seat: int | str) -> None:
    num_seats = len(env.teams)
    if seat in ("alternate", "random"):
        if len(env.groups) > 1:
            raise ValueError(f"{env.id}: its seats have different spaces, so that seat must be a number")
    elif not isinstance(seat, int) or not 0 <= seat < num_seats:
        raise ValueError(f"{env.id}: seat={seat!r} must be 0 to {num_seats - 1}, 'alternate' or 'random'")


def _find_bots(env: VectorEnv, opponent: str | Bot) -> tuple[Bot, ...]:
    """The bot of each group."""
    if not isinstance(opponent, str):
        return (opponent,) * len(env.groups)
    if opponent == "random":
        return tuple(random_bot(group.action_space, group.points) for group in env.groups)
    if opponent not in env.bots:
        raise ValueError(f"{env.id}: opponent={opponent!r} must be one of {', '.join(['random', *env.bots])}")
    bot = env.bots[opponent]
    return bot if isinstance(bot, tuple) else (bot,)
