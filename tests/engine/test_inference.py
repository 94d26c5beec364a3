"""One inference server for the workers of a machine: the same run as with a network in each, to rounding."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from selfplay.engine.cluster import RayEngine
from tests.engine.test_cluster import Snapshots, collect, small

pytestmark = pytest.mark.ray


def learned(inference: str) -> tuple[Mapping[str, np.ndarray], int, int]:
    """Weights after three iterations, decisions made, and the number of servers."""
    snapshots = Snapshots()
    engine = RayEngine(small(2, **{"rollout.inference": inference}), snapshots, print)
    try:
        snapshots.weights = engine.weights()
        decisions = 0
        for _ in range(3):
            decisions += sum(part.decisions for part in collect(engine))
            assert engine.check_replay() is not None
            engine.learn()
        return engine.weights(), decisions, len(engine._servers)
    finally:
        engine.close()


@pytest.mark.slow
def test_a_server_decides_as_the_workers_would(cluster: None) -> None:
    own, decisions, servers = learned("worker")
    served, as_many, one = learned("node")
    assert (servers, one) == (0, 1)
    assert decisions == as_many
    for name, array in own.items():
        np.testing.assert_allclose(served[name], array, rtol=1e-3, atol=1e-5, err_msg=name)
