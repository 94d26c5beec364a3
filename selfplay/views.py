"""One game that each side sees in its own way: a vector game for every way, with equal seeds and actions.

Runs whose `env.kwargs` differ only in what is shown (an image or numbers, all that is known or the last move)
play each other so. B games, A seats, S seats of a group, V views.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
from gymnasium import spaces

from envs.vector import Group, Tree, VectorEnv
from policies.spaces import PRIVILEGED
from selfplay import worker
from selfplay.config import Config, EnvConfig
from selfplay.draws import Draws
from selfplay.errors import UserError
from selfplay.part_play import Seated
from selfplay.players import Decision, Player

MUST_AGREE = ("to_act", "reward", "terminated", "truncated", "over")


class Views:
    """A vector game that shows the observations of V games: leaf PATH of game v as "view<v>/PATH".

    All else is the first game's. At every step the games are compared in all that is not shown to somebody,
    which is how games that differ in more than their views are found out.
    """

    def __init__(self, games: Sequence[EnvConfig], envs: Sequence[VectorEnv]) -> None:
        """games and envs [V]; the envs are over."""
        self.games, self.envs = tuple(games), tuple(envs)
        self._first = envs[0]
        for number, env in enumerate(envs[1:], start=1):
            if env.teams != self._first.teams or _layout(env) != _layout(self._first):
                self._refuse(number, "their seats, teams or actions are not the same")
        self.groups = tuple(_side_by_side(groups) for groups in zip(*(env.groups for env in envs)))
        private = [getattr(env, "privileged", {}) for env in envs]
        if any(private):
            self.privileged: Tree = {
                _under(_name(v), path): leaf for v, tree in enumerate(private) for path, leaf in tree.items()
            }

    def __getattr__(self, name: str) -> Any:
        if name == "_first":
            raise AttributeError(name)  # copies are made before it is there
        return getattr(self._first, name)

    def restart(self, games: np.ndarray, seeds: np.ndarray) -> None:
        for env in self.envs:
            env.restart(games, seeds)
        self._compare("where a match begins")

    def step(self, actions: tuple[Tree, ...]) -> None:
        for env in self.envs:
            env.step(actions)
        self._compare("after a step")

    def _compare(self, when: str) -> None:
        """Raises UserError unless the games go on alike."""
        for number, env in enumerate(self.envs[1:], start=1):
            for name in MUST_AGREE:
                if not np.array_equal(getattr(env, name), getattr(self._first, name)):
                    self._refuse(number, f"{name} differs {when}")
            for group, same in zip(env.groups, self._first.groups):
                acts = self._first.to_act[:, group.seats]
                for path in group.mask:
                    if not np.array_equal(group.mask[path][acts], same.mask[path][acts]):
                        self._refuse(number, f"what is legal differs {when}")

    def _refuse(self, number: int, why: str) -> NoReturn:
        first, other = self.games[0], self.games[number]
        keys = sorted(first.kwargs.keys() | other.kwargs.keys())
        differ = [key for key in keys if first.kwargs.get(key) != other.kwargs.get(key)]
        settings = " and ".join(f"--env.kwargs.{key} VALUE" for key in differ)
        raise UserError(
            f"they do not play the same {first.id}: with {first.kwargs} and with {other.kwargs} {why}; "
            f"give both the same by {settings}"
        )


def _layout(env: VectorEnv) -> list[Any]:
    """Seats, actions and masks, which views share."""
    return [(group.seats, group.action_space, sorted(group.mask)) for group in env.groups]


def _name(view: int) -> str:
    return f"view{view}"


def _under(prefix: str, path: str) -> str:
    return f"{prefix}/{path}" if path else prefix


def _side_by_side(groups: Sequence[Group]) -> Group:
    """A group of one game with the observations [B, S, ...] of all."""
    return replace(
        groups[0],
        observation_space=spaces.Dict({_name(v): group.observation_space for v, group in enumerate(groups)}),
        obs={
            _under(_name(v), path): leaf for v, group in enumerate(groups) for path, leaf in group.obs.items()
        },
        points={leaf: _under(_name(0), path) for leaf, path in groups[0].points.items()},
    )


class Seeing:
    """A player that sees one of the views."""

    def __init__(self, player: Player, view: int) -> None:
        self.player, self._view = player, _name(view)
        self.state_shape = player.state_shape
        self._extras = {self._shown(path): path for path in player.extras}
        self.extras = tuple(self._extras)

    def _shown(self, path: str) -> str:
        """An extra leaf's path among those of all views."""
        own, slash, rest = path.partition("/")
        return f"{PRIVILEGED}/{self._view}{slash}{rest}" if own == PRIVILEGED else path

    def own(self, obs: Tree) -> Tree:
        """Of the leaves [R, ...] of all views those of this one, by the paths that the player knows."""
        start = self._view + "/"
        seen = {path.removeprefix(start): leaf for path, leaf in obs.items() if path.startswith(start)}
        if self._view in obs:
            seen[""] = obs[self._view]
        return seen | {path: obs[shown] for shown, path in self._extras.items()}

    def act(self, obs: Tree, mask: Tree, is_first: np.ndarray, state: np.ndarray, rng: Draws) -> Decision:
        return self.player.act(self.own(obs), mask, is_first, state, rng)


class Meeting:
    """The game in which sides meet, each with its own view of it."""

    def __init__(self, games: Sequence[EnvConfig], num_games: int) -> None:
        """games: of each side, as `selfplay.contestants.games` gives them."""
        self.games = [game for k, game in enumerate(games) if game not in games[:k]]  # [V]
        self.views = [self.games.index(game) for game in games]  # of each side
        self.own = [worker.make_game(Config(env=game), num_games) for game in self.games]  # [V]
        self.env: VectorEnv = self.own[0] if len(self.own) == 1 else Views(self.games, self.own)

    def game(self, side: int) -> tuple[EnvConfig, VectorEnv]:
        """How a side's game is made, and one whose layout is that of its view."""
        view = self.views[side]
        return self.games[view], self.own[view]

    def seated(self, side: int, players: Seated) -> Seated:
        """A side's players of its own game, ready to play this one."""
        if len(self.own) == 1:
            return players
        return tuple(Seeing(player, self.views[side]) for player in players)


def seen_by(player: Player) -> tuple[Player, Callable[[Tree], Tree]]:
    """The player itself, and what gives it its own leaves of those [R, ...] that are shown."""
    if isinstance(player, Seeing):
        return player.player, player.own
    return player, lambda obs: obs
