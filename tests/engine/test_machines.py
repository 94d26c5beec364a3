"""Several machines, played by several raylets on this one: work that moves, and machines that vanish."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import ray

from selfplay import config as configuration
from selfplay.engine.cluster import LEARNER, RayEngine
from selfplay.matches import MAIN, Lineups

pytestmark = [pytest.mark.slow, pytest.mark.ray]


@pytest.fixture
def machines() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def machine(engine: RayEngine, who: str) -> str:
    return ray.get(
        engine._actors[who].__ray_call__.remote(lambda self: ray.get_runtime_context().get_node_id())
    )


def test_machine_vanishes(machines: Any) -> None:
    """Its worker moves to another that joined; what only it held is made again."""
    gone = machines.add_node(num_cpus=2)
    table = {
        "env": {"id": "connect_four"},
        "rollout": {"num_workers": 3, "num_games": 24, "fragment_length": 8},
        "device": "cpu",
    }
    engine = RayEngine(configuration.resolve(table, {}, source="test"), lambda name: {}, print)
    lineups = [Lineups((MAIN,), np.zeros((4, 2), np.int32))] * 3
    for _ in range(2):
        engine.begin(lineups)
        engine.collect()
        engine.learn()
    everyone = [LEARNER, *(f"rollout worker {k}" for k in range(3))]
    lost = [who for who in everyone if machine(engine, who) == gone.node_id]
    assert len(lost) >= 2
    engine.begin(lineups)
    engine.collect()
    machines.add_node(num_cpus=2)
    machines.remove_node(gone, allow_graceful=False)
    assert engine.learn().version == 3
    for version in (4, 5):
        engine.begin(lineups)
        engine.collect()
        assert engine.learn().version == version
    assert {machine(engine, who) for who in lost} & {gone.node_id} == set()
    engine.close()
