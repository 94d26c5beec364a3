"""Any OpenSpiel game by its string, `openspiel:leduc_poker(players=2)`, as B matches side by side.

B games, A seats (OpenSpiel's players). OpenSpiel holds one state object a match; this steps them one
by one, and writes observations through its observers, straight into the arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyspiel
from gymnasium.spaces import Box, Discrete

from envs.modules import one_line
from envs.native import check_array, check_choice, check_int, check_restart
from envs.openspiel import load_game, observation_shape, observer, seed_parameter
from envs.random_bits import next_random
from envs.vector import Bot, GameError, Group, Tree

_CHANCE = int(pyspiel.PlayerId.CHANCE)
_SIMULTANEOUS = int(pyspiel.PlayerId.SIMULTANEOUS)
_TERMINAL = int(pyspiel.PlayerId.TERMINAL)
_WAITING = -100  # the player to move of a slot without a match in play


def load(id: str, rest: str) -> Callable[..., OpenSpielGames]:
    """The factory of the game that the string `rest` names; ValueError of one line if it cannot be."""
    game = load_game(id, rest)

    def factory(num_games: int, *, observation: str = "auto", privileged: bool = False) -> OpenSpielGames:
        return OpenSpielGames(id, game, num_games, observation=observation, privileged=privileged)

    return factory


class _Match:
    """A slot's match: OpenSpiel's state, and all that is needed to play it again."""

    __slots__ = ("chance", "history", "player", "returns", "seed", "state")

    def __init__(self) -> None:
        self.state: Any = None
        self.player = _WAITING  # whose turn it is, a seat or one of OpenSpiel's PlayerIds
        self.seed = 0
        self.chance = 0  # state of the generator that chance is drawn from
        self.history: list[int] = []  # the seats' actions; of all A seats where they move at once
        self.returns: list[float] = []  # paid so far


class OpenSpielGames:
    """B matches of one OpenSpiel game: in turn, at once, or both by turns, with chance or without.

    observation: "auto", "observation" or "information_state" (see `observation_kind`).
    privileged: also show `privileged`, what all seats see side by side.

    Chance is drawn from the match's own seed, so a match is its seed and its actions. A match in
    which OpenSpiel raises is dropped.
    """

    bots: Mapping[str, Bot] = {}

    def __init__(
        self, id: str, game: Any, num_games: int, *, observation: str = "auto", privileged: bool = False
    ) -> None:
        """game: pyspiel.Game."""
        check_int(id, "num_games", num_games, 1, None)
        check_choice(id, "privileged", privileged, [False, True])
        self.id = id
        self.num_games = num_games
        self.openspiel = str(game)
        self._game = game
        kind, seats = game.get_type(), game.num_players()
        one_team = kind.utility == pyspiel.GameType.Utility.IDENTICAL
        self.teams = (0,) * seats if one_team else tuple(range(seats))
        self.zero_sum = bool(kind.utility == pyspiel.GameType.Utility.ZERO_SUM)
        self.seat_names = tuple(f"player_{seat}" for seat in range(seats))
        self.deterministic = kind.chance_mode == pyspiel.GameType.ChanceMode.DETERMINISTIC
        self.public_actions = kind.information == pyspiel.GameType.Information.PERFECT_INFORMATION
        self._pays_at_end = kind.reward_model == pyspiel.GameType.RewardModel.TERMINAL
        self._seed_parameter = seed_parameter(game)
        self._observe = observer(id, game, observation)
        self._allocate(num_games, seats)
        size = self._make_arrays(observation_shape(id, game, observation))
        self._privileged = np.zeros((num_games, seats, size if privileged else 0), np.float32)
        if privileged:
            self.privileged_space = Box(-np.inf, np.inf, (seats * size,), np.float32)
            self.privileged = {"": self._privileged.reshape(num_games, -1)}

    def _allocate(self, num_games: int, seats: int) -> None:
        self._matches = [_Match() for _ in range(num_games)]
        self.to_act = np.zeros((num_games, seats), np.bool_)
        self.reward = np.zeros((num_games, seats), np.float32)
        self.terminated = np.zeros((num_games, seats), np.bool_)
        self.truncated = np.zeros((num_games, seats), np.bool_)  # never: OpenSpiel's games all end
        self.over = np.ones(num_games, np.bool_)
        self.dropped = np.zeros(num_games, np.bool_)
        self.cause = ""

    def _make_arrays(self, shape: tuple[int, ...]) -> int:
        """The one group of all seats, and flat views of its arrays; returns the size of an observation."""
        num_games, seats = self.to_act.shape
        self._num_actions = int(self._game.num_distinct_actions())
        space = Box(-np.inf, np.inf, shape, np.float32)
        obs = np.zeros((num_games, seats, *shape), np.float32)
        self._mask = np.zeros((num_games, seats, self._num_actions), np.bool_)
        self._obs_rows = obs.reshape(num_games * seats, *shape)
        self._mask_bytes = self._mask.data.cast("B")  # writing few entries is faster than by NumPy
        self._none_legal = bytes(self._num_actions)
        actions: Discrete = Discrete(self._num_actions)
        self.groups = (Group("player", tuple(range(seats)), space, actions, {"": obs}, {"": self._mask}),)
        return int(np.prod(shape))

    # Matches, one by one.

    def restart(self, games: np.ndarray, seeds: np.ndarray) -> None:
        """Open new matches in slots games [K] int64 from seeds [K] uint64."""
        games, seeds = check_restart(self.id, self.num_games, games, seeds)
        for array in (self.to_act, self.reward, self.terminated, self.over, self.dropped):
            array[games] = False
        for game, seed in zip(games.tolist(), seeds.tolist()):
            self._open(game, seed)

    def step(self, actions: tuple[Tree, ...]) -> None:
        """Play action "" [B, A] int64 of the seats to act; if one is illegal, nothing is played."""
        action = actions[0][""]
        check_array(self.id, "the action", action, self.to_act.shape, np.int64)
        self._check_legal(action)
        self.reward.fill(0)
        for game, (match, row) in enumerate(zip(self._matches, action.tolist())):
            if match.player != _WAITING:
                try:
                    self._play(game, match, row)
                except Exception as error:  # OpenSpiel's own, of any kind: this match is lost, no other
                    self._drop(game, error)

    def _open(self, game: int, seed: int) -> None:
        match = self._matches[game]
        match.seed = match.chance = seed
        match.history = []
        match.returns = [0.0] * len(self.teams)
        try:
            match.state = self._new_state(match)
            self._reach(game, match)
            if not self._pays_at_end:  # what chance gave at the start is paid with the first step
                match.returns = [0.0] * len(self.teams)
                self.reward[game] = 0
        except Exception as error:  # as in `step`
            self._drop(game, error)

    def _new_state(self, match: _Match) -> Any:
        """A match at its start; a game of sampled chance is made anew with a seed of the match's own."""
        if self._seed_parameter is None:
            return self._game.new_initial_state()
        match.chance, bits = next_random(np.uint64(match.chance))
        parameters = self._game.get_parameters() | {self._seed_parameter: bits >> 33}
        return pyspiel.load_game(self._game.get_type().short_name, parameters).new_initial_state()

    def _play(self, game: int, match: _Match, row: list[int]) -> None:
        """The seats' move, from their actions row [A], and all that follows until seats are to act again."""
        player = match.player
        if player >= 0:
            action = row[player]
            match.state.apply_action(action)
            match.history.append(action)
            self.to_act[game, player] = False
        else:
            acts = self.to_act[game].tolist()
            joint = [action if acting else 0 for action, acting in zip(row, acts)]
            match.state.apply_actions(joint)
            match.history += joint
            self.to_act[game] = False
        self._reach(game, match)

    def _reach(self, game: int, match: _Match) -> None:
        """Draw chance until seats are to act or the match ends, and show what is there."""
        state = match.state
        player = state.current_player()
        while player == _CHANCE:
            match.chance, bits = next_random(np.uint64(match.chance))
            state.apply_action(_drawn(state.chance_outcomes(), (bits >> 11) * 2.0**-53))
            player = state.current_player()
        if player == _TERMINAL or not self._pays_at_end:
            self._pay(game, match)
        if player == _TERMINAL:
            match.player = _WAITING
            self.terminated[game] = True
            self.over[game] = True
            return
        match.player = player
        if player >= 0:
            acts = self._show(game, player, state)
        else:
            assert player == _SIMULTANEOUS
            acts = sum(self._show(game, seat, state) for seat in range(len(self.teams))) > 0
        if not acts:
            raise RuntimeError("nobody has a legal action in a match in play")
        if self._privileged.size:
            for seat, view in enumerate(self._privileged[game]):
                view[:] = self._observe(state, seat).ravel()

    def _show(self, game: int, seat: int, state: Any) -> bool:
        """Obs and mask of a seat, which is to act if there is anything that it may do: whether it is."""
        legal = state.legal_actions(seat)
        row = game * len(self.teams) + seat
        first, mask = row * self._num_actions, self._mask_bytes
        mask[first : first + self._num_actions] = self._none_legal
        if legal and legal[-1] >= self._num_actions:  # they ascend
            raise IndexError(f"legal action {legal[-1]} of a game that says it has {self._num_actions}")
        for action in legal:
            mask[first + action] = 1
        self._obs_rows[row] = self._observe(state, seat)
        self.to_act[game, seat] = acts = bool(legal)
        return acts

    def _pay(self, game: int, match: _Match) -> None:
        """Reward what the returns have grown by; games differ in what their own rewards mean."""
        returns = match.state.returns()
        self.reward[game] = [now - before for now, before in zip(returns, match.returns)]
        match.returns = returns

    def _drop(self, game: int, error: Exception) -> None:
        self._matches[game].player = _WAITING
        self.cause = f"match {game}: {one_line(error)}"
        self.to_act[game] = False
        self.reward[game] = 0
        self.dropped[game] = True
        self.over[game] = True

    def _check_legal(self, action: np.ndarray) -> None:
        """GameError for the first illegal one in action [B, A] of the seats to act."""
        known = (action >= 0) & (action < self._num_actions)
        chosen = np.where(known, action, 0)[..., None]
        illegal = self.to_act & ~(known & np.take_along_axis(self._mask, chosen, axis=2)[..., 0])
        if illegal.any():
            game, seat = np.argwhere(illegal)[0].tolist()
            legal = np.flatnonzero(self._mask[game, seat]).tolist()
            raise GameError(
                f"{self.id}, match {game}, seat {seat}: "
                f"action {action[game, seat]} is illegal; legal are {legal}"
            )

    # All of them as arrays, and as text.

    def state(self) -> Tree:
        """Each match as its seed and the actions since; what the last step showed as it is.

        history [B, L] int64 holds length [B] actions, -1 beyond; length -1: nothing was ever opened.
        """
        length = [-1 if match.state is None else len(match.history) for match in self._matches]
        history = np.full((self.num_games, max(0, *length)), -1, np.int64)
        for row, match in zip(history, self._matches):
            row[: len(match.history)] = match.history
        return self._shown(copy=True) | {
            "seed": np.array([match.seed for match in self._matches], np.uint64),
            "length": np.array(length, np.int64),
            "history": history,
        }

    def set_state(self, state: Tree) -> None:
        """Play every match again up to where `state` of as many games was."""
        self._check_state(state)
        for game, match in enumerate(self._matches):
            length = int(state["length"][game])
            match.state, match.player, match.history = None, _WAITING, []
            if length >= 0 and not state["dropped"][game]:
                self._replay(game, int(state["seed"][game]), state["history"][game, :length].tolist())
        for name, array in self._shown(copy=False).items():
            array[...] = state[name]

    def _check_state(self, state: Tree) -> None:
        """GameError unless it has the form of what `state` gives."""
        expected = {name: (array.shape, array.dtype) for name, array in self._shown(copy=False).items()}
        expected["seed"] = ((self.num_games,), np.dtype(np.uint64))
        expected["length"] = ((self.num_games,), np.dtype(np.int64))
        if state.keys() - {"history"} != expected.keys() or "history" not in state:
            names = sorted([*expected, "history"])
            raise GameError(f"{self.id}: the state must hold {names}, not {sorted(state)}")
        for name, (shape, dtype) in expected.items():
            check_array(self.id, f"state {name!r}", state[name], shape, dtype)
        longest = max(0, int(state["length"].max()))
        check_array(self.id, "state 'history'", state["history"], (self.num_games, longest), np.int64)

    def _shown(self, *, copy: bool) -> Tree:
        names = ("to_act", "reward", "terminated", "over", "dropped")
        return {name: array.copy() if copy else array for name in names for array in [getattr(self, name)]}

    def _replay(self, game: int, seed: int, history: list[int]) -> None:
        """The match of this seed after these actions."""
        match, seats = self._matches[game], len(self.teams)
        self.to_act[game] = False
        self._open(game, seed)
        while len(match.history) < len(history):
            played = len(match.history)
            if match.player >= 0:
                row = [history[played]] * seats
            else:
                row = history[played : played + seats]
            self._play(game, match, row)

    def render(self, game: int, seat: int | None = None) -> str:
        """OpenSpiel's own text of the whole state; for a seat, where anything is hidden, of what it knows."""
        state = self._matches[game].state
        if state is None or seat is None or self.public_actions:
            return "not started" if state is None else str(state)
        kind = self._game.get_type()
        if kind.provides_information_state_string:
            return str(state.information_state_string(seat))
        return str(state.observation_string(seat)) if kind.provides_observation_string else ""

    def action_names(self, game: int, seat: int | None = None) -> list[str] | None:
        """OpenSpiel's names of the legal actions of a seat, else the first to act; numbers for the rest."""
        seats = np.flatnonzero(self.to_act[game])
        if len(seats) == 0:
            return None
        state = self._matches[game].state
        seat = int(seats[0]) if seat is None else seat
        names = [str(action) for action in range(self._num_actions)]
        for action in state.legal_actions(seat):
            name = " ".join(state.action_to_string(seat, action).split())
            names[action] = name if name else names[action]
        taken: set[str] = set()
        for action, name in enumerate(names):
            names[action] = name if name not in taken else f"{name}#{action}"
            taken.add(names[action])
        return names


def _drawn(outcomes: list[tuple[int, float]], uniform: float) -> int:
    """The outcome [(action, probability)] that a uniform number in [0, 1) falls on."""
    left = uniform
    for action, probability in outcomes:
        left -= probability
        if left < 0:
            return action
    return outcomes[-1][0]  # the probabilities' sum is rounded
