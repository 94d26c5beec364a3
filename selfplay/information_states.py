"""Every information state of an OpenSpiel game, as arrays that a policy can be asked about.

I information states, n distinct actions of the game, D numbers in an observation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyspiel

from envs.openspiel import Observer, observer
from selfplay.errors import UserError

MAX_STATES = 1_000_000

NONE = -1  # the parent of a player's first decision, and the action before it


@dataclass(frozen=True, slots=True)
class InformationStates:
    """What each player may know when it must act. A parent comes before its children."""

    name: list[str]  # [I] OpenSpiel's string
    player: np.ndarray  # [I] int64, who must act
    parent: np.ndarray  # [I] int64, index of that player's decision before; NONE at its first
    action: np.ndarray  # [I] int64, what it did there; NONE at its first
    depth: np.ndarray  # [I] int64, number of its decisions before
    obs: np.ndarray  # [I, D] float32, what it sees now
    legal: np.ndarray  # [I, n] bool
    reward: np.ndarray  # [I] float32, what it was paid since the decision before

    def __len__(self) -> int:
        return len(self.name)


def information_states(game: pyspiel.Game, observation: str = "auto") -> InformationStates:
    """Walks the whole tree of a turn-based game; `observation` as `envs.openspiel.observer` has it.

    Raises UserError for a game that is too large or whose players forget: then what a policy with memory
    does is not a function of the information state.
    """
    _check_kind(game)
    _check_size(game)
    walk = _Walk(game, observer(str(game), game, observation))
    walk.visit_all()
    return walk.table()


def _check_kind(game: pyspiel.Game) -> None:
    kind = game.get_type()
    if kind.dynamics != pyspiel.GameType.Dynamics.SEQUENTIAL:
        raise UserError(f"exploitability is computed for games in turns; in {game} players move at once")
    if kind.chance_mode == pyspiel.GameType.ChanceMode.SAMPLED_STOCHASTIC:
        raise UserError(f"exploitability needs every chance outcome; {game} only samples them")
    if not kind.provides_information_state_string:
        raise UserError(f"exploitability needs information states; {game} does not name them")


def _check_size(game: pyspiel.Game) -> None:
    """Counts the states first: they are cheap, what is seen in them is not."""
    count, waiting = 0, [game.new_initial_state()]
    while waiting:
        state = waiting.pop()
        count += 1
        if count > MAX_STATES:
            raise UserError(
                f"{game} is too large for an exact computation: more than {MAX_STATES:,} states were counted"
            )
        if not state.is_terminal():
            waiting += [state.child(action) for action in state.legal_actions()]


class _Walk:
    """Visits every history of a game, and notes each information state once."""

    def __init__(self, game: pyspiel.Game, observe: Observer) -> None:
        self._game, self._observe = game, observe
        self._index: dict[str, int] = {}
        self._rows: list[tuple[int, int, int, float]] = []  # player, parent, action, returns so far
        self._obs: list[np.ndarray] = []  # [D] each
        self._legal: list[list[int]] = []

    def visit_all(self) -> None:
        nobody = (NONE,) * self._game.num_players()
        waiting = [(self._game.new_initial_state(), nobody, nobody)]
        while waiting:
            # last and action [players]: where each player last decided, and what
            state, last, action = waiting.pop()
            if state.is_chance_node():
                waiting += [(state.child(outcome), last, action) for outcome in state.legal_actions()]
            elif not state.is_terminal():
                player = state.current_player()
                here = self._note(state, player, last[player], action[player])
                last = _with(last, player, here)
                for choice in self._legal[here]:
                    waiting.append((state.child(choice), last, _with(action, player, choice)))

    def _note(self, state: pyspiel.State, player: int, parent: int, action: int) -> int:
        """The index of the information state, whose row is made at the first visit."""
        name = state.information_state_string(player)
        row = (player, parent, action, float(state.returns()[player]))
        seen = self._observe(state, player).ravel()
        here = self._index.setdefault(name, len(self._rows))
        if here == len(self._rows):
            self._rows.append(row)
            self._obs.append(seen.copy())
            self._legal.append(state.legal_actions())
        elif self._rows[here] != row or not np.array_equal(self._obs[here], seen):
            raise UserError(
                f"{self._game}: player {player} can come to one information state by different "
                f"decisions, observations or rewards of its own, so that a policy has no table: {name!r}"
            )
        return here

    def table(self) -> InformationStates:
        player, parent, action = (np.array([row[k] for row in self._rows], np.int64) for k in range(3))
        returns = np.array([row[3] for row in self._rows], np.float32)
        depth = np.zeros(len(player), np.int64)
        for here, before in enumerate(parent.tolist()):
            depth[here] = 0 if before == NONE else depth[before] + 1
        legal = np.zeros((len(player), self._game.num_distinct_actions()), np.bool_)
        for here, actions in enumerate(self._legal):
            legal[here, actions] = True
        earned = returns - np.where(parent == NONE, 0, returns[parent])
        obs = np.stack(self._obs)
        return InformationStates(list(self._index), player, parent, action, depth, obs, legal, earned)


def _with(values: tuple[int, ...], place: int, value: int) -> tuple[int, ...]:
    """The tuple with one entry replaced."""
    return (*values[:place], value, *values[place + 1 :])
