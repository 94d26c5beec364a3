"""What runs in Ray's processes: a rollout worker, and what learns.

An actor is made empty and built by `open`, so that an error of the user's game is an ordinary task
error, with its own type and traceback, and never the death of an actor.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import ray
import torch

from selfplay import shared_memory
from selfplay.config import Config, num_cores
from selfplay.data_parallel import TIMEOUT, Distributed, Siblings, TCPStore
from selfplay.engine import Learned, make_learners
from selfplay.inference.server import InferenceServer
from selfplay.learners import Learners
from selfplay.matches import Lineups, MatchResults
from selfplay.replay import ReplayDifference
from selfplay.rollout import Batch
from selfplay.worker import Collected, Fetch, Piece, Weights, Worker, make_game, make_policies

Refs = Mapping[str, "ray.ObjectRef[Weights]"]
State = tuple[dict[str, np.ndarray], dict[str, Any]]


NEWS = "news"
"""The thread of a rollout in which it hears of new weights while it plays in another."""

LEAST = 19
"""The system's lowest priority: a learner on the same cores goes first, so that what is played is newer."""


ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}
"""A rollout plays in a thread, which glibc would give memory of its own that returns to the system whenever
it is free, whatever `keep_freed_memory` says: with fragments of some 30 MB page faults in every batch."""


def rollout_class(**options: Any) -> Any:
    """`RolloutActor` for Ray, with these options."""
    own = {"concurrency_groups": {NEWS: 1}, "runtime_env": {"env_vars": ENVIRONMENT}}
    return ray.remote(**own, **options)(RolloutActor)


class RolloutActor:
    """A worker that takes snapshots by reference, fetching those it does not hold."""

    _worker: Worker

    def __init__(self, index: int, niceness: int = LEAST) -> None:
        _end_when_told()
        self._index, self._niceness = index, niceness

    def __repr__(self) -> str:  # what Ray puts before every line that this actor prints
        return f"rollout {self._index}"

    def machine(self) -> str:
        """Where it is."""
        return ray.get_runtime_context().get_node_id()

    def open(
        self, config: Config, num_workers: int, entropy: int, path: list[str], server: str | None
    ) -> None:
        """Make the game; entropy: 0, or another number in place of a worker that died.

        server: of the machine's `InferenceActor`, where that decides.
        """
        os.nice(self._niceness)  # of this thread, which plays
        _find_modules(path)
        self._worker = Worker(config, self._index, num_workers, server)
        if entropy:
            self._worker.reopen(entropy)

    def collect(
        self, weights: Weights, version: int, lineups: Lineups, refs: Refs, piece: Piece
    ) -> tuple[Batch, Collected]:
        return self._worker.collect(weights, version, lineups, _fetcher(refs), piece)

    @ray.method(concurrency_group=NEWS)
    def publish(self, weights: Weights, version: int) -> None:
        """Go on with these weights in the batch that is being played."""
        self._worker.publish(weights, version)

    def play(
        self,
        weights: Weights | None,
        version: int,
        lineups: Lineups,
        seed: list[int],
        refs: Refs,
        share: tuple[int, int] | None = None,
    ) -> MatchResults:
        return self._worker.play(weights, version, lineups, seed, _fetcher(refs), share)

    def state(self) -> State:
        return self._worker.state()

    def set_state(self, arrays: dict[str, np.ndarray], meta: dict[str, Any], refs: Refs) -> bool:
        # Arrays from the object store are read-only and not ours to keep.
        return self._worker.set_state({k: x.copy() for k, x in arrays.items()}, meta, _fetcher(refs))


class InferenceActor:
    """Decides for all rollout workers of its machine; see `selfplay.inference`."""

    _server: InferenceServer

    def __init__(self) -> None:
        _end_when_told()

    def __repr__(self) -> str:
        return "inference"

    def open(self, config: Config, device: str, path: list[str]) -> str:
        """Begin to serve; gives the socket's path."""
        _find_modules(path)
        torch.set_num_threads(1)
        policies = make_policies(config, make_game(config, 1), config.seed)
        self._server = InferenceServer(policies, device)
        threading.Thread(target=self._server.serve, daemon=True).start()
        return self._server.path

    def close(self) -> None:
        """End, and leave no socket behind."""
        self._server.stop()


class LearnerActor:
    """The learners of all parts, or one of several such; their weights leave it as an object of their own."""

    _learners: Learners
    _store: TCPStore

    def __init__(self, rank: int, size: int) -> None:
        _end_when_told()
        self._rank, self._size = rank, size

    def __repr__(self) -> str:
        return "learner" if self._size == 1 else f"learner {self._rank}"

    def meet(self) -> tuple[str, int]:
        """Of the first of several: host and port where they find each other."""
        host = ray.util.get_node_ip_address()
        self._store = TCPStore(host, 0, self._size, is_master=True, wait_for_workers=False)
        return host, self._store.port

    def open(
        self,
        config: Config,
        device: str,
        state: State | None,
        path: list[str],
        address: tuple[str, int] | None,
    ) -> None:
        """Make the policies; state: where to go on, in place of a learner that died; address: as `meet`."""
        _find_modules(path)
        torch.set_num_threads(1)  # the learner's own threads share the cores by lanes
        # Fragments lie in the object store and are read-only; the learner does not write to them.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        num_threads, siblings = num_cores(), None
        if address is not None:
            if self._rank:
                self._store = TCPStore(*address, self._size, is_master=False)
            siblings, neighbours = self._siblings(device)
            num_threads = max(1, num_threads // neighbours)
        self._learners = make_learners(config, device, num_threads, siblings)
        if state is not None:
            self._learners.set_state(*state)

    def _siblings(self, device: str) -> tuple[Siblings, int]:
        """All learners, and how many of them share this one's machine."""
        self._store.set(f"machine {self._rank}", ray.get_runtime_context().get_node_id())
        machines = [self._store.get(f"machine {rank}") for rank in range(self._size)]
        neighbours = machines.count(machines[self._rank])
        if device == "cpu" and neighbours == self._size and shared_memory.usable():
            seconds = TIMEOUT.total_seconds()
            return shared_memory.SharedMemory(self._store, self._rank, self._size, seconds), neighbours
        return Distributed(device, self._store, self._rank, self._size), neighbours

    def check_replay(self, *batches: Batch) -> ReplayDifference | None:
        return self._learners.check_replay(batches)

    def update(self, *batches: Batch) -> tuple[dict[str, np.ndarray], Learned]:
        update = self._learners.update(batches)
        weights = {} if self._rank else update.weights  # all have the same: the first one's are published
        return weights, Learned(update.version, update.agent_steps, update.metrics)

    def state(self) -> State:
        return self._learners.state()

    def set_state(self, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> dict[str, np.ndarray]:
        self._learners.set_state(arrays, meta)
        return self._learners.weights()

    def weights(self) -> dict[str, np.ndarray]:
        return self._learners.weights()


def _fetcher(refs: Refs) -> Fetch:
    return lambda name: ray.get(refs[name])


def _find_modules(path: list[str]) -> None:
    """Find modules, such as the user's own game, where the driver finds them."""
    sys.path.extend(folder for folder in path if folder and folder not in sys.path)


def _end_when_told() -> None:
    """End at once at SIGTERM; to be called by a constructor, which has the main thread.

    Ray's handler raises SystemExit wherever the interpreter is: in a callback of the garbage collector it
    ends nothing and puts a traceback on the user's screen.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
