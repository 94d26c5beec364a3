"""benchmarks.slow_games: the bare games are played by their own rules, and the table's arithmetic."""

import itertools

import pytest

from benchmarks import slow_games
from benchmarks.slow_games import BARE, Rate, row


@pytest.mark.parametrize(
    ("game", "decisions"),
    [
        ("gymnasium:CartPole-v1", 1),
        ("openspiel:leduc_poker", 1),
        ("openspiel:goofspiel(num_cards=3)", 2),
        ("pettingzoo:pettingzoo.classic.tictactoe_v3", 1),
        ("pettingzoo:mpe2.simple_tag_v3", 4),
    ],
)
def test_a_bare_game_is_played_through_many_matches(game, decisions):
    source, _, rest = game.partition(":")
    assert set(itertools.islice(BARE[source](rest), 200)) == {decisions}


def test_rates_are_of_decisions_and_of_steps():
    rate = slow_games._count(itertools.cycle([3, 1]), 0.01)
    assert rate.decisions == pytest.approx(2 * rate.steps)


def test_a_row_tells_what_training_costs_beside_the_game(monkeypatch):
    monkeypatch.setattr(slow_games, "num_cores", lambda: 2)
    rates = {
        # 2 cores: 200 us a step of 4 decisions; then the machine is half as fast for all
        "bare": [Rate(40_000.0, 10_000.0)] * 3 + [Rate(20_000.0, 5_000.0)],
        "adapter": [Rate(32_000.0), Rate(36_000.0), Rate(27_000.0)],  # beside 40, 40 and 30 thousand
        "training": [
            Rate(20_000.0, ratings=0.0, seconds=2.0),
            Rate(25_000.0, ratings=0.6, seconds=3.0),
            Rate(30_000.0, ratings=0.0, seconds=1.0),  # as fast as the game: some luck
        ],
    }
    # Ratios 0.5, 0.625 and 1.0, of which ratings leave nine tenths: 0.5625, 89 us for 50 of the bare game's.
    shown = [
        "x", "200", "4.0", "40,000", "0.90", "0.56", "0.45 to 0.90", "10.0%", "44%", "38.9",
    ]  # fmt: skip
    assert row("x", rates) == shown


def test_contestants_take_turns_and_one_that_fails_is_named():
    contestant = slow_games.Contestant("bare", "openspiel:tic_tac_toe", [])
    first, second = contestant.turn(0.05), contestant.turn(0.05)
    contestant.close()
    assert first.decisions > 0
    assert second.steps == pytest.approx(second.decisions)
    with pytest.raises(SystemExit, match="no_such_game"):
        slow_games.Contestant("adapter", "openspiel:no_such_game", [])
