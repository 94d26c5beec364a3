"""Acting through the inference server is acting in the worker."""

import contextlib
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from envs.registry import make
from policies.policy import Policy, PolicySpec
from selfplay import config as configuration
from selfplay.inference.channel import Channel, InferenceError, make_fields
from selfplay.inference.player import RemotePlayer
from selfplay.inference.server import InferenceServer
from selfplay.matches import MAIN, Lineups
from selfplay.players import PolicyPlayer
from selfplay.replay import check_replay
from selfplay.worker import Worker, make_policies
from tests.playing import alone, make_rollout

GAMES = 6
PART = "all"


def make_policy(env, seed=0, **spec):
    group = env.groups[0]
    torch.manual_seed(seed)
    policy = Policy(group.observation_space, group.action_space, PolicySpec((16,), hidden_size=9, **spec))
    with torch.no_grad():
        policy.output_weight *= 10  # so bold that a wrong input shows
    return policy


def weights_of(policy):
    return {name: x.numpy() for name, x in policy.state_dict().items()}


@contextlib.contextmanager
def serving(policy):
    """A server in another thread."""
    server = InferenceServer({PART: policy}, "cpu")
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        with contextlib.suppress(OSError):
            server.stop()
        thread.join()


def connect(server, env, policy, capacity=GAMES):
    return Channel(server.path, PART, make_fields(policy, env.groups[0]), capacity)


def remote(channel, policy, name=MAIN, version=0):
    player = RemotePlayer(channel, policy, name)
    player.load(weights_of(policy), version)
    return player


def collect(main, past, env, updates):
    """The fragments of some collections, each by other weights, with a past self in a third of the seats."""
    rollout = make_rollout(env, main, length=5, seed=3)
    table = np.zeros((2 * GAMES, len(env.teams)), np.int32)
    table[::3, -1] = len(env.teams) > 1
    rollout.assign(Lineups((MAIN, "past"), table), alone({"past": past}))
    fragments = []
    for version, weights in enumerate(updates):
        rollout.load([weights], version)
        fragments.append(rollout.collect()[0][0])
    return fragments


@pytest.mark.parametrize(
    ("env_id", "spec"),
    [
        ("connect_four", {}),
        ("connect_four", {"previous": True, "critic": "separate", "num_layers": 2}),
        ("cartpole", {"core": "none"}),
        ("rock_paper_scissors", {"core": "gru"}),
        ("pong", {}),
    ],
)
@pytest.mark.parametrize("capacity", [4, 64])
def test_fragments_are_those_of_acting_in_the_worker(env_id, spec, capacity):
    env = make(env_id, GAMES)
    policy, past = make_policy(env, **spec), make_policy(env, 1, **spec)
    updates = [weights_of(make_policy(env, seed, **spec)) for seed in (2, 3)]
    wanted = collect(PolicyPlayer(policy), PolicyPlayer(past), make(env_id, GAMES), updates)
    with serving(policy) as server:
        channel = connect(server, env, policy, capacity)
        players = RemotePlayer(channel, policy, MAIN), remote(channel, past, "past")
        found = collect(*players, make(env_id, GAMES), updates)
        assert server.requests > 0
        channel.close()
    for one, two in zip(found, wanted, strict=True):
        for path, action in two.action.items():
            np.testing.assert_array_equal(one.action[path], action)
        for name in ("logp", "value", "next_value", "initial_state"):
            np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-4, atol=1e-5)
    learned = make_policy(env, 2, **spec)
    assert check_replay(learned, found[0], 0) is not None


def test_workers_that_wait_at_the_same_time_share_one_forward():
    env = make("connect_four", GAMES)
    policy = make_policy(env)
    server = InferenceServer({PART: policy}, "cpu")
    found, ready = {}, threading.Barrier(3)
    rows = {0: 3, 1: 5}

    def draw(k):
        return {"": env.groups[0].obs[""].reshape(-1, *env.groups[0].obs[""].shape[2:])[: rows[k]]}, {
            "": np.ones((rows[k], 7), bool)
        }

    def act(player, k):
        state = np.random.default_rng(k).normal(size=(1, 2, rows[k], 9)).astype(np.float32)
        return player.act(*draw(k), np.zeros(rows[k], bool), state, np.random.default_rng(k))

    def work(k):
        channel = connect(server, env, policy)
        player = remote(channel, policy)
        ready.wait()
        found[k] = act(player, k)
        channel.close()

    threads = [threading.Thread(target=work, args=(k,)) for k in rows]
    for thread in threads:
        thread.start()
    while ready.n_waiting < 2:
        if server._selector.select(0.01):
            server._turn()
    ready.wait()
    wait_until(lambda: len(server._selector.select(0)) == 2)  # both have asked
    server._turn()
    assert (server.forwards, server.requests) == (1, 2)
    for thread in threads:
        thread.join()
    server._close()
    for k in rows:
        wanted = act(PolicyPlayer(policy), k)
        np.testing.assert_array_equal(found[k].action[""], wanted.action[""])
        for name in ("logp", "value", "state"):
            np.testing.assert_allclose(getattr(found[k], name), getattr(wanted, name), rtol=1e-4, atol=1e-5)


def wait_until(true):
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_server_keeps_what_somebody_holds_and_no_more():
    env = make("connect_four", GAMES)
    policy = make_policy(env)
    with serving(policy) as server:
        one, two = connect(server, env, policy), connect(server, env, policy)
        first, second = remote(one, policy), remote(two, policy)
        assert set(server._players) == {(PART, f"{MAIN}@0")}
        first.load(weights_of(policy), 1)
        assert set(server._players) == {(PART, f"{MAIN}@0"), (PART, f"{MAIN}@1")}
        second.load(weights_of(policy), 1)
        remote(two, policy, "past")  # nobody's any more, said with the next
        second.load(weights_of(policy), 2)
        first.load(weights_of(policy), 2)
        remote(one, policy, "other")
        remote(two, policy, "other")
        assert {name for _, name in server._players} == {f"{MAIN}@2", "other@0"}
        two.close()  # as a worker that dies does
        one.close()
        wait_until(lambda: not server._players)
        assert not server._ports


SERVER = """
from envs.registry import make
from policies.policy import Policy, PolicySpec
from selfplay.inference.server import InferenceServer

group = make("connect_four", 1).groups[0]
policy = Policy(group.observation_space, group.action_space, PolicySpec((16,), hidden_size=9))
server = InferenceServer({"all": policy}, "cpu")
print(server.path, flush=True)
server.serve()
"""


def test_a_server_that_is_killed_is_one_clear_error():
    env = make("connect_four", GAMES)
    policy = make_policy(env)
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True, cwd=root)
    path = Path(process.stdout.readline().strip())
    channel = Channel(str(path), PART, make_fields(policy, env.groups[0]), GAMES)
    player = remote(channel, policy)
    rng, state = np.random.default_rng(0), np.zeros((1, 2, 1, 9), np.float32)
    obs = {"": env.groups[0].obs[""].reshape(-1, *env.groups[0].obs[""].shape[2:])[:1]}
    rows = obs, {"": np.ones((1, 7), bool)}, np.ones(1, bool), state, rng
    assert np.isfinite(player.act(*rows).value).all()
    process.kill()
    process.communicate()
    shutil.rmtree(path.parent)
    for _ in range(2):
        with pytest.raises(InferenceError, match="inference server of this machine is gone"):
            player.act(*rows)
    with pytest.raises(InferenceError, match="no inference server at"):
        Channel("/nowhere", PART, make_fields(policy, env.groups[0]), GAMES)


def test_what_ends_the_server_is_told_to_the_workers(monkeypatch):
    env = make("connect_four", GAMES)
    policy = make_policy(env)
    server = InferenceServer({PART: policy}, "cpu")
    seen = []

    def serve():
        try:
            server.serve()
        except RuntimeError as error:
            seen.append(error)

    def fail(*arguments):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(PolicyPlayer, "value", fail)
    thread = threading.Thread(target=serve)
    thread.start()
    channel = connect(server, env, policy)
    player = remote(channel, policy)
    obs = {"": env.groups[0].obs[""].reshape(-1, *env.groups[0].obs[""].shape[2:])[:1]}
    with pytest.raises(InferenceError, match="has ended: RuntimeError: out of memory"):
        player.value(obs, np.ones(1, bool), np.zeros((1, 2, 1, 9), np.float32))
    thread.join()
    assert len(seen) == 1


def test_a_worker_with_a_server_plays_and_rates_as_one_without():
    config = configuration.load("connect_four", {"rollout.num_games": GAMES, "policy.hidden_size": 9})
    plain = Worker(config, 0, 1)
    policies = make_policies(config, plain.env, 0)
    (part,) = policies
    first, second = (weights_of(make_policies(config, plain.env, seed)[part]) for seed in (1, 2))
    table = np.tile(np.array([[0, 0], [0, 1]], np.int32), (GAMES, 1))
    lineups = Lineups((MAIN, "past"), table)
    server = InferenceServer(policies, "cpu")
    thread = threading.Thread(target=server.serve)
    thread.start()
    remote_worker = Worker(config, 0, 1, server.path)
    for version in range(2):
        (wanted,), _ = plain.collect(second, version, lineups, lambda name: first)
        (found,), _ = remote_worker.collect(second, version, lineups, lambda name: first)
        np.testing.assert_array_equal(found.action[""], wanted.action[""])
        np.testing.assert_allclose(found.logp, wanted.logp, rtol=1e-4, atol=1e-5)
    many = Lineups(lineups.players, np.tile(table, (3, 1)))  # more rows than the shared memory holds
    results = [each.play(second, 2, many, [7], lambda name: first) for each in (plain, remote_worker)]
    np.testing.assert_array_equal(results[0].returns, results[1].returns)
    assert server.requests > 0
    server.stop()
    thread.join()
