"""Gymnasium's tasks as games of one seat: the protocol, the episodes of Gymnasium's own loop, mistakes."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete

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
    pytest.importorskip("Box2D")
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


class Own(gymnasium.Env):
    """Five moves of four or of two times two choices; what is legal comes where `mask` says."""

    def __init__(self, reset=None, step=None, mask="", reward=1.0, act=None, quits=False):
        self.given = {"reset": reset, "step": step}
        self.mask, self.reward, self.quits = mask, reward, quits
        self.action_space = act or (MultiDiscrete([2, 2]) if "parts" in mask else Discrete(4))
        self.observation_space = box = Box(0, 9, (1,), np.float32)
        if mask == "obs":
            self.observation_space = Dict({"observation": box, "action_mask": Box(0, 1, (4,), np.int8)})
        elif mask == "beside":
            self.observation_space = Dict({"x": box, "y": box, "action_mask": Box(0, 1, (4,), np.int8)})

    def shown(self):
        x, legal = np.full(1, self.moves, np.float32), np.array([1, 0, 1, 0], np.int8)
        obs = {
            "obs": {"observation": x, "action_mask": legal},
            "beside": {"x": x, "y": x, "action_mask": legal},
        }
        infos = {
            "info": legal,
            "parts": (legal[:2], legal[2:]),
            "flat parts": legal,
            "late": legal if self.moves else None,
        }
        mask = infos.get(self.mask)
        return obs.get(self.mask, x), {} if mask is None else {"action_mask": mask}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.moves = 0
        obs, info = self.shown()
        return self.given["reset"](obs, info) if self.given["reset"] else (obs, info)

    def step(self, action):
        assert "late" in self.mask or not self.mask or not (np.asarray(action) % 2).any(), "illegal"
        if self.quits:
            raise SystemExit(3)
        self.moves += 1
        result = (*self.shown(), self.reward, self.moves == 5, False)
        obs, info, reward, terminated, truncated = result
        result = obs, reward, terminated, truncated, info
        return self.given["step"](*result) if self.given["step"] else result


@pytest.fixture
def own():
    """(num_games, **kwargs of Own) -> the game."""
    gymnasium.register("Own-v0", entry_point=Own)
    yield lambda num_games, **kwargs: registry.make("gymnasium:Own-v0", num_games, **kwargs)
    del gymnasium.registry["Own-v0"]


@pytest.mark.parametrize("mask", ["obs", "beside", "info", "parts", "flat parts"])
def test_masks_are_taken_wherever_they_come(own, mask):
    check(lambda num_games: own(num_games, mask=mask), num_games=3, num_steps=20)
    env = own(2, mask=mask)
    env.restart(np.arange(2), np.arange(2, dtype=np.uint64))
    assert env.groups[0].mask[""][0, 0].tolist() == [True, False, True, False]
    assert [*env.groups[0].obs] == (["x", "y"] if mask == "beside" else [""])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"reset": lambda obs, info: obs},
            "reset must return (observation, info), not one value, array([0.]",
        ),
        ({"reset": lambda obs, info: (obs, info, 1)}, "reset must return (observation, info), not 3 values"),
        ({"reset": lambda obs, info: (obs, None)}, "info being a dict, not None"),
        (
            {"step": lambda obs, reward, end, cut, info: (obs, reward, end, info)},
            "match 0: step must return (observation, reward, terminated, truncated, info), not 4 values",
        ),
        ({"mask": "late"}, "match 0: step's info has an 'action_mask', but that of reset has none"),
        ({"act": Box(-1, 1, (0,))}, "(0,), float32), which holds nothing; leave it out"),
        ({"reward": None}, "match 0, seat 0: the reward is None; allowed are finite numbers"),
        ({"reward": "1"}, "match 0, seat 0: the reward is '1'; allowed are finite numbers"),
        ({"reward": np.ones(3)}, "match 0, seat 0: the reward is array([1., 1., 1.]); allowed"),
        ({"reward": 1e300}, "match 0, seat 0: the reward is 1e+300; allowed are finite numbers of float32"),
        ({"reward": float("nan")}, "match 0, seat 0: the reward is nan; allowed"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_mistakes_of_an_own_task_are_one_line(own, kwargs, message):
    def play():
        env = own(2, **kwargs)
        env.restart(np.arange(2), np.zeros(2, np.uint64))
        env.step(({"": np.zeros((2, 1), np.int64)},))

    with pytest.raises(ValueError) as caught:
        play()
    assert "gymnasium:Own-v0" in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_task_that_exits_drops_its_match(own):
    env = own(1, quits=True)
    env.restart(np.arange(1), np.zeros(1, np.uint64))
    env.step(({"": np.zeros((1, 1), np.int64)},))
    assert env.dropped[0]
    assert "SystemExit: 3 (test_gymnasium.py" in env.cause
