import io
import json
import subprocess
import sys

import numpy as np
import pytest

from envs.bots import random_bot
from envs.connect_four import ConnectFour
from selfplay import play
from selfplay.human import HumanPlayer, observation_text, session
from selfplay.parts import split
from selfplay.players import BotPlayer, Decision

FOUR_IN_COLUMN_1 = "1212121"


def play_session(env, players, labels, **options):
    """A session of players of the only part."""
    return session(env, split(env, ["group"]), players, labels, **options)


@pytest.fixture
def typed(monkeypatch):
    """Makes words the lines of the input."""
    return lambda *words: monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{w}\n" for w in words)))


class Column(BotPlayer):
    """Plays one column while it can, then the last, and remembers in its state how often it was asked."""

    state_shape, extras = (1, 1, 1), ()

    def __init__(self, column):
        self.column = column
        self.asked = []

    def act(self, obs, mask, is_first, state, rng):
        state = np.where(is_first[:, None], 0.0, state) + 1
        self.asked.append(int(state.item()))
        column = self.column if mask[""][0, self.column] else 6
        return Decision({"": np.array([column])}, None, None, state)


def test_two_people(typed, capsys):
    typed(*FOUR_IN_COLUMN_1)
    assert play.main(["human", "human", "--env", "connect_four", "--games", "1", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["wins"] == 1
    assert "Player 2's move" in captured.err
    assert "Winner: player 1." in captured.err


def test_turns_rotate_and_memory_lasts_a_match(typed, capsys):
    env, bot = ConnectFour(1), Column(6)
    typed(*"1111", *"222")  # wins, then is second and loses
    result = session(
        env, split(env, ["group"]), [(HumanPlayer(env),), (bot,)], ["you", "bot"], games=2, seed=0
    )
    assert (result.wins, result.losses) == (1, 1)
    assert bot.asked == [1, 2, 3, 1, 2, 3, 4]
    out = capsys.readouterr().out
    assert "match 1 --- seat 0: you, seat 1: bot" in out
    assert "match 2 --- seat 0: bot, seat 1: you" in out
    assert out.count("bot plays 7.") == 7
    assert "Winner: you." in out
    assert "Winner: bot." in out
    assert "another match" not in out


def test_wrong_entries_are_asked_again(typed, capsys):
    env = ConnectFour(1)
    typed("", "0", "8", "one", "-1", *"444", *"1111")
    play_session(env, [(HumanPlayer(env),), (Column(3),)], ["you", "bot"], games=1, seed=0)
    out = capsys.readouterr().out
    assert "Type one of the moves" in out
    assert out.count("is not a legal move") == 4
    assert "Your move (1 2 3 5 6 7; q quits)" in out  # column 4 is full


@pytest.mark.parametrize("ending", [["q"], ["Q"], ["quit"], []])
def test_leaving_is_clean_and_the_match_does_not_count(typed, capsys, ending):
    typed("1", *ending)
    assert play.main(["human", "random", "--env", "connect_four", "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert (result["games"], result["mean_score"], result["elo_diff"]) == (0, None, None)
    assert "does not count" in captured.err


@pytest.mark.parametrize(("words", "games"), [(["q"], 1), (["n"], 1), ([], 1), (["", "2", "2", "2", "q"], 2)])
def test_without_a_number_it_asks_for_another_match(typed, capsys, words, games):
    env = ConnectFour(1)
    typed("1", "1", "1", "1", *words)
    result = session(
        env, split(env, ["group"]), [(HumanPlayer(env),), (Column(6),)], ["you", "bot"], games=None, seed=0
    )
    assert result.games == games
    assert "does not count" not in capsys.readouterr().out


def test_a_draw_is_said_to_be_one(typed, capsys):
    env = ConnectFour(1)
    # Columns in an order that fills the board without four in a line.
    typed(*"121221211212343443433434565665655656777777")
    people = [(HumanPlayer(env),), (HumanPlayer(env),)]
    result = play_session(env, people, ["player 1", "player 2"], games=1, seed=0)
    assert result.draws == 1
    assert "A draw between player 1 and player 2." in capsys.readouterr().out


def test_through_a_pipe():
    words = ["-m", "selfplay.play", "human", "human", "--games", "1", "--env", "connect_four"]
    done = subprocess.run(
        [sys.executable, *words],
        input="\n".join(["9", *FOUR_IN_COLUMN_1]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "'9' is not a legal move." in done.stdout
    assert "X has won" in done.stdout
    assert "wins           1" in done.stdout
    assert done.stderr == ""


def test_needs_one_slot():
    with pytest.raises(ValueError, match="one match at a time"):
        HumanPlayer(ConnectFour(2))


def test_random_bot_meets_a_person_from_either_seat(typed, capsys):
    env = ConnectFour(1)
    typed(*"1234567" * 30)
    bot = BotPlayer(random_bot(env.groups[0].action_space))
    result = session(
        env, split(env, ["group"]), [(bot,), (HumanPlayer(env),)], ["bot", "you"], games=4, seed=1
    )
    assert result.games == 4


def test_a_game_that_draws_no_board_shows_what_the_seat_observes(typed, capsys):
    pytest.importorskip("pettingzoo.classic.tictactoe_v3")
    typed("4", "0", "q")
    assert play.main(["human", "human", "--env", "pettingzoo:pettingzoo.classic.tictactoe_v3"]) == 0
    out = capsys.readouterr().out
    first, second, third = out.split("you see: ")[1:]
    assert ". . .\n. . .\n. . ." in first
    assert ". . .\n. 1 .\n. . ." in second  # the other's
    assert "player_1: 4" in second
    assert "1 . .\n. 0 .\n. . ." in third


def test_a_task_that_draws_text_shows_only_that(typed, capsys):
    typed("q")
    assert play.main(["human", "--env", "gymnasium:FrozenLake-v1"]) == 0
    out = capsys.readouterr().out
    assert "FFFH" in out
    assert "you see" not in out


@pytest.mark.parametrize(
    ("leaf", "text"),
    [
        (np.array(3), "3"),
        (np.array([0.25, -1.0]), "[ 0.25 -1.  ]"),
        (np.eye(12)[7], "1 at 7 of 0 to 11, else 0"),
        (np.zeros(12), "1 at none of 0 to 11, else 0"),
        (np.full((9, 9, 3), 7, np.uint8), "uint8 (9, 9, 3), from 7 to 7"),
    ],
)
def test_observations_are_told_briefly(leaf, text):
    assert observation_text({"": leaf}) == f"you see: {text}"
    assert observation_text({"a/b": leaf}) == f"you see a/b: {text}"
