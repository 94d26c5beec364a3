"""Kuhn poker against OpenSpiel's, its deals, and what it shows by hand."""

from __future__ import annotations

import numpy as np
import pytest

from envs.conformance import check
from envs.kuhn_poker import BET, PASS, KuhnPoker
from envs.vector import GameError
from tests.envs.openspiel_twin import play_beside_openspiel

NUM_MATCHES = 1500


def _start(num_games: int, seed: int = 0) -> KuhnPoker:
    env = KuhnPoker(num_games)
    env.restart(np.arange(num_games), np.arange(seed, seed + num_games, dtype=np.uint64))
    return env


def _dealt(env: KuhnPoker) -> np.ndarray:
    """Cards [B, 2] as the seats see them."""
    return env.groups[0].obs[""][:, :, 2:5].argmax(axis=2)


def _play(env: KuhnPoker, *played: int) -> None:
    for action in played:
        env.step(({"": np.full((env.num_games, 2), action, np.int64)},))


def test_same_game_as_openspiel_move_by_move():
    env = KuhnPoker(NUM_MATCHES)
    play_beside_openspiel(env, "kuhn_poker", dealt=lambda g, k: _dealt(env)[g, k], num_rounds=2)


def test_conforms():
    check(KuhnPoker)


def test_deals_are_uniform():
    num_games = 60_000
    cards = _dealt(_start(num_games))
    count = np.bincount(cards[:, 0] * 3 + cards[:, 1], minlength=9)
    assert count[[0, 4, 8]].tolist() == [0, 0, 0]  # nobody holds the other's card
    expected = num_games / 6
    chi2 = ((count[[1, 2, 3, 5, 6, 7]] - expected) ** 2 / expected).sum()
    assert chi2 < 20.5  # the 0.999 quantile of chi-square with 5 degrees of freedom


@pytest.mark.parametrize(
    ("played", "won"),
    [
        ((PASS, PASS), 1),
        ((BET, BET), 2),
        ((PASS, BET, BET), 2),
    ],
)
def test_the_higher_card_wins_at_showdown(played, won):
    env = _start(100)
    cards = _dealt(env)
    _play(env, *played)
    assert env.over.all()
    first_wins = cards[:, 0] > cards[:, 1]
    assert (env.reward[:, 0] == np.where(first_wins, won, -won)).all()
    assert (env.reward[:, 1] == -env.reward[:, 0]).all()


@pytest.mark.parametrize(("played", "first_wins"), [((BET, PASS), True), ((PASS, BET, PASS), False)])
def test_folding_loses_the_ante_whatever_the_cards(played, first_wins):
    env = _start(100)
    _play(env, *played)
    assert env.over.all()
    assert (env.reward[:, 0] == (1 if first_wins else -1)).all()


def test_privileged_view_shows_both_cards():
    env = _start(50)
    _play(env, BET)
    seen = env.privileged[""]
    assert all(env.privileged_space.contains(row) for row in seen)
    cards = _dealt(env)
    assert (seen[:, 0:3].argmax(axis=1) == cards[:, 0]).all()
    assert (seen[:, 3:6].argmax(axis=1) == cards[:, 1]).all()
    assert (seen[:, 6:] == [2, 1, 0, 1]).all()


def test_render_tells_cards_bets_and_the_winner():
    assert KuhnPoker(1).render(0) == "not started"
    env = next(e for seed in range(50) if _dealt(e := _start(1, seed))[0].tolist() == [2, 0])
    _play(env, PASS, BET)
    assert env.render(0).splitlines() == [
        "seat 0 holds K and has put in 1",
        "seat 1 holds J and has put in 2",
        "played: pass, bet",
        "seat 0 to act",
    ]
    _play(env, PASS)
    assert env.render(0).splitlines()[-1] == "seat 1 has won 1"
    assert env.action_names(0) == ["pass", "bet"]


def test_refuses_an_action_that_is_none():
    env = _start(3)
    action = np.zeros((3, 2), np.int64)
    action[1, 0] = 2
    with pytest.raises(
        GameError, match=r"kuhn_poker, match 1, seat 0: action 2 is illegal; legal are \[0, 1\]"
    ):
        env.step(({"": action},))
