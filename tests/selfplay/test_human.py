import contextlib
import io
import json
import os
import re
import sys

import numpy as np
import pytest
from gymnasium import spaces

from envs.bots import random_bot
from envs.connect_four import ConnectFour
from envs.kuhn_poker import KuhnPoker
from envs.registry import make
from envs.seat_views import render_seat
from selfplay import human, play
from selfplay.evaluate import summary
from selfplay.human import HumanPlayer, session
from selfplay.matches import MatchResults
from selfplay.observation_text import observation_text
from selfplay.parts import split
from selfplay.players import BotPlayer, Decision
from selfplay.typed_actions import can_be_typed, offer, read

FOUR_IN_COLUMN_1 = "1212121"


HUMAN = "human"


def play_session(env, players, labels, **options):
    """A session of players of the only part; HUMAN is a person."""
    parts = split(env, ["group"])
    asked = {k: [HumanPlayer(env, parts[0])] for k, player in enumerate(players) if player is HUMAN}
    seated = [asked.get(k, (player,)) for k, player in enumerate(players)]
    return session(env, parts, seated, labels, people=asked, units=env.teams, **options)


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
    result = play_session(env, [HUMAN, bot], ["you", "bot"], games=2, seed=0)
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
    play_session(env, [HUMAN, Column(3)], ["you", "bot"], games=1, seed=0)
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
    result = play_session(env, [HUMAN, Column(6)], ["you", "bot"], games=None, seed=0)
    assert result.games == games
    assert "does not count" not in capsys.readouterr().out


def test_a_draw_is_said_to_be_one(typed, capsys):
    env = ConnectFour(1)
    # Columns in an order that fills the board without four in a line.
    typed(*"121221211212343443433434565665655656777777")
    result = play_session(env, [HUMAN, HUMAN], ["player 1", "player 2"], games=1, seed=0)
    assert result.draws == 1
    assert "A draw between player 1 and player 2." in capsys.readouterr().out


def test_through_a_pipe(monkeypatch, capfd):
    ours, theirs = os.pipe()
    os.write(theirs, "\n".join(["9", *FOUR_IN_COLUMN_1]).encode())
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        monkeypatch.setattr(sys, "stdin", pipe)
        assert play.main(["human", "human", "--games", "1", "--env", "connect_four"]) == 0
    out, err = capfd.readouterr()
    assert "'9' is not a legal move." in out
    assert "X has won" in out
    assert "wins           1" in out
    assert err == ""


def test_needs_one_slot():
    with pytest.raises(ValueError, match="one match at a time"):
        HumanPlayer(ConnectFour(2), split(ConnectFour(2), ["group"])[0])


def test_random_bot_meets_a_person_from_either_seat(typed, capsys):
    env = ConnectFour(1)
    typed(*"1234567" * 30)
    bot = BotPlayer(random_bot(env.groups[0].action_space))
    result = play_session(env, [bot, HUMAN], ["bot", "you"], games=4, seed=1)
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


# Hidden information


def asked(words, *argv):
    """What a person saw each time before being asked; the last part is all after the last answer."""
    out, old = io.StringIO(), sys.stdin
    sys.stdin = io.StringIO("".join(f"{word}\n" for word in words))
    try:
        with contextlib.redirect_stdout(out):
            assert play.main([*map(str, argv)]) == 0
    finally:
        sys.stdin = old
    return out.getvalue().split(" quits): ")


def test_kuhn_poker_shows_the_own_card_alone():
    first, second, _ = asked(["pass", "q"], "human", "human", "--env", "kuhn_poker", "--seed", 1)
    assert "seat 1 holds ?" in first
    assert "seat 0 holds ?" in second
    assert "played: pass" in second
    own = [part.split(f"seat {seat} holds ")[1][0] for seat, part in enumerate((first, second))]
    assert set(own) < set("JQK")


def test_leduc_poker_shows_the_open_card_and_the_own():
    words = ["call", "call", "call", "q"]
    *_, last = asked(words, "human", "human", "--env", "leduc_poker", "--seed", 1)[:-1]
    assert "open card: " in last
    assert "seat 0 holds ?" in last
    assert "seat 1 holds ?" not in last


def test_phantom_tic_tac_toe_tells_nobody_where_the_other_is():
    argv = ["human", "human", "--env", "phantom_tic_tac_toe"]
    first, second, third, fourth, _ = asked(["5", "5", "1", "q"], *argv)
    assert "4 5 6" in first
    assert "4 5 6" in second  # X is there
    assert "4 X 6" in third  # O has tried it
    assert "O to move; not yet tried: 1 2 3 4 6 7 8 9" in third
    assert "1 2 3\n4 X 6" in fourth  # not O's mark
    against = asked(["5", "q"], "human", "random", "--env", "phantom_tic_tac_toe", "--games", 1)
    assert "plays" not in "".join(against)


def test_the_listener_does_not_see_the_target():
    first, second, _ = asked(["3 0 1", "q"], "human", "--env", "signalling", "--seed", 2)
    assert "target" in first
    assert "target" not in second
    assert "you hear 3 0 1" in second


def test_openspiel_shows_each_player_what_it_knows():
    pytest.importorskip("pyspiel")
    first, second, _ = asked(["Pass", "q"], "human", "human", "--env", "openspiel:kuhn_poker", "--seed", 1)
    boards = [part.split("\n")[-3] for part in (first, second)]
    cards = [board[0] for board in boards]
    assert cards[0] != cards[1]
    assert boards == [cards[0], f"{cards[1]}p"]
    bids = asked(["[P0]Bid: 3", "[P1]Bid: 4", "q"], "human", "human", "--env", "openspiel:goofspiel")
    assert "[P0]Bid: 13" in bids[0]
    assert "[P1]Bid: 13" in bids[1]
    assert "P0 hand: 1 2 4 5" in bids[2]


def test_a_game_that_does_not_say_what_a_seat_may_know_shows_its_observation(typed, capsys):
    """Kuhn poker as a user might write it: everything in `render`."""

    class Leaky(KuhnPoker):
        def render(self, game):
            return super().render(game)

    env = Leaky(1)
    typed("bet", "q")
    play_session(env, [HUMAN, HUMAN], ["player 1", "player 2"], games=1, seed=1)
    out = capsys.readouterr().out
    assert "holds" not in out
    assert out.count("you see: ") == 2


@pytest.mark.parametrize(
    ("returns", "told"),
    [
        ([2, 0, 0, 0], "Winner: you with bot."),
        ([0, 0, 3, 1], "Winner: bot."),
        ([1, 1, 2, 0], "A draw between bot and you with bot."),
    ],
)
def test_mates_win_together(returns, told):
    lineup, one = np.array([[0, 1, 1, 1]], np.int32), np.ones(1, np.int32)
    result = MatchResults(("0", "1"), lineup, np.array([returns], np.float32), one, one.astype(np.uint64))
    assert human._outcome(result, (0, 0, 1, 1), ["you", "bot"]) == told
    assert summary(result, (0, 0, 1, 1), seed=0).elo_diff is None


def test_planted_leak_is_seen(monkeypatch):
    """A board that forgets for whom it is drawn."""
    render = KuhnPoker.render
    monkeypatch.setattr(KuhnPoker, "render", lambda self, game, seat=None: render(self, game))
    with pytest.raises(AssertionError):
        test_kuhn_poker_shows_the_own_card_alone()


@pytest.mark.parametrize("name", ["kuhn_poker", "leduc_poker", "phantom_tic_tac_toe", "signalling"])
def test_a_seats_board_follows_from_what_the_seat_saw(name):
    """Of random matches: equal observations so far and equal moves of its own, then equal boards.

    Boards are compared when the seat is to act, within a match's whole history of views.
    """
    games = 600
    env = make(name, games)
    env.restart(np.arange(games), np.arange(games, dtype=np.uint64))
    bots = [random_bot(group.action_space) for group in env.groups]
    rng = np.random.default_rng(0)
    history = [[() for _ in env.teams] for _ in range(games)]
    boards, repeats = {}, 0
    while not env.over.all():
        actions = []
        for group, bot in zip(env.groups, bots, strict=True):
            size = len(group.seats)
            rows = [
                {p: x.reshape(games * size, *x.shape[2:]) for p, x in t.items()}
                for t in (group.obs, group.mask)
            ]
            drawn = bot(*rows, rng)
            actions.append({path: x.reshape(games, size, *x.shape[1:]) for path, x in drawn.items()})
        for game, seat in np.argwhere(env.to_act).tolist():
            k = next(k for k, group in enumerate(env.groups) if seat in group.seats)
            group, place = env.groups[k], env.groups[k].seats.index(seat)
            view = b"".join(x[game, place].tobytes() for t in (group.obs, group.mask) for x in t.values())
            history[game][seat] += (view,)
            board = render_seat(env, game, seat)
            known = boards.setdefault((seat, history[game][seat]), board)
            repeats += known is not board
            assert known == board
            history[game][seat] += tuple(x[game, place].tobytes() for x in actions[k].values())
        env.step(tuple(actions))
    assert repeats > 100


# Actions that are numbers


def test_numbers_are_typed_for_actions_of_several_parts():
    shown = asked(["0.5", "2 0", "nan 0", "one 0", "0.5, -1", "q"], "human", "random", "--env", "pong")
    assert "2 numbers: each -1 to 1" in shown[0]
    assert "Type 2 numbers, not 1." in shown[1]
    assert "2 is not -1 to 1." in shown[2]
    assert "nan is not -1 to 1." in shown[3]
    assert "'one' is not a number." in shown[4]
    assert "random plays [" in shown[5]


@pytest.mark.parametrize(
    ("space", "legal", "word", "action"),
    [
        (spaces.Discrete(3, start=2), [True, False, True], "4", 4),
        (spaces.Discrete(3, start=2), [True, False, True], "3", "'3' is not a legal move."),
        (spaces.MultiDiscrete([2, 3]), None, "1 2", [1, 2]),
        (spaces.MultiDiscrete([2, 3]), None, "1 3", "Number 2 is 3; it must be 0 or 1 or 2."),
        (spaces.MultiDiscrete([2, 3]), [1, 0, 0, 1, 1], "1 1", "Number 1 is 1; it must be 0."),
        (spaces.MultiDiscrete([2, 3], start=[5, 0]), [1, 0, 0, 1, 1], "5,1", [5, 1]),
        (spaces.MultiBinary(2), [1, 0, 1, 1], "0 1", [0, 1]),
        (spaces.MultiBinary(2), [1, 0, 1, 1], "1 1", "Number 1 is 1; it must be 0."),
        (spaces.Box(-1, 1, (2, 1)), None, "-1 .25", [[-1], [0.25]]),
        (spaces.Box(0, 5, (1,), np.int64), None, "2.5", "'2.5' is not a whole number."),
        (spaces.Box(0, np.inf, (1,)), None, "inf", "inf is not at least 0."),
    ],
)
def test_what_is_typed_is_read(space, legal, word, action):
    assert can_be_typed(space)
    mask = None if legal is None else np.array(legal, bool)
    assert offer(space, mask, None)
    if isinstance(action, str):
        with pytest.raises(ValueError, match=f"^{re.escape(action)}$"):
            read(space, word, mask, None)
        return
    got = read(space, word, mask, None)
    assert got.dtype == space.dtype
    assert got.tolist() == action
    assert space.contains(got if got.shape else got[()])


def test_what_nobody_types_is_refused():
    assert not can_be_typed(spaces.Box(-1, 1, (17,)))
    assert not can_be_typed(spaces.Dict(a=spaces.Discrete(2)))
