"""Every information state of an OpenSpiel game, as arrays that a policy can be asked about."""

from __future__ import annotations

import numpy as np
import pyspiel

from envs.openspiel import Observer, observer
from selfplay.game_tree import MAX_STATES, NONE, InformationStates, NotExact


def information_states(game: pyspiel.Game, observation: str = "auto") -> InformationStates:
    """Walks the whole tree of a game; `observation` as `envs.openspiel.observer` has it.

    Where seats move at once the states are those of `in_turns(game)`, and what is seen that of the game.
    Raises NotExact for a game that is too large or whose players forget: then what a policy with memory
    does is not a function of the information state.
    """
    _check_kind(game)
    _check_size(in_turns(game))
    walk = _Walk(game, observer(str(game), game, observation))
    walk.visit_all()
    return walk.table()


def in_turns(game: pyspiel.Game) -> pyspiel.Game:
    """The same game with seats that move at once asked one after another, none told what others chose."""
    at_once = game.get_type().dynamics == pyspiel.GameType.Dynamics.SIMULTANEOUS
    return pyspiel.convert_to_turn_based(game) if at_once else game


def _check_kind(game: pyspiel.Game) -> None:
    kind = game.get_type()
    if kind.chance_mode == pyspiel.GameType.ChanceMode.SAMPLED_STOCHASTIC:
        raise NotExact(f"exploitability needs every chance outcome; {game} only samples them")
    if not kind.provides_information_state_string:
        raise NotExact(f"exploitability needs information states; {game} does not name them")


def _check_size(game: pyspiel.Game) -> None:
    """Counts the states first: they are cheap, what is seen in them is not."""
    count, waiting = 0, [game.new_initial_state()]
    while waiting:
        state = waiting.pop()
        count += 1
        if count > MAX_STATES:
            raise NotExact(
                f"{game} is too large for an exact computation: more than {MAX_STATES:,} states were counted"
            )
        if not state.is_terminal():
            waiting += [state.child(action) for action in state.legal_actions()]


class _Walk:
    """Visits every history of a game, and notes each information state once."""

    def __init__(self, game: pyspiel.Game, observe: Observer) -> None:
        self._game, self._observe = in_turns(game), observe
        self._at_once = self._game is not game
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
        shown = state.simultaneous_game_state() if self._at_once else state
        seen = self._observe(shown, player).ravel()
        here = self._index.setdefault(name, len(self._rows))
        if here == len(self._rows):
            self._rows.append(row)
            self._obs.append(seen.copy())
            self._legal.append(state.legal_actions())
        elif self._rows[here] != row or not np.array_equal(self._obs[here], seen):
            raise NotExact(
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
