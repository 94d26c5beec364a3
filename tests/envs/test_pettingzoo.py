"""PettingZoo's games: its families keep the protocol, its own loop plays the same, made-up ones by hand."""

from __future__ import annotations

import importlib
import sys
import types

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from pettingzoo import AECEnv, ParallelEnv

from envs import registry
from envs.conformance import check
from envs.pettingzoo_games import default_teams
from envs.pettingzoo_matches import CycleMatch
from envs.random_play import random_actions
from envs.vector import GameError, VectorEnv

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def make(module: str, num_games: int, **kwargs) -> VectorEnv:
    return registry.make(f"pettingzoo:{module}", num_games, **kwargs)


FAMILIES = [
    ("pettingzoo.classic.tictactoe_v3", {}),
    ("pettingzoo.classic.connect_four_v3", {}),
    ("pettingzoo.classic.leduc_holdem_v4", {}),
    ("pettingzoo.classic.rps_v2", {}),
    ("pettingzoo.classic.rps_v2", {"api": "aec"}),
    ("mpe2.simple_tag_v3", {"max_cycles": 9}),
    ("mpe2.simple_tag_v3", {"max_cycles": 9, "api": "aec", "privileged": True}),
    ("mpe2.simple_speaker_listener_v4", {"max_cycles": 7}),
    ("mpe2.simple_spread_v3", {"max_cycles": 7, "continuous_actions": True, "privileged": True}),
    ("mpe2.simple_crypto_v3", {"max_cycles": 7}),
    ("pettingzoo.sisl.pursuit_v5", {"n_pursuers": 2, "n_evaders": 3, "max_cycles": 7}),
]
SLOW_FAMILIES = [
    ("pettingzoo.sisl.multiwalker_v9", {"max_cycles": 9}),
    ("pettingzoo.classic.chess_v6", {}),
    ("pettingzoo.classic.go_v5", {"board_size": 5}),
    ("pettingzoo.classic.texas_holdem_no_limit_v6", {}),
    ("pettingzoo.classic.hanabi_v5", {}),
    ("mpe2.simple_world_comm_v3", {}),
    ("pettingzoo.butterfly.cooperative_pong_v6", {}),
    ("pettingzoo.butterfly.pistonball_v6", {"n_pistons": 4, "privileged": True}),
    ("pettingzoo.butterfly.knights_archers_zombies_v11", {}),
]


@pytest.mark.parametrize(("module", "kwargs"), FAMILIES)
def test_families_conform(module, kwargs):
    check(lambda num_games: make(module, num_games, **kwargs), num_games=3, num_steps=20)


@pytest.mark.slow
@pytest.mark.parametrize(("module", "kwargs"), SLOW_FAMILIES)
def test_more_families_conform(module, kwargs):
    pytest.importorskip(module, exc_type=ImportError)
    if module.endswith("hanabi_v5"):
        pytest.importorskip("shimmy", reason="Hanabi is played through Shimmy")
    check(lambda num_games: make(module, num_games, **kwargs), num_games=3, num_steps=25)


SHOWN_AS_ONE_AT_ONCE = [
    ("pettingzoo.classic.rps_v2", {"max_cycles": 5}),
    ("mpe2.simple_tag_v3", {"max_cycles": 9}),
    ("mpe2.simple_crypto_v3", {"max_cycles": 7}),
    ("pettingzoo.sisl.pursuit_v5", {"n_pursuers": 3, "n_evaders": 2, "max_cycles": 12}),
    ("pettingzoo.butterfly.knights_archers_zombies_v11", {"max_cycles": 200, "spawn_delay": 9}),  # some die
]


@pytest.mark.parametrize(("module", "kwargs"), SHOWN_AS_ONE_AT_ONCE)
def test_games_in_turns_are_as_pettingzoos_own_conversion_shows_them(module, kwargs):
    theirs, rng = importlib.import_module(module).parallel_env(**kwargs), np.random.default_rng(0)
    seen, _ = theirs.reset(seed=5)
    agents = theirs.possible_agents
    match = make(module, 1, **kwargs)._env._make_match()
    assert isinstance(match, CycleMatch)
    moment, steps = match.reset(5), 0
    while True:
        steps += 1
        assert {agents[seat] for seat in moment.to_act} == {*theirs.agents}
        assert moment.obs.keys() == {agents.index(agent) for agent in seen}
        for agent, own in seen.items():
            np.testing.assert_array_equal(moment.obs[agents.index(agent)], own)
        if not theirs.agents:
            break
        actions = {agent: rng.integers(theirs.action_space(agent).n) for agent in theirs.agents}
        seen, reward, terminated, truncated, _ = theirs.step(actions)
        moment = match.step({agents.index(agent): action for agent, action in actions.items()})
        assert {agents[seat]: value for seat, value in moment.reward.items()} == reward
        assert {agents[seat] for seat in moment.truncated} == {a for a, ends in truncated.items() if ends}
        if theirs.agents:
            assert {agents[seat] for seat in moment.terminated} == {a for a, end in terminated.items() if end}
    assert steps > 5


def choice(obs, mask, number: int) -> int:
    """An action that depends on everything seen and on how many were taken."""
    legal = np.flatnonzero(mask)
    return int(legal[int(abs(np.asarray(obs, np.float64)).sum() * 1e3 + number) % len(legal)])


def their_loop(env, seed: int):
    """agent -> (decisions, rewards as `last` shows them, its actions), the way PettingZoo's pages say."""
    env.reset(seed=seed)
    told = {agent: [0, 0.0, []] for agent in env.possible_agents}
    for agent in env.agent_iter():
        obs, reward, terminated, truncated, _ = env.last()
        told[agent][1] += reward
        action = None
        if not (terminated or truncated):
            if isinstance(obs, dict):
                action = choice(obs["observation"], obs["action_mask"], told[agent][0])
            else:
                action = choice(obs, np.ones(env.action_space(agent).n), told[agent][0])
            told[agent][0] += 1
            told[agent][2].append(action)
        env.step(action)
    return told


def our_loop(env: VectorEnv, seed: int):
    """The same of the vector game; reset takes the seed as it is below 2**31."""
    env.restart(np.array([0]), np.array([seed], np.uint64))
    told = {name: [0, 0.0, []] for name in env.seat_names}
    while not env.over[0]:
        actions = []
        for group in env.groups:
            leaf = np.full((1, len(group.seats)), -1)
            for place, seat in enumerate(group.seats):
                if env.to_act[0, seat]:
                    size = int(group.action_space.n)
                    mask = group.mask[""][0, place] if group.mask else np.ones(size)
                    own = told[env.seat_names[seat]]
                    leaf[0, place] = choice(group.obs[""][0, place], mask, own[0])
                    own[0] += 1
                    own[2].append(int(leaf[0, place]))
            actions.append({"": leaf})
        env.step(tuple(actions))
        for seat, name in enumerate(env.seat_names):
            told[name][1] += float(env.reward[0, seat])
    return told


@pytest.mark.parametrize(
    ("module", "kwargs"),
    [
        ("pettingzoo.classic.tictactoe_v3", {}),
        ("pettingzoo.classic.connect_four_v3", {}),
        ("pettingzoo.classic.leduc_holdem_v4", {}),
        ("pettingzoo.classic.texas_holdem_v4", {}),
        ("pettingzoo.classic.rps_v2", {}),
        ("mpe2.simple_tag_v3", {"max_cycles": 12}),
        ("mpe2.simple_speaker_listener_v4", {"max_cycles": 12}),
    ],
)
def test_matches_are_those_of_pettingzoos_own_loop(module, kwargs):
    theirs = importlib.import_module(module).env(**kwargs)
    ours = make(module, 1, api="aec", **kwargs)
    for seed in range(12):
        one, two = their_loop(theirs, seed), our_loop(ours, seed)
        for agent, (decisions, reward, actions) in one.items():
            assert two[agent][0] == decisions
            assert two[agent][2] == actions
            assert two[agent][1] == pytest.approx(reward, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("module", "kwargs"),
    [
        ("pettingzoo.sisl.pursuit_v5", {"max_cycles": 15}),
        ("mpe2.simple_tag_v3", {"max_cycles": 12}),
        ("mpe2.simple_spread_v3", {"max_cycles": 12, "local_ratio": 0.3}),
        ("mpe2.simple_world_comm_v3", {"max_cycles": 12}),
        ("mpe2.simple_crypto_v3", {"max_cycles": 12}),
    ],
)
def test_looking_once_shows_what_pettingzoos_own_conversion_shows(module, kwargs):
    """Where all act at once: observations, rewards and endings, over several matches."""
    pytest.importorskip(module, exc_type=ImportError)
    if module.endswith("hanabi_v5"):
        pytest.importorskip("shimmy", reason="Hanabi is played through Shimmy")
    theirs, ours = importlib.import_module(module).parallel_env(**kwargs), make(module, 1, **kwargs)
    assert theirs.possible_agents == list(ours.seat_names)
    places = {
        seat: (k, place) for k, group in enumerate(ours.groups) for place, seat in enumerate(group.seats)
    }
    rng = np.random.default_rng(0)
    for seed in range(3):
        ours.restart(np.array([0]), np.array([seed], np.uint64))
        obs, _ = theirs.reset(seed=seed)
        while True:
            for seat, agent in enumerate(theirs.possible_agents):
                assert bool(ours.to_act[0, seat]) == (agent in theirs.agents)
                if agent in theirs.agents:
                    group, place = places[seat]
                    np.testing.assert_array_equal(ours.groups[group].obs[""][0, place], obs[agent])
            if not theirs.agents:
                break
            leaves = random_actions(ours, rng)
            chosen = {
                agent: leaves[places[seat][0]][""][0, places[seat][1]]
                for seat, agent in enumerate(theirs.possible_agents)
            }
            obs, reward, _, truncated, _ = theirs.step(chosen)
            ours.step(leaves)
            for seat, agent in enumerate(theirs.possible_agents):
                assert ours.reward[0, seat] == np.float32(reward[agent])
                assert ours.truncated[0, seat] == truncated[agent]


def test_observations_are_asked_for_once_in_a_step():
    module = importlib.import_module("mpe2.simple_tag_v3")
    raw = module.raw_env
    ours = make("mpe2.simple_tag_v3", 1)
    ours.restart(np.array([0]), np.array([0], np.uint64))
    world = ours._matches[0]._env.unwrapped
    assert isinstance(world, raw)
    asked = []
    look, world.observe = world.observe, lambda agent: asked.append(agent) or look(agent)
    ours.step(random_actions(ours, np.random.default_rng(0)))
    assert asked == world.agents


def test_at_once_pays_what_in_turn_pays():
    at_once, in_turn = (make("mpe2.simple_tag_v3", 1, api=api, max_cycles=10) for api in ("parallel", "aec"))
    rng = np.random.default_rng(0)
    for seed in range(3):
        for env in (at_once, in_turn):
            env.restart(np.array([0]), np.array([seed], np.uint64))
        total = np.zeros((2, 4))
        for _ in range(10):
            drawn = rng.integers(5, size=4)
            leaves = {"": drawn[None, :3]}, {"": drawn[None, 3:]}
            at_once.step(leaves)
            total[0] += at_once.reward[0]
            for _ in range(4):
                in_turn.step(leaves)
                total[1] += in_turn.reward[0]
            np.testing.assert_allclose(total[0], total[1], rtol=1e-5)
        assert at_once.over[0]
        assert in_turn.over[0]
        assert at_once.truncated.all()
        assert in_turn.truncated.any()


# Made-up games.


class Turns(AECEnv):
    """Three agents in turn. Whoever moves pays 1 to each other living one; c dies after its second turn, and
    the match is cut off after ten moves. It clears neither rewards nor what they added up to.
    """

    metadata = {"name": "turns"}  # noqa: RUF012
    possible_agents = ["a", "b", "c"]  # noqa: RUF012
    render_mode = None

    def observation_space(self, agent):
        return Dict(observation=Box(0, 99, (1,), np.float32), action_mask=Box(0, 1, (2,), np.int8))

    def action_space(self, agent):
        return Discrete(2)

    def observe(self, agent):
        mask = np.array([1, self.moves % 2])
        return {"observation": np.array([self.moves], np.float32), "action_mask": mask}

    def reset(self, seed=None, options=None):
        self.agents = self.possible_agents[:]
        self.moves = 0
        self.rewards = dict.fromkeys(self.agents, 0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos = {agent: {} for agent in self.agents}
        self.agent_selection = "a"

    def step(self, action):
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        self.moves += 1
        after = self.agents[(self.agents.index(agent) + 1) % len(self.agents)]
        for other in self.agents:
            if other != agent:
                self._cumulative_rewards[other] += 1
        if agent == "c" and self.moves > 3:
            self.terminations["c"] = True
        if self.moves == 10:
            self.truncations = dict.fromkeys(self.agents, True)
        self.agent_selection = after
        self._deads_step_first()


class Undeclared(ParallelEnv):
    """Observations bring masks of which the spaces say nothing, as in PettingZoo's tutorial on masks."""

    metadata = {"name": "undeclared"}  # noqa: RUF012
    possible_agents = ["left", "right"]  # noqa: RUF012

    def observation_space(self, agent):
        return MultiDiscrete([9, 9])

    def action_space(self, agent):
        return Discrete(3)

    def reset(self, seed=None, options=None):
        self.agents, self.time = self.possible_agents[:], 0
        return self.seen(), {agent: {} for agent in self.agents}

    def step(self, actions):
        assert all(actions[agent] != self.time % 3 for agent in self.agents), "the mask forbids it"
        self.time += 1
        ends, seen = dict.fromkeys(self.possible_agents, self.time == 8), self.seen()
        if self.time == 8:
            self.agents = []
        return seen, dict.fromkeys(ends, 0.5), ends, dict.fromkeys(ends, False), {agent: {} for agent in ends}

    def seen(self):
        mask = np.ones(3, np.int8)
        mask[self.time % 3] = 0
        return {agent: {"observation": (self.time, 1), "action_mask": mask} for agent in self.possible_agents}


def test_masks_of_which_spaces_say_nothing_are_kept_to(monkeypatch):
    undeclared = types.ModuleType("undeclared")
    undeclared.parallel_env = Undeclared
    monkeypatch.setitem(sys.modules, "undeclared", undeclared)
    check(lambda num_games: make("undeclared", num_games), num_games=3, num_steps=30)
    env = make("undeclared", 1)
    env.restart(np.array([0]), np.array([0], np.uint64))
    assert env.groups[0].mask[""].tolist() == [[[False, True, True]] * 2]
    assert env.groups[0].obs[""].tolist() == [[[0, 1]] * 2]


class Late(ParallelEnv):
    """The guest comes after the first step and is out after the third. Masks come in infos; a step pays 1."""

    metadata = {"name": "late"}  # noqa: RUF012
    possible_agents = ["host", "guest", "nobody"]  # noqa: RUF012

    def __init__(self, fails=False):
        self.fails = fails

    def observation_space(self, agent):
        return Discrete(9) if agent == "host" else Box(0, 9, (1,), np.float32)

    def action_space(self, agent):
        return Discrete(2)

    def reset(self, seed=None, options=None):
        self.agents, self.time = ["host"], 0
        return {"host": 0}, {"host": {"action_mask": np.array([1, 0], np.int8)}}

    def step(self, actions):
        assert [*actions] == self.agents, f"{[*actions]} acted, not {self.agents}"
        self.time += 1
        if self.fails and self.time == 3:
            raise ZeroDivisionError("a bug")
        present = self.agents
        self.agents = {1: ["host", "guest"], 2: ["host", "guest"], 3: ["host"], 4: ["host"], 5: []}[self.time]
        seen = [*dict.fromkeys([*present, *self.agents])]
        obs = {agent: self.time if agent == "host" else np.array([self.time], np.float64) for agent in seen}
        infos = {"host": {"action_mask": np.array([1, 1], np.int8)}}
        terminated = {agent: agent == "guest" and self.time == 3 for agent in seen}
        truncated = dict.fromkeys(seen, self.time == 5)
        return obs, dict.fromkeys(present, 1.0), terminated, truncated, infos


@pytest.fixture(autouse=True)
def own_games(monkeypatch) -> None:
    turns, late = types.ModuleType("own_turns"), types.ModuleType("own_late")
    turns.env, late.parallel_env = Turns, Late
    monkeypatch.setitem(sys.modules, "own_turns", turns)
    monkeypatch.setitem(sys.modules, "own_late", late)


def test_rewards_at_others_turns_dead_agents_and_cuts_by_hand():
    env = make("own_turns", 1)
    env.restart(np.array([0]), np.array([0], np.uint64))
    assert env.groups[0].observation_space == Box(0, 99, (1,), np.float32)  # the mask is not seen twice
    movers, rewards = [], []
    while not env.over[0]:
        movers.append(int(env.to_act[0].argmax()))
        assert env.groups[0].mask[""][0, movers[-1]].tolist() == [True, len(movers) % 2 == 0]
        env.step(({"": np.zeros((1, 3), np.int64)},))
        rewards.append(env.reward[0].tolist())
        if len(movers) == 6:
            assert env.terminated[0].tolist() == [False, False, True]
    assert movers == [0, 1, 2, 0, 1, 2, 0, 1, 0, 1]
    assert rewards[:3] == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert rewards[6:] == [[0, 1, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert env.truncated[0].tolist() == [True, True, False]
    assert env.groups[0].obs[""][0, :2].tolist() == [[10], [10]]  # the view reached


def test_agents_that_come_late_and_never_by_hand():
    env = make("own_late", 1)
    env.restart(np.array([0]), np.array([0], np.uint64))
    assert [group.name for group in env.groups] == ["host", "seat"]
    acted, rewards, ended = [], [], []
    assert env.groups[0].mask[""][0, 0].tolist() == [True, False]
    while not env.over[0]:
        acted.append(env.to_act[0].tolist())
        env.step(({"": np.zeros((1, 1), np.int64)}, {"": np.ones((1, 2), np.int64)}))
        rewards.append(env.reward[0].tolist())
        ended.append((env.terminated[0].tolist(), env.truncated[0].tolist()))
    assert acted == [[True, False, False], *[[True, True, False]] * 2, *[[True, False, False]] * 2]
    assert rewards == [[1, 0, 0], [1, 1, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0]]
    assert ended[2] == ([False, True, False], [False] * 3)
    assert ended[4] == ([False, False, True], [True, False, False])
    assert env.groups[0].obs[""][0, 0] == 5


def test_made_up_games_conform():
    for module in ("own_turns", "own_late"):
        check(lambda num_games, module=module: make(module, num_games), num_steps=40)


def test_a_game_that_fails_drops_its_match():
    env = make("own_late", 2, fails=True)
    env.restart(np.arange(2), np.zeros(2, np.uint64))
    leaves = {"": np.zeros((2, 1), np.int64)}, {"": np.ones((2, 2), np.int64)}
    for _ in range(3):
        env.step(leaves)
    assert env.dropped.all()
    assert env.cause.startswith("match 1: ZeroDivisionError: a bug (test_pettingzoo.py")


# Teams, seats and mistakes.


@pytest.mark.parametrize(
    ("module", "names", "teams"),
    [
        ("mpe2.simple_tag_v3", ("adversary_0", "adversary_1", "agent_0"), [0, 0, 1]),
        ("mpe2.simple_adversary_v3", ("agent_0", "adversary_0", "agent_1"), [0, 1, 0]),
        ("mpe2.simple_world_comm_v3", ("leadadversary_0", "adversary_0", "agent_0"), [0, 0, 1]),
        ("mpe2.simple_crypto_v3", ("eve_0", "bob_0", "alice_0"), [0, 1, 1]),
        ("mpe2.simple_spread_v3", ("agent_0", "agent_1"), [0, 0]),
        ("pettingzoo.sisl.pursuit_v5", ("pursuer_0", "pursuer_1"), [0, 0]),
        ("pettingzoo.butterfly.pistonball_v6", ("piston_0", "piston_1"), [0, 0]),
        ("pettingzoo.classic.tictactoe_v3", ("player_1", "player_2"), [0, 1]),
        ("own.game", ("x", "y", "z"), [0, 1, 2]),
        ("own.game", ("adversary_0", "adversary_1"), [0, 1]),
    ],
)
def test_teams_by_rule(module, names, teams):
    assert default_teams(module, names) == teams


def test_teams_by_table_and_zero_sum():
    env = make("mpe2.simple_tag_v3", 1, teams={"runner": "agent_*", "chasers": ["adv*", "none"]})
    assert env.teams == (1, 1, 1, 0)
    assert not env.zero_sum
    assert env.seat_names == ("adversary_0", "adversary_1", "adversary_2", "agent_0")
    assert [group.name for group in env.groups] == ["adversary", "agent"]
    assert make("pettingzoo.classic.tictactoe_v3", 1).zero_sum
    assert not make("pettingzoo.classic.tictactoe_v3", 1, zero_sum=False).zero_sum


def test_the_whole_state_is_shown_on_demand():
    env = make("mpe2.simple_tag_v3", 2, privileged=True)
    env.restart(np.arange(2), np.arange(2, dtype=np.uint64))
    chasers, runners = env.groups
    seen = np.concatenate([chasers.obs[""].reshape(2, -1), runners.obs[""].reshape(2, -1)], axis=1)
    np.testing.assert_allclose(env.privileged[""], seen)  # in MPE it is all agents' views side by side
    assert not hasattr(make("mpe2.simple_tag_v3", 1), "privileged")
    with pytest.raises(ValueError, match=r"privileged=True, but its state\(\) fails: NotImplementedError"):
        make("pettingzoo.classic.tictactoe_v3", 1, privileged=True)


def test_render():
    env = make("pettingzoo.classic.chess_v6", 1)
    env.restart(np.array([0]), np.array([0], np.uint64))
    assert "r n b q k b n r" in env.render(0)
    env = make("pettingzoo.classic.tictactoe_v3", 1)
    env.restart(np.array([0]), np.array([0], np.uint64))
    env.step(({"": np.array([[4, -1]])},))
    assert env.render(0) == "last actions\nplayer_1: 4\nplayer_2: -"


@pytest.mark.parametrize(
    ("module", "kwargs", "message"),
    [
        ("mpe2.simple_tgg_v3", {}, "there is no module mpe2.simple_tgg_v3 (near is mpe2.simple_tag_v3, "),
        ("tictactoe_v3", {}, "there is no module tictactoe_v3 (near is pettingzoo.classic.tictactoe_v3"),
        (
            "pettingzoo.mpe.simple_tag_v3",
            {},
            "PettingZoo's MPE is now mpe2: pip install mpe2, and ",
        ),
        ("no_such_library.game", {}, "no_such_library is not installed: pip install no_such_library"),
        ("json", {}, "json has neither parallel_env nor env"),
        (
            "mpe2.simple_tag_v3",
            {"num_god": 2},
            "unexpected keyword argument 'num_god'; its kwargs are num_good",
        ),
        ("mpe2.simple_tag_v3", {"api": "both"}, "api='both' must be one of auto, parallel, aec"),
        ("own_turns", {"api": "parallel"}, "api='parallel' must be one of auto, aec"),
        ("own_turns", {"teams": {"x": ["a"]}}, "teams puts the agent 'b' in no team; agents are a, b, c"),
        (
            "own_turns",
            {"teams": {"x": "*", "y": "b"}},
            "teams puts the agent 'b' in the teams x, y; agents are",
        ),
        ("own_turns", {"teams": {"x": "*", "y": "d"}}, "teams has 'y' without any agent; agents are a, b, c"),
    ],
)
def test_mistakes_are_one_line(module, kwargs, message):
    with pytest.raises(ValueError) as caught:
        make(module, 1, **kwargs)
    assert str(caught.value).startswith(f"game 'pettingzoo:{module}': ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_view_out_of_its_bounds_is_named():
    class Wrong(Turns):
        def observe(self, agent):
            return super().observe(agent) | {"observation": np.array([100.0 * self.moves], np.float32)}

    sys.modules["own_turns"].env = Wrong
    env = make("own_turns", 2)
    env.restart(np.arange(2), np.zeros(2, np.uint64))
    with pytest.raises(
        GameError, match=r"own_turns, match 0, seat 1: obs '' is 100 at \[0\]; allowed are 0 to 99"
    ):
        env.step(({"": np.zeros((2, 3), np.int64)},))


class Breaks(ParallelEnv):
    """Two agents for three steps, one thing being wrong."""

    metadata = {"name": "breaks"}  # noqa: RUF012
    render_mode = None

    def __init__(self, wrong):
        self.wrong = wrong
        self.possible_agents = [] if wrong == "nobody" else ["red", "blue"]
        self.agents = []

    def observation_space(self, agent):
        if self.wrong == "space":
            raise KeyError(agent)
        return Box(0, 9, (1,), np.float32)

    def action_space(self, agent):
        return Discrete(2)

    def everyone(self, value):
        return dict.fromkeys(self.agents, value)

    def reset(self, seed=None, options=None):
        if self.wrong == "exit":
            raise SystemExit(3)
        self.agents = [] if self.wrong == "empty" else self.possible_agents[:]
        obs = self.everyone(np.zeros(1, np.float32))
        return obs if self.wrong == "old reset" else (obs, self.everyone({}))

    def step(self, actions):
        reward = self.everyone(None if self.wrong == "reward" else 1.0)
        if self.wrong == "stranger":
            reward["green"] = 1.0
        info = self.everyone({"action_mask": np.ones(2, np.int8)} if self.wrong == "late mask" else {})
        result = self.everyone(np.zeros(1, np.float32)), reward, self.everyone(False), self.everyone(False)
        if self.wrong == "new agent":
            self.agents = [*self.agents, "green"]
            result[0]["green"] = np.zeros(1, np.float32)
        return result if self.wrong == "old step" else (*result, info)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("nobody", "possible_agents must name its agents, as its seats are fixed; it is []"),
        ("space", "observation_space('red') fails: KeyError: 'red' (test_pettingzoo.py:"),
        ("exit", "its reset fails: SystemExit: 3"),
        ("empty", "match 0: its reset leaves no agents"),
        ("old reset", "reset must return (observations, infos), not one value, {'red':"),
        (
            "old step",
            "match 0: step must return (observations, rewards, terminations, truncations, infos), not",
        ),
        ("stranger", "match 0: agent 'green' is not among possible_agents, ['red', 'blue']"),
        ("new agent", "match 0: agent 'green' is not among possible_agents, ['red', 'blue']"),
        ("reward", "match 0, seat 0: the reward is None; allowed are finite numbers"),
        ("late mask", "match 0: red's infos have an 'action_mask', but those of reset have none"),
    ],
)
def test_mistakes_of_an_own_game_are_one_line(monkeypatch, wrong, message):
    module = types.ModuleType("own_breaks")
    module.parallel_env = Breaks
    monkeypatch.setitem(sys.modules, "own_breaks", module)

    def play():
        env = make("own_breaks", 1, wrong=wrong)
        env.restart(np.arange(1), np.zeros(1, np.uint64))
        env.step(({"": np.zeros((1, 2), np.int64)},))

    with pytest.raises(ValueError) as caught:
        play()
    assert "pettingzoo:own_breaks" in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
