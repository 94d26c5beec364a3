"""RLlib's environments as our games, and our games as RLlib's environments."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

pytest.importorskip("ray.rllib")
from ray.rllib.env.multi_agent_env import MultiAgentEnv

import selfplay.rllib  # noqa: F401 (makes "rllib:..." known)
from envs import registry
from envs.conformance import check
from envs.random_play import trace
from selfplay.rllib import games
from tests.toy_games import TOYS


class Script(MultiAgentEnv):
    """Plays back the steps that its config lists: each (obs, reward, terminated, truncated)."""

    def __init__(self, config):
        super().__init__()
        self.possible_agents = list(config.get("agents", ["a", "b"]))
        self.observation_spaces = {agent: spaces.Box(-9, 9, (1,)) for agent in self.possible_agents}
        self.action_spaces = {agent: spaces.Discrete(2) for agent in self.possible_agents}
        self.first, self.rest = config["first"], config["rest"]
        self.asked = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return seen(self.first), {}

    def step(self, action_dict):
        obs, reward, terminated, truncated = self.rest[self.time]
        self.asked.append(action_dict)
        self.time += 1
        return seen(obs), reward, {"__all__": False, **terminated}, {"__all__": False, **truncated}, {}


def seen(obs):
    return {agent: np.array([value], np.float32) for agent, value in obs.items()}


def script(first, *rest, agents=("a", "b"), **kwargs):
    """One match of a `Script`, begun."""
    made = []

    def make(config):
        made.append(Script(config))
        return made[-1]

    env = games._make_games("rllib:script", make, 1, first=first, rest=rest, agents=agents, **kwargs)
    env.restart(np.zeros(1, np.int64), np.zeros(1, np.uint64))
    return env, made[0]


def step(env, *actions):
    env.step(({"": np.array([actions], np.int64)},))


def shown(env):
    names = ("to_act", "reward", "terminated", "truncated")
    return {name: getattr(env, name)[0].tolist() for name in names} | {"over": bool(env.over[0])}


def test_an_agent_acts_when_it_is_in_the_observations():
    env, inner = script(
        {"a": 1}, ({"b": 2}, {"a": 0.5, "b": -0.5}, {}, {}), ({}, {"b": 2}, {"__all__": True}, {})
    )
    assert shown(env)["to_act"] == [True, False]
    assert env.groups[0].obs[""][0, 0] == 1
    step(env, 1, -1)
    # The reward of the agent that acted, and of the one that waited.
    assert shown(env) == {
        "to_act": [False, True], "reward": [0.5, -0.5], "terminated": [False] * 2,
        "truncated": [False] * 2, "over": False,
    }  # fmt: skip
    step(env, -1, 0)
    assert shown(env) == {
        "to_act": [False] * 2, "reward": [0, 2], "terminated": [True] * 2, "truncated": [False] * 2,
        "over": True,
    }  # fmt: skip
    assert inner.asked == [{"a": 1}, {"b": 0}]


def test_agents_end_one_by_one_and_all_ends_the_rest():
    env, _ = script(
        {"a": 1, "b": 1, "c": 1},
        ({"a": 2, "b": 2, "c": 2}, {}, {"a": True}, {}),
        ({"b": 3}, {"a": 7.0}, {"a": True}, {"c": True}),
        ({"b": 4}, {}, {}, {"__all__": True}),
        agents=("a", "b", "c"),
    )
    step(env, 0, 0, 0)
    assert (shown(env)["to_act"], shown(env)["terminated"]) == ([False, True, True], [True, False, False])
    step(env, -1, 0, 0)
    # The dead agent is paid and its ending is not shown again; the one cut off shows what it saw last.
    assert shown(env) == {
        "to_act": [False, True, False], "reward": [7, 0, 0], "terminated": [False] * 3,
        "truncated": [False, False, True], "over": False,
    }  # fmt: skip
    assert env.groups[0].obs[""][0, 2] == 2
    step(env, -1, 1, -1)
    assert (shown(env)["truncated"], shown(env)["over"]) == ([False, True, False], True)
    assert env.groups[0].obs[""][0, 1] == 4


def test_steps_in_which_nobody_acts_are_made_at_once():
    env, inner = script(
        {},
        ({"a": 1}, {"a": 0.25}, {}, {}),
        ({}, {"a": 1.0, "b": 1.0}, {"b": True}, {}),
        ({}, {"a": 2.0}, {}, {}),
        ({"a": 5}, {"a": 4.0}, {}, {}),
    )
    assert shown(env)["to_act"] == [True, False]
    step(env, 1, -1)
    assert shown(env)["reward"] == [7, 1]
    assert shown(env)["terminated"] == [False, True]
    assert env.groups[0].obs[""][0, 0] == 5
    assert inner.asked == [{}, {"a": 1}, {}, {}]


def test_who_never_saw_anything_is_not_cut_off():
    env, _ = script({"a": 1}, ({"a": 2}, {}, {}, {"__all__": True}))
    step(env, 0, -1)
    assert (shown(env)["truncated"], shown(env)["terminated"]) == ([True, False], [False, True])


def test_what_was_seen_in_the_match_before_is_forgotten():
    end = ({"a": 2}, {}, {}, {"__all__": True})
    env, inner = script({"a": 1, "b": 1}, end)
    step(env, 0, 0)
    assert shown(env)["truncated"] == [True, True]
    inner.first = {"a": 1}
    env.restart(np.zeros(1, np.int64), np.zeros(1, np.uint64))
    step(env, 0, -1)
    assert (shown(env)["truncated"], shown(env)["terminated"]) == ([True, False], [False, True])


def test_an_error_of_the_environment_drops_its_match():
    env, inner = script({"a": 1}, ({"a": 2}, {}, {}, {}))
    step(env, 0, -1)
    step(env, 0, -1)
    assert env.dropped[0]
    assert "IndexError" in env.cause
    env.restart(np.zeros(1, np.int64), np.zeros(1, np.uint64))
    assert not env.dropped[0]


def test_a_game_that_goes_on_without_anybody_is_refused(monkeypatch):
    monkeypatch.setattr(games, "MAX_IDLE_STEPS", 3)
    idle = ({}, {}, {}, {})
    with pytest.raises(ValueError, match="no agent acted in 3 steps"):
        script({}, idle, idle, idle, idle)


def test_an_agent_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="an observation for 'z', which is none of its agents"):
        script({"z": 1})


# Spaces and masks.


class Spaced(MultiAgentEnv):
    """One step of two agents, whose spaces are as the config says."""

    def __init__(self, config):
        super().__init__()
        self.agents = self.possible_agents = [0, 1]
        for name, value in config["attributes"].items():
            setattr(self, name, value)
        self.obs = config["obs"]

    def reset(self, *, seed=None, options=None):
        return {0: self.obs, 1: self.obs}, {}

    def step(self, action_dict):
        return {}, {}, {"__all__": True}, {"__all__": False}, {}


BOX = spaces.Box(-1, 1, (2,))
EYES = np.array([0.5, -0.5], np.float32)


def spaced(obs_space, action_space, obs, *, form="dicts"):
    old = {"observation_space": obs_space, "action_space": action_space}
    attributes = {
        "dicts": {f"{name}s": {0: space, 1: space} for name, space in old.items()},
        "one": old,
        "one by agent": {name: spaces.Dict({0: space, 1: space}) for name, space in old.items()},
    }[form]
    env = games._make_games("rllib:spaced", Spaced, 2, attributes=attributes, obs=obs)
    env.restart(np.arange(2), np.zeros(2, np.uint64))
    return env


@pytest.mark.parametrize("form", ["dicts", "one", "one by agent"])
def test_spaces_in_the_new_and_the_old_form(form):
    env = spaced(BOX, spaces.Discrete(3), EYES, form=form)
    (group,) = env.groups
    assert (group.observation_space, group.action_space, group.mask) == (BOX, spaces.Discrete(3), {})
    assert env.seat_names == ("agent_0", "agent_1")
    assert env.teams == (0, 1)


@pytest.mark.parametrize("key", ["observations", "observation"])
@pytest.mark.parametrize("mask_space", [spaces.Box(0.0, 1.0, (3,)), spaces.MultiBinary(3)])
def test_a_mask_beside_an_observation_is_taken_out_of_it(key, mask_space):
    space = spaces.Dict({"action_mask": mask_space, key: BOX})
    env = spaced(space, spaces.Discrete(3), {"action_mask": np.array([0, 1, 1]), key: EYES})
    (group,) = env.groups
    assert group.observation_space == BOX
    assert group.obs[""][1, 1].tolist() == EYES.tolist()
    assert group.mask[""][0, 0].tolist() == [False, True, True]
    with pytest.raises(ValueError, match="match 1, seat 0: action 0 is illegal"):
        env.step(({"": np.array([[1, 1], [0, 1]])},))


def test_a_mask_among_other_parts_leaves_the_others():
    space = spaces.Dict({"action_mask": spaces.MultiBinary(5), "x": BOX, "y": spaces.Discrete(4)})
    obs = {"action_mask": np.array([1, 0, 0, 1, 1]), "x": EYES, "y": 3}
    env = spaced(space, spaces.MultiDiscrete([2, 3]), obs)
    (group,) = env.groups
    assert group.obs.keys() == {"x", "y"}
    assert group.mask[""][0, 0].tolist() == [True, False, False, True, True]


def test_what_is_no_mask_is_seen():
    space = spaces.Dict({"action_mask": spaces.MultiBinary(2), "observations": BOX})
    env = spaced(space, spaces.Discrete(3), {"action_mask": np.array([0, 1], np.int8), "observations": EYES})
    assert env.groups[0].mask == {}
    assert env.groups[0].obs.keys() == {"action_mask", "observations"}


# Arguments and mistakes.


def test_teams_are_patterns_of_agents():
    table = {"good": ["agent_*"], "bad": ["adversary_?"]}
    names = ("adversary_0", "agent_0", "agent_1")
    assert script({"agent_1": 1}, agents=names)[0].teams == (0, 1, 2)
    assert script({"agent_1": 1}, agents=names, teams=table)[0].teams == (1, 0, 0)
    with pytest.raises(ValueError, match="agents are adversary_0, agent_0, agent_1"):
        script({"agent_1": 1}, agents=names, teams={"good": ["agent_*"]})


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("rllib:nothing", "must have the form rllib:package.module:Class"),
        ("rllib:no.such:Thing", "no.such"),
        (
            "rllib:ray.rllib.examples.envs.classes.multi_agent.tic_tac_toe:TicTacTo",
            "has no class 'TicTacTo' (did you mean 'TicTacToe'?)",
        ),
        ("rllib:gymnasium.envs.classic_control:CartPoleEnv", "is not an RLlib MultiAgentEnv"),
        ("rllib:selfplay.rllib.environment:GameEnv", "cannot be made of {}: KeyError: 'game'"),
    ],
)
def test_a_mistake_is_one_line(id, message):
    with pytest.raises(ValueError) as caught:
        registry.make(id, 1)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# Whole games.


def test_an_example_of_rllib_is_played_to_its_end():
    id = "rllib:ray.rllib.examples.envs.classes.multi_agent.rock_paper_scissors:RockPaperScissors"
    env = registry.make(id, 3, sheldon_cooper_mode=True)
    assert env.groups[0].action_space == spaces.Discrete(5)
    check(lambda num_games: registry.make(id, num_games, sheldon_cooper_mode=True), num_steps=40)


@pytest.mark.parametrize("name", ["connect_four", "brawl", "turns", "cutoff"])
def test_our_game_through_rllib_is_our_game(name, monkeypatch):
    """The same seeds and actions give the same views there and back, each match with its own spaces."""
    for toy, make in TOYS.items():
        monkeypatch.setitem(registry._NATIVE, toy, f"tests.toy_games:{make.__name__}")
    again = registry.make("rllib:selfplay.rllib.environment:GameEnv", 4, game=name)
    plain = registry.make(name, 4)
    opened = plain.restart
    # The environment draws the game's seed from the seed that RLlib hands it.
    monkeypatch.setattr(
        plain,
        "restart",
        lambda slots, seeds: opened(slots, np.array([_drawn(seed) for seed in seeds], np.uint64)),
    )
    order = np.arange(4)
    for one, two in zip(trace(plain, 60, 0, order), trace(again, 60, 0, order), strict=True):
        for key in one.keys() - {"reward"}:
            assert np.array_equal(one[key], two[key.replace("'/", "'")]), key
        if name != "brawl":  # where the dead are paid, which RLlib's episodes do not take
            assert np.array_equal(one["reward"], two["reward"])


def _drawn(seed):
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(int(seed) % 2**32)))
    return rng.integers(2**64, size=1, dtype=np.uint64)[0]


def test_masks_shown_to_rllib_are_the_games():
    from selfplay.rllib.environment import GameEnv

    env = GameEnv({"game": "connect_four"})
    obs, _ = env.reset(seed=3)
    assert env.observation_spaces["seat_0"].contains(obs["seat_0"])
    for _ in range(6):  # the first column is full after six moves
        (agent,) = obs
        assert obs[agent]["action_mask"].tolist() == [1] * 7
        obs, reward, terminated, _, _ = env.step({agent: 0})
    (agent,) = obs
    assert obs[agent]["action_mask"].tolist() == [0] + [1] * 6
    assert (reward, terminated["__all__"]) == ({"seat_0": 0.0, "seat_1": 0.0}, False)


def test_the_last_action_and_reward_are_shown_on_demand(monkeypatch):
    """In a game where everybody is paid at every step, whoever acts."""
    from selfplay.rllib.environment import GameEnv

    monkeypatch.setitem(registry._NATIVE, "turns", "tests.toy_games:turns")
    env, rng = GameEnv({"game": "turns", "previous": True}), np.random.default_rng(0)
    seen_twice = 0
    for seed in range(8):
        obs, _ = env.reset(seed=seed)
        last, earned, over = dict.fromkeys(env.agents, 0), dict.fromkeys(env.agents, 0.0), False
        while not over:
            for agent, view in obs.items():
                assert view["previous_action"] == last[agent]  # 0: none yet
                assert view["previous_reward"] == pytest.approx(earned[agent])
                assert env.observation_spaces[agent].contains(view)
                seen_twice += last[agent] > 0
            actions = {agent: rng.choice(np.flatnonzero(view["action_mask"])) for agent, view in obs.items()}
            last |= {agent: 1 + action for agent, action in actions.items()}
            earned |= dict.fromkeys(actions, 0.0)
            obs, reward, terminated, truncated, _ = env.step(actions)
            earned |= {agent: earned[agent] + amount for agent, amount in reward.items()}
            over = terminated["__all__"] or truncated["__all__"]
    assert seen_twice > 5


def test_an_illegal_action_in_rllib_names_the_seat():
    from selfplay.rllib.environment import GameEnv

    env = GameEnv({"game": "connect_four"})
    (agent,) = env.reset(seed=0)[0]
    with pytest.raises(ValueError, match=f"{agent}: action 7 is illegal"):
        env.step({agent: 7})
