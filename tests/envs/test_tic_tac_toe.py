"""Tic-tac-toe against OpenSpiel's rules, and its perfect player against all lines of play."""

from __future__ import annotations

import functools

import numpy as np
import pyspiel
import pytest

from envs.bots import random_bot
from envs.conformance import check
from envs.tic_tac_toe import TicTacToe, best_cells, has_line
from envs.vector import GameError
from tests.envs.openspiel_twin import play_beside_openspiel

NUM_MATCHES = 1000


def _start(num_games: int) -> TicTacToe:
    env = TicTacToe(num_games)
    env.restart(np.arange(num_games), np.arange(num_games, dtype=np.uint64))
    return env


def _play(env: TicTacToe, cells: str) -> None:
    """Mark the cells, named 1..9 as on the board, in every match."""
    for name in cells:
        env.step(({"": np.full((env.num_games, 2), int(name) - 1, np.int64)},))


def _perfect_cells(env: TicTacToe, seat: int, seed: int = 0) -> set[str]:
    """The names of the cells that the perfect player marks there, one draw per match."""
    group = env.groups[0]
    rows = {"": group.obs[""][:, seat]}, {"": group.mask[""][:, seat]}
    action = env.bots["perfect"](*rows, np.random.default_rng(seed))[""]
    assert action.shape == (env.num_games,)
    assert action.dtype == np.int64
    return {str(cell + 1) for cell in action.tolist()}


def test_conforms():
    check(TicTacToe)


def test_same_rules_as_openspiel_move_by_move():
    played = play_beside_openspiel(TicTacToe(NUM_MATCHES), TicTacToe.openspiel)
    assert any(state.returns() == [0, 0] for state in played)


def test_the_best_cells_are_those_of_plain_minimax_on_openspiels_states():
    """All 5,478 positions; 958 are over."""
    best = best_cells()
    seen: dict[str, int] = {}

    def value(state: pyspiel.State, marks: tuple[int, int]) -> int:
        """Seat 0's outcome."""
        if str(state) in seen:
            return seen[str(state)]
        if state.is_terminal():
            outcome = int(state.returns()[0])
        else:
            seat = state.current_player()
            sign = 1 - 2 * seat
            outcomes = {}
            for cell in state.legal_actions():
                after = (marks[0] | (1 - seat) << cell, marks[1] | seat << cell)
                outcomes[cell] = sign * value(state.child(cell), after)
            top = max(outcomes.values())
            expected = {cell for cell in outcomes if outcomes[cell] == top}
            assert {cell for cell in range(9) if best[marks[seat], marks[1 - seat]] >> cell & 1} == expected
            outcome = sign * top
        seen[str(state)] = outcome
        return outcome

    assert value(pyspiel.load_game("tic_tac_toe").new_initial_state(), (0, 0)) == 0
    assert len(seen) == 5478


@pytest.mark.parametrize("seat", [0, 1])
def test_the_perfect_player_never_loses(seat):
    """Against every reply of the other, with any of its own best cells."""
    best = best_cells()

    @functools.cache
    def check_all(own: int, other: int, own_turn: bool) -> None:
        assert not has_line(other), (own, other)
        if has_line(own) or own | other == 0o777:
            return
        for cell in range(9):
            bit = 1 << cell
            if own_turn and best[own, other] & bit:
                check_all(own | bit, other, False)
            if not own_turn and not (own | other) & bit:
                check_all(own, other | bit, True)

    check_all(0, 0, seat == 0)


@pytest.mark.parametrize("seat", [0, 1])
def test_the_perfect_player_beats_random(seat):
    env = _start(NUM_MATCHES)
    group = env.groups[0]
    rng = np.random.default_rng(0)
    players = [random_bot(group.action_space)] * 2
    players[seat] = env.bots["perfect"]
    score = np.zeros(NUM_MATCHES)
    while not env.over.all():
        action = np.full((NUM_MATCHES, 2), -1)
        for k, player in enumerate(players):
            acts = env.to_act[:, k]
            if acts.any():
                rows = {"": group.obs[""][acts, k]}, {"": group.mask[""][acts, k]}
                action[acts, k] = player(*rows, rng)[""]
        env.step(({"": action},))
        score += env.reward[:, seat]
    assert score.min() == 0
    assert score.mean() > 0.7


@pytest.mark.parametrize(
    ("moves", "cells"),
    [
        ("", set("123456789")),  # a draw whatever X marks
        ("5", set("1379")),  # an edge would lose
        ("1", {"5"}),
        ("1524", {"3"}),  # X wins at once rather than only keep the draw
        ("159", set("2468")),  # a corner would lose
    ],
)
def test_the_perfect_player_draws_from_all_best_cells(moves, cells):
    env = _start(300)
    _play(env, moves)
    assert not env.over.any()
    assert _perfect_cells(env, seat=len(moves) % 2) == cells


def test_an_illegal_action_names_match_and_seat_and_changes_nothing():
    env = _start(3)
    _play(env, "5")
    before = env.state()
    action = np.array([[0, 0], [0, 0], [0, 4]])
    message = r"tic_tac_toe, match 2, seat 1: action 4 is illegal; legal are \[0, 1, 2, 3, 5, 6, 7, 8\]"
    with pytest.raises(GameError, match=message):
        env.step(({"": action},))
    for name, array in env.state().items():
        np.testing.assert_array_equal(array, before[name])


def test_render_and_names():
    env = TicTacToe(1)
    assert env.render(0).endswith("not started")
    env = _start(1)
    _play(env, "519")
    assert env.render(0) == "O 2 3\n4 X 6\n7 8 X\nO to move"
    assert env.action_names(0) == [*"123456789"]
    _play(env, "2347")
    assert env.render(0) == "O O X\nO X 6\nX 8 X\nX has won"
    env = _start(1)
    _play(env, "123546879")
    assert env.render(0) == "X O X\nX O O\nO X X\ndraw"
