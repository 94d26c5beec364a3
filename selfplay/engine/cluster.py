"""The engine on Ray Core: rollout actors on CPUs, learner actors on GPUs if there are any.

Fragments and weights go by object reference from actor to actor; the driver sees none of them.

Ray restarts nothing here: an actor restarted behind our back would come back empty and go on without a
word. One that dies stays dead, the next call to it fails, and the engine puts a new one in its place
with all that it must know.
"""

from __future__ import annotations

import contextlib
import logging
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import (
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from selfplay.config import Config, resolve_num_workers
from selfplay.engine import Arrays, Engine, Engines, Learned, choose_device
from selfplay.engine.actors import InferenceActor, LearnerActor, RolloutActor, State
from selfplay.engine.evaluators import RayEvaluators
from selfplay.errors import UserError
from selfplay.matches import MAIN, Lineups, MatchResults
from selfplay.replay import ReplayDifference
from selfplay.rollout import Batch
from selfplay.worker import BOT_PREFIX, RANDOM, Collected, Fetch, Weights

MAX_DEATHS = 3
"""An actor that dies so often without one update between ends the run."""

ROOM_SECONDS = 60.0
"""How long to wait for the cluster's CPUs and GPUs at the start."""

OPEN_SECONDS = 300.0
"""How long an actor may take to start: its imports, and compiling a game for the first time."""

CLOSE_SECONDS = 5.0
"""How long an inference server may take to end."""

MOST_LEARNERS = 8
"""Learners that share a CPU's cores under "auto"; more than two were never measured."""

SIBLING_SECONDS = 30.0
"""How long to look for a learner that died, once another has failed: for that may be why."""

_DIED = (RayActorError, NodeDiedError, OutOfMemoryError, WorkerCrashedError)

_COLOUR = re.compile(r"\x1b\[\d*m")

Ref = Any  # ray.ObjectRef, which carries no type through actor handles


@dataclass(frozen=True, slots=True)
class _Begun:
    """A batch that the rollouts play."""

    lineups: Sequence[Lineups]
    batches: list[Ref]  # of each rollout
    collected: list[Ref]


class EngineError(RuntimeError):
    """Actors keep dying, or do not start."""


class RayEngine:
    """See `selfplay.engine.Engine`."""

    def __init__(
        self, config: Config, fetch: Fetch, notify: Callable[[str], None], room: Room | None = None
    ) -> None:
        """room: this engine's part of the cluster; None: all of it."""
        self._config, self._fetch, self._notify = config, fetch, notify
        self._started_ray = _connect()
        self._room = room or find_room(config, 1)
        self._group: PlacementGroup | None = None
        self._actors: dict[str, ActorHandle] = {}
        self._servers: dict[str, str] = {}  # machine -> its inference server's socket
        self._deaths: Counter[str] = Counter()
        self._begun: _Begun | None = None
        self._batches: list[ray.ObjectRef[Batch]] = []
        self._snapshots: dict[str, ray.ObjectRef[Weights]] = {}
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self.num_rollouts = _fit(self._config, self._room.cpus)
        self._device = choose_device(self._config, self._room.gpus >= 1)
        number = _num_learners(self._config, self.num_rollouts, self._device, self._room.gpus)
        shares = np.array_split(np.arange(self.num_rollouts), number)
        self._shares = [share.tolist() for share in shares]  # of each learner, the rollouts it learns from
        gpus = len(shares) if self._device == "cuda" else 0
        self._group = _reserve(self.num_rollouts, gpus, self._room.part)
        self._make_actors()

    def _make_actors(self) -> None:
        opened = {_rollout(k): self._start_rollout(k, 0) for k in range(self.num_rollouts)}
        _opened(opened | self._start_learners(None))
        self._publish_first()

    def _publish_first(self) -> None:
        self._version = self._agent_steps = 0
        self._backup: State = self._ask_learner(lambda learner: learner.state.remote())
        self._weights_ref = ray.put(self._ask_learner(lambda learner: learner.weights.remote()))

    def begin(self, lineups: Sequence[Lineups]) -> None:
        assert self._begun is None
        self._begun = self._start_collect(lineups)

    def collect(self) -> list[Collected]:
        assert self._begun is not None
        begun, self._begun = self._begun, None
        return self._finish_collect(begun)

    def _start_collect(self, lineups: Sequence[Lineups]) -> _Begun:
        begun = _Begun(lineups, [None] * self.num_rollouts, [])
        for index in range(self.num_rollouts):
            begun.collected.append(self._call_collect(begun, index))
        return begun

    def _call_collect(self, begun: _Begun, index: int) -> Ref:
        names = {name for each in begun.lineups for name in each.players}
        own, refs = begun.lineups[index], self._references(names)
        refs = {name: refs[name] for name in own.players if name in refs}
        method = self._actors[_rollout(index)].collect.options(num_returns=2)
        begun.batches[index], collected = method.remote(self._weights_ref, self._version, own, refs)
        return collected

    def _finish_collect(self, begun: _Begun) -> list[Collected]:
        results: list[Collected] = self._await_rollouts(
            range(self.num_rollouts), begun.collected, lambda index, _: self._call_collect(begun, index)
        )
        self._lineups, self._batches = begun.lineups, begun.batches
        return results

    def check_replay(self) -> ReplayDifference | None:
        def start(rank: int, learner: ActorHandle) -> Ref:
            return learner.check_replay.remote(*self._share(rank))

        found = [each for each in self._ask_learners(start) if each is not None]
        return ReplayDifference(*map(max, zip(*found, strict=True))) if found else None

    def learn(self) -> Learned:
        weights: dict[int, Ref] = {}

        def start(rank: int, learner: ActorHandle) -> Ref:
            method = learner.update.options(num_returns=2)
            weights[rank], learned = method.remote(*self._share(rank))
            return learned

        learned: Learned = self._ask_learners(start)[0]
        self._weights_ref, self._batches = weights[0], []
        self._version, self._agent_steps = learned.version, learned.agent_steps
        self._deaths.clear()
        return learned

    def play(self, lineups: Lineups, seed: Sequence[int]) -> MatchResults:
        def start(index: int, rollout: ActorHandle) -> Ref:
            refs = self._references(set(lineups.players))
            return rollout.play.remote(self._weights_ref, self._version, lineups, list(seed), refs)

        results: list[MatchResults] = self._ask_rollouts([0], start)
        return results[0]

    def weights(self) -> Mapping[str, np.ndarray]:
        try:
            return _get(self._weights_ref)
        except ObjectLostError:
            weights = self._ask_learner(lambda learner: learner.weights.remote())
            self._weights_ref = ray.put(weights)
            return weights

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        assert self._begun is None
        self._backup = self._ask_learner(lambda learner: learner.state.remote())
        rollouts = self._ask_rollouts(range(self.num_rollouts), lambda index, rollout: rollout.state.remote())
        stems = {f"rollout-{k}": part for k, (part, _) in enumerate(rollouts)}
        arrays, meta = self._backup
        return {"learner": arrays, **stems}, {"learner": meta, "rollouts": [m for _, m in rollouts]}

    def set_state(self, arrays: Arrays, meta: Mapping[str, Any]) -> bool:
        self._backup = arrays["learner"], meta["learner"]
        self._version, self._agent_steps = meta["learner"]["version"], meta["learner"]["agent_steps"]
        weights = self._ask_learners(lambda _, learner: learner.set_state.remote(*self._backup))[0]
        self._weights_ref = ray.put(weights)
        parts = meta["rollouts"]
        if len(parts) != self.num_rollouts:
            return False
        names = {name for part in parts for name in part["ids"]}

        def start(index: int, rollout: ActorHandle) -> Ref:
            refs = self._references(names)
            return rollout.set_state.remote(arrays[f"rollout-{index}"], parts[index], refs)

        return all(self._ask_rollouts(range(self.num_rollouts), start))

    def reset(self, config: Config) -> None:
        """New actors in the place of the old: nothing of theirs is left behind."""
        assert self._begun is None
        self._config = config
        self._kill_actors()
        self._batches, self._snapshots = [], {}
        self._deaths.clear()
        self._make_actors()

    def _kill_actors(self) -> None:
        for who, actor in self._actors.items():
            if who.startswith(INFERENCE):
                with contextlib.suppress(RayError):  # it may be gone
                    _get(actor.close.remote(), CLOSE_SECONDS)
            ray.kill(actor)
        self._actors, self._servers = {}, {}

    def close(self) -> None:
        self._kill_actors()
        if self._group is not None:
            remove_placement_group(self._group)
        if self._started_ray:
            ray.shutdown()

    def _references(self, names: set[str]) -> dict[str, ray.ObjectRef[Weights]]:
        """References to the snapshots among these players; those drawn no longer are let go."""
        snapshots = {name for name in names if name not in (MAIN, RANDOM) and not name.startswith(BOT_PREFIX)}
        self._snapshots = {
            name: self._snapshots.get(name) or ray.put(self._fetch(name)) for name in sorted(snapshots)
        }
        return self._snapshots

    # Actors, and what happens when they die

    def _start_rollout(self, index: int, entropy: int) -> Ref:
        options = {"num_cpus": self._room.part, "scheduling_strategy": self._place(index)}
        actor = ray.remote(RolloutActor).options(**options).remote(index)
        self._actors[_rollout(index)] = actor
        server = None
        if self._config.rollout.inference == "node":
            server = self._server_of(_get(actor.machine.remote(), OPEN_SECONDS))
        return actor.open.remote(self._config, self.num_rollouts, entropy, sys.path, server)

    def _server_of(self, machine: str) -> str:
        """The socket of the machine's inference server, started where there is none."""
        if machine not in self._servers:
            place = NodeAffinitySchedulingStrategy(machine, soft=False)
            options = {"num_cpus": 0, "num_gpus": int(self._device == "cuda"), "scheduling_strategy": place}
            actor = ray.remote(InferenceActor).options(**options).remote()
            self._actors[f"{INFERENCE} {len(self._servers)}"] = actor
            opened = actor.open.remote(self._config, self._device, sys.path)
            self._servers[machine] = _get(opened, OPEN_SECONDS)
        return self._servers[machine]

    def _start_learners(self, state: State | None) -> dict[str, Ref]:
        # On CPUs they learn on the cores that are the rollouts', which wait or, where they overlap, share.
        size, num_gpus = len(self._shares), self._room.part * int(self._device == "cuda")
        for rank, share in enumerate(self._shares):
            place = self._place(self.num_rollouts + rank if num_gpus else share[0])
            options = {"num_cpus": 0, "num_gpus": num_gpus, "scheduling_strategy": place}
            self._actors[_learner(rank)] = ray.remote(LearnerActor).options(**options).remote(rank, size)
        address = _get(self._actors[LEARNER].meet.remote(), OPEN_SECONDS) if size > 1 else None
        return {
            _learner(rank): self._actors[_learner(rank)].open.remote(
                self._config, self._device, state, sys.path, address
            )
            for rank in range(size)
        }

    def _share(self, rank: int) -> list[Ref]:
        """Of the batches that were collected, those that this learner learns from."""
        return [self._batches[index] for index in self._shares[rank]]

    def _place(self, bundle: int) -> PlacementGroupSchedulingStrategy:
        return PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=bundle)

    def _ask_rollouts(self, indices: Sequence[int], call: Callable[[int, ActorHandle], Ref]) -> list[Any]:
        """The results of call(index, rollout), played at once; where a rollout dies, of its successor."""
        refs = [call(index, self._actors[_rollout(index)]) for index in indices]
        return self._await_rollouts(indices, refs, call)

    def _await_rollouts(
        self, indices: Sequence[int], refs: Sequence[Ref], call: Callable[[int, ActorHandle], Ref]
    ) -> list[Any]:
        """What these refs of calls stand for; where a rollout dies, that of call(index, successor)."""
        results = []
        for index, ref in zip(indices, refs, strict=True):
            while True:
                try:
                    results.append(_get(ref))
                    break
                except ObjectLostError as error:
                    self._count_loss(f"what {_rollout(index)} needs", error)
                    self._snapshots.clear()
                    self.weights()  # published again, if it is they that are lost
                except _DIED as error:
                    self._replace_rollout(index, error)
                ref = call(index, self._actors[_rollout(index)])
        return results

    def _ask_learner(self, call: Callable[[ActorHandle], Ref]) -> Any:
        """The result of call(first learner), for what is the same of all."""
        return self._ask_learners(lambda _, learner: call(learner), 1)[0]

    def _ask_learners(self, call: Callable[[int, ActorHandle], Ref], number: int | None = None) -> list[Any]:
        """The results of call(rank, learner) of the first so many; where one dies, of successors of all."""
        ranks = range(len(self._shares))[:number]
        while True:
            try:
                return _get_all([call(rank, self._actors[_learner(rank)]) for rank in ranks])
            except ObjectLostError as error:
                self._count_loss("a fragment", error)
                if self._batches:  # the results of these matches stay unrecorded
                    self._finish_collect(self._start_collect(self._lineups))
                if len(ranks) > 1:  # those that have theirs wait for the one that lacks it
                    self._replace_learners(error)
            except _DIED as error:
                self._replace_learners(error)

    def _replace_rollout(self, index: int, error: RayError) -> None:
        """Its matches are lost; the new one opens others, with draws that were not made before."""

        def start() -> dict[str, Ref]:
            return {_rollout(index): self._start_rollout(index, self._version + 1)}

        self._replace([_rollout(index)], start, error)

    def _replace_learners(self, error: RayError) -> None:
        """The published weights are the newest; the optimiser's state is that of the last checkpoint."""
        arrays, meta = self._backup
        try:
            newest = {f"policy:{name}": x for name, x in _get(self._weights_ref).items()}
        except ObjectLostError:  # with the learner's machine
            newest = {name: x for name, x in arrays.items() if name.startswith("policy:")}
        state = arrays | newest, {**meta, "version": self._version, "agent_steps": self._agent_steps}
        everyone = [_learner(rank) for rank in range(len(self._shares))]
        self._replace(everyone, lambda: self._start_learners(state), error)
        self._weights_ref = ray.put({name.removeprefix("policy:"): x for name, x in newest.items()})

    def _replace(self, actors: Sequence[str], start: Callable[[], dict[str, Ref]], error: RayError) -> None:
        while True:
            self._count_loss(actors[0], error)
            for who in actors:
                ray.kill(self._actors[who])  # where it is out of reach, but alive
            try:
                _opened(start())
                return
            except _DIED as again:
                error = again

    def _count_loss(self, who: str, error: RayError) -> None:
        self._deaths[who] += 1
        if self._deaths[who] >= MAX_DEATHS:
            raise EngineError(f"{who} was lost {MAX_DEATHS} times without an update between") from error
        self._notify(f"{who} was lost ({type(error).__name__}); making it anew")


LEARNER, INFERENCE = "the learner", "inference server"


def _learner(rank: int) -> str:
    return f"learner {rank}" if rank else LEARNER


def _rollout(index: int) -> str:
    return f"rollout worker {index}"


def _connect() -> bool:
    """Join the cluster of `ray job submit`, or of `ray start` on this machine; else start one, and say so."""
    if ray.is_initialized():
        return False
    # Ray tells of a token that it made for us, on every start; whoever reaches into the cluster needs it.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(logging_level=logging.WARNING, include_dashboard=False)
    except ConnectionError as error:
        raise UserError(
            f"{error}; start it anew, or have a cluster of this run's own: RAY_ADDRESS=local"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray's would end the run without a checkpoint
    return True


class Room(NamedTuple):
    """What of the cluster one engine may have."""

    cpus: int
    gpus: int
    part: float  # of a CPU or GPU that each of its actors counts as; less than 1 where engines take turns
    together: bool  # whether all engines have theirs at the same time


def find_room(config: Config, number: int) -> Room:
    """The part of each of so many engines, and of none that evaluators have.

    Side by side if the cluster has several machines, or the workers that were asked for fit as often;
    else each has all of it, in turns.
    """
    resources = ray.cluster_resources()
    cpus, gpus = int(resources.get("CPU", 0)) - config.league.evaluators, int(resources.get("GPU", 0))
    if cpus < 1:
        raise UserError(
            f"league.evaluators={config.league.evaluators}, but the Ray cluster has "
            f"{int(resources.get('CPU', 0))} CPUs: at least one must be left for rollouts that teach"
        )
    wanted = config.rollout.num_workers
    if wanted == "auto":
        together = cpus >= number and sum(node["Alive"] for node in ray.nodes()) > 1
    else:
        together = number * wanted <= cpus
    if 0 < gpus < number and config.device != "cpu":
        together = False
    if number == 1 or together:
        return Room(cpus // number, gpus // number, 1, number > 1)
    return Room(cpus, gpus, round(1 / number - 5e-5, 4), False)  # Ray counts ten thousandths


def start_engines(configs: Mapping[str, Config], fetch: Fetch, notify: Callable[[str], None]) -> Engines:
    """See `selfplay.engine.start_all`."""
    started = _connect()
    engines: dict[str, Engine] = {}
    try:
        first = next(iter(configs.values()))
        room = find_room(first, len(configs))
        for slot, config in configs.items():
            engines[slot] = RayEngine(config, fetch, notify, room)
        evaluators = RayEvaluators(first, fetch, notify)
    except BaseException:
        for engine in engines.values():
            engine.close()
        if started:
            ray.shutdown()
        raise
    evaluators.started_ray = started
    return Engines(engines, room.together, evaluators)


def _fit(config: Config, cpus: int) -> int:
    """How many rollout workers: as configured, `auto` no more than the cluster has CPUs."""
    workers = resolve_num_workers(config)
    if config.rollout.num_workers == "auto" and 0 < cpus < workers:
        return max(n for n in range(1, cpus + 1) if config.rollout.num_games % n == 0)
    if cpus < workers:
        raise UserError(
            f"rollout.num_workers={workers}, but the Ray cluster has {cpus} CPUs; "
            "give as many workers as CPUs at most, or 0 to play in this process"
        )
    return workers


def _num_learners(config: Config, num_rollouts: int, device: str, num_gpus: int) -> int:
    """As configured and as there is room for; under "auto" what was measured to be fastest."""
    wanted = config.num_learners
    if wanted == "auto":
        machines = sum(node["Alive"] for node in ray.nodes())
        return 1 if device == "cuda" or machines > 1 else min(num_rollouts, MOST_LEARNERS)
    if wanted > num_rollouts:
        raise UserError(
            f"num_learners={wanted}, but {num_rollouts} rollout workers: every learner takes "
            f"the batches of workers of its own; give --num-learners {num_rollouts}, or more workers"
        )
    if device == "cuda" and num_gpus < wanted:
        raise UserError(
            f"num_learners={wanted}, but the Ray cluster has {num_gpus} GPUs; "
            f"give --num-learners {num_gpus}, or --device cpu"
        )
    return wanted


def _reserve(num_rollouts: int, num_gpus: int, part: float) -> PlacementGroup:
    """A CPU for every rollout, and GPUs for learners as the last bundles, or parts of them."""
    bundles = [{"CPU": part}] * num_rollouts + [{"GPU": part}] * num_gpus
    group = placement_group(bundles, strategy="PACK")
    if not group.wait(timeout_seconds=ROOM_SECONDS):
        remove_placement_group(group)
        gpus = f", {num_gpus} GPUs" if num_gpus else ""
        raise UserError(
            f"the Ray cluster has no room for this run ({num_rollouts} CPUs{gpus}): "
            "other jobs hold it (see `ray status`); end them, or lower rollout.num_workers"
        )
    return group


def _opened(refs: Mapping[str, Ref]) -> None:
    """Wait until actors are ready."""
    try:
        _get_all(list(refs.values()), OPEN_SECONDS)
    except GetTimeoutError as error:
        raise EngineError(
            f"{', '.join(refs)} did not start within {OPEN_SECONDS:g} s: the cluster has no room any more, "
            "or a machine is overloaded (see `ray status`); go on later with --resume"
        ) from error


def _get_all(refs: Sequence[Ref], timeout: float | None = None) -> list[Any]:
    """Results of calls that may wait for each other: one that died or lost something is told of first."""
    waiting, failure = list(refs), None
    while waiting:
        done, waiting = ray.wait(waiting, timeout=SIBLING_SECONDS if failure else timeout)
        if not done:
            raise failure or GetTimeoutError
        try:
            _get(done[0])
        except (ObjectLostError, *_DIED):
            raise
        except Exception as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return list(map(_get, refs))


def _get(ref: Ref, timeout: float | None = None) -> Any:
    """ray.get, with an error of the actor's own code raised as itself, its remote traceback noted."""
    try:
        return ray.get(ref, timeout=timeout)
    except RayTaskError as error:
        cause = error.cause
        if not isinstance(cause, Exception):
            raise
        if not isinstance(cause, RayError | UserError):
            cause.add_note(_COLOUR.sub("", str(error)))
        raise cause from None
