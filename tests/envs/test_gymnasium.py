"""Gymnasium's tasks as games of one seat: the protocol, the episodes of Gymnasium's own loop, mistakes."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from envs import registry
from envs.conformance import check
from envs.vector import VectorEnv


def make(task: str, num_games: int, **kwargs) -> VectorEnv:
    return registry.make(f"gymnasium:{task}", num_games, **kwargs)


@pytest.mark.parametrize(
    ("task", "kwargs"),
    [
        ("CartPole-v1", {}),
        ("Pendulum-v1", {}),
        ("Blackjack-v1", {}),  # a Tuple of Discrete
        ("FrozenLake-v1", {"is_slippery": True}),  # chance in every step
        ("Taxi-v3", {"max_episode_steps": 9}),
    ],
)
def test_tasks_conform(task, kwargs):
    check(lambda num_games: make(task, num_games, **kwargs), num_games=3, num_steps=30)


def test_popgym_conforms():
    pytest.importorskip("popgym")
    for task in ("popgym-RepeatPreviousEasy-v0", "popgym:popgym-BattleshipEasy-v0"):
        check(lambda num_games, task=task: make(task, num_games), num_games=2, num_steps=20)


@pytest.mark.slow
def test_a_task_whose_reset_leaves_traces_takes_new_objects():
    check(lambda num_games: make("BipedalWalker-v3", num_games), num_games=3, num_steps=40)
    with pytest.raises(AssertionError, match="depends on its slot or on the one before"):
        check(lambda num_games: make("BipedalWalker-v3", num_games, fresh=False), num_games=3, num_steps=40)


@pytest.mark.parametrize("task", ["CartPole-v1", "FrozenLake-v1"])
def test_episodes_are_those_of_gymnasiums_own_loop(task):
    ours, theirs = make(task, 4), gymnasium.make(task)
    ours.restart(np.arange(4), np.arange(4, dtype=np.uint64))
    obs, rng = ours.groups[0].obs[""], np.random.default_rng(0)
    actions = rng.integers(2, size=(200, 4, 1))
    seen = [[obs[game, 0].tolist()] for game in range(4)]
    ends: dict[int, tuple[bool, bool]] = {}
    returns = np.zeros(4)
    for step in range(200):
        ours.step(({"": actions[step]},))
        returns += ours.reward[:, 0]
        for game in range(4):
            if ours.to_act[game, 0]:
                seen[game].append(obs[game, 0].tolist())
            else:
                ends.setdefault(game, (bool(ours.terminated[game, 0]), bool(ours.truncated[game, 0])))
    for game in range(4):
        first, _ = theirs.reset(seed=game)
        expected, total, step, over = [np.asarray(first).tolist()], 0.0, 0, False
        while not over:
            view, reward, terminated, truncated, _ = theirs.step(actions[step, game, 0])
            total, step, over = total + reward, step + 1, terminated or truncated
            if not over:
                expected.append(np.asarray(view).tolist())
        assert seen[game] == expected
        assert returns[game] == total
        assert ends[game] == (terminated, truncated)


def test_a_time_limit_truncates():
    env = make("Pendulum-v1", 2, max_episode_steps=3)
    env.restart(np.arange(2), np.arange(2, dtype=np.uint64))
    for _ in range(3):
        assert not env.over.any()
        env.step(({"": np.zeros((2, 1, 1), np.float32)},))
    assert env.truncated.all()
    assert env.over.all()
    assert not env.terminated.any()
    assert env.seat_names == ("agent",)
    assert env.teams == (0,)


class Masked(gymnasium.Env):
    """One move; what is legal depends on the seed and comes in info."""

    observation_space = Box(0, 1, (1,), np.float32)
    action_space = Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        mask = np.arange(3) == self.np_random.integers(3)
        return np.zeros(1), {"action_mask": mask.astype(np.int8)}

    def step(self, action):
        return np.ones(1), 1.0, True, False, {}


def test_masks_come_from_info():
    gymnasium.register("OwnMasked-v0", entry_point=Masked, max_episode_steps=5)
    try:
        check(lambda num_games: make("OwnMasked-v0", num_games), num_games=4, num_steps=20)
        env = make("OwnMasked-v0", 8)
        env.restart(np.arange(8), np.arange(8, dtype=np.uint64))
        assert (env.groups[0].mask[""].sum(axis=2) == 1).all()
    finally:
        del gymnasium.registry["OwnMasked-v0"]


def test_render():
    env = make("FrozenLake-v1", 1)
    env.restart(np.array([0]), np.array([0], np.uint64))
    assert "SFFF" in env.render(0).replace("\x1b[41m", "").replace("\x1b[0m", "")
    env = make("CartPole-v1", 1)
    env.restart(np.array([0]), np.array([0], np.uint64))
    env.step(({"": np.array([[1]])},))
    assert env.render(0) == "last action: 1, reward 1"


@pytest.mark.parametrize(
    ("task", "kwargs", "message"),
    [
        ("CartPol-v1", {}, "Environment `CartPol` doesn't exist"),
        ("CartPole-v7", {}, "near is CartPole-v1"),
        ("no_such_package:X-v0", {}, "no_such_package is not installed: pip install no_such_package"),
        ("NoSpace/Pong-v5", {}, "the package that registers it goes before its id: gymnasium:MODULE:ID"),
        (
            "CartPole-v1",
            {"gravity": 3},
            "cannot be made: TypeError: CartPoleEnv.__init__() got an unexpected",
        ),
    ],
)
def test_mistakes_are_one_line(task, kwargs, message):
    with pytest.raises(ValueError) as caught:
        make(task, 1, **kwargs)
    assert str(caught.value).startswith(f"game 'gymnasium:{task}': ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
