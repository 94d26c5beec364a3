"""The engine in the driver's own process: one rollout, the learners, no Ray."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from selfplay.config import Config, num_cores
from selfplay.engine import Arrays, Learned, choose_device, cuda_here, make_learners
from selfplay.matches import Lineups, MatchResults
from selfplay.replay import ReplayDifference
from selfplay.rollout import Batch
from selfplay.worker import Collected, Fetch, Worker


class LocalEngine:
    """See `selfplay.engine.Engine`."""

    num_rollouts = 1

    def __init__(self, config: Config, fetch: Fetch) -> None:
        self._fetch = fetch
        self.reset(config)

    def reset(self, config: Config) -> None:
        self._worker = Worker(config, 0, 1)
        self._learners = make_learners(config, choose_device(config, cuda_here()), num_cores())
        self._published = self._learners.weights()
        self._begun: deque[tuple[Batch, Collected]] = deque()
        self._batch: Batch | None = None

    def begin(self, lineups: Sequence[Lineups], *, shared: bool = False) -> None:
        assert len(self._begun) < 2
        version = self._learners.version
        self._begun.append(self._worker.collect(self._published, version, lineups[0], self._fetch))

    def collect(self) -> list[Collected]:
        self._batch, collected = self._begun.popleft()
        return [collected]

    def check_replay(self) -> ReplayDifference | None:
        assert self._batch is not None
        return self._learners.check_replay([self._batch])

    def learn(self) -> Learned:
        assert self._batch is not None
        update = self._learners.update([self._batch])
        self._published, self._batch = update.weights, None
        return Learned(update.version, update.agent_steps, update.metrics)

    def play(self, lineups: Lineups, seed: Sequence[int]) -> MatchResults:
        return self._worker.play(self._published, self._learners.version, lineups, list(seed), self._fetch)

    def weights(self) -> Mapping[str, np.ndarray]:
        return self._published

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        assert not self._begun
        arrays, meta = self._worker.state()
        learner_arrays, learner_meta = self._learners.state()
        return {"learner": learner_arrays, "rollout-0": arrays}, {"learner": learner_meta, "rollouts": [meta]}

    def set_state(self, arrays: Arrays, meta: Mapping[str, Any]) -> bool:
        self._learners.set_state(arrays["learner"], meta["learner"])
        self._published = self._learners.weights()
        if len(meta["rollouts"]) != 1:
            return False
        return self._worker.set_state(arrays["rollout-0"], meta["rollouts"][0], self._fetch)

    def close(self) -> None:
        self._batch = None
        self._begun.clear()


class LocalEvaluators:
    """See `selfplay.engine.Evaluators`: nobody is set aside, this process plays."""

    def __init__(self, engine: LocalEngine, number: int) -> None:
        self._engine, self.number = engine, number
        self._results: list[MatchResults] = []

    def begin(self, tables: Sequence[Lineups], seed: Sequence[int]) -> None:
        self._results = [self._engine.play(table, [*seed, k]) for k, table in enumerate(tables)]

    def collect(self) -> list[MatchResults]:
        results, self._results = self._results, []
        return results

    def close(self) -> None: ...
