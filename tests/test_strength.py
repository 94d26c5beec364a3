"""benchmarks.connect_four_strength: the solver's verdicts, and the opponent that searches."""

import numpy as np
import pytest

from benchmarks import connect_four_strength as strength
from benchmarks.connect_four_strength import COLUMNS, FULL, Decisions, MctsPlayer, Solver
from envs.bots import random_bot
from envs.connect_four import ConnectFour, one_ply
from selfplay.players import BotPlayer
from tests.playing import evaluate_alone

pyspiel = pytest.importorskip("pyspiel")


def after(*columns: int) -> ConnectFour:
    """A match after these moves."""
    env = ConnectFour(1)
    env.restart(np.zeros(1, np.int64), np.zeros(1, np.uint64))
    for column in columns:
        env.step(({"": np.full((1, 2), column)},))
    return env


def view(env: ConnectFour) -> np.ndarray:
    """What the seat to act sees, [1, 2, 6, 7]."""
    return env.groups[0].obs[""][env.to_act]


def solved(*columns: int) -> list[int]:
    return Solver().scores(view(after(*columns)))[0].tolist()


@pytest.fixture
def solver():
    pytest.importorskip("bitbully")


@pytest.mark.usefixtures("solver")
class TestSolver:
    def test_the_empty_board_is_won_only_in_the_middle(self):
        assert solved() == [-2, -1, 0, 1, 0, -1, -2]

    def test_the_first_seat_wins_at_once(self):
        """Three of its own lie in columns 0 to 2 at the bottom: the disc number 7 wins, 43 - 2 * 18."""
        scores = solved(0, 0, 1, 1, 2, 2)
        assert scores.index(18) == 3
        assert max(np.delete(scores, 3)) < 18

    def test_the_second_seat_must_block(self):
        """The first seat threatens column 3, and would win with its disc number 7: -18 for the second."""
        scores = solved(0, 0, 1, 1, 2)
        assert scores[3] > -18
        assert np.delete(scores, 3).tolist() == [-18] * 6

    def test_a_full_column_has_no_score(self):
        scores = solved(6, 6, 6, 6, 6, 6)
        assert [column for column, score in enumerate(scores) if score == FULL] == [6]

    def test_repeated_positions_keep_their_rows(self):
        boards = np.concatenate([view(after(*moves)) for moves in ((3,), (), (3,))])
        scores = Solver().scores(boards)
        assert (scores[0] == scores[2]).all()
        assert scores[1].tolist() == [-2, -1, 0, 1, 0, -1, -2]

    def test_late_outcomes_are_those_of_a_full_search(self):
        """Plain minimax on OpenSpiel's states, whose rules are not ours, from 33 discs on."""
        game = pyspiel.load_game("connect_four")
        bot = BotPlayer(one_ply)
        obs, _ = strength.draw_decisions(ConnectFour(1000), bot, bot, seed=np.random.SeedSequence(1))
        late = obs[obs.sum(axis=(1, 2, 3)) >= 33][:12]
        assert len(late) == 12
        expected = np.array([outcomes(game.new_initial_state(strength._as_struct(board))) for board in late])
        scores = Solver().scores(late)
        assert np.where(scores == FULL, FULL, np.sign(scores)).tolist() == expected.tolist()
        assert set(expected.ravel()) == {FULL, -1, 0, 1}


def outcomes(state) -> list[int]:
    """What each column leads to for the side to act: 1 won, 0 drawn, -1 lost, or FULL."""
    legal = state.legal_actions()
    return [outcome(state.child(column), state.current_player()) if column in legal else FULL
            for column in range(COLUMNS)]  # fmt: skip


def outcome(state, player: int) -> int:
    """The value of OpenSpiel's state for the player, by minimax."""
    if state.is_terminal():
        return int(state.returns()[player])
    best = max(outcome(state.child(column), state.current_player()) for column in state.legal_actions())
    return best if state.current_player() == player else -best


def test_shares_of_moves_worked_by_hand():
    """Two positions: of two wins the later one is taken; the only win is missed for a draw."""
    obs = np.zeros((2, 2, 6, 7), np.int8)
    obs[1, 0, 0, :5] = obs[1, 1, 1, :5] = 1  # ten discs
    scores = np.array([[9, 3, 0, -1, -1, -1, FULL], [9, 0, 0, 0, 0, 0, 0]])
    decisions = Decisions(obs, np.array([1, 1]), np.array([False, True]))
    rows = {
        (row.mover, row.where): row
        for row in strength.qualities(decisions, scores, "player", np.random.SeedSequence(0))
    }
    assert (rows["player", "all"].keeps_outcome, rows["player", "all"].best) == (0.5, 0.0)
    assert (rows["player", "ply 0-9"].keeps_outcome, rows["player", "ply 0-9"].positions) == (1.0, 1)
    assert rows["player", "ply 10-19"].keeps_outcome == 0.0
    assert rows["player", "ply 20-41"].best is None
    assert rows["random", "all"].keeps_outcome == pytest.approx((2 / 6 + 1 / 7) / 2)
    assert rows["random", "outcome at stake"].positions == 2
    assert rows["random", "against itself"].best == pytest.approx(1 / 7)


@pytest.mark.parametrize("itself", [False, True])
def test_one_decision_of_the_player_is_drawn_from_each_match(itself):
    """A player that drops into the last free column is told from its rival by its moves."""

    def rightmost(obs, mask, rng):
        return {"": COLUMNS - 1 - mask[""][:, ::-1].argmax(axis=1)}

    player = BotPlayer(rightmost)
    rival = player if itself else BotPlayer(one_ply)
    obs, action = strength.draw_decisions(ConnectFour(64), player, rival, seed=np.random.SeedSequence(3))
    found = Decisions(obs, action, np.full(64, itself))
    assert len(action) == 64
    assert (action == rightmost({}, {"": found.mask}, None)[""]).all()
    own, other = obs.sum(axis=(2, 3)).T
    assert set(own - other) == {0, -1}  # of either seat
    assert len(set(found.ply)) > 3


class TestMcts:
    def test_it_beats_random_players_from_both_seats(self):
        env = ConnectFour(20)
        result = evaluate_alone(
            env, [MctsPlayer(50), BotPlayer(random_bot(env.groups[0].action_space))], games=20, seed=1
        )
        assert result.wins >= 18

    def test_it_takes_a_win_and_stops_one(self):
        for moves in ((0, 0, 1, 1, 2, 2), (0, 0, 1, 1, 2)):
            env = after(*moves)
            obs, mask = {"": view(env)}, {"": env.groups[0].mask[""][env.to_act]}
            no_state = np.zeros((0, 1, 1, 1), np.float32)
            decision = MctsPlayer(200).act(obs, mask, np.ones(1, bool), no_state, np.random.default_rng(0))
            assert decision.action[""].tolist() == [3], moves

    def test_the_seed_decides(self):
        results = [
            evaluate_alone(ConnectFour(8), [MctsPlayer(20), BotPlayer(one_ply)], games=8, seed=seed)
            for seed in (5, 5)
        ]
        assert results[0] == results[1]


def test_the_command_reports_both_scales(capsys):
    pytest.importorskip("bitbully")
    words = ["bot:one_ply", "--games", "4", "--mcts", "10", "--positions", "40"]
    assert strength.main(words) == 0
    out = capsys.readouterr().out
    assert "MCTS of 10 simulations" in out
    assert "ply 10-19" in out


def test_numbers_that_do_not_divide_are_refused(capsys):
    assert strength.main(["random", "--games", "5"]) == 2
    assert "multiple of 2, such as 6" in capsys.readouterr().err
