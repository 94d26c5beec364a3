"""Rollout actors that are set aside: matches of frozen players, beside training."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError

from selfplay.config import Config
from selfplay.engine.actors import rollout_class
from selfplay.matches import Lineups, MatchResults
from selfplay.worker import Fetch, is_bot


class RayEvaluators:
    """See `selfplay.engine.Evaluators`."""

    def __init__(self, config: Config, fetch: Fetch, notify: Callable[[str], None]) -> None:
        self.number = config.league.evaluators
        self.started_ray = False  # whether the cluster is ours to end
        self._fetch, self._notify = fetch, notify
        rollout = config.rollout.model_copy(update={"num_games": 1, "num_workers": 1, "inference": "worker"})
        self._config = config.model_copy(update={"rollout": rollout})
        self._actors: list[ActorHandle] = []
        self._begun: list[tuple[int, Any]] = []  # evaluator, reference to its results
        self._opened = [self._start(k) for k in range(self.number)]

    def _start(self, index: int) -> Any:
        actor = rollout_class(num_cpus=1).remote(index, 0)  # training waits for it too
        self._actors[index : index + 1] = [actor]
        return actor.open.remote(self._config, 1, 0, sys.path, None)

    def begin(self, tables: Sequence[Lineups], seed: Sequence[int]) -> None:
        assert not self._begun
        assert len(tables) <= self.number
        for index, table in enumerate(tables):
            frozen = [name for name in table.players if not is_bot(name)]
            refs = {name: ray.put(self._fetch(name)) for name in frozen}
            call = self._actors[index].play.remote(None, 0, table, [*seed, index], refs)
            self._begun.append((index, call))

    def collect(self) -> list[MatchResults]:
        results = []
        for index, call in self._begun:
            try:
                results.append(ray.get(call))
            except RayTaskError:
                raise
            except RayError as error:
                self._notify(f"evaluator {index} was lost ({type(error).__name__}); making it anew")
                ray.kill(self._actors[index])
                self._start(index)
        self._begun = []
        return results

    def close(self) -> None:
        for actor in self._actors:
            ray.kill(actor)
        if self.started_ray:
            ray.shutdown()
