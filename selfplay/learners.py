"""The learners of a run: one for each part of the seats, in step with each other."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from selfplay.data_parallel import Siblings, bring
from selfplay.learner import Learner
from selfplay.replay import ReplayDifference
from selfplay.rollout import Batch
from selfplay.weights import joined


@dataclass(frozen=True, slots=True)
class Update:
    """What one batch did."""

    version: int
    agent_steps: int  # decisions learned from since the run began
    weights: dict[str, np.ndarray]  # of all parts, as `selfplay.weights.joined`
    metrics: dict[str, float]


class Learners:
    """All that learns in a run."""

    def __init__(
        self,
        learners: Mapping[str, Learner],
        *,
        anneal_steps: int | None,
        siblings: Siblings | None = None,
    ) -> None:
        """learners by part; anneal_steps: decisions of all parts in which the schedules reach their end.

        siblings: those in other processes, which learn from other rollouts' batches.
        """
        self.learners = dict(learners)
        self.siblings = siblings
        self.anneal_steps = anneal_steps
        self.version = 0
        self.agent_steps = 0
        self._replayed: set[str] = set()  # parts of which a fragment has passed the replay check

    def check_replay(self, batches: Sequence[Batch]) -> ReplayDifference | None:
        """Refuse fragments that do not replay to what was logged; None while a part is yet to be checked.

        Parts that were checked before wait for those that were not: some decide seldom.
        """
        due = set(self.learners) - self._replayed or set(self.learners)
        found = []
        for (part, learner), fragments in zip(self.learners.items(), zip(*batches, strict=True), strict=True):
            present = [each for each in fragments if each is not None]
            if part in due and present and (difference := learner.check_replay(present)) is not None:
                found.append(difference)
                self._replayed.add(part)
        complete = found and len(self._replayed) == len(self.learners)
        return ReplayDifference(*map(max, zip(*found, strict=True))) if complete else None

    def update(self, batches: Sequence[Batch]) -> Update:
        """One iteration on the batches of the rollouts; a part that nobody decided in stays as it is."""
        begun = time.perf_counter()
        progress = self.agent_steps / self.anneal_steps if self.anneal_steps else 0.0
        metrics: dict[str, dict[str, float]] = {}
        for (part, learner), fragments in zip(self.learners.items(), zip(*batches, strict=True), strict=True):
            present = [each for each in fragments if each is not None]
            brought = bring(present, self.version, self.siblings)
            if steps := sum(each.steps for each in brought):
                metrics[part] = learner.update(present, progress=progress, brought=brought)
                self.agent_steps += steps
        self.version += 1
        for learner in self.learners.values():
            learner.version = self.version
        weights, told = self.weights(), self._together(metrics)
        told["time/update"] = time.perf_counter() - begun
        return Update(self.version, self.agent_steps, weights, told)

    def _together(self, metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """Each metric's mean over the parts and, where there are several, each part's own."""
        names = dict.fromkeys(name for table in metrics.values() for name in table)
        means = {
            name: float(np.mean([table[name] for table in metrics.values() if name in table]))
            for name in names
        }
        if len(self.learners) == 1:
            return means
        own = {f"{name}/{part}": value for part, table in metrics.items() for name, value in table.items()}
        return means | own

    def weights(self) -> dict[str, np.ndarray]:
        """Copies of every policy's parameters and buffers in one table."""
        return joined([learner.weights() for learner in self.learners.values()], tuple(self.learners))

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything that the next update depends on: arrays, and what JSON can hold.

        Among the arrays are all policies' as "policy:" and the name that `weights` gives them.
        """
        arrays: dict[str, np.ndarray] = {}
        meta: dict[str, Any] = {}
        for part, learner in self.learners.items():
            own, meta[part] = learner.state()
            arrays |= {self._shared_name(part, name): array for name, array in own.items()}
        return arrays, {"version": self.version, "agent_steps": self.agent_steps, "parts": meta}

    def set_state(self, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.version, self.agent_steps = meta["version"], meta["agent_steps"]
        for part, learner in self.learners.items():
            prefix = self._shared_name(part, ":").removeprefix(":")
            own = {}
            for name, array in arrays.items():
                kind, rest = name.split(":", 1)
                if rest.startswith(prefix):
                    own[f"{kind}:{rest.removeprefix(prefix)}"] = array
            learner.set_state(own, meta["parts"][part])
            learner.version = self.version

    def _shared_name(self, part: str, name: str) -> str:
        """A learner's "KIND:NAME" in the table of all: "KIND:PART/NAME" where there are several parts."""
        kind, rest = name.split(":", 1)
        return name if len(self.learners) == 1 else f"{kind}:{part}/{rest}"
