"""Several policies in one game: which seats they play, and what each learns from."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.connect_four import ConnectFour
from envs.leduc_poker import LeducPoker
from envs.python_games import Match, Moment, PythonGames, Seat
from envs.signalling import Signalling
from selfplay import checkpoint, contestants, worker
from selfplay.config import Config
from selfplay.engine import make_learners
from selfplay.errors import UserError
from selfplay.evaluate import compare, evaluate
from selfplay.matches import MAIN, Lineups
from selfplay.parts import policy_of, role, seat_names, split, units
from selfplay.replay import check_replay
from selfplay.rollout import MOST_PIECES
from selfplay.train import check, run
from selfplay.weights import by_part, joined
from selfplay.worker import Worker
from tests.selfplay.test_resume import assert_same_run


class Tag:
    """Names, teams and groups as of a game of tag; nothing else."""

    seat_names = ("adversary_0", "adversary_1", "agent_0", "scout", "agent_1")
    teams = (1, 1, 0, 0, 0)
    groups = ()


class _Group:
    def __init__(self, name, *seats):
        self.name, self.seats = name, seats


@pytest.mark.parametrize(
    ("ways", "wanted"),
    [
        (["group"], {"chaser": [0, 1, 4], "runner": [2, 3]}),
        (["role"], {"adversary": [0, 1], "chaser_agent": [4], "runner_agent": [2], "scout": [3]}),
        (["team"], {"team1": [0, 1], "chaser_team0": [4], "runner_team0": [2, 3]}),
        (["seat"], {"adversary_0": [0], "adversary_1": [1], "agent_1": [4], "agent_0": [2], "scout": [3]}),
        (["group", "team"], {"team1": [0, 1], "chaser_team0": [4], "runner_team0": [2, 3]}),
    ],
)
def test_seats_are_split(ways, wanted):
    env = Tag()
    env.groups = (_Group("chaser", 0, 1, 4), _Group("runner", 2, 3))
    parts = split(env, ways)
    assert {part.name: part.seats.tolist() for part in parts} == wanted
    for part in parts:
        assert [env.groups[part.group].seats[place] for place in part.places] == part.seats.tolist()


@pytest.mark.parametrize(
    ("held", "wanted"), [("team", (1, 1, 0, 0, 0)), ("role", (0, 0, 1, 2, 1)), ("seat", (0, 1, 2, 3, 4))]
)
def test_what_a_player_holds(held, wanted):
    assert units(Tag(), held) == wanted


def test_every_coarser_split_is_found_again_in_a_finer_one():
    env = Tag()
    env.groups = (_Group("chaser", 0, 1, 4), _Group("runner", 2, 3))
    coarse, fine = split(env, ["team"]), split(env, ["team", "seat"])
    for part in fine:
        assert set(part.seats) <= set(coarse[policy_of(part, coarse)].seats)


def test_names():
    assert seat_names(ConnectFour(1)) in [("seat_0", "seat_1"), getattr(ConnectFour, "seat_names", None)]
    assert [role(name) for name in ("adversary_12", "eve", "player3", "7")] == [
        "adversary",
        "eve",
        "player",
        "7",
    ]


def test_weights_of_several_parts_are_one_table():
    tables = [{"a": np.zeros(1), "b": np.ones(2)}, {"a": np.full(3, 2.0)}]
    table = joined(tables, ["left", "right"])
    assert sorted(table) == ["left/a", "left/b", "right/a"]
    assert by_part(table, ["left", "right"]) == tuple(tables)
    names = ["agent", "agent_1"]  # one is how the other begins
    assert by_part(joined(tables, names), names) == tuple(tables)
    assert joined(tables[:1], ["left"]) == tables[0] == by_part(tables[0], ["left"])[0]


def config_of(env_id="signalling", iterations=4, **changes):
    table = {
        "env": {"id": env_id},
        "policy": {"encoder": [12], "hidden_size": 10},
        "rollout": {"num_games": 8, "num_workers": 0, "fragment_length": 3},
        "ppo": {"anneal_steps": 3000, "normalize_value": True},
        "league": {"snapshot_iterations": 2, "rating_games": 2, "self_play": 0.5},
        "checkpoint": {"seconds": "none", "iterations": 4},
        "stop": {"iterations": iterations},
        "device": "cpu",
    }
    for section, values in changes.items():
        table[section] = table[section] | values if isinstance(values, dict) else values
    return Config.model_validate(table)


def played(config, collects=1):
    """Batches of a worker that plays its learners' first weights against themselves."""
    own, learners = Worker(config, 0, 1), make_learners(config, "cpu", 1)
    own.load(learners.weights(), 0)
    games = config.rollout.num_games
    own.rollout.assign(Lineups((MAIN,), np.zeros((games, len(own.env.teams)), np.int32)), {})
    return own, learners, [own.rollout.collect()[0] for _ in range(collects)]


AUTOREGRESSIVE = {"autoregressive": True, "previous": True, "encoder": [12], "hidden_size": 10}


@pytest.mark.parametrize(
    ("env_id", "policy"),
    [
        ("signalling", AUTOREGRESSIVE),
        ("connect_four", {"per": "seat"}),
        ("leduc_poker", {"per": "team", "critic": "privileged", "core": "gru"}),
        ("leduc_poker", {"critic": "separate", "core": "lstm_layer_norm", "num_layers": 2}),
    ],
)
def test_what_each_policy_played_replays_on_it_alone(env_id, policy):
    config = config_of(env_id, policy={"encoder": [12], "hidden_size": 10} | policy)
    own, learners, batches = played(config, 3)
    if env_id == "signalling":
        assert len(own.parts) == 2
    for batch in batches:
        for learner, fragment in zip(learners.learners.values(), batch, strict=True):
            difference = check_replay(learner.policy, fragment, 0)
            assert difference.ratio < 1e-4
            assert difference.value < 1e-4
    if len(batches[0]) > 1 and policy.get("per"):
        first, _ = learners.learners.values()
        _bold(first.policy)
        with pytest.raises(RuntimeError, match="does not give what was logged"):
            check_replay(first.policy, batches[0][1], 0)


class Uneven(Match):
    """Seat 0 acts three times, then seat 1 once, five times over."""

    def reset(self, seed):
        self.time = 0
        return self._moment()

    def step(self, actions):
        self.time += 1
        return self._moment()

    def _moment(self):
        seat = int(self.time % 4 == 3)
        if self.time == 20:
            return Moment((), {}, terminated=(0, 1), reward={0: 1.0, 1: -1.0})
        return Moment((seat,), {seat: np.array([self.time / 20, seat], np.float32)})

    def render(self):
        return str(self.time)


def uneven(num_games):
    seats = [Seat(name, spaces.Box(0, 1, (2,)), spaces.Discrete(3)) for name in ("often", "seldom")]
    return PythonGames("uneven", Uneven, num_games, seats, (0, 1))


class Rare(Uneven):
    """Seat 1 acts but once in the twenty steps of a match."""

    def _moment(self):
        moment = super()._moment()
        seat = int(self.time == 10)
        return moment if self.time == 20 else Moment((seat,), {seat: np.zeros(2, np.float32)})


def rare(num_games):
    seats = [Seat(name, spaces.Box(0, 1, (2,)), spaces.Discrete(3)) for name in ("often", "seldom")]
    return PythonGames("rare", Rare, num_games, seats, (0, 1))


def _bold(policy):
    with torch.no_grad():
        policy.output_weight *= 50


def test_a_part_that_decides_more_often_gives_more_lanes():
    """One seat acts three times for the other's once: three batches of it, as one fragment."""
    config = config_of(
        "python:tests.selfplay.test_parts:uneven", policy={"encoder": [12], "hidden_size": 10, "per": "seat"}
    )
    own, learners, batches = played(config, 6)
    assert own.rollout.matches.parts[0].rows == own.rollout.matches.parts[1].rows == 8
    assert [batch[1].num_lanes for batch in batches] == [8] * 6
    lanes = [batch[0].num_lanes for batch in batches]
    assert set(lanes) <= {16, 24, 32}
    assert np.mean(lanes) == pytest.approx(24, abs=3)
    batch = batches[-1]
    update = learners.update([batch])
    assert update.agent_steps == sum(fragment.is_first.size for fragment in batch)
    own_metrics = {f"loss/policy/{part.name}" for part in own.parts}
    assert {"loss/policy"} | own_metrics <= update.metrics.keys()
    means = np.mean([update.metrics[name] for name in own_metrics])
    assert update.metrics["loss/policy"] == pytest.approx(means)


def test_nobody_waits_long_for_a_part_that_decides_seldom():
    """Its three matches for a lane take sixty steps; eight batches of the other take about twenty-five."""
    policy = {"encoder": [12], "hidden_size": 10, "per": "seat"}
    _, _, batches = played(config_of("python:tests.selfplay.test_parts:rare", policy=policy), 4)
    often, seldom = zip(*batches, strict=True)
    assert {fragment.num_lanes for fragment in often} <= {8 * k for k in range(1, MOST_PIECES + 1)}
    assert often[0].num_lanes == 8 * MOST_PIECES
    assert seldom[0] is None
    assert [each.num_lanes for each in seldom if each is not None] == [8]


@pytest.mark.parametrize("length", [1, 3])
def test_pieces_of_a_part_that_decides_often_have_the_same_limit(length):
    policy = {"encoder": [12], "hidden_size": 10, "per": "seat"}
    config = config_of(
        "python:tests.selfplay.test_parts:rare",
        policy=policy,
        rollout={"num_games": 8, "fragment_length": length},
    )
    own, _, _ = played(config, 1)
    batches = [own.rollout.collect(pieces=2)[0] for _ in range(12)]
    often, seldom = zip(*batches, strict=True)
    assert {fragment.num_lanes for fragment in often} <= {4 * k for k in range(1, MOST_PIECES + 1)}
    assert {each.num_lanes for each in seldom if each is not None} == {4}


def test_a_part_that_nobody_decided_in_stays_as_it_is():
    config = config_of("connect_four", policy={"encoder": [12], "hidden_size": 10, "per": "seat"})
    _, learners, (batch,) = played(config)
    before = by_part(learners.weights(), list(learners.learners))
    update = learners.update([(batch[0], None)])
    after = by_part(update.weights, list(learners.learners))
    moved = [any(not np.array_equal(x, b[name]) for name, x in a.items()) for a, b in zip(after, before)]
    assert moved == [True, False]
    assert [learner.version for learner in learners.learners.values()] == [1, 1]
    both = learners.update([batch, (batch[0], None)])  # of two workers
    decided = [fragment.is_first.size for fragment in batch]
    assert both.agent_steps == 3 * decided[0] + decided[1]


@pytest.mark.parametrize(
    ("env_id", "policy"),
    [("signalling", AUTOREGRESSIVE), ("connect_four", {"per": "seat", "previous": True})],
)
def test_a_resumed_run_of_several_policies_is_the_same_run(tmp_path, env_id, policy):
    """Their weights, optimisers, lanes, previous actions and past selves."""
    policy = {"encoder": [12], "hidden_size": 10} | policy
    run(config_of(env_id, 6, policy=policy), tmp_path / "whole", resume=False)
    run(config_of(env_id, 3, policy=policy), tmp_path / "parts", resume=False)
    run(config_of(env_id, 6, policy=policy), tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts", 6)
    arrays, _ = checkpoint.load(checkpoint.newest(tmp_path / "whole" / "checkpoints"))
    assert all(name.count("/") for name in arrays["learner"] if name.startswith("policy:"))


def test_runs_that_split_the_seats_otherwise_meet(tmp_path):
    """One policy for both seats against a policy for each: every seat is played by the right weights."""
    both, each = tmp_path / "both", tmp_path / "each"
    small = {"encoder": [12], "hidden_size": 10}
    run(config_of("connect_four", 2, policy=small), both, resume=False)
    run(config_of("connect_four", 2, policy=small | {"per": "seat"}), each, resume=False)
    sides = [contestants.find(str(path)) for path in (both, each)]
    env = ConnectFour(4)
    parts = contestants.common_parts(sides, env)
    assert [part.seats.tolist() for part in parts] == [[0], [1]]
    one, two = (contestants.seat(side, env, parts, greedy=False) for side in sides)
    assert one[0] is one[1]
    assert two[0] is not two[1]
    own = by_part(sides[1].weights, list(worker.make_policies(sides[1].config, env, 0)))
    for player, weights in zip(two, own, strict=True):
        for name, tensor in player.policy.state_dict().items():
            assert np.array_equal(tensor.numpy(), weights[name])
    assert evaluate(env, parts, [one, two], games=8, seed=0).games == 8


def test_the_same_matches_are_compared_where_there_is_no_opponent():
    env = Signalling(8)
    parts = split(env, ["group"])
    perfect, random = (worker.make_bot(name, env, parts) for name in ("bot:perfect", "random"))
    result = compare(env, parts, [perfect, random], games=200, seed=1)
    assert result.mean_return == pytest.approx(env.max_return)
    assert result.losses == 0
    assert result.wins > 150
    even = compare(env, parts, [perfect, perfect], games=20, seed=1)
    assert (even.wins, even.draws, even.mean_score) == (0, 20, 0.5)


class Lottery(Match):
    """Pays what its seed says, soon or late, as the player likes."""

    def reset(self, seed):
        self.prize, self.left = seed % 97, 3
        return Moment((0,), {0: np.array([seed % 2], np.float32)})

    def step(self, actions):
        self.left -= 1 + 2 * actions[0]
        if self.left <= 0:
            return Moment((), {}, terminated=(0,), reward={0: self.prize})
        return Moment((0,), {0: np.zeros(1, np.float32)})

    def render(self):
        return str(self.left)


def test_compared_matches_are_paired_in_whatever_order_they_end():
    def soon(obs, mask, rng):
        return {"": np.ones(len(obs[""]), np.int64)}

    def by_view(obs, mask, rng):
        return {"": obs[""][:, 0].astype(np.int64)}

    seats = [Seat("player", spaces.Box(0, 1, (1,)), spaces.Discrete(2))]
    env = PythonGames("lottery", Lottery, 4, seats, (0,), bots={"soon": soon, "by_view": by_view})
    parts = split(env, ["group"])
    players = [worker.make_bot(name, env, parts) for name in ("bot:soon", "bot:by_view")]
    result = compare(env, parts, players, games=40, seed=2)
    assert (result.wins, result.draws, result.losses) == (0, 40, 0)


@pytest.mark.parametrize(
    ("env_id", "policy", "message"),
    [
        (
            "signalling",
            {"parts": {"chaser": {"encoder": [8]}}},
            "signalling has no such part",
        ),
        ("connect_four", {"critic": "privileged"}, "connect_four does not show its full state"),
        ("connect_four", {"points": {"": "cards"}}, "connect_four: .*cards"),
        ("connect_four", {"uses": {"": {"kind": [1]}}}, "connect_four: .*kind"),
    ],
)
def test_what_a_game_cannot_have_is_refused(env_id, policy, message):
    with pytest.raises(UserError, match=message):
        check(config_of(env_id, policy={"encoder": [12], "hidden_size": 10} | policy))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"speaker": {"hiden_size": 3}},
            "unknown key hiden_size; nearest: hidden_size",
        ),
        (
            {"speaker": {"core": "rnn"}},
            "speaker.core='rnn' is not allowed; it must be one of lstm",
        ),
        ({"speaker": {"per": "seat"}}, "unknown key per"),
    ],
)
def test_a_part_of_the_wrong_form_is_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        config_of(policy={"parts": parts})


def test_a_part_may_have_a_network_of_its_own():
    config = config_of(policy={"encoder": [12], "hidden_size": 10, "parts": {"listener": {"core": "none"}}})
    policies = worker.make_policies(config, Signalling(1), 0)
    assert {part: policy.spec.core for part, policy in policies.items()} == {
        "speaker": "lstm",
        "listener": "none",
    }


# What a policy sees beside the observation.


@pytest.mark.parametrize("env_id", ["connect_four", "leduc_poker", "rock_paper_scissors"])
def test_previous_action_and_reward_are_those_of_the_same_seats_last_decision(env_id):
    config = config_of(
        env_id,
        policy={"encoder": [12], "hidden_size": 10, "previous": True},
        rollout={"num_games": 16, "num_workers": 0, "fragment_length": 8},
    )
    seen = 0
    for fragments in played(config, 3)[2]:
        for fragment in fragments:
            first = fragment.is_first
            assert (fragment.obs["@reward"][first] == 0).all()
            same = ~first[1:]
            for path, action in fragment.action.items():
                previous = fragment.obs[f"@action/{path}" if path else "@action"]
                assert (previous[first] == 0).all()
                assert np.array_equal(previous[1:][same], action[:-1][same] + 1)
            np.testing.assert_allclose(
                fragment.obs["@reward"][1:, :, 0][same], fragment.reward[:-1][same], atol=1e-6
            )
            seen += int(same.sum())
    assert seen > 50


def test_a_privileged_critic_sees_the_other_hand():
    config = config_of("leduc_poker", policy={"encoder": [12], "hidden_size": 10, "critic": "privileged"})
    env = LeducPoker(1)
    assert env.privileged_space is not None
    for (fragment,) in played(config, 2)[2]:
        paths = [path for path in fragment.obs if path.startswith("@state")]
        assert paths
        state = np.concatenate(
            [fragment.obs[path].reshape(*fragment.is_first.shape, -1) for path in paths], -1
        )
        assert state.any()
        # Lanes that see the same may be in different states: that is what is hidden from the policy.
        own = fragment.obs[""].reshape(-1, fragment.obs[""].shape[-1])
        states = {}
        for view, whole in zip(own.tolist(), state.reshape(len(own), -1).tolist(), strict=True):
            states.setdefault(tuple(view), set()).add(tuple(whole))
        assert max(map(len, states.values())) > 1
