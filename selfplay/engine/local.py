"""The engine in the driver's own process: one rollout, one learner, no Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from selfplay.config import Config, num_cores
from selfplay.engine import Arrays, Learned, choose_device, cuda_here, make_learner
from selfplay.fragments import Fragment
from selfplay.matches import Lineups, MatchResults
from selfplay.replay import ReplayDifference
from selfplay.worker import Collected, Fetch, Worker


class LocalEngine:
    """See `selfplay.engine.Engine`."""

    num_rollouts = 1

    def __init__(self, config: Config, fetch: Fetch) -> None:
        self._fetch = fetch
        self._worker = Worker(config, 0, 1)
        self._learner = make_learner(config, choose_device(config, cuda_here()), num_cores())
        self._published = self._learner.weights()
        self._fragment: Fragment | None = None

    def collect(self, lineups: Sequence[Lineups]) -> list[Collected]:
        self._fragment, collected = self._worker.collect(
            self._published, self._learner.version, lineups[0], self._fetch
        )
        return [collected]

    def check_replay(self) -> ReplayDifference | None:
        assert self._fragment is not None
        return self._learner.check_replay([self._fragment])

    def learn(self) -> Learned:
        assert self._fragment is not None
        update = self._learner.update([self._fragment])
        self._published, self._fragment = update.weights, None
        return Learned(update.version, update.agent_steps, update.metrics)

    def play(self, lineups: Lineups, seed: Sequence[int]) -> MatchResults:
        return self._worker.play(self._published, self._learner.version, lineups, list(seed), self._fetch)

    def weights(self) -> Mapping[str, np.ndarray]:
        return self._published

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        arrays, meta = self._worker.state()
        learner_arrays, learner_meta = self._learner.state()
        return {"learner": learner_arrays, "rollout-0": arrays}, {"learner": learner_meta, "rollouts": [meta]}

    def set_state(self, arrays: Arrays, meta: Mapping[str, Any]) -> bool:
        self._learner.set_state(arrays["learner"], meta["learner"])
        self._published = self._learner.weights()
        if len(meta["rollouts"]) != 1:
            return False
        return self._worker.set_state(arrays["rollout-0"], meta["rollouts"][0], self._fetch)

    def close(self) -> None:
        self._fragment = None
