"""The engine on Ray: the numbers of one process, and what it does when processes and objects vanish."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from selfplay import config as configuration
from selfplay.config import Config
from selfplay.engine import Learned
from selfplay.engine.calls import EngineError
from selfplay.engine.cluster import LEARNER, MAX_DEATHS, RayEngine
from selfplay.engine.local import LocalEngine
from selfplay.errors import UserError
from selfplay.matches import MAIN, Lineups
from selfplay.run_directory import RunDirectory
from selfplay.training import Training
from selfplay.view import LineView

pytestmark = pytest.mark.ray


def small(num_workers: int, **overrides: Any) -> Config:
    table = {
        "env": {"id": "connect_four"},
        "policy": {"encoder": [16], "hidden_size": 16},
        "rollout": {"num_workers": num_workers, "num_games": 16, "fragment_length": 8},
        "device": "cpu",
        "num_learners": 1,
    }
    return configuration.resolve(table, overrides, source="test")


def lineups(engine: Any) -> list[Lineups]:
    """The learning player against itself, and against a past self and random."""
    table = np.array([[0, 0], [0, 1], [2, 0]], np.int32)
    return [Lineups((MAIN, "main-0", "random"), table)] * engine.num_rollouts


class Snapshots:
    """Weights by name, as a league keeps them."""

    weights: Mapping[str, np.ndarray]

    def __call__(self, name: str) -> Mapping[str, np.ndarray]:
        assert name == "main-0"
        return self.weights


def begin(num_workers: int) -> RayEngine:
    snapshots = Snapshots()
    engine = RayEngine(small(num_workers), snapshots, print)
    snapshots.weights = engine.weights()
    return engine


@pytest.fixture(scope="module")
def engine(cluster: None) -> Iterator[RayEngine]:
    """Two workers and a learner. One engine for the whole file: it must outlive what is done to it."""
    engine = begin(2)
    yield engine
    engine.close()


@pytest.fixture
def alone(cluster: None) -> Iterator[RayEngine]:
    """An engine with one worker, at version 0."""
    engine = begin(1)
    yield engine
    engine.close()


def actor(engine: RayEngine, who: str) -> int:
    return ray.get(engine._actors[who].__ray_call__.remote(lambda self: os.getpid()))


def kill(pid: int) -> None:
    """kill -9, and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.01)


def kill_during(engine: RayEngine, *who: str) -> threading.Timer:
    """Hold actors still, so that the next call to them is under way when they are killed."""
    pids = [actor(engine, each) for each in who]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    timer = threading.Timer(0.3, lambda: [kill(pid) for pid in pids])
    timer.start()
    return timer


def lost_object() -> Any:
    """A reference whose object went with the process that owned it."""

    class Owner:
        def put(self) -> list[Any]:
            return [ray.put(np.zeros(1_000_000))]

    owner = ray.remote(Owner).options(num_cpus=0).remote()
    (ref,) = ray.get(owner.put.remote())
    kill(ray.get(owner.__ray_call__.remote(lambda self: os.getpid())))
    while True:
        try:
            ray.get(ref)
            time.sleep(0.05)
        except ray.exceptions.ObjectLostError:
            return ref


def collect(engine: Any) -> list[Any]:
    engine.begin(lineups(engine))
    return engine.collect()


def step(engine: Any) -> Any:
    collect(engine)
    return engine.learn()


def copied(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: x.copy() for name, x in weights.items()}


def same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(x, other[name]) for name, x in one.items())


def test_one_worker_gives_the_numbers_of_one_process(alone: RayEngine) -> None:
    """Taking turns, then with the next batch begun before this one is waited for."""
    snapshots = Snapshots()
    local = LocalEngine(small(0), snapshots)
    snapshots.weights = local.weights()
    assert_same_numbers(local, alone, iterations=6)
    assert_same_numbers_ahead(local, alone, iterations=4)


@pytest.mark.slow
def test_it_does_with_a_policy_for_each_seat(cluster: None) -> None:
    snapshots, changes = Snapshots(), {"policy.per": "seat", "policy.previous": True}
    local = LocalEngine(small(0, **changes), snapshots)
    snapshots.weights = local.weights()
    remote = RayEngine(small(1, **changes), snapshots, print)
    try:
        assert_same_numbers(local, remote, iterations=3)
    finally:
        remote.close()


def untimed(learned: Learned) -> Learned:
    """Without what a clock told."""
    metrics = {name: x for name, x in learned.metrics.items() if not name.startswith("time/")}
    return learned._replace(metrics=metrics)


def assert_same_numbers(local: LocalEngine, remote: RayEngine, *, iterations: int) -> None:
    """Matches, updates, weights and states of both, step by step."""
    for iteration in range(iterations):
        here, there = collect(local)[0], collect(remote)[0]
        for name in ("lineup", "returns", "length", "seed"):
            np.testing.assert_array_equal(getattr(here.results, name), getattr(there.results, name))
        assert here.decisions == there.decisions
        assert local.check_replay() == remote.check_replay()
        learned = untimed(local.learn())
        assert learned == untimed(remote.learn())
        assert learned.version == iteration + 1
    assert same(local.weights(), remote.weights())
    (arrays, meta), (other_arrays, other_meta) = local.state(), remote.state()
    assert meta == other_meta
    assert all(same(part, other_arrays[name]) for name, part in arrays.items())
    here, there = (engine.play(lineups(engine)[0], [1, 2]) for engine in (local, remote))
    np.testing.assert_array_equal(here.returns, there.returns)


def assert_same_numbers_ahead(local: LocalEngine, remote: RayEngine, *, iterations: int) -> None:
    """The same where the next batch is begun before this one is waited for, and played as it was begun."""
    remote._publish = lambda: None  # type: ignore[method-assign]
    for engine in (local, remote):
        engine.begin(lineups(engine))
    for _ in range(iterations):
        for engine in (local, remote):
            engine.begin(lineups(engine))
        here, there = local.collect()[0], remote.collect()[0]
        np.testing.assert_array_equal(here.results.returns, there.results.returns)
        learned = untimed(local.learn())
        assert learned == untimed(remote.learn())
    local.collect(), remote.collect()
    assert learned.metrics["data/staleness"] > 1
    assert same(local.weights(), remote.weights())
    assert local.state()[1] == remote.state()[1]


def slowly(actor: Any) -> None:
    """Let the rollout of an actor take its time for each tick."""
    matches = actor._worker.rollout.matches
    tick = matches.tick

    def slow(*arguments: Any) -> None:
        time.sleep(0.1)
        tick(*arguments)

    matches.tick = slow


def quickly(actor: Any) -> None:
    """Undo `slowly`."""
    del actor._worker.rollout.matches.tick


@contextlib.contextmanager
def two_shared_batches(engine: RayEngine, slow: int) -> Iterator[None]:
    """Begun while this rollout plays slowly."""
    rollout = f"rollout worker {slow}"
    ray.get(engine._actors[rollout].__ray_call__.remote(slowly))
    for _ in range(2):
        engine.begin(lineups(engine), shared=True)
    yield
    ray.get(engine._actors[rollout].__ray_call__.remote(quickly))


def pieces_of(engine: RayEngine) -> dict[int, int]:
    """How many each rollout played of the batch that is collected now, and its results that are given."""
    begun, collected = engine._begun[0], engine.collect()
    pieces = Counter(piece.rollout for piece, _ in begun.done)
    assert len(collected) == len(pieces) == 2
    for rollout, whole in enumerate(collected):
        parts = [part for piece, part in begun.done if piece.rollout == rollout]
        seeds = [seed for part in parts for seed in part.results.seed]
        assert whole.results.seed.tolist() == seeds
        assert whole.decisions == sum(part.decisions for part in parts) > 0
    return dict(pieces)


def test_of_a_batch_that_overlaps_a_faster_rollout_plays_more(engine: RayEngine) -> None:
    """Three pieces of four, of half as many lanes each, and a slower one plays one."""
    before = step(engine)
    with two_shared_batches(engine, slow=1):
        for version, pieces, lanes in ((1, {0: 1, 1: 1}, [16, 16]), (2, {0: 3, 1: 1}, [8] * 4)):
            assert pieces_of(engine) == pieces
            assert [batch.num_lanes for (batch,) in ray.get(engine._batches)] == lanes  # of 16 rows each
            after = engine.learn()
            assert after.version == before.version + version
            assert after.agent_steps == before.agent_steps + version * 16 * 2 * 8
    assert not engine._asked
    assert not +engine._playing
    engine.begin(lineups(engine))
    engine.begin(lineups(engine))
    assert pieces_of(engine) == pieces_of(engine) == {0: 1, 1: 1}


def test_rollouts_of_an_odd_number_of_matches_play_whole_batches(cluster: None) -> None:
    """18 matches: 9 a rollout have no half."""
    snapshots = Snapshots()
    engine = RayEngine(small(2, **{"rollout.num_games": 18, "ppo.num_minibatches": 1}), snapshots, print)
    snapshots.weights = engine.weights()
    for _ in range(2):
        engine.begin(lineups(engine), shared=True)
    for version in (1, 2):
        assert pieces_of(engine) == {0: 1, 1: 1}
        assert [batch.num_lanes for (batch,) in ray.get(engine._batches)] == [18, 18]
        assert engine.learn().agent_steps == version * 18 * 2 * 8
    engine.close()


def test_killed_with_pieces_to_play(engine: RayEngine) -> None:
    """What the rollout had played counts, and its successor plays the rest."""
    before = step(engine)
    with two_shared_batches(engine, slow=0):
        second, pid = engine._begun[1], actor(engine, "rollout worker 1")
        while not second.done:  # the other one's first
            engine._hear()
        kill(pid)
        assert pieces_of(engine) == {0: 1, 1: 1}
        assert pieces_of(engine)[1] >= 2
        actors = [piece.actor for piece, _ in second.done if piece.rollout == 1]
        assert actors[0] != actors[-1] == engine._actors["rollout worker 1"]
        after = engine.learn()
        assert (after.version, after.agent_steps) == (before.version + 1, before.agent_steps + 16 * 2 * 8)


def test_what_both_pieces_need_is_lost_once(engine: RayEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    before, weights, losses = step(engine), engine._weights_ref, []
    monkeypatch.setattr(engine, "_count_loss", lambda who, error: losses.append(who))
    engine.begin(lineups(engine), shared=True)
    engine._weights_ref = lost_object()
    engine.begin(lineups(engine), shared=True)  # a piece each, the others when that is known
    engine._weights_ref = weights
    assert pieces_of(engine) == {0: 1, 1: 1}
    assert engine.learn().version == before.version + 1
    assert sum(pieces_of(engine).values()) == 4
    assert len(losses) == 1
    assert engine.learn().version == before.version + 2


def test_rollouts_that_play_on_take_up_new_weights_in_mid_batch(alone: RayEngine) -> None:
    assert (step(alone).version, step(alone).version) == (1, 2)
    ray.get(alone._actors["rollout worker 0"].__ray_call__.remote(slowly))
    alone.begin(lineups(alone))
    alone.begin(lineups(alone))
    alone.collect()
    assert alone.learn().version == 3
    alone.collect()
    (fragment,) = ray.get(alone._batches[0])
    newest = fragment.version.max(axis=0)
    assert fragment.version.max() == 3
    assert ((fragment.version == 2) & (newest == 3)).any()  # lanes that were under way
    # Its last decisions are version 3's and so is the state in the actor, though this batch was begun with 2.
    assert alone.learn().metrics["data/staleness"] < 1
    assert alone.state()[1]["rollouts"][0]["version"] == 3


def faults_of_large_arrays(_: Any) -> float:
    """Page faults of three arrays of 30 MB, made and freed again and again."""
    counts = []
    for _ in range(12):
        arrays = [np.ones(30 << 17) for _ in range(3)]
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        del arrays
    return (counts[-1] - counts[1]) / 10


def test_freed_memory_is_kept_in_the_thread_that_plays(alone: RayEngine) -> None:
    rollout = alone._actors["rollout worker 0"]
    assert ray.get(rollout.__ray_call__.remote(faults_of_large_arrays)) < 50


def test_two_workers_play_different_matches_and_report_staleness(engine: RayEngine) -> None:
    first, second = collect(engine)
    assert not set(first.results.seed) & set(second.results.seed)
    assert engine.check_replay() is not None
    engine.learn()
    staleness = [step(engine).metrics for _ in range(3)]
    assert all(0 <= row["data/staleness"] <= row["data/staleness_max"] <= 2 for row in staleness)
    assert staleness[-1]["data/staleness"] > 0  # lanes that waited while the version rose


def test_worker_killed_in_mid_collect(engine: RayEngine) -> None:
    version = step(engine).version
    old = actor(engine, "rollout worker 1")
    kill_during(engine, "rollout worker 1")
    collected = collect(engine)
    assert len(collected) == 2
    assert actor(engine, "rollout worker 1") != old
    # The new worker has the current weights: all its decisions are of the current version, and they replay.
    assert all((part.version == version).all() for part in ray.get(engine._batches[1]))
    assert engine.check_replay() is not None
    assert engine.learn().version == version + 1


@pytest.mark.parametrize("during", [pytest.param("collect", marks=pytest.mark.slow), "learn"])
def test_learner_killed(engine: RayEngine, during: str) -> None:
    """Killed while the rollouts play, nobody calls it: its successor must not begin at version 0."""
    before = step(engine)
    weights = copied(engine.weights())
    if during == "collect":
        kill(actor(engine, LEARNER))
        collect(engine)
    else:
        collect(engine)
        kill_during(engine, LEARNER)
    engine.check_replay()
    assert same(weights, engine.weights())
    after = engine.learn()
    assert after.version == before.version + 1
    assert after.agent_steps == before.agent_steps + 16 * 2 * 8
    assert not same(weights, engine.weights())


@pytest.mark.parametrize(
    "victims",
    [
        ["rollout worker 0"],
        pytest.param([LEARNER], marks=pytest.mark.slow),
        pytest.param([LEARNER, "rollout worker 1"], marks=pytest.mark.slow),
    ],
)
def test_killed_while_playing_and_learning_at_once(engine: RayEngine, victims: list[str]) -> None:
    before = step(engine)
    collect(engine)
    weights = copied(engine.weights())
    timer = kill_during(engine, *victims)
    engine.begin(lineups(engine))
    after = engine.learn()
    timer.join()
    assert after.version == before.version + 1
    assert not same(weights, engine.weights())
    collected = engine.collect()
    assert len(collected) == 2
    last = engine.learn()
    assert last.version == before.version + 2
    assert last.agent_steps == before.agent_steps + 2 * 16 * 2 * 8
    assert 0 <= last.metrics["data/staleness_max"] <= 3


def test_killed_with_two_batches_to_play(engine: RayEngine) -> None:
    """Its successor plays both, in their order; that the second had been begun with it kills nobody again."""
    before = step(engine)
    timer = kill_during(engine, "rollout worker 1")
    engine.begin(lineups(engine))
    engine.begin(lineups(engine))
    assert len(engine.collect()) == 2
    timer.join()
    successor = actor(engine, "rollout worker 1")
    first = ray.get(engine._batches[1])
    assert engine.learn().version == before.version + 1
    assert len(engine.collect()) == 2
    assert actor(engine, "rollout worker 1") == successor
    second = ray.get(engine._batches[1])
    # With the first one the successor's matches begin, the second goes on with them.
    assert first[0].is_first[0].sum() > 8 > second[0].is_first[0].sum()
    assert engine.learn().version == before.version + 2


def test_batch_begun_after_one_whose_weights_are_lost_is_played_once(engine: RayEngine) -> None:
    before, weights = step(engine), engine._weights_ref
    engine._weights_ref = lost_object()
    engine.begin(lineups(engine))
    engine._weights_ref = weights
    engine.begin(lineups(engine))
    later = [piece.batch for piece in engine._asked.values() if piece.begun is engine._begun[1]]
    assert len(engine.collect()) == 2
    assert engine.learn().version == before.version + 1
    assert len(engine.collect()) == 2
    assert engine._batches == later
    assert engine.learn().version == before.version + 2


def test_matches_beside_training_are_the_same_however_many_play_them(engine: RayEngine) -> None:
    """Five rows on two rollouts: each its share, and together what one process plays."""
    snapshots = Snapshots()
    local = LocalEngine(small(0), snapshots)
    snapshots.weights = engine.weights()
    table = np.array([[0, 1], [1, 0], [2, 0], [0, 2], [2, 1]], np.int32)
    beside = Lineups((MAIN, "main-0", "random"), table)
    local._published = dict(engine.weights())
    engine._fetch = snapshots
    engine._snapshots.clear()
    here, there = (each.play(beside, [3, 4]) for each in (local, engine))
    named = [[[results.players[k] for k in row] for row in results.lineup] for results in (here, there)]
    assert named[0] == named[1] == [[beside.players[k] for k in row] for row in table]
    for name in ("returns", "length", "seed", "row"):
        np.testing.assert_array_equal(getattr(here, name), getattr(there, name))
    assert len(set(there.seed)) == 5
    alone = engine.play(Lineups(beside.players, table[:1]), [3, 4])  # fewer rows than rollouts
    np.testing.assert_array_equal(alone.seed, there.seed[:1])


def test_fragment_lost_while_the_next_batch_is_played(engine: RayEngine) -> None:
    """It is played again after the one that is under way, which stays what it was."""
    before = step(engine)
    collect(engine)
    engine._batches[0] = lost_object()
    engine.begin(lineups(engine))
    batches = [piece.batch for piece in engine._asked.values()]
    assert engine.learn().version == before.version + 1
    engine.collect()
    assert engine._batches == batches
    assert engine.learn().version == before.version + 2


@pytest.mark.slow
def test_all_killed_at_once_and_in_a_checkpoint(engine: RayEngine) -> None:
    version = step(engine).version
    everyone = (LEARNER, "rollout worker 0", "rollout worker 1")
    kill_during(engine, *everyone)
    assert step(engine).version == version + 1
    kill_during(engine, *everyone)
    arrays, meta = engine.state()
    assert meta["learner"]["version"] == version + 1
    assert engine.set_state(arrays, meta)
    kill(actor(engine, LEARNER))
    assert step(engine).version == version + 2


@pytest.mark.slow
def test_killed_again_and_again_ends_the_run(alone: RayEngine) -> None:
    deaths = []
    original = alone._start_rollout

    def doomed(index: int, entropy: int) -> Any:
        ref = original(index, entropy)
        os.kill(actor(alone, "rollout worker 0"), signal.SIGKILL)
        deaths.append(index)
        return ref

    alone._start_rollout = doomed  # type: ignore[method-assign]
    kill(actor(alone, "rollout worker 0"))
    with pytest.raises(EngineError, match=f"rollout worker 0 was lost {MAX_DEATHS} times"):
        collect(alone)
    assert len(deaths) == MAX_DEATHS - 1


def test_lost_fragment_is_collected_again(engine: RayEngine) -> None:
    version = step(engine).version
    collect(engine)
    lost = lost_object()
    engine._batches[1] = lost
    engine.check_replay()
    engine._batches[0] = lost
    assert engine.learn().version == version + 1
    assert step(engine).version == version + 2


@pytest.mark.slow
def test_lost_weights_are_published_again(engine: RayEngine) -> None:
    version = step(engine).version
    weights = copied(engine.weights())
    lost = lost_object()
    engine._weights_ref = engine._snapshots["main-0"] = lost
    collect(engine)
    assert same(weights, engine.weights())
    engine._weights_ref = lost
    kill(actor(engine, LEARNER))  # as when its machine goes, with the only copy of the newest weights
    assert engine.learn().version == version + 1


def test_workers_that_the_cluster_has_no_room_for(cluster: None) -> None:
    with pytest.raises(UserError, match=r"num_workers=8, but the Ray cluster has 4 CPUs"):
        begin(8)


def test_busy_cluster(engine: RayEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfplay.engine.room.ROOM_SECONDS", 0.5)
    with pytest.raises(UserError, match="no room for this run"):
        begin(4)


@pytest.mark.slow
@pytest.mark.parametrize("staleness", [0, 1])
def test_training_goes_on_after_faults(cluster: None, run_dir: Path, staleness: int) -> None:
    """Worker and learner killed in turn: the metrics have every iteration, and nothing goes back."""
    changes = {"rollout.staleness": staleness, "league.snapshot_iterations": 6}
    config = small(1, **{"stop.iterations": 8, "league.rating_games": 4}, **changes)
    run = RunDirectory.create(run_dir, config)
    told: list[str] = []

    class Note(LineView):
        def message(self, text: str) -> None:
            told.append(text)

    training = Training(config, run, Note(config.stop, io.StringIO()))
    engine = training.main.engine
    assert isinstance(engine, RayEngine)
    learn, victims = engine.learn, {2: "rollout worker 0", 4: LEARNER}

    def learn_among_faults() -> Any:
        if who := victims.get(training.iteration):
            kill(actor(engine, who))
        return learn()

    engine.learn = learn_among_faults  # type: ignore[method-assign]
    training.begin()
    training.loop()
    training.save_last()
    training.close()
    run.close()
    assert [who for text in told for who in victims.values() if who in text] == list(victims.values())
    rows = list(run.metrics())
    assert [row["iteration"] for row in rows] == list(range(1, 9))
    assert [row["agent_steps"] for row in rows] == [16 * 2 * 8 * k for k in range(1, 9)]
    assert [row["data/overlap"] for row in rows] == ([0, 1, 1, 1, 1, 1, 0, 1] if staleness else [0] * 8)
    assert all(
        0 <= row["data/staleness"] <= row["data/staleness_max"] <= 2 + row["data/overlap"] for row in rows
    )
