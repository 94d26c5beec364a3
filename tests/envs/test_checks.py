"""What a game shows is checked at every step: each breach, planted, is named; a sound game passes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

from envs.checks import Checked
from envs.conformance import check
from envs.connect_four import ConnectFour
from envs.vector import GameError, Group, VectorEnv

SPACE = Dict(
    free=Box(-np.inf, np.inf, (2,)),
    far=Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 5.0], np.float32)),
    count=Discrete(4, start=1),
    pair=MultiDiscrete([2, 3]),
    bits=MultiBinary(2),
    image=Box(0, 255, (1,), np.uint8),
    small=Box(-3, 3, (1,), np.int8),
)
MIDDLE = {"count": 2}


class Plain:
    """Three seats act at every step, for four steps; the first two share a group and a mask of two parts."""

    id = "plain"
    teams = (0, 1, 2)
    zero_sum = False
    bots = {}  # noqa: RUF012

    def __init__(self, num_games):
        self.num_games = num_games
        self.to_act, self.terminated, self.truncated = (np.zeros((num_games, 3), bool) for _ in range(3))
        self.reward = np.zeros((num_games, 3), np.float32)
        self.over = np.ones(num_games, bool)
        self.moves = np.zeros(num_games, int)
        groups = []
        for name, seats in (("pair", (0, 1)), ("single", (2,))):
            obs = {
                path: np.full((num_games, len(seats), *leaf.shape), MIDDLE.get(path, 0), leaf.dtype)
                for path, leaf in SPACE.items()
            }
            mask = {"": np.ones((num_games, len(seats), 5), bool)}
            groups.append(Group(name, seats, SPACE, MultiDiscrete([2, 3]), obs, mask))
        self.groups = tuple(groups)

    def restart(self, games, seeds):
        self.moves[games] = 0
        self.reward[games] = 0
        self.terminated[games] = self.truncated[games] = self.over[games] = False
        self.to_act[games] = True
        self.plant()

    def step(self, actions):
        live = ~self.over
        self.moves += live
        self.reward[:] = 0
        self.truncated[live] = (self.moves == 4)[live, None]
        self.over[:] = self.moves == 4
        self.to_act[:] = ~self.over[:, None]
        self.plant()

    def plant(self):
        """What is wrong, in games made to be."""

    def state(self):
        return {"moves": self.moves.copy()}

    def set_state(self, state):
        self.moves[:] = state["moves"]

    def render(self, game):
        return ""

    def action_names(self, game):
        return None


def plays(plant, num_games=3) -> Checked:
    """A game in play in which plant(env) happens at every call."""
    env = Checked(type("Planted", (Plain,), {"plant": plant})(num_games), num_games)
    env.restart(np.arange(num_games), np.zeros(num_games, np.uint64))
    return env


def set_obs(path, index, value, group=0):
    def plant(env):
        env.groups[group].obs[path][index] = value

    return plant


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (set_obs("free", (1, 1, 0), np.nan), "match 1, seat 1: obs 'free' is nan at [0]; allowed are finite"),
        (set_obs("free", (0, 0, 1), np.inf), "match 0, seat 0: obs 'free' is inf at [1]; allowed are finite"),
        (
            set_obs("far", (2, 0, 1), -0.5),
            "match 2, seat 0: obs 'far' is -0.5 at [1]; allowed are 0 to 5",
        ),
        (
            set_obs("far", (2, 0, 0), 1.01, 1),
            "match 2, seat 2: obs 'far' is 1.01 at [0]; allowed are -1 to 1",
        ),
        (set_obs("far", (2, 0, 0), np.nan), "match 2, seat 0: obs 'far' is nan at [0]"),
        (set_obs("count", (1, 0), 0), "match 1, seat 0: obs 'count' is 0; allowed are 1 to 4"),
        (set_obs("count", (1, 0), 5), "match 1, seat 0: obs 'count' is 5; allowed are 1 to 4"),
        (set_obs("pair", (1, 0, 0), 2), "match 1, seat 0: obs 'pair' is 2 at [0]; allowed are 0 to 1"),
        (set_obs("bits", (1, 0, 1), 2), "match 1, seat 0: obs 'bits' is 2 at [1]; allowed are 0 to 1"),
        (set_obs("small", (0, 1, 0), -4), "match 0, seat 1: obs 'small' is -4 at [0]; allowed are -3 to 3"),
        (lambda e: e.reward.__setitem__((2, 1), np.nan), "match 2, seat 1: the reward is nan"),
        (lambda e: e.reward.__setitem__((0, 2), -np.inf), "match 0, seat 2: the reward is -inf"),
        (lambda e: e.to_act.__setitem__(1, False), "match 1: nobody is to act in a match in play"),
        (lambda e: e.over.__setitem__(1, True), "match 1, seat 0: is to act in a match that is over"),
        (
            lambda e: e.groups[0].mask[""].__setitem__((1, 1, slice(2, 5)), False),
            "match 1, seat 1: mask '' has no legal action",
        ),
        (
            lambda e: setattr(e, "reward", e.reward.copy()),
            "reward is replaced by another array, not overwritten in place",
        ),
    ],
)
def test_each_breach_is_named(plant, message):
    with pytest.raises(GameError) as caught:
        plays(plant)
    assert str(caught.value).startswith(("plain, ", "plain: "))
    assert message in str(caught.value)


def test_breaches_are_seen_after_steps_too():
    env = plays(lambda env: set_obs("count", (1, 0), 9)(env) if env.moves[1] == 2 else None)
    env.step(())
    with pytest.raises(GameError, match="match 1, seat 0: obs 'count' is 9"):
        env.step(())


def test_the_dead_do_not_act():
    def plant(env):
        env.terminated[0, 1] = env.moves[0] == 1  # and yet it is to act

    with pytest.raises(GameError, match="match 0, seat 1: is to act after its episode ended"):
        plays(plant).step(())


def test_rows_that_nobody_reads_may_hold_anything():
    def plant(env):
        env.to_act[:, 1] = False
        set_obs("free", (0, 1), np.nan)(env)
        env.groups[0].mask[""][:, 1] = False

    env = plays(plant)
    for _ in range(3):
        env.step(())
    with pytest.raises(GameError, match="seat 1: obs 'free' is nan"):
        env.step(())  # truncated: the learner values the view


def test_bounds_have_room_for_rounding_and_images_are_not_looked_at():
    env = plays(set_obs("far", (0, 0, 0), 1.0 + 5e-6))
    assert {leaf.path for leaf in env._groups[0].obs} == {*SPACE} - {"image"}


def test_layout_is_checked_at_making():
    env = Plain(2)
    env.reward = np.zeros((2, 3))
    with pytest.raises(GameError, match="plain: reward is float64, not float32"):
        Checked(env, 2)
    with pytest.raises(GameError, match="num_games is 3, not 2 as asked"):
        Checked(Plain(3), 2)


def test_a_sound_game_is_the_same_game():
    check(lambda num_games: Checked(ConnectFour(num_games, opening_plies=3), num_games), num_steps=60)
    env = Checked(ConnectFour(2), 2)
    assert isinstance(env, VectorEnv)
    assert [*env.bots] == ["one_ply"]
    assert not hasattr(env, "privileged")
    with pytest.raises(AttributeError):
        env.nothing  # noqa: B018
    inner = ConnectFour(2)
    inner.cause = "x"
    assert Checked(inner, 2).cause == "x"


class Pointing(Plain):
    """Who shoots (1 of "do") points to one of three units; who waits (0) to nobody."""

    def __init__(self, num_games, *, masked=False):
        super().__init__(num_games)
        units = Dict(units=Box(-1, 1, (3, 2)), units_mask=MultiBinary(3))
        acts = Dict(do=Discrete(2), target=Discrete(3))
        obs = {
            "units": np.zeros((num_games, 3, 3, 2), np.float32),
            "units_mask": np.zeros((num_games, 3, 3), np.int8),
        }
        mask = {"target": np.ones((num_games, 3, 3), bool)} if masked else {}
        uses, points = {"target": {"do": [1]}}, {"target": "units"}
        self.groups = (Group("all", (0, 1, 2), units, acts, obs, mask, uses, points),)


def test_pointing_where_nobody_is_is_named_unless_it_is_not_used_or_a_mask_allows_it():
    do = np.zeros((2, 3), np.int64)
    leaves = ({"do": do, "target": np.full((2, 3), -1)},)
    games = np.arange(2), np.zeros(2, np.uint64)
    env, masked = Checked(Pointing(2), 2), Checked(Pointing(2, masked=True), 2)
    for each in (env, masked):
        each.restart(*games)
        each.step(leaves)  # nobody shoots
    do[1, 2] = 1
    masked.step(leaves)
    with pytest.raises(
        GameError, match=r"^plain, match 1, seat 2: action 'target' points to 'units', where nobody is$"
    ):
        env.step(leaves)
    env.groups[0].obs["units_mask"][1, 2, 0] = 1
    env.step(leaves)


def test_games_without_seats_or_with_empty_leaves_are_refused():
    nobody, empty = Plain(1), Plain(1)
    nobody.teams, nobody.groups = (), ()
    with pytest.raises(GameError, match=r"^plain: teams is empty; a game needs one seat at least$"):
        Checked(nobody, 1)
    group = empty.groups[1]
    empty.groups = (empty.groups[0], dataclasses.replace(group, action_space=Box(0, 1, (0,)), mask={}))
    with pytest.raises(GameError, match=r"plain, group single: the space is .* which holds nothing"):
        Checked(empty, 1)
