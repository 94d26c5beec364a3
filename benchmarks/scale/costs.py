"""What an iteration moves and makes the driver do, measured here, and what that would be on many cores."""

from __future__ import annotations

import math
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import numpy as np
import ray

from benchmarks.scale import league
from selfplay import bench
from selfplay import config as configuration
from selfplay.config import Config, StopConfig, num_cores
from selfplay.engine.cluster import RayEngine
from selfplay.run_directory import RunDirectory
from selfplay.training import Training
from selfplay.worker import Collected

MACHINE_CORES = 64
"""Of a machine of the cluster that is thought of."""

CHECKPOINT_SECONDS = 60.0
MANY = 100  # rollouts, for what the league spends on a match


class Costs(NamedTuple):
    """Of a run on this machine."""

    batch: float  # decisions that one worker hands to the learner in an iteration
    play_speed: float  # decisions/s of a core that plays: only those that are learned from
    learn_speed: float  # decisions/s of a core that learns
    matches: float  # finished for each decision learned from
    fragment_bytes: float  # of a decision
    weights_bytes: float
    state_bytes: float  # of a worker, in a checkpoint
    minibatches: float  # of an iteration; each sums up gradients of the weights' size
    call: float  # CPU seconds of the driver, for each worker and iteration
    round_trip: float  # seconds of one call that does nothing
    put: float  # seconds for each byte, into the object store
    get: float  # seconds for a worker's batch, mapped from the object store of this machine
    move: float  # seconds for each byte, between two nodes of Ray
    fetch: float  # seconds to bring a past self from the run directory into the object store
    match: float  # seconds of the league
    commit: float  # seconds of the league, each iteration
    rating: float  # seconds of the matches that rate a snapshot, on one worker
    rated: float  # such matches, which the workers share
    snapshot_iterations: float


def measure(seconds: float, overrides: Mapping[str, Any] = MappingProxyType({})) -> Costs:
    """Of Connect Four on two workers; the league's of made-up results."""
    own = {"rollout.num_workers": 2, "rollout.staleness": 0}
    config = configuration.load("connect_four", own | dict(overrides))
    spent = league.measure(100, MANY)
    alone = league.measure(100, 2)
    with two_nodes(), ExitStack() as stack:
        training = begun(config, stack)
        engine = cast(RayEngine, training.main.engine)
        speeds = watched(training, seconds)
        training._begin_batch(training.main)
        collected = engine.collect()[0]
        batch, (arrays, _) = ray.get(engine._batches[0]), engine.state()
        batch_bytes, steps = pickled(batch), sum(part.reward.size for part in batch if part is not None)
        name = cast(str, training.league.newest)
        rating = training.league.rating_lineups(name)
        ref = ray.put(batch)
        call, round_trip = called(collected, engine)
        return Costs(
            *speeds,
            fragment_bytes=batch_bytes / steps,
            weights_bytes=pickled(engine.weights()),
            state_bytes=sum(array.nbytes for array in arrays["rollout-0"].values()),
            minibatches=config.ppo.num_minibatches * config.ppo.epochs,
            call=call,
            round_trip=round_trip,
            put=timed(lambda: ray.put(batch)) / batch_bytes,
            get=timed(lambda: ray.get(ref)),
            move=moved(batch_bytes) / batch_bytes,
            fetch=timed(lambda: ray.put(training.league.weights(name))),
            match=(spent.draw + spent.record) / (MANY * league.MATCHES),
            commit=alone.commit,
            rating=2 * timed(lambda: engine.play(rating, [0, 1]), 3),
            rated=len(rating.table),
            snapshot_iterations=config.league.snapshot_iterations,
        )


@contextmanager
def two_nodes() -> Iterator[None]:
    """A Ray of two nodes on this machine; the second one is `far`."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 4, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(num_cpus=0, resources={"far": 1})
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


def begun(config: Config, stack: ExitStack) -> Training:
    """A run, warm."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="selfplay-scale-"))
    run = RunDirectory.create(Path(folder) / "run", config)
    stack.callback(run.close)
    training = Training(config, run, bench._Watch())
    stack.callback(training.close)
    bench._warm_up(training)
    return training


def watched(training: Training, seconds: float) -> tuple[float, float, float, float]:
    """batch, play_speed, learn_speed and matches of `Costs`."""
    engine = bench._Listening(training.main.engine)
    training.main.engine, training.view = cast(Any, engine), (watch := bench._Watch())
    steps = training.agent_steps
    bench._train(training, StopConfig(seconds=training.seconds + seconds))
    training.main.engine = engine._engine
    steps = training.agent_steps - steps
    parts = [part for parts in engine.collected for part in parts]
    return (
        steps / len(parts),
        steps / sum(part.seconds for part in parts),
        steps / sum(row["time/update"] for _, row in watch.rows) / num_cores(),
        sum(len(part.results.length) for part in parts) / steps,
    )


def middle(found: Sequence[Costs]) -> Costs:
    """The median of each."""
    return Costs(*map(statistics.median, zip(*found)))


def pickled(value: Any) -> int:
    """Bytes as Ray moves them: pickled, arrays beside the pickle."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return len(head) + sum(buffer.raw().nbytes for buffer in buffers)


def timed(function: Callable[[], Any], times: int = 15) -> float:
    """Median seconds."""
    spans = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        spans.append(time.perf_counter() - start)
    return statistics.median(spans)


class Idle:
    """An actor that answers like a rollout and does nothing."""

    def __init__(self, collected: Collected) -> None:
        self._collected = collected

    def collect(self, *_: Any) -> tuple[None, Collected]:
        return None, self._collected

    def nothing(self) -> None: ...


def called(collected: Collected, engine: RayEngine) -> tuple[float, float]:
    """call and round_trip of `Costs`: calls with a rollout's lineups, answers with its results."""
    actors = [ray.remote(Idle).options(num_cpus=0).remote(collected) for _ in range(2)]
    ray.get([actor.nothing.remote() for actor in actors])
    lineups, spans = engine._last[0][0], []
    for _ in range(5):
        start = time.process_time()
        refs = []
        for index in range(200):
            method = actors[index % 2].collect.options(num_returns=2)
            refs.append(method.remote(engine._weights_ref, 0, lineups, {})[1])
        for ref in refs:
            ray.get(ref)
        spans.append((time.process_time() - start) / len(refs))
    return statistics.median(spans), timed(lambda: ray.get(actors[0].nothing.remote()), 100)


def moved(size: int) -> float:
    """Median seconds until an object of the far node is here."""

    @ray.remote(num_cpus=0, resources={"far": 0.01})
    def make(seed: int) -> np.ndarray:
        return np.full(size, seed, np.uint8)

    spans = []
    for seed in range(7):
        ref = make.remote(seed)
        ray.wait([ref], fetch_local=False)
        start = time.perf_counter()
        ray.get(ref)
        spans.append(time.perf_counter() - start)
    return statistics.median(spans)


class Load(NamedTuple):
    """What so many cores would ask of one thing."""

    what: str
    amount: float
    unit: str
    capacity: float = math.inf  # of one driver, or of the wall clock


def loads(costs: Costs, cores: float) -> list[Load]:
    """All cores play or learn, so many each that neither waits, and nothing else costs anything.

    Every worker plays a batch as it does here, so that the batch of an iteration grows with the workers.
    """
    playing = cores * costs.learn_speed / (costs.play_speed + costs.learn_speed)
    iteration = costs.batch / costs.play_speed
    speed = playing * costs.play_speed
    machines = math.ceil(cores / MACHINE_CORES)
    gradients = costs.weights_bytes * costs.minibatches  # each is sent and received about twice
    rating = costs.rating / min(playing, costs.rated) / costs.snapshot_iterations
    checkpoint = playing * costs.state_bytes
    return [
        Load("workers", playing, ""),
        Load("decisions", speed, "/s"),
        Load("decisions in a batch", playing * costs.batch, ""),
        Load("fragments to the learners", speed * costs.fragment_bytes, "B/s"),
        Load("weights out, once a machine", machines * costs.weights_bytes / iteration, "B/s"),
        Load("gradients in and out of each learner", 4 * gradients / iteration, "B/s"),
        Load("matches to the league", speed * costs.matches, "/s"),
        Load("driver: calls and results", playing * costs.call / iteration, " of its time", 1),
        Load("driver: draw and record", speed * costs.matches * costs.match, " of its time", 1),
        Load("driver: past selves fetched, at most", playing * costs.fetch / iteration, " of its time", 1),
        Load("commit", costs.commit / iteration, " of the time", 1),
        Load("a snapshot is rated, training waits", rating / iteration, " of the time", 1),
        Load("checkpoint through the driver", checkpoint, "B"),
        Load("– copied once, every minute", checkpoint * costs.put / CHECKPOINT_SECONDS, " of its time", 1),
    ]


def table(costs: Costs) -> str:
    """Markdown: what was measured, and the extrapolation."""
    sizes = (num_cores(), 100, 10_000)
    lines = ["**Measured**", "", "| | |", "| --- | ---: |"]
    lines += [f"| {name} | {shown(value)} |" for name, value in costs._asdict().items()]
    lines += ["", "**Extrapolated**", ""]
    lines.append(f"| cores | {' | '.join(f'{size:,}' for size in sizes)} | full at, cores |")
    lines.append("| --- |" + " ---: |" * (len(sizes) + 1))
    for columns in zip(*(loads(costs, size) for size in sizes)):
        few, *_, most = columns
        grows = most.amount > 1.5 * few.amount and most.capacity < math.inf
        full = f"{sizes[-1] * most.capacity / most.amount:,.0f}" if grows else ""
        amounts = [f"{shown(column.amount)}{column.unit}" for column in columns]
        lines.append(f"| {few.what} | {' | '.join(amounts)} | {full} |")
    return "\n".join([*lines, ""])


def shown(value: float) -> str:
    """Three digits and a prefix: 1.23k, 4.56µ."""
    if value == 0:
        return "0"
    power = min(4, max(-4, math.floor(math.log10(abs(value)) / 3)))
    prefix = "pnµm"[power] if power < 0 else ["", "k", "M", "G", "T"][power]
    return f"{value / 1000**power:.3g} {prefix}".rstrip()
