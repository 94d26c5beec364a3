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
        "bare": [Rate(40_000.0, 10_000.0)] * 3,  # 2 cores: 200 us a step of 4 decisions
        "adapter": [Rate(30_000.0, 0.0), Rate(32_000.0, 0.0), Rate(90_000.0, 0.0)],
        "training": [Rate(1.0, 0.0), Rate(25_000.0, 0.0), Rate(26_000.0, 0.0)],
    }
    # 80 us of a core for a trained decision, 50 of them the bare game's.
    shown = ["x", "200", "4.0", "40,000", "32,000", "25,000", "0.80", "0.62", "38%", "30.0"]
    assert row("x", rates) == shown
