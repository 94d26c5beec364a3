"""Phantom tic-tac-toe against OpenSpiel's rules, and what each seat sees by hand."""

from __future__ import annotations

import numpy as np
import pytest

from envs.conformance import check
from envs.phantom_tic_tac_toe import PhantomTicTacToe
from envs.vector import GameError
from tests.envs.openspiel_twin import play_beside_openspiel

NUM_MATCHES = 1000


def _start(num_games: int, **kwargs) -> PhantomTicTacToe:
    env = PhantomTicTacToe(num_games, **kwargs)
    env.restart(np.arange(num_games), np.arange(num_games, dtype=np.uint64))
    return env


def _play(env: PhantomTicTacToe, cells: str) -> None:
    """Try the cells, named 1..9 as on the board, in every match."""
    for name in cells:
        env.step(({"": np.full((env.num_games, 2), int(name) - 1, np.int64)},))


def test_conforms():
    check(PhantomTicTacToe)
    check(lambda num_games: PhantomTicTacToe(num_games, observation="last"))


def test_same_rules_as_openspiel_move_by_move():
    env = PhantomTicTacToe(NUM_MATCHES)
    tries = [state.history() for state in play_beside_openspiel(env, env.openspiel)]
    assert sum(len(cells) - len(set(cells)) for cells in tries) > NUM_MATCHES  # marks that were found
    assert max(map(len, tries)) > 13  # of 17, which needs all marks of the other to be found


def test_who_finds_a_mark_learns_it_alone_and_tries_again():
    env = _start(1)
    _play(env, "55")
    obs, mask = env.groups[0].obs[""][0], env.groups[0].mask[""][0]
    assert env.to_act.tolist() == [[False, True]]
    assert np.flatnonzero(obs[1]).tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 18 + 4]  # an X in the middle
    assert np.flatnonzero(~mask[1]).tolist() == [4]
    _play(env, "1")
    assert env.to_act.tolist() == [[True, False]]
    assert np.flatnonzero(obs[0]).tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 18 + 4]  # no O is known of
    assert np.flatnonzero(obs[1]).tolist() == [1, 2, 3, 5, 6, 7, 8, 9 + 0, 18 + 4]


def test_the_last_try_alone_is_shown_on_demand():
    env = _start(1, observation="last")
    assert not hasattr(env, "openspiel")
    obs, mask = env.groups[0].obs[""][0], env.groups[0].mask[""][0]
    assert not obs.any()
    _play(env, "55")
    assert np.flatnonzero(obs[1]).tolist() == [18 + 4]
    _play(env, "12")
    assert np.flatnonzero(obs[0]).tolist() == [18 + 1]
    assert np.flatnonzero(obs[1]).tolist() == [9 + 0]
    assert np.flatnonzero(~mask[0]).tolist() == [1, 4]
    with pytest.raises(ValueError, match="observation='all' must be one of 'known', 'last'"):
        PhantomTicTacToe(1, observation="all")


def test_the_privileged_view_is_the_whole_board_and_who_acts():
    env = _start(1)
    _play(env, "551")
    view = env.privileged[""][0]
    assert env.privileged_space.contains(view)
    assert np.flatnonzero(view).tolist() == [1, 2, 3, 5, 6, 7, 8, 9 + 0, 18 + 4, 27]
    _play(env, "1")  # X finds the O, and is still to act
    assert np.flatnonzero(view).tolist() == [1, 2, 3, 5, 6, 7, 8, 9 + 0, 18 + 4, 27]
    _play(env, "2")
    assert np.flatnonzero(view).tolist() == [2, 3, 5, 6, 7, 8, 9 + 0, 18 + 1, 18 + 4, 28]
    _play(env, "38")
    assert env.reward.tolist() == [[1, -1]]
    assert np.flatnonzero(view)[-1] < 27


def test_an_illegal_action_names_match_and_seat_and_changes_nothing():
    env = _start(2)
    _play(env, "55")
    before = env.state()
    with pytest.raises(GameError, match=r"phantom_tic_tac_toe, match 1, seat 1: action 4 is illegal"):
        env.step(({"": np.array([[4, 0], [0, 4]])},))
    for name, array in env.state().items():
        np.testing.assert_array_equal(array, before[name])


def test_render():
    env = _start(1)
    _play(env, "55")
    assert env.render(0) == "1 2 3\n4 X 6\n7 8 9\nO to move; not yet tried: 1 2 3 4 6 7 8 9"
    _play(env, "1238")
    assert env.render(0) == "O X O\n4 X 6\n7 X 9\nX has won"
