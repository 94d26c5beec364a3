"""Random matches of a native game beside OpenSpiel's, move by move."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyspiel

from envs.bots import random_bot
from envs.vector import VectorEnv

Dealt = Callable[[int, int], int]
"""(match, k) -> the k-th card that the native game dealt there."""
View = Callable[[pyspiel.State, int], np.ndarray]
"""(state, seat) -> the obs that the native game must show."""


def openspiels_view(state: pyspiel.State, seat: int) -> np.ndarray:
    return np.reshape(state.observation_tensor(seat), state.get_game().observation_tensor_shape())


def play_beside_openspiel(
    env: VectorEnv,
    name: str,
    *,
    dealt: Dealt | None = None,
    view: View = openspiels_view,
    num_rounds: int = 1,
) -> list[pyspiel.State]:
    """Every view, legal action and reward must be OpenSpiel's; returns its states at the end of all matches.

    OpenSpiel's chance nodes are sent to what was dealt.
    """
    game = pyspiel.load_game(name)
    rng = np.random.default_rng(0)
    played: list[pyspiel.State] = []
    for _ in range(num_rounds):
        env.restart(np.arange(env.num_games), rng.integers(2**64, size=env.num_games, dtype=np.uint64))
        states = [game.new_initial_state() for _ in range(env.num_games)]
        drawn = [0] * env.num_games
        while not env.over.all():
            live = np.flatnonzero(~env.over)
            for g in live:
                if dealt:
                    _follow_chance(states[g], g, drawn, dealt)
                _compare(env, g, states[g], view)
            action = random_action(env, rng)
            env.step(({"": action},))
            for g in live:
                states[g].apply_action(int(action[g, states[g].current_player()]))
                assert env.over[g] == states[g].is_terminal()
                assert env.reward[g].tolist() == (states[g].returns() if env.over[g] else [0, 0])
                assert env.terminated[g].tolist() == [states[g].is_terminal()] * 2
        played += states
    assert not env.truncated.any()
    return played


def _follow_chance(state: pyspiel.State, g: int, drawn: list[int], dealt: Dealt) -> None:
    while state.is_chance_node():
        state.apply_action(int(dealt(g, drawn[g])))
        drawn[g] += 1


def _compare(env: VectorEnv, g: int, state: pyspiel.State, view: View) -> None:
    seat = state.current_player()
    (group,) = env.groups
    assert env.to_act[g].tolist() == [seat == 0, seat == 1]
    for each in range(2):
        assert group.obs[""][g, each].tolist() == view(state, each).tolist()
    legal = group.mask[""][g, seat] if group.mask else np.ones(group.action_space.n, np.bool_)
    assert np.flatnonzero(legal).tolist() == state.legal_actions()


def random_action(env: VectorEnv, rng: np.random.Generator) -> np.ndarray:
    """[B, 2], legal for the seat to act and illegal for the other."""
    (group,) = env.groups
    obs, mask = (
        {path: leaf.reshape(-1, *leaf.shape[2:]) for path, leaf in tree.items()}
        for tree in (group.obs, group.mask)
    )
    action = random_bot(group.action_space)(obs, mask, rng)[""].reshape(-1, 2)
    return np.where(env.to_act, action, -1)
