"""The engine on Ray Core: rollout actors on CPUs, a learner actor on a GPU if there is one.

Fragments and weights go by object reference from actor to actor; the driver sees none of them. An
actor that dies is restarted by Ray, comes back empty, and is given its state again here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from selfplay.config import Config, resolve_num_workers
from selfplay.engine import Arrays, Learned, choose_device, make_learner
from selfplay.errors import UserError
from selfplay.fragments import Fragment
from selfplay.matches import MAIN, Lineups, MatchResults
from selfplay.replay import ReplayDifference
from selfplay.worker import BOT_PREFIX, RANDOM, Collected, Fetch, Weights, Worker

MAX_DEATHS = 3
"""An actor that dies so often in a row, without one success between, ends the run."""

Refs = Mapping[str, "ray.ObjectRef[Weights]"]


class EngineError(RuntimeError):
    """Actors keep dying."""


class _RolloutActor:
    """A worker that takes snapshots by reference, fetching those it does not hold."""

    def __init__(self, config: Config, index: int, num_workers: int) -> None:
        self._worker = Worker(config, index, num_workers)

    def reopen(self, entropy: int) -> None:
        self._worker.reopen(entropy)

    def collect(
        self, weights: Weights, version: int, lineups: Lineups, refs: Refs
    ) -> tuple[Fragment, Collected]:
        return self._worker.collect(weights, version, lineups, _fetcher(refs))

    def play(
        self, weights: Weights, version: int, lineups: Lineups, seed: list[int], refs: Refs
    ) -> MatchResults:
        return self._worker.play(weights, version, lineups, seed, _fetcher(refs))

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return self._worker.state()

    def set_state(self, arrays: dict[str, np.ndarray], meta: dict[str, Any], refs: Refs) -> bool:
        # Arrays from the object store are read-only and not ours to keep.
        return self._worker.set_state({k: x.copy() for k, x in arrays.items()}, meta, _fetcher(refs))


class _LearnerActor:
    """The learner; its weights leave it as an object of their own."""

    def __init__(self, config: Config, device: str, num_threads: int) -> None:
        import torch

        torch.set_num_threads(1)  # the learner's own threads share the cores by lanes
        self._learner = make_learner(config, device, num_threads)

    def check_replay(self, *fragments: Fragment) -> ReplayDifference | None:
        return self._learner.check_replay(fragments)

    def update(self, *fragments: Fragment) -> tuple[dict[str, np.ndarray], Learned]:
        update = self._learner.update(fragments)
        return update.weights, Learned(update.version, update.agent_steps, update.metrics)

    def weights(self) -> dict[str, np.ndarray]:
        return self._learner.weights()

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return self._learner.state()

    def set_state(self, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
        self._learner.set_state(arrays, meta)


def _fetcher(refs: Refs) -> Fetch:
    return lambda name: ray.get(refs[name])


class RayEngine:
    """See `selfplay.engine.Engine`."""

    def __init__(self, config: Config, fetch: Fetch, notify: Callable[[str], None]) -> None:
        self._config, self._fetch, self._notify = config, fetch, notify
        self.num_rollouts = resolve_num_workers(config)
        self._started_ray = not ray.is_initialized()
        if self._started_ray:
            # Joins the cluster of `ray job submit` or of `ray start` on this machine, else starts one.
            ray.init(logging_level=logging.WARNING)
        resources = ray.cluster_resources()
        if resources.get("CPU", 0) < self.num_rollouts:
            raise UserError(
                f"rollout.num_workers={self.num_rollouts}, but the Ray cluster has "
                f"{resources.get('CPU', 0):g} CPUs; give as many workers as CPUs at most, or 0 to play in this process"
            )
        device = choose_device(config, resources.get("GPU", 0) >= 1)
        gpu = {"GPU": 1.0} if device == "cuda" else {}
        bundles = [{"CPU": 1.0}] * self.num_rollouts + ([gpu] if gpu else [])
        self._group = placement_group(bundles, strategy="PACK")
        if not self._group.wait(timeout_seconds=60):
            raise UserError(
                f"the Ray cluster has no room for {self.num_rollouts} rollout workers "
                f"({'a GPU, ' if gpu else ''}{self.num_rollouts} CPUs); other jobs hold it: see `ray status`"
            )
        actor = ray.remote(_RolloutActor)
        self._rollouts = [
            actor.options(num_cpus=1, max_restarts=-1, scheduling_strategy=self._place(k)).remote(
                config, k, self.num_rollouts
            )
            for k in range(self.num_rollouts)
        ]
        # On a CPU the learner works while the rollouts wait, on the cores that are theirs.
        where = {"num_gpus": 1, "scheduling_strategy": self._place(self.num_rollouts)} if gpu else {}
        self._learner = (
            ray.remote(_LearnerActor)
            .options(num_cpus=0, max_restarts=-1, **where)
            .remote(config, device, os.cpu_count() or 1)
        )
        self._version = 0
        self._weights_ref = self._learner.weights.remote()
        self._fragments: list[ray.ObjectRef[Fragment]] = []
        self._snapshots: dict[str, ray.ObjectRef[Weights]] = {}
        self._backup = self._backed_up()
        self._deaths = 0

    def _place(self, bundle: int) -> PlacementGroupSchedulingStrategy:
        return PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=bundle)

    def collect(self, lineups: Sequence[Lineups]) -> list[Collected]:
        refs = self._references({name for each in lineups for name in each.players})
        calls = [self._start_collect(k, each, refs) for k, each in enumerate(lineups)]
        collected = []
        for k, each in enumerate(lineups):
            while True:
                try:
                    collected.append(_get(calls[k][1]))
                    break
                except RayActorError as error:
                    self._revive_rollout(k, error)
                    calls[k] = self._start_collect(k, each, refs)
        self._fragments = [fragment for fragment, _ in calls]
        self._deaths = 0
        return collected

    def _start_collect(self, index: int, lineups: Lineups, refs: Refs) -> list[Any]:
        own = {name: refs[name] for name in lineups.players if name in refs}
        method = self._rollouts[index].collect.options(num_returns=2)
        return method.remote(self._weights_ref, self._version, lineups, own)

    def _references(self, names: set[str]) -> dict[str, ray.ObjectRef[Weights]]:
        """References to the snapshots among these players; those drawn no longer are let go."""
        snapshots = {name for name in names if name not in (MAIN, RANDOM) and not name.startswith(BOT_PREFIX)}
        self._snapshots = {
            name: self._snapshots.get(name) or ray.put(self._fetch(name)) for name in sorted(snapshots)
        }
        return self._snapshots

    def check_replay(self) -> ReplayDifference | None:
        return _get(self._learner.check_replay.remote(*self._fragments))

    def learn(self) -> Learned:
        while True:
            weights, learned = self._learner.update.options(num_returns=2).remote(*self._fragments)
            try:
                result: Learned = _get(learned)
                break
            except RayActorError as error:
                self._revive_learner(error)
        self._weights_ref, self._fragments = weights, []
        self._version = result.version
        return result

    def play(self, lineups: Lineups, seed: Sequence[int]) -> MatchResults:
        refs = self._references(set(lineups.players))
        while True:
            call = self._rollouts[0].play.remote(self._weights_ref, self._version, lineups, list(seed), refs)
            try:
                return _get(call)
            except RayActorError as error:
                self._revive_rollout(0, error)

    def weights(self) -> Mapping[str, np.ndarray]:
        return _get(self._weights_ref)

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        self._backup = self._backed_up()
        rollouts = [_get(actor.state.remote()) for actor in self._rollouts]
        arrays, meta = _get(self._backup[0]), _get(self._backup[1])
        stems = {f"rollout-{k}": part for k, (part, _) in enumerate(rollouts)}
        return {"learner": arrays, **stems}, {"learner": meta, "rollouts": [m for _, m in rollouts]}

    def set_state(self, arrays: Arrays, meta: Mapping[str, Any]) -> bool:
        _get(self._learner.set_state.remote(arrays["learner"], meta["learner"]))
        self._weights_ref = self._learner.weights.remote()
        self._version = meta["learner"]["version"]
        self._backup = self._backed_up()
        if len(meta["rollouts"]) != self.num_rollouts:
            return False
        same = []
        for k, (actor, part) in enumerate(zip(self._rollouts, meta["rollouts"], strict=True)):
            refs = self._references(set(part["ids"]))
            same.append(_get(actor.set_state.remote(arrays[f"rollout-{k}"], part, refs)))
        return all(same)

    def close(self) -> None:
        for actor in (*self._rollouts, self._learner):
            ray.kill(actor)
        remove_placement_group(self._group)
        if self._started_ray:
            ray.shutdown()

    # Actors that die

    def _backed_up(self) -> tuple[Any, Any]:
        """References to the learner's state as it is now; they outlive the actor."""
        arrays, meta = self._learner.state.options(num_returns=2).remote()
        return arrays, meta

    def _count_death(self, who: str, error: RayActorError) -> None:
        self._deaths += 1
        if self._deaths >= MAX_DEATHS:
            raise EngineError(f"{who} died {self._deaths} times without an iteration between") from error
        self._notify(f"{who} died and is restarted: {str(error).splitlines()[0]}")

    def _revive_rollout(self, index: int, error: RayActorError) -> None:
        """Its matches are lost; it opens new ones, with draws that it did not make before."""
        self._count_death(f"rollout worker {index}", error)
        try:
            _get(self._rollouts[index].reopen.remote(self._version + 1))
        except RayActorError as again:
            self._revive_rollout(index, again)

    def _revive_learner(self, error: RayActorError) -> None:
        """The published weights are the newest; the optimiser's state is the last one backed up."""
        self._count_death("the learner", error)
        arrays, meta = dict(_get(self._backup[0])), dict(_get(self._backup[1]))
        arrays |= {f"policy:{name}": x for name, x in self.weights().items()}
        meta["version"] = self._version
        try:
            _get(self._learner.set_state.remote(arrays, meta))
        except RayActorError as again:
            self._revive_learner(again)


def _get(ref: Any) -> Any:
    """ray.get, with an error of the actor's own code raised as itself, its remote traceback noted."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, Exception) and not isinstance(cause, UserError):
            cause.add_note(str(error))
        raise (cause if isinstance(cause, Exception) else error) from None
