"""Connect Four against OpenSpiel's rules, and its bot, openings and errors by hand."""

from __future__ import annotations

import numpy as np
import pyspiel
import pytest

from envs.connect_four import ConnectFour
from envs.vector import GameError
from tests.envs.openspiel_twin import play_beside_openspiel, random_action

NUM_MATCHES = 2048


def _start(num_games: int, **kwargs) -> ConnectFour:
    env = ConnectFour(num_games, **kwargs)
    env.restart(np.arange(num_games), np.arange(num_games, dtype=np.uint64))
    return env


def _play(env: ConnectFour, columns: str) -> None:
    """Play the columns, named 1..7 as on the board, in every match."""
    for name in columns:
        env.step(({"": np.full((env.num_games, 2), int(name) - 1, np.int64)},))


def _bot_columns(env: ConnectFour, seat: int, seed: int = 0) -> set[str]:
    """The names of the columns that one_ply plays there, one draw per match."""
    group = env.groups[0]
    rows = {"": group.obs[""][:, seat]}, {"": group.mask[""][:, seat]}
    action = env.bots["one_ply"](*rows, np.random.default_rng(seed))[""]
    assert action.shape == (env.num_games,)
    assert action.dtype == np.int64
    return {str(column + 1) for column in action.tolist()}


def _openspiel_planes(state: pyspiel.State, seat: int) -> np.ndarray:
    """OpenSpiel's printed board as our obs [2, 6, 7]."""
    board = np.array([list(line) for line in str(state).split("\n")[:6]])[::-1]  # row 0 at the bottom
    own, other = ("x", "o") if seat == 0 else ("o", "x")
    return np.stack([board == own, board == other]).astype(np.int8)


def test_same_rules_as_openspiel_move_by_move():
    played = play_beside_openspiel(ConnectFour(NUM_MATCHES), "connect_four", view=_openspiel_planes)
    assert any(state.returns() == [0, 0] for state in played)  # 0.25% of random matches


def test_over_matches_stay_with_reward_zero():
    env = _start(2)
    _play(env, "1213141")
    assert env.over.all()
    assert env.reward.tolist() == [[1, -1], [1, -1]]
    env.restart(np.array([1]), np.array([5], np.uint64))
    before = env.state()
    _play(env, "4")
    after = env.state()
    assert env.reward.tolist() == [[0, 0], [0, 0]]
    for name in before.keys() - {"reward"}:
        np.testing.assert_array_equal(before[name][0], after[name][0])


@pytest.mark.parametrize(
    ("moves", "columns"),
    [
        ("223344", {"1", "5"}),  # X wins in a row, at either end
        ("1213746", {"5"}),  # O wins in a row
        ("121212", {"1"}),  # X wins in a column rather than block column 2
        ("1223343446", {"4"}),  # X wins on a rising diagonal rather than block column 5
        ("7665545442", {"4"}),  # X wins on a falling diagonal rather than block column 3
        ("12121", {"1"}),  # O blocks a column
        ("121374", {"5"}),  # X blocks a row; column 1 is no threat, its bottom cell being taken
        ("22334", {"1", "5"}),  # O cannot stop both, and blocks one of them
        ("111111", {"2", "3", "4", "5", "6", "7"}),  # nothing to win or block, column 1 is full
    ],
)
def test_one_ply_wins_then_blocks_then_plays_any(moves, columns):
    env = _start(300)
    _play(env, moves)
    assert not env.over.any()
    assert _bot_columns(env, seat=len(moves) % 2) == columns


def test_one_ply_draws_from_its_generator():
    env = _start(300)
    rows = {"": env.groups[0].obs[""][:, 0]}, {"": env.groups[0].mask[""][:, 0]}
    first, again, other = (env.bots["one_ply"](*rows, np.random.default_rng(seed))[""] for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()
    assert np.bincount(first, minlength=7).min() > 20  # of 43 expected


def test_openings_come_from_the_seed_alone():
    seeds = np.arange(500, dtype=np.uint64)
    env, other = ConnectFour(500, opening_plies=8), ConnectFour(600, opening_plies=8)
    env.restart(np.arange(500), seeds)
    other.restart(np.arange(600), np.full(600, 7, np.uint64))
    other.restart(np.arange(500)[::-1] + 100, seeds)
    obs = env.groups[0].obs[""]
    np.testing.assert_array_equal(obs, other.groups[0].obs[""][:99:-1])
    assert len({board.tobytes() for board in obs}) > 300
    num_plies = np.bincount(obs[:, 0].sum(axis=(1, 2, 3)), minlength=9)
    assert len(num_plies) == 9
    assert num_plies.min() > 25  # of 56 expected


@pytest.mark.parametrize("opening_plies", [1, 12, 41])
def test_openings_are_sound_positions_in_play(opening_plies):
    env = _start(3000, opening_plies=opening_plies)
    obs, mask = env.groups[0].obs[""], env.groups[0].mask[""]
    taken = obs[:, 0].sum(axis=1)  # [B, 6, 7]
    num_plies = taken.sum(axis=(1, 2))
    assert num_plies.max() <= opening_plies
    assert not env.over.any()
    np.testing.assert_array_equal(env.to_act, np.stack([num_plies % 2 == 0, num_plies % 2 == 1], axis=1))
    np.testing.assert_array_equal(obs[:, 0], obs[:, 1, ::-1])
    np.testing.assert_array_equal(obs[:, 0, 0].sum(axis=(1, 2)), (num_plies + 1) // 2)
    assert (taken[:, 1:] <= taken[:, :-1]).all()  # no disc above an empty cell
    np.testing.assert_array_equal(mask, np.repeat(taken[:, None, 5] == 0, 2, axis=1))
    assert not any(_has_line(plane) for board in obs[:, 0] for plane in board)


def _has_line(plane: np.ndarray) -> bool:
    """Four in a line on one player's discs [6, 7], by looking at every line."""
    steps = ((0, 1), (1, 0), (1, 1), (1, -1))
    discs = set(zip(*(axis.tolist() for axis in np.nonzero(plane))))
    return any(
        all((row + k * up, column + k * right) in discs for k in range(4))
        for row, column in discs
        for up, right in steps
    )


def test_an_illegal_action_is_named_and_changes_nothing():
    env = _start(3)
    _play(env, "1111112")
    before = env.state()
    for column in (0, -1, 7):
        action = np.full((3, 2), 3, np.int64)
        action[1, 1] = column
        with pytest.raises(GameError, match=rf"connect_four, match 1, seat 1: action {column} is illegal"):
            env.step(({"": action},))
    for name, array in env.state().items():
        np.testing.assert_array_equal(array, before[name])


def test_wrong_arrays_are_refused():
    env = _start(3)
    for action in (np.zeros((3, 1), np.int64), np.zeros((3, 2), np.float32)):
        with pytest.raises(GameError, match="must be int64"):
            env.step(({"": action},))
    with pytest.raises(GameError, match=r"outside 0\.\.2"):
        env.restart(np.array([3]), np.zeros(1, np.uint64))
    with pytest.raises(GameError, match="restart takes"):
        env.restart(np.array([0, 1]), np.zeros(1, np.uint64))
    with pytest.raises(GameError, match="'discs' must be"):
        env.set_state(ConnectFour(2).state())
    with pytest.raises(GameError, match="must hold"):
        env.set_state({})


def test_state_goes_to_another_env_and_on():
    env, other = _start(64, opening_plies=5), ConnectFour(64)
    other.set_state(env.state())
    rng = np.random.default_rng(3)
    while not env.over.all():
        action = random_action(env, rng)
        env.step(({"": action},))
        other.step(({"": action},))
        for name, array in env.state().items():
            np.testing.assert_array_equal(array, other.state()[name])


@pytest.mark.parametrize("opening_plies", [-1, 42, 1.5, True, "3"])
def test_opening_plies_are_validated(opening_plies):
    with pytest.raises(ValueError, match=r"opening_plies=.* must be an integer from 0 to 41"):
        ConnectFour(4, opening_plies=opening_plies)


@pytest.mark.parametrize("num_games", [0, -3, 2.0])
def test_num_games_is_validated(num_games):
    with pytest.raises(ValueError, match=r"num_games=.* must be an integer of at least 1"):
        ConnectFour(num_games)


def test_render():
    env = ConnectFour(2)
    assert env.render(0).endswith("not started")
    env.restart(np.arange(2), np.zeros(2, np.uint64))
    _play(env, "4453")
    rows = [". . . . . . ."] * 4 + [". . . O . . .", ". . O X X . .", "1 2 3 4 5 6 7", "X to move"]
    assert env.render(1) == "\n".join(rows)
    assert env.action_names(1) == ["1", "2", "3", "4", "5", "6", "7"]
    _play(env, "73731")
    assert env.render(0).endswith("O to move")
    _play(env, "3")
    assert env.render(0).endswith("O has won")
