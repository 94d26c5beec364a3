"""What each seat's policy sees beside the observation, in a game that says the same in the observation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.python_games import Match, Moment, PythonGames, Seat
from policies.policy import Policy
from selfplay import part_play, recording
from selfplay.config import Config
from selfplay.engine import make_learners
from selfplay.evaluate import evaluate
from selfplay.matches import MAIN, Lineups
from selfplay.replay import ReplayError
from selfplay.weights import by_part
from selfplay.worker import Worker
from tests.selfplay.test_rollout import assert_equal_collects

GAMES = 6
TEAMS = (0, 0, 1, 0, 1, 1)
SEATS = {0: [0, 3], 1: [2, 5], 2: [1], 3: [4]}  # of each part: two in each group, seats in turns
TAG, CLOCK, SEAT, PAID, LAST = 0, 1, 2, 3, 4  # where an observation says what


class Echo(Match):
    """Whoever acts, anybody is paid; half of the matches are cut off, half end by the rules.

    A view is [tag of the match, clock, seat, paid since the seat's last decision, last action + 1].
    """

    def reset(self, seed):
        self.chance = np.random.default_rng(seed)
        self.tag, self.clock = self.chance.uniform(-1, 1), 0
        self.paid, self.last = np.zeros(6), np.zeros((6, 2))
        self.limit, self.cut = self.chance.integers(4, 9), self.chance.random() < 0.5
        return self._moment(np.zeros(6))

    def step(self, actions):
        self.clock += 1
        for seat, action in actions.items():
            self.last[seat] = np.asarray(action) + 1
            self.paid[seat] = 0
        reward = self.chance.integers(-8, 9, 6) / 8
        self.paid += reward
        return self._moment(reward)

    def _moment(self, reward):
        over = self.clock == self.limit
        acting = [seat for seat in range(6) if self.chance.random() < 0.5] or [int(self.clock % 6)]
        shown = range(6) if over else acting
        return Moment(
            () if over else acting,
            {seat: self._view(seat) for seat in shown} if not over or self.cut else {},
            reward=dict(enumerate(reward.tolist())),
            terminated=range(6) if over and not self.cut else (),
            truncated=range(6) if over and self.cut else (),
            state=np.array([self.tag, self.clock], np.float32),
        )

    def _view(self, seat):
        last = self.last[seat] if seat in (1, 4) else self.last[seat, :1]
        return np.array([self.tag, self.clock, seat, self.paid[seat], *last], np.float32)

    def render(self):
        return str(self.clock)


def echo(num_games):
    one = spaces.Box(-99, 99, (LAST + 1,)), spaces.Discrete(3)
    two = spaces.Box(-99, 99, (LAST + 2,)), spaces.MultiDiscrete([3, 4])
    seats = [Seat(f"p_{seat}", *(two if seat in (1, 4) else one)) for seat in range(6)]
    state = spaces.Box(-99, 99, (2,))
    return PythonGames("echo", Echo, num_games, seats, TEAMS, privileged_space=state)


CONFIG = Config.model_validate(
    {
        "env": {"id": "python:tests.selfplay.test_part_play:echo"},
        "policy": {
            "per": "team", "previous": True, "critic": "privileged", "encoder": [8], "hidden_size": 8,
        },
        "rollout": {"num_games": GAMES, "num_workers": 0, "fragment_length": 4},
        "ppo": {"magnet_coef": 0.1, "num_minibatches": 2},
        "device": "cpu",
    }
)  # fmt: skip


def assert_agrees(obs):
    """Every leaf beside the observation says what the observation says; leaves [..., n]."""
    view = obs[""]
    np.testing.assert_allclose(obs["@reward"][..., 0], view[..., PAID], atol=1e-5)
    last = view[..., LAST:]
    np.testing.assert_array_equal(obs["@action"].reshape(last.shape), last)
    np.testing.assert_array_equal(obs["@state"], view[..., [TAG, CLOCK]])


@pytest.fixture
def looked(monkeypatch):
    """Checks all that any policy looks at, and whose seats they are; gives the seats, look by look.

    A policy's part is the last digit of its value_mean (see `stamped`).
    """
    seats = []
    original = Policy.step

    def step(self, obs, is_first, state):
        assert_agrees({path: leaf.numpy() for path, leaf in obs.items()})
        seats.append(obs[""][:, SEAT].int().tolist())
        assert set(seats[-1]) <= set(SEATS[int(self.value_mean) % 10])
        return original(self, obs, is_first, state)

    monkeypatch.setattr(Policy, "step", step)
    return seats


def stamped(weights, names, tens):
    """The weights with the number of each part, and so many tens, as its policy's value_mean."""
    tables = by_part(weights, names)
    return {
        f"{name}/{path}": np.array(10 * tens + k, x.dtype).reshape(x.shape) if path == "value_mean" else x
        for k, (name, table) in enumerate(zip(names, tables, strict=True))
        for path, x in table.items()
    }


def opened(seed=0):
    """A worker, its learners, and how it gets the weights of a past self."""
    config = CONFIG.model_copy(update={"seed": seed})
    worker, learners = Worker(config, 0, 1), make_learners(config, "cpu", 1)
    names = [part.name for part in worker.parts]
    worker.load(stamped(learners.weights(), names, 0), 0)
    past = make_learners(CONFIG.model_copy(update={"seed": 9}), "cpu", 1).weights()
    return worker, learners, lambda name: stamped(past, names, int(name.removeprefix("main-")))


LINEUPS = Lineups((MAIN, "main-1"), np.array([[0] * 6, *np.array([TEAMS, TEAMS[::-1]])], np.int32))


def collects(worker, fetch, count):
    worker.rollout.assign(LINEUPS, worker._bring(LINEUPS.players, worker.rollout.matches.players, fetch))
    return [worker.rollout.collect() for _ in range(count)]


def test_every_policy_sees_what_its_own_seats_did_and_were_paid(looked):
    worker, _, fetch = opened()
    assert [part.seats.tolist() for part in worker.parts] == list(SEATS.values())
    for batch, _ in collects(worker, fetch, 4):
        for part, fragment in zip(worker.parts, batch, strict=True):
            assert_agrees(fragment.obs)
            view, ended = fragment.obs[""], fragment.terminated | fragment.truncated
            assert set(view[..., SEAT].reshape(-1).astype(int)) == set(part.seats)
            on = ~fragment.is_first[1:]
            assert np.array_equal(on, ~ended[:-1])
            now, later = view[:-1][on], view[1:][on]
            assert np.array_equal(now[:, [TAG, SEAT]], later[:, [TAG, SEAT]])
            np.testing.assert_allclose(fragment.reward[:-1][on], later[:, PAID], atol=1e-5)
            played = fragment.action[""][:-1][on].reshape(len(later), -1)
            assert np.array_equal(played + 1, later[:, LAST:])
    assert sum(map(len, looked)) > 300


def test_matches_beside_training_are_played_by_the_same_policies(looked):
    worker, learners, fetch = opened()
    weights = stamped(learners.weights(), [part.name for part in worker.parts], 0)
    results = worker.play(weights, 0, LINEUPS, [0], fetch)
    assert len(results.seed) == len(LINEUPS.table)
    assert looked


def test_matches_beside_training_are_the_same_in_a_game_that_is_played_again(looked):
    worker, learners, fetch = opened()
    weights = stamped(learners.weights(), [part.name for part in worker.parts], 0)

    def play(lineups):
        results = worker.play(weights, 0, lineups, [0], fetch)
        return worker._beside, [results.seed.tolist(), results.returns.tolist(), results.length.tolist()]

    game, first = play(LINEUPS)
    assert play(LINEUPS) == (game, first)
    fewer, _ = play(replace(LINEUPS, table=LINEUPS.table[:1]))
    assert fewer is not game
    assert play(LINEUPS)[1] == first


def test_going_on_from_mid_play_is_the_same_play(looked):
    one, _, fetch = opened()
    collects(one, fetch, 2)
    arrays, meta = one.state()
    arrays = {name: array.copy() for name, array in arrays.items()}
    other, _, _ = opened()
    assert other.set_state(arrays, meta, fetch)
    on = [[worker.rollout.collect() for _ in range(2)] for worker in (one, other)]
    assert_equal_collects(*on)


def test_a_replay_shows_the_policies_what_they_saw(looked):
    worker, _, _ = opened()
    match, main = recording.FirstMatch(echo(2)), worker.rollout.main
    evaluate(match, worker.parts, [main, main], games=2, seed=3)
    part = {seat: k for k, seats in SEATS.items() for seat in seats}
    seated = [("it", main[part[seat]]) for seat in range(6)]
    before = len(looked)
    record = recording.annotate(match, CONFIG.env, echo(1), seated, 3)
    assert len(looked) - before == sum(map(len, record.steps)) > 6


def test_learners_of_all_parts_go_on_from_a_state():
    """Policies, optimisers, moments and magnets, each part's its own."""
    worker, learners, fetch = opened()
    batches = [batch for batch, _ in collects(worker, fetch, 2)]
    for batch in batches[:1]:
        learners.update([batch])
    arrays, meta = learners.state()
    other = opened(seed=5)[1]
    other.set_state(arrays, meta)
    again, meta_again = other.state()
    assert again.keys() == arrays.keys()
    assert all(np.array_equal(again[name], array) for name, array in arrays.items())
    assert meta_again == meta
    first, second = (learner.magnet.state_dict() for learner in list(learners.learners.values())[:2])
    assert any(not torch.equal(x, second[name]) for name, x in first.items())
    left, right = learners.update([batches[1]]), other.update([batches[1]])
    for metrics in (left.metrics, right.metrics):
        del metrics["time/update"]
    assert left.metrics == right.metrics
    assert all(np.array_equal(x, right.weights[name]) for name, x in left.weights.items())


def test_what_any_part_played_is_checked():
    worker, learners, fetch = opened()
    worker.load(learners.weights(), 0)
    ((batch, _),) = collects(worker, fetch, 1)
    assert learners.check_replay([batch]) is not None
    for k, fragment in enumerate(batch):
        wrong = [*batch]
        wrong[k] = replace(fragment, logp=fragment.logp - 1)
        with pytest.raises(ReplayError):
            learners.check_replay([tuple(wrong)])
    assert learners.check_replay([(None,) * 4]) is None


def test_a_part_that_decides_seldom_is_checked_when_it_has():
    worker, learners, fetch = opened()
    worker.load(learners.weights(), 0)
    ((batch, _),) = collects(worker, fetch, 1)
    assert learners.check_replay([(*batch[:3], None)]) is None
    assert learners.check_replay([(*batch[:3], None)]) is None
    wrong = replace(batch[3], logp=batch[3].logp - 1)
    with pytest.raises(ReplayError):
        learners.check_replay([(*batch[:3], wrong)])
    assert learners.check_replay([batch]) is not None


def test_rows_by_player():
    # Seats 2 and 0 are the part's: row = 2 * game + place. Player 3 sits where nobody acts.
    to_act = np.array([[1, 1, 1], [0, 1, 1], [1, 0, 0], [0, 0, 0]], bool)
    lineup = np.array([[5, 9, 0], [0, 9, 5], [5, 9, 3], [-1, -1, -1]], np.int32)
    rows, players = np.full(8, -7), np.full(8, -7)
    ends = part_play._by_player(to_act, lineup, np.array([2, 0]), 6, rows, players)
    assert ends.tolist() == [0, 1, 4]
    assert players[:2].tolist() == [0, 5]
    assert rows[:4].tolist() == [0, 1, 2, 5]
    nobody = part_play._by_player(np.zeros_like(to_act), lineup, np.array([2, 0]), 6, rows, players)
    assert nobody.tolist() == [0]
    for absent in (-1, 6):
        lineup[2, 0] = absent
        with pytest.raises(AssertionError, match="nobody plays"):
            part_play._by_player(to_act, lineup, np.array([2, 0]), 6, rows, players)


def test_past_selves_who_left_come_back_or_leave_their_networks_to_others():
    worker, learners, fetch = opened()
    names, fetched, networks, came_back = [part.name for part in worker.parts], [], {}, 0

    def own(name):
        """Other weights for every name."""
        number = int(name.removeprefix("main-"))
        return {path: x + x.dtype.type(number) for path, x in fetch(name).items()}

    def noted(name):
        fetched.append(name)
        return own(name)

    weights = stamped(learners.weights(), names, 0)
    for number, past in enumerate(([1, 2], [3, 4], [5, 4], [1, 6], [5, 7], [8], [2, 9], [9, 2], [6])):
        others = tuple(f"main-{k}" for k in past)
        table = [np.where(np.array(TEAMS) == team, 0, 1 + k) for k in range(len(past)) for team in (0, 1)]
        lineups = Lineups((MAIN, *others), np.array(table, np.int32))
        came_back += len(set(others) & set(worker._resting))
        worker.collect(weights, number, lineups, noted)
        seated = worker.rollout.matches.players
        assert {MAIN, *others} <= set(seated)
        if number == 5:  # beside training they come and go too
            worker.play(weights, number, replace(lineups, players=(MAIN, "main-2")), [7, number], noted)
            assert "main-2" in worker._resting
        everyone = {
            id(player): player for who in (*seated.values(), *worker._resting.values()) for player in who
        }
        assert len(everyone) == len(names) * (len(seated) + len(worker._resting))
        assert not set(worker._resting) & set(seated)
        networks |= everyone
        for name, who in {**seated, **worker._resting}.items():
            wanted = by_part(weights if name == MAIN else own(name), names)
            for player, table in zip(who, wanted, strict=True):
                state = player.policy.state_dict()
                assert all(np.array_equal(state[path].numpy(), x) for path, x in table.items())
    assert came_back
    assert len(networks) < len(names) * (1 + len(fetched))
