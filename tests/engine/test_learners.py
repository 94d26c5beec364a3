"""Two learners on Ray that share every batch: they stay equal, and begin anew together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import ray

from selfplay.engine.cluster import LEARNER, RayEngine
from selfplay.errors import UserError
from tests.engine.test_cluster import (
    Snapshots,
    collect,
    copied,
    kill_during,
    lost_object,
    pieces_of,
    same,
    small,
    step,
    two_shared_batches,
)  # fmt: skip

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def shared(cluster: None) -> Iterator[RayEngine]:
    """Two workers and two learners, each of which learns from one worker's batches."""
    snapshots = Snapshots()
    engine = RayEngine(small(2, num_learners=2), snapshots, print)
    snapshots.weights = engine.weights()
    yield engine
    engine.close()


def states(engine: RayEngine) -> list[Any]:
    """Of every learner."""
    return engine._ask_learners(lambda _, learner: learner.state.remote())


def assert_equal_states(engine: RayEngine) -> None:
    (arrays, meta), (other, other_meta) = states(engine)
    assert meta == other_meta
    assert same(arrays, other)


def test_two_learners_stay_equal_and_their_iteration_is_the_same_as_one(shared: RayEngine) -> None:
    collect(shared)
    assert shared.check_replay() is not None
    learned = shared.learn()
    for _ in range(3):
        learned = step(shared)
    assert learned.agent_steps == learned.version * 16 * 2 * 8
    assert learned.metrics["data/sample_reuse"] == 1
    assert_equal_states(shared)
    published = {name.removeprefix("policy:"): x for name, x in states(shared)[0][0].items()}
    assert all(np.array_equal(x, published[name]) for name, x in shared.weights().items())


def test_two_learners_share_a_batch_of_which_one_rollout_played_more(shared: RayEngine) -> None:
    """Two pieces each, of the four; three are of one rollout."""
    before = step(shared)
    with two_shared_batches(shared, slow=1):
        for version, pieces in ((1, {0: 1, 1: 1}), (2, {0: 3, 1: 1})):
            assert pieces_of(shared) == pieces
            assert len(shared._share(0)) == len(shared._share(1)) == sum(pieces.values()) // 2
            after = shared.learn()
            assert after.agent_steps == before.agent_steps + version * 16 * 2 * 8
            assert after.metrics["data/sample_reuse"] == 1
            assert_equal_states(shared)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [LEARNER, "learner 1"])
def test_one_of_two_learners_killed(shared: RayEngine, victim: str) -> None:
    """All begin anew from the published weights, since those that live wait in mid-step for ever."""
    before = step(shared)
    weights = copied(shared.weights())
    collect(shared)
    timer = kill_during(shared, victim)
    after = shared.learn()
    timer.join()
    assert after.version == before.version + 1
    assert not same(weights, shared.weights())
    assert_equal_states(shared)


@pytest.mark.slow
def test_fragment_of_one_of_two_learners_lost(shared: RayEngine) -> None:
    before = step(shared)
    collect(shared)
    shared._batches[1] = lost_object()
    assert shared.learn().version == before.version + 1
    assert_equal_states(shared)


def test_an_error_of_all_learners_is_the_error(shared: RayEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfplay.engine.calls.SIBLING_SECONDS", 5.0)
    arrays, meta = shared.state()
    collect(shared)

    def poison(self: Any) -> None:
        (learner,) = self._learners.learners.values()
        learner.policy.output_bias.data.fill_(np.nan)

    ray.get([shared._actors[who].__ray_call__.remote(poison) for who in (LEARNER, "learner 1")])
    with pytest.raises(FloatingPointError, match="not finite"):
        shared.learn()
    shared.set_state(arrays, meta)
    assert step(shared).version == meta["learner"]["version"] + 1


def test_more_learners_than_workers(cluster: None) -> None:
    config = small(2, num_learners=2)
    config = config.model_copy(update={"num_learners": 3})
    with pytest.raises(UserError, match="num_learners=3, but 2 rollout workers"):
        RayEngine(config, Snapshots(), print)
