"""Vector games as PettingZoo and Gymnasium environments: those libraries' own checks, and what is paid
and shown against the vector game itself."""

from __future__ import annotations

import warnings
from collections import defaultdict

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, seed_test

from envs.as_gymnasium import single_agent_env
from envs.as_pettingzoo import aec_env, parallel_env
from envs.one_match import OneMatch
from envs.python_games import Match, Moment, PythonGames, Seat
from envs.registry import native_games
from envs.vector import GameError
from tests.toy_games import TOYS

SCOUT = Seat(
    "scout_0",
    spaces.Dict({"kind": spaces.Discrete(3, start=1), "where": spaces.Box(1, 4, (2,), np.float32)}),
    spaces.Dict(
        {
            "aim": spaces.Box(-1, 1, (2,), np.float32),
            "flags": spaces.MultiBinary(3),
            "move": spaces.MultiDiscrete([2, 3]),
        }
    ),
    has_mask=True,
)
HEAT = spaces.Dict({"heat": spaces.Box(0, 1, (4,), np.float32)})
BOSS = Seat("boss_0", HEAT, spaces.Discrete(5, start=2), has_mask=True)
RAIDERS = [SCOUT, SCOUT._replace(name="scout_1"), BOSS]
SCOUT_MASK = {"flags": np.array([1, 1, 0, 1, 1, 0], bool), "move": np.array([0, 1, 1, 0, 1], bool)}
BOSS_MASK = np.array([0, 1, 1, 0, 1], bool)


class Raid(Match):
    """Two scouts and a boss at once; the first scout dies at time 2, and time is up at 5."""

    def reset(self, seed: int) -> Moment:
        self.rng, self.time = np.random.default_rng(seed), 0
        return self.moment([0, 1, 2])

    def step(self, actions: dict[int, object]) -> Moment:
        self.time += 1
        if self.time == 2:
            return self.moment([1, 2], terminated=[0])
        return self.moment([], truncated=[1, 2]) if self.time == 5 else self.moment(sorted(actions))

    def moment(self, to_act, terminated=(), truncated=()) -> Moment:
        obs = {seat: self.look(seat) for seat in (*to_act, *truncated)}
        mask = {seat: BOSS_MASK if seat == 2 else SCOUT_MASK for seat in to_act}
        reward = {seat: seat + self.time / 4 for seat in obs.keys() | {*terminated} if self.time}
        return Moment(to_act, obs, mask, reward, terminated, truncated)

    def look(self, seat: int) -> object:
        if seat == 2:
            return {"heat": self.rng.random(4, dtype=np.float32)}
        return {"kind": 1 + self.time % 3, "where": self.rng.uniform(1, 4, 2).astype(np.float32)}

    def render(self) -> str:
        return f"time {self.time}"


def raid(num_games: int) -> PythonGames:
    return PythonGames("raid", Raid, num_games, RAIDERS, (0, 0, 1))


class Breaking(Raid):
    """An exception in its first step."""

    def step(self, actions):
        raise RuntimeError("no more")


def breaking(num_games: int) -> PythonGames:
    return PythonGames("breaking", Breaking, num_games, RAIDERS, (0, 0, 1))


GAMES = {**{id: id for id in native_games()}, **TOYS, "raid": raid}


FINE = "|".join(  # what the checkers warn of and a game may well be
    [
        "Observation is not a NumPy array",
        "Observation is a single number",
        "Observation numpy array is all zeros",
        "Observation has more than 3 dimensions",
        "Observations (between agents are different classes|are different shapes|have different number)",
        "(Observation|Action) space for each agent probably should be",
        "The class of observation spaces is different between two agents",
        "Agents have different observation space sizes",
        "Agent's (minimum|maximum) observation space value is",
        "A Box observation space (minimum|maximum) value is",
        "For Box action spaces, we recommend using a symmetric",
        "Not able to test alternative render modes",
    ]
)


@pytest.fixture(params=GAMES)
def game(request):
    return GAMES[request.param]


@pytest.fixture
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=f".*({FINE})")
        yield


@pytest.mark.usefixtures("warnings_are_errors")
def test_pettingzoos_own_checks(game):
    api_test(aec_env(game), num_cycles=60)
    seed_test(lambda: aec_env(game), num_cycles=30)
    parallel_api_test(parallel_env(game), num_cycles=60)
    parallel_seed_test(lambda: parallel_env(game), num_cycles=30)


@pytest.mark.usefixtures("warnings_are_errors")
@pytest.mark.parametrize("seating", ["first", "last", "alternate", "random"])
def test_gymnasiums_own_check(game, seating):
    match = OneMatch(game, {})
    if match.env.id == "turns":
        pytest.skip("may be cut off at the first decision, which the check takes for an error")
    if seating in ("alternate", "random"):
        if len(match.env.groups) > 1:
            pytest.skip("seats differ")
        seat: int | str = seating
    else:
        seat = 0 if seating == "first" else len(match.seat_names) - 1
    check_env(single_agent_env(game, seat=seat))


class Log:
    """A game's factory that notes what each step paid, over the newest match."""

    def __init__(self, game):
        self._make = native_games()[game] if isinstance(game, str) else game

    def __call__(self, num_games: int):
        env = self._make(num_games)
        restart, step = env.restart, env.step

        def logged_restart(games, seeds):
            restart(games, seeds)
            self.paid = []

        def logged_step(actions):
            step(actions)
            self.paid.append(env.reward[0].tolist())
            self.env = env

        env.restart, env.step = logged_restart, logged_step
        return env


def _sample(space: spaces.Space, info: dict, rng: np.random.Generator) -> object:
    space.seed(int(rng.integers(2**31)))
    return space.sample(info.get("action_mask"))


@pytest.mark.parametrize("id", [id for id in GAMES if id != "brawl"])  # there the dead are paid
def test_all_that_a_game_pays_arrives(id):
    """Ten matches each, played by masks; one view is the other, decision by decision."""
    log = Log(GAMES[id])
    aec, parallel = aec_env(log), parallel_env(log)
    for seed in range(10):
        totals = []
        for play in (_play_aec, _play_parallel):
            totals.append(play(aec if play is _play_aec else parallel, seed))
            paid = np.sum(log.paid, axis=0)
            assert log.env.over[0]
            assert list(totals[-1].values()) == pytest.approx(paid.tolist())
        assert totals[0] == totals[1]


def _play_aec(env, seed: int) -> dict[str, float]:
    rng, total = np.random.default_rng(seed), defaultdict(float)
    env.reset(seed=seed)
    for name in env.agent_iter():
        obs, reward, terminated, truncated, info = env.last()
        assert env.observation_space(name).contains(obs)
        total[name] += reward
        env.step(None if terminated or truncated else _sample(env.action_space(name), info, rng))
    assert not env.agents
    return {name: total[name] for name in env.possible_agents}


def _play_parallel(env, seed: int) -> dict[str, float]:
    rng, total = np.random.default_rng(seed), dict.fromkeys(env.possible_agents, 0.0)
    _, infos = env.reset(seed=seed)
    while env.agents:
        actions = {
            name: _sample(env.action_space(name), infos[name], rng)
            for name in env.agents
            if infos[name]["to_act"]
        }
        obs, rewards, terminations, truncations, infos = env.step(actions)
        for name, reward in rewards.items():
            assert env.observation_space(name).contains(obs[name])
            assert (name not in env.agents) == (terminations[name] or truncations[name])
            total[name] += reward
    return total


@pytest.mark.parametrize("id", [id for id in GAMES if id != "brawl"])
@pytest.mark.parametrize("seat", [0, -1])
def test_a_seat_is_paid_all_that_it_earns(id, seat):
    """The first reward of a match includes what came before the first decision."""
    log = Log(GAMES[id])
    seat %= len(OneMatch(log, {}).seat_names)
    env = single_agent_env(log, seat=seat)
    rng = np.random.default_rng(0)
    for _ in range(10):
        obs, info = env.reset(seed=int(rng.integers(100)))
        total, ended = 0.0, False
        while not ended:
            assert env.observation_space.contains(obs)
            obs, reward, terminated, truncated, info = env.step(_sample(env.action_space, info, rng))
            total += reward
            ended = terminated or truncated
        assert total == pytest.approx(np.sum(log.paid, axis=0)[seat])
        with pytest.raises(GameError, match="reset begins another"):
            env.step(env.action_space.sample())


# One game by hand.


def test_tic_tac_toe_by_turns():
    env = aec_env("tic_tac_toe", render_mode="ansi")
    env.reset(seed=0)
    assert env.possible_agents == ["seat_0", "seat_1"]
    for cell, name in zip([4, 0, 2, 1, 6], ["seat_0", "seat_1"] * 3):
        assert env.agent_selection == name
        env.step(cell)
    assert env.render() == "O O X\n4 X 6\nX 8 9\nX has won"
    assert env.terminations == {"seat_0": True, "seat_1": True}
    assert [env.last()[1:4] for _ in [env.step(None)] if env.agents] == [(-1, True, False)]
    env.reset()
    env.step(4)
    obs, reward, terminated, truncated, info = env.last()
    assert obs[0].ravel().tolist() == [1, 1, 1, 1, 0, 1, 1, 1, 1]
    assert info["action_mask"].tolist() == [1, 1, 1, 1, 0, 1, 1, 1, 1]
    assert env.observe("seat_0").sum() == 9  # as it was at its own turn


def test_tic_tac_toe_all_at_once():
    env = parallel_env("tic_tac_toe")
    env.reset(seed=0)
    obs, rewards, terminations, truncations, infos = env.step({"seat_0": 4, "seat_1": 4})
    assert [infos[name]["to_act"] for name in env.agents] == [False, True]
    assert infos["seat_0"]["action_mask"].tolist() == [1] * 9  # ignored, so anything goes
    assert infos["seat_1"]["action_mask"].tolist() == [1, 1, 1, 1, 0, 1, 1, 1, 1]
    with pytest.raises(GameError, match="tic_tac_toe: agent 'seat_1' must act"):
        env.step({"seat_0": 1})
    for cell in (0, 2, 1):
        env.step(dict.fromkeys(env.agents, cell))
    _, rewards, terminations, _, _ = env.step(dict.fromkeys(env.agents, 6))
    assert rewards == {"seat_0": 1, "seat_1": -1}
    assert terminations == {"seat_0": True, "seat_1": True}
    assert env.agents == []


def test_masks_in_the_form_that_samples_them():
    env = parallel_env(raid)
    _, infos = env.reset(seed=0)
    mask = infos["scout_0"]["action_mask"]
    assert mask["aim"] is None
    assert mask["flags"].tolist() == [2, 1, 0]
    assert [part.tolist() for part in mask["move"]] == [[0, 1], [1, 0, 1]]
    assert infos["boss_0"]["action_mask"].tolist() == [0, 1, 1, 0, 1]
    drawn = [env.action_space("boss_0").sample(infos["boss_0"]["action_mask"]) for _ in range(50)]
    assert set(drawn) == {3, 4, 6}


def test_who_has_ended_is_no_longer_an_agent():
    env = parallel_env(raid)
    _, infos = env.reset(seed=0)
    alive = []
    while env.agents:
        actions = {name: env.action_space(name).sample(infos[name]["action_mask"]) for name in env.agents}
        _, rewards, terminations, truncations, infos = env.step(actions)
        alive.append(len(env.agents))
    assert alive == [3, 2, 2, 2, 0]
    assert truncations == {"scout_1": True, "boss_0": True}
    assert rewards == {"scout_1": 2.25, "boss_0": 3.25}


class BossFirst(Raid):
    """The scouts see nothing yet."""

    def reset(self, seed):
        super().reset(seed)
        return self.moment([2])


def test_who_has_seen_nothing_sees_a_blank_of_its_space():
    env = parallel_env(lambda num_games: PythonGames("late", BossFirst, num_games, RAIDERS, (0, 0, 1)))
    obs, infos = env.reset(seed=0)
    assert [info["to_act"] for info in infos.values()] == [False, False, True]
    assert obs["scout_0"]["kind"] == 1
    assert obs["scout_0"]["where"].tolist() == [1, 1]
    assert all(env.observation_space(name).contains(obs[name]) for name in env.agents)


# Opponents.


def test_the_perfect_player_is_met_in_both_seats():
    env = single_agent_env("tic_tac_toe", opponent="perfect", seat="alternate")
    seats, results, openings = [], [], set()
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    for _ in range(100):
        obs, info = env.reset()
        seats.append(info["seat"])
        openings.add(int((obs[0] == 0).sum()))
        ended = False
        while not ended:
            obs, reward, ended, _, info = env.step(_sample(env.action_space, info, rng))
        results.append(reward)
    assert seats == [1, 0] * 50
    assert openings == {0, 1}
    assert set(results) == {-1, 0}


def test_an_opponent_is_any_bot():
    def rock(obs, mask, rng):
        assert obs[""].shape == (1, 7)
        return {"": np.zeros(1, np.int64)}

    env = single_agent_env("rock_paper_scissors", opponent=rock, rounds=3)
    env.reset(seed=0)
    assert [env.step(action)[1:3] for action in (1, 2, 0)] == [(1, False), (-1, False), (0, True)]
    with pytest.raises(ValueError, match="opponent='rocks' must be one of random, rock, paper"):
        single_agent_env("rock_paper_scissors", opponent="rocks")


def test_a_seat_is_a_number_where_seats_differ():
    with pytest.raises(ValueError, match="raid: its seats have different spaces"):
        single_agent_env(raid, seat="alternate")
    with pytest.raises(ValueError, match="raid: seat=3 must be 0 to 2, 'alternate' or 'random'"):
        single_agent_env(raid, seat=3)


# What is not allowed, and what fails.


@pytest.mark.parametrize("action", [4, 9, -1, 0.5, "a", [0]])
def test_an_illegal_action_ends_the_match_and_says_why(action):
    aec, parallel = aec_env("tic_tac_toe"), parallel_env("tic_tac_toe")
    single = single_agent_env("tic_tac_toe", seat=1, opponent=lambda obs, mask, rng: {"": np.array([4])})
    aec.reset(seed=0)
    aec.step(4)
    aec.step(action)
    assert aec.rewards == {"seat_0": 0, "seat_1": -1}
    assert aec.terminations == {"seat_0": True, "seat_1": True}
    reasons = [aec.infos["seat_1"]]
    parallel.reset(seed=0)
    parallel.step({"seat_0": 4})
    _, rewards, terminations, _, infos = parallel.step({"seat_0": 4, "seat_1": action})
    assert (rewards, terminations) == (aec.rewards, aec.terminations)
    assert "illegal_action" not in infos["seat_0"]
    reasons.append(infos["seat_1"])
    single.reset(seed=0)
    _, reward, terminated, truncated, info = single.step(action)
    assert (reward, terminated, truncated) == (-1, True, False)
    reasons.append(info)
    for reason in reasons:
        assert reason["illegal_action"].startswith("tic_tac_toe, seat seat_1: action")


def test_an_illegal_action_raises_where_that_is_asked_for():
    message = r"tic_tac_toe, seat seat_0: action 9 is illegal; legal are \[0, 1, 2, 3, 4, 5, 6, 7, 8\]"
    aec, parallel, single = (
        make("tic_tac_toe", illegal="raise") for make in (aec_env, parallel_env, single_agent_env)
    )
    for env in (aec, parallel, single):
        env.reset(seed=0)
    for env, action in ((aec, 9), (parallel, {"seat_0": 9}), (single, 9)):
        with pytest.raises(GameError, match=message):
            env.step(action)
        env.step({"seat_0": 0} if env is parallel else 0)  # it is still that agent's turn


@pytest.mark.parametrize("make", [aec_env, parallel_env, single_agent_env])
def test_mistakes(make):
    with pytest.raises(ValueError, match="illegal='ignore' must be 'terminate' or 'raise'"):
        make("tic_tac_toe", illegal="ignore")
    with pytest.raises(ValueError, match="render_mode='human' must be None or 'ansi'"):
        make("tic_tac_toe", render_mode="human")
    with pytest.raises(ValueError, match="unknown game 'tic_tac'"):
        make("tic_tac")
    with pytest.raises(ValueError, match="no kwarg 'size'"):
        make("tic_tac_toe", size=4)


def test_a_match_that_breaks_off_is_an_error():
    env = single_agent_env(breaking)
    _, info = env.reset(seed=0)
    with pytest.raises(GameError, match="breaking: the match broke off: match 0: RuntimeError: no more"):
        env.step(env.action_space.sample(info["action_mask"]))


def test_seeds_make_matches():
    """Equal seeds give equal matches, and one after the other differ."""

    def openings(seed):
        env = single_agent_env("connect_four", opening_plies=12)
        first = env.reset(seed=seed)[0]
        return [first.tobytes(), *(env.reset()[0].tobytes() for _ in range(5))]

    assert openings(1) == openings(1)
    assert openings(1) != openings(2)
    assert len(set(openings(1))) > 3
