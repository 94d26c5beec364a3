"""The vector protocol: B matches of one game played at once, as arrays.

T time, B games, A seats of the game, S seats of a group. All arrays that an environment shows
belong to it and are overwritten in place by `step` and `restart`; a caller that keeps one copies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import gymnasium
import numpy as np

Tree = dict[str, np.ndarray]
"""A space's leaves by path ("a/b" for nested spaces, "" for a space that is itself a leaf)."""

Bot = Callable[[Tree, Tree, np.random.Generator], Tree]
"""A scripted player: (obs leaves [R, ...], mask leaves [R, n], generator) -> action leaves [R, ...].

The mask of a leaf holds its n choices: those of a Discrete; those of a MultiDiscrete's parts side by side;
(0 legal, 1 legal) of each bit of a MultiBinary side by side.
"""


class GameError(ValueError):
    """A game broke its contract, or was asked for something illegal: names game, match and seat."""


@dataclass(frozen=True, slots=True)
class Group:
    """Seats with equal spaces, which share their arrays."""

    name: str
    seats: tuple[int, ...]  # seats of the game, ascending; S of them
    observation_space: gymnasium.Space
    action_space: gymnasium.Space
    obs: Tree  # leaf -> [B, S, ...]; a row is valid where its seat is to act, or was truncated
    mask: Tree = field(default_factory=dict)  # discrete action leaf -> [B, S, n] bool, legal; may be empty
    # Action leaf -> {primary leaf -> its choices that use the leaf}: elsewhere its value does not matter.
    uses: Mapping[str, Mapping[str, Sequence[int]]] = field(default_factory=dict)
    # Action leaf -> obs path of the set it points to. Legal are those present, or what the leaf's mask says.
    points: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class VectorEnv(Protocol):
    """What every game offers to the rollout, native or adapted.

    Members that a game may have beside these:

    - `seat_names: tuple[str, ...]` [A], such as "adversary_1"; a seat's role is its name without the "_1".
    - `privileged_space: gymnasium.Space` and `privileged: Tree`, leaf -> [B, ...]: the whole of each match,
      for a critic that may see it; overwritten in place, valid for matches in play or just over.
    - `dropped: np.ndarray` [B] bool: the match is over without a result, because the game raised; nobody
      is terminated or truncated. `restart` clears it. `cause: str`: the last such error, in one line that
      begins with its match.
    - `render(game, seat=None)`: for a seat, what it may know (empty: the game does not say what that is). Of
      a game of several seats whose `render` takes no seat a person sees the observation, not the board.
    - `action_names(game, seat=None)`: of that seat, where several act at once under different names.
    - `has_board(game) -> bool`: whether `render` shows a person enough; else the observation is shown too.
    - `public_actions: bool`: all may know what each seat does, so that a person is told what the others do.
    - `openspiel: str`: the game of OpenSpiel with the same actions and observations.
    - `deterministic: bool`: the rules draw nothing, so that a match is its actions.
    - `max_return: float`: the highest mean return that can be reached.
    """

    id: str
    num_games: int  # B
    teams: tuple[int, ...]  # [A] team of each seat, numbered from 0
    zero_sum: bool  # the rewards of all seats sum to 0 at every step
    groups: tuple[Group, ...]
    bots: Mapping[str, Bot | tuple[Bot, ...]]  # scripted players by name; several groups: one for each

    to_act: np.ndarray  # [B, A] bool, the seat must act in the next step; never a dead one
    reward: np.ndarray  # [B, A] float32, of the last step
    terminated: np.ndarray  # [B, A] bool, the last step ended the episode of this seat by the rules
    truncated: np.ndarray  # [B, A] bool, the last step cut it off; its obs row is the view reached
    over: np.ndarray  # [B] bool, the match is over and waits for restart

    def restart(self, games: np.ndarray, seeds: np.ndarray) -> None:
        """Open new matches in slots `games` [K] int64, each reproducible from its seed [K] uint64.

        Clears reward, terminated, truncated and over there and sets the first obs, mask and to_act.
        Before the first restart every slot is over.
        """
        ...

    def step(self, actions: tuple[Tree, ...]) -> None:
        """One step of every match that is not over; `actions` holds each group's leaves [B, S, ...].

        Entries of seats that are not to act are ignored; an illegal one of a seat that is raises
        GameError. Matches that are over stay as they are, with reward 0.
        """
        ...

    def state(self) -> Tree | None:
        """Every match in mid-play as arrays, or None for a game that cannot give it."""
        ...

    def set_state(self, state: Tree) -> None:
        """Go on from what `state` gave, so that the same actions give the same future."""
        ...

    def render(self, game: int) -> str:
        """One match as text that a person can read."""
        ...

    def action_names(self, game: int) -> list[str] | None:
        """What a person types for each discrete action of the seat to act; None: the number."""
        ...
