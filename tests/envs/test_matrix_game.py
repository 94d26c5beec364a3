"""Matrix games in rounds: OpenSpiel's payoffs, observations by hand, and bots."""

from __future__ import annotations

import itertools

import numpy as np
import pyspiel
import pytest

from envs.conformance import check
from envs.matrix_game import MatrixGame, RockPaperScissors
from envs.random_play import random_actions
from envs.vector import GameError

DILEMMA = ([[-1, -3], [0, -2]], [[-1, 0], [-3, -2]])  # cooperate, defect


def _restart(env: MatrixGame) -> None:
    env.restart(np.arange(env.num_games), np.arange(env.num_games, dtype=np.uint64))


def _step(env: MatrixGame, first: int, second: int) -> None:
    env.step(({"": np.tile(np.array([first, second]), (env.num_games, 1))},))


def test_conform():
    check(MatrixGame)
    check(lambda num_games: RockPaperScissors(num_games, rounds=3))
    check(lambda num_games: MatrixGame(num_games, row_payoff=DILEMMA[0], column_payoff=DILEMMA[1]))


@pytest.mark.parametrize("name", ["matrix_rps", "matrix_pd", "matrix_mp", "matrix_sh", "matrix_bos"])
def test_payoffs_of_openspiels_games(name):
    """Every pair of actions, in a game with the payoffs of OpenSpiel's."""
    game = pyspiel.load_matrix_game(name)
    num_actions = game.num_rows()
    env = MatrixGame(
        num_actions**2, row_payoff=game.row_utilities(), column_payoff=game.col_utilities(), rounds=1
    )
    _restart(env)
    pairs = np.array(list(itertools.product(range(num_actions), repeat=2)))
    env.step(({"": pairs},))
    for pair, reward in zip(pairs.tolist(), env.reward.tolist()):
        state = game.new_initial_state()
        state.apply_actions(pair)
        assert reward == state.returns()
    assert env.over.all()
    assert env.terminated.all()
    assert env.zero_sum == (game.get_type().utility == pyspiel.GameType.Utility.ZERO_SUM)


def test_rock_paper_scissors_is_openspiels_repeated_game():
    rounds, num_matches = 7, 200
    env = RockPaperScissors(num_matches, rounds=rounds)
    _restart(env)
    game = pyspiel.load_game(f"repeated_game(stage_game=matrix_rps(),num_repetitions={rounds})")
    states = [game.new_initial_state() for _ in range(num_matches)]
    rng = np.random.default_rng(0)
    obs = env.groups[0].obs[""]
    for played in range(rounds):
        assert env.to_act.all()
        for g, state in enumerate(states):
            both = np.array(state.observation_tensor(0)).reshape(2, 3)  # of seat 0, of seat 1
            for seat in range(2):
                assert obs[g, seat, :6].tolist() == [*both[1 - seat], *both[seat]]
        np.testing.assert_allclose(obs[:, :, 6], played / rounds)
        (action,) = random_actions(env, rng)
        env.step((action,))
        for g, state in enumerate(states):
            state.apply_actions(action[""][g].tolist())
            assert env.reward[g].tolist() == state.rewards()
            assert env.over[g] == state.is_terminal()
    assert env.over.all()


def test_observation_is_the_others_action_then_the_own_then_the_share_of_rounds():
    env = RockPaperScissors(1, rounds=4)
    _restart(env)
    obs = env.groups[0].obs[""]
    assert not obs.any()
    _step(env, 2, 1)
    assert obs[0].tolist() == [[0, 1, 0, 0, 0, 1, 0.25], [0, 0, 1, 0, 1, 0, 0.25]]
    assert env.reward.tolist() == [[1, -1]]
    _step(env, 2, 0)
    assert obs[0].tolist() == [[1, 0, 0, 0, 0, 1, 0.5], [0, 0, 1, 1, 0, 0, 0.5]]
    assert env.reward.tolist() == [[-1, 1]]
    assert env.render(0) == "round 2 of 4: scissors - rock, score 0 : 0"


def _bot_actions(env: MatrixGame, name: str, seat: int) -> set[int]:
    rows = {"": env.groups[0].obs[""][:, seat]}
    return set(env.bots[name](rows, {}, np.random.default_rng(0))[""].tolist())


def test_bots():
    env = RockPaperScissors(100)
    _restart(env)
    assert [*env.bots] == ["rock", "paper", "scissors", "copycat", "beat_last"]
    assert _bot_actions(env, "rock", 0) == {0}
    assert _bot_actions(env, "copycat", 0) == {0, 1, 2}  # nothing to copy yet
    assert _bot_actions(env, "beat_last", 0) == {0, 1, 2}
    _step(env, 1, 2)
    assert [_bot_actions(env, "copycat", seat) for seat in range(2)] == [{2}, {1}]
    assert [_bot_actions(env, "beat_last", seat) for seat in range(2)] == [{0}, {2}]
    assert _bot_actions(env, "scissors", 1) == {2}


def test_beat_last_needs_a_symmetric_game():
    assert "beat_last" not in MatrixGame(1).bots
    dilemma = MatrixGame(
        1, row_payoff=DILEMMA[0], column_payoff=DILEMMA[1], names=["cooperate", "defect"], rounds=2
    )
    assert [*dilemma.bots] == ["cooperate", "defect", "copycat", "beat_last"]
    _restart(dilemma)
    _step(dilemma, 1, 0)
    assert _bot_actions(dilemma, "beat_last", 0) == {1}  # to defect is best against either
    assert dilemma.reward.tolist() == [[0, -3]]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"rounds": 0}, r"matrix_game: rounds=0 must be an integer of at least 1"),
        ({"row_payoff": [[1, 2]]}, "row_payoff=.* must be a square"),
        ({"row_payoff": [[1, 2], [3]]}, "row_payoff=.* must be a square"),
        ({"row_payoff": [[1, float("inf")], [0, 0]]}, "must be finite"),
        ({"column_payoff": [[0] * 3] * 3}, r"row_payoff is \(2, 2\) and column_payoff \(3, 3\)"),
        ({"names": ["a"]}, "names=.* must be 2 different words"),
        ({"names": ["a", "a"]}, "names=.* must be 2 different words"),
        ({"names": "ab"}, "names='ab' must be 2 different words"),
    ],
)
def test_mistakes_in_kwargs(kwargs, message):
    with pytest.raises(ValueError, match=message):
        MatrixGame(1, **kwargs)


def test_an_illegal_action_names_match_and_seat():
    env = MatrixGame(2)
    _restart(env)
    with pytest.raises(
        GameError, match=r"matrix_game, match 1, seat 1: action 2 is illegal; legal are \[0, 1\]"
    ):
        env.step(({"": np.array([[0, 0], [1, 2]])},))
    assert not env.reward.any()
