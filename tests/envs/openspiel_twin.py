"""Random matches of a native game beside OpenSpiel's, move by move."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyspiel

from envs.bots import random_bot
from envs.vector import VectorEnv


def play_beside_openspiel(
    env: VectorEnv, name: str, dealt: Callable[[int, int], int], seed: int, num_rounds: int
) -> int:
    """Every view, legal action and reward must be OpenSpiel's; returns the number of matches played.

    dealt(game, k) is the k-th card that the native game dealt; OpenSpiel's chance nodes are sent there.
    """
    game = pyspiel.load_game(name)
    rng = np.random.default_rng(seed)
    for _ in range(num_rounds):
        env.restart(np.arange(env.num_games), rng.integers(2**64, size=env.num_games, dtype=np.uint64))
        states = [game.new_initial_state() for _ in range(env.num_games)]
        drawn = [0] * env.num_games
        while not env.over.all():
            live = np.flatnonzero(~env.over)
            for g in live:
                _follow_chance(states[g], g, drawn, dealt)
                _compare(env, g, states[g])
            action = _random_action(env, rng)
            env.step(({"": action},))
            for g in live:
                states[g].apply_action(int(action[g, states[g].current_player()]))
                assert env.over[g] == states[g].is_terminal()
                assert env.reward[g].tolist() == (states[g].returns() if env.over[g] else [0, 0])
                assert env.terminated[g].tolist() == [states[g].is_terminal()] * 2
    assert not env.truncated.any()
    return num_rounds * env.num_games


def _follow_chance(state: pyspiel.State, g: int, drawn: list[int], dealt: Callable[[int, int], int]) -> None:
    while state.is_chance_node():
        state.apply_action(int(dealt(g, drawn[g])))
        drawn[g] += 1


def _compare(env: VectorEnv, g: int, state: pyspiel.State) -> None:
    seat = state.current_player()
    (group,) = env.groups
    assert env.to_act[g].tolist() == [seat == 0, seat == 1]
    for each in range(2):
        assert group.obs[""][g, each].tolist() == state.observation_tensor(each)
    legal = group.mask[""][g, seat] if group.mask else np.ones(group.action_space.n, np.bool_)
    assert np.flatnonzero(legal).tolist() == state.legal_actions()


def _random_action(env: VectorEnv, rng: np.random.Generator) -> np.ndarray:
    """[B, 2], legal for the seat to act and illegal for the other."""
    (group,) = env.groups
    obs, mask = (
        {path: leaf.reshape(-1, leaf.shape[-1]) for path, leaf in tree.items()}
        for tree in (group.obs, group.mask)
    )
    action = random_bot(group.action_space)(obs, mask, rng)[""].reshape(-1, 2)
    return np.where(env.to_act, action, -1)
