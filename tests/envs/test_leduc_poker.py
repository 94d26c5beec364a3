"""Leduc poker against OpenSpiel's, its deals, and what it shows by hand."""

from __future__ import annotations

import numpy as np
import pytest

from envs.conformance import check
from envs.leduc_poker import CALL, FOLD, RAISE, LeducPoker
from envs.vector import GameError
from tests.envs.openspiel_twin import play_beside_openspiel

NUM_MATCHES = 1500


def _start(num_games: int, seed: int = 0) -> LeducPoker:
    env = LeducPoker(num_games)
    env.restart(np.arange(num_games), np.arange(seed, seed + num_games, dtype=np.uint64))
    return env


def _dealt(env: LeducPoker) -> np.ndarray:
    """Cards [B, 3]: of each seat, and the one that is or will be open."""
    return env.state()["card"]


def _with_cards(*cards: int) -> LeducPoker:
    """A match with this deal."""
    return next(env for seed in range(2000) if _dealt(env := _start(1, seed))[0].tolist() == list(cards))


def _play(env: LeducPoker, *played: int) -> None:
    for action in played:
        env.step(({"": np.full((env.num_games, 2), action, np.int64)},))


def test_same_game_as_openspiel_move_by_move():
    env = LeducPoker(NUM_MATCHES)
    cards = env._matches.card
    play_beside_openspiel(env, "leduc_poker", dealt=lambda g, k: cards[g, k], num_rounds=2)


def test_conforms():
    check(LeducPoker)


def test_deals_are_uniform():
    num_games = 240_000
    cards = _dealt(_start(num_games)).astype(np.int64)
    count = np.bincount(cards @ [36, 6, 1], minlength=216)
    dealt = np.array([len({k // 36, k // 6 % 6, k % 6}) == 3 for k in range(216)])
    assert (count[~dealt] == 0).all()  # no card twice
    expected = num_games / 120
    chi2 = ((count[dealt] - expected) ** 2 / expected).sum()
    assert chi2 < 173.6  # the 0.999 quantile of chi-square with 119 degrees of freedom


@pytest.mark.parametrize(
    ("cards", "gain"),
    [
        ((0, 4, 1), 1),  # a pair of jacks beats the king
        ((4, 2, 0), 1),  # the king beats the queen
        ((2, 5, 3), 1),  # a pair of queens beats the king
        ((4, 0, 1), -1),  # the king loses to a pair of jacks
        ((0, 1, 4), 0),  # two jacks, and no pair with the open king
    ],
)
@pytest.mark.parametrize(
    ("played", "stake"),
    [
        ((CALL, CALL, CALL, CALL), 1),
        ((RAISE, CALL, CALL, CALL), 3),
        ((RAISE, RAISE, CALL, RAISE, RAISE, CALL), 13),
        ((CALL, RAISE, CALL, CALL, RAISE, CALL), 7),
    ],
)
def test_showdown(cards, gain, played, stake):
    env = _with_cards(*cards)
    _play(env, *played)
    assert env.over.all()
    assert env.reward[0].tolist() == [gain * stake, -gain * stake]


def test_folding_loses_what_was_put_in():
    env = _start(50)
    _play(env, RAISE, RAISE, FOLD)
    assert (env.reward == [-3, 3]).all()
    env = _start(50)
    _play(env, RAISE, CALL, RAISE, FOLD)
    assert (env.reward == [3, -3]).all()


def test_the_open_card_is_hidden_until_the_second_round():
    env = _start(50)
    cards = _dealt(env)
    obs = env.groups[0].obs[""]
    _play(env, CALL)
    assert (obs[:, :, 8:14] == 0).all()
    _play(env, CALL)
    assert (obs[:, :, 8:14].sum(axis=2) == 1).all()
    assert (obs[:, :, 8:14].argmax(axis=2) == cards[:, 2:]).all()


def test_privileged_view_shows_everything():
    env = _start(50)
    cards = _dealt(env)
    _play(env, CALL, CALL, RAISE)
    seen = env.privileged[""]
    assert all(env.privileged_space.contains(row) for row in seen)
    for k in range(3):
        assert (seen[:, 6 * k : 6 * k + 6].argmax(axis=1) == cards[:, k]).all()
    assert (seen[:, 18:] == [5, 1, 1, 0, 1]).all()


def test_render_tells_cards_bets_and_the_winner():
    env = _with_cards(4, 2, 3)
    assert LeducPoker(1).render(0) == "not started"
    _play(env, RAISE, CALL, CALL)
    assert env.render(0).splitlines() == [
        "seat 0 holds Ks and has put in 3",
        "seat 1 holds Qs and has put in 3",
        "round 1: raise, call",
        "open card: Qh",
        "round 2: call",
        "seat 1 to act",
    ]
    _play(env, RAISE, FOLD)
    assert env.render(0).splitlines()[-1] == "seat 1 has won 3"
    assert env.action_names(0) == ["fold", "call", "raise"]


def test_refuses_to_fold_where_nothing_is_to_be_called():
    env = _start(3)
    action = np.ones((3, 2), np.int64)
    action[2, 0] = FOLD
    message = r"leduc_poker, match 2, seat 0: action 0 is illegal; legal are \[1, 2\]"
    with pytest.raises(GameError, match=message):
        env.step(({"": action},))
