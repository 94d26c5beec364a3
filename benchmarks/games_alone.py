"""Games of other libraries played without us: for ever, by the library's own interface, at random.

Each yields the number of decisions of each step. bare: without wrappers that only check.
"""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from envs import pettingzoo_games

NUM_DRAWN = 1009
"""Actions that are drawn beforehand, and played over and over."""


def _play_gymnasium(rest: str, bare: bool) -> Iterator[int]:
    import gymnasium

    env = gymnasium.make(rest, disable_env_checker=bare)
    action = itertools.cycle([env.action_space.sample() for _ in range(NUM_DRAWN)])
    env.reset(seed=os.getpid())
    while True:
        _, _, terminated, truncated, _ = env.step(next(action))
        yield 1
        if terminated or truncated:
            env.reset()


def _play_pettingzoo(rest: str, bare: bool) -> Iterator[int]:
    module = importlib.import_module(rest)
    parallel = hasattr(module, "parallel_env")
    env = module.parallel_env() if parallel else module.env()
    if bare:
        env = pettingzoo_games.bare(env)
    return _play_parallel(env) if parallel else _play_in_turn(env, Random(os.getpid()))


def _play_parallel(env: Any) -> Iterator[int]:
    env.reset(seed=os.getpid())
    drawn = [
        {agent: env.action_space(agent).sample() for agent in env.possible_agents} for _ in range(NUM_DRAWN)
    ]
    action = itertools.cycle(drawn)
    while True:
        actions = next(action)
        if len(env.agents) < len(actions):
            actions = {agent: actions[agent] for agent in env.agents}
        env.step(actions)
        yield len(actions)
        if not env.agents:
            env.reset()


def _play_in_turn(env: Any, rng: Random) -> Iterator[int]:
    env.reset(seed=os.getpid())
    while True:
        for agent in env.agent_iter():
            obs, _, terminated, truncated, info = env.last()
            if terminated or truncated:
                env.step(None)
                continue
            mask = obs["action_mask"] if isinstance(obs, dict) else info.get("action_mask")
            space = env.action_space(agent)
            env.step(space.sample() if mask is None else rng.choice(mask.nonzero()[0]))
            yield 1
        env.reset()


def _play_openspiel(rest: str, bare: bool) -> Iterator[int]:
    import pyspiel

    from envs.openspiel import observer

    game, rng = pyspiel.load_game(rest), Random(os.getpid())
    observe, seats = observer(rest, game), range(game.num_players())
    while True:
        state = game.new_initial_state()
        while not state.is_terminal():
            if state.is_chance_node():
                state.apply_action(_drawn(state.chance_outcomes(), rng.random()))
            elif state.is_simultaneous_node():
                for seat in seats:
                    observe(state, seat)
                state.apply_actions([rng.choice(state.legal_actions(seat)) for seat in seats])
                yield len(seats)
            else:
                observe(state, state.current_player())
                state.apply_action(rng.choice(state.legal_actions()))
                yield 1


def _drawn(outcomes: list[tuple[int, float]], uniform: float) -> int:
    """The outcome [(action, probability)] that a uniform number in [0, 1) falls on."""
    for action, probability in outcomes:
        uniform -= probability
        if uniform < 0:
            return action
    return outcomes[-1][0]  # the probabilities' sum is rounded


PLAY: dict[str, Callable[[str, bool], Iterator[int]]] = {
    "gymnasium": _play_gymnasium,
    "pettingzoo": _play_pettingzoo,
    "openspiel": _play_openspiel,
}
