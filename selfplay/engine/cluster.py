"""The engine on Ray Core: rollout actors on CPUs, learner actors on GPUs if there are any.

Fragments and weights go by object reference from actor to actor; the driver sees none of them.

Ray restarts nothing here: an actor restarted behind our back would come back empty and go on without a
word. One that dies stays dead, the next call to it fails, and the engine puts a new one in its place
with all that it must know.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import ObjectLostError, RayError
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from selfplay.config import Config
from selfplay.engine import Arrays, Engine, Engines, Learned, choose_device
from selfplay.engine.actors import InferenceActor, LearnerActor, State, rollout_class
from selfplay.engine.batches import PIECES, Asked, Begun
from selfplay.engine.calls import DIED, OPEN_SECONDS, EngineError, Ref, get, get_all, wait_opened
from selfplay.engine.evaluators import RayEvaluators
from selfplay.engine.room import Room, connect, find_room, fit_learners, fit_workers, reserve
from selfplay.matches import MAIN, Lineups, MatchResults, joined
from selfplay.replay import ReplayDifference
from selfplay.rollout import Batch
from selfplay.worker import Collected, Fetch, Piece, Weights, is_bot, together

MAX_DEATHS = 3
"""An actor that dies so often without one update between ends the run."""

CLOSE_SECONDS = 5.0
"""How long an inference server may take to end."""

AHEAD = 2
"""Pieces that a rollout is asked for at a time, so that it has another when one is done."""


class RayEngine:
    """See `selfplay.engine.Engine`."""

    def __init__(
        self, config: Config, fetch: Fetch, notify: Callable[[str], None], room: Room | None = None
    ) -> None:
        """room: this engine's part of the cluster; None: all of it."""
        self._config, self._fetch, self._notify = config, fetch, notify
        self._started_ray = connect()
        self._room = room or find_room(config, 1)
        self._group: PlacementGroup | None = None
        self._actors: dict[str, ActorHandle] = {}
        self._servers: dict[str, str] = {}  # machine -> its inference server's socket
        self._deaths: Counter[str] = Counter()
        self._begun: deque[Begun] = deque()
        self._numbers = itertools.count()  # of batches
        self._asked: dict[Ref, Asked] = {}  # pieces that are played or next, by what comes of them
        self._playing: Counter[int] = Counter()  # how many of them are each rollout's
        self._published = 0  # how often weights were published again, because they were lost
        self._batches: list[ray.ObjectRef[Batch]] = []
        self._snapshots: dict[str, ray.ObjectRef[Weights]] = {}
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self.num_rollouts = fit_workers(self._config, self._room.cpus)
        self._device = choose_device(self._config, self._room.gpus >= 1)
        number = fit_learners(self._config, self.num_rollouts, self._device, self._room.gpus)
        shares = np.array_split(np.arange(self.num_rollouts), number)
        self._shares = [share.tolist() for share in shares]  # of each learner, the rollouts beside it
        gpus = len(shares) if self._device == "cuda" else 0
        self._group = reserve(self.num_rollouts, gpus, self._room.part)
        even = self._config.rollout.num_games // self.num_rollouts % PIECES == 0
        self._pieces = PIECES if even else 1
        self._make_actors()

    def _make_actors(self) -> None:
        opened = {_rollout(k): self._start_rollout(k, 0) for k in range(self.num_rollouts)}
        wait_opened(opened | self._start_learners(None))
        self._publish_first()

    def _publish_first(self) -> None:
        self._version = self._agent_steps = 0
        self._backup: State = self._ask_learner(lambda learner: learner.state.remote())
        self._weights_ref = ray.put(self._ask_learner(lambda learner: learner.weights.remote()))

    def begin(self, lineups: Sequence[Lineups], *, shared: bool = False) -> None:
        assert len(self._begun) < 2
        # After a rest all begin at once, so that a first batch in pieces would be shared alike too.
        self._begin(lineups, self._pieces if shared and self._begun else 1)

    def _begin(self, lineups: Sequence[Lineups], pieces: int) -> None:
        self._begun.append(Begun(next(self._numbers), lineups, pieces))
        self._keep_playing(range(self.num_rollouts))

    def collect(self) -> list[Collected]:
        begun = self._begun[0]
        while not begun.complete:
            self._hear()
        self._begun.popleft()
        self._last = begun.lineups, begun.pieces
        done = sorted(begun.done, key=lambda each: each[0].rollout)
        self._batches = [piece.batch for piece, _ in done]
        of_each = itertools.groupby(done, key=lambda each: each[0].rollout)
        return [together([collected for _, collected in own]) for _, own in of_each]

    def _keep_playing(self, rollouts: Iterable[int]) -> None:
        """Ask these for pieces of what was begun, so that they do not wait while there are some."""
        for rollout in rollouts:
            for begun in self._begun:
                while self._playing[rollout] < AHEAD and begun.give(rollout):
                    self._ask(begun, rollout)

    def _ask(self, begun: Begun, rollout: int) -> None:
        """Let a rollout play a piece."""
        own, actor = begun.lineups[rollout], self._actors[_rollout(rollout)]
        refs = self._references(set().union(*(each.names for each in self._begun)))
        refs = {name: refs[name] for name in own.players if name in refs}
        batch, collected = actor.collect.options(num_returns=2).remote(
            self._weights_ref, self._version, own, refs, Piece(begun.number, begun.pieces)
        )
        self._asked[collected] = Asked(begun, rollout, actor, batch, self._published)
        self._playing[rollout] += 1

    def _hear(self) -> None:
        """Wait until a piece is there; take in all that are."""
        waiting = list(self._asked)
        ray.wait(waiting, num_returns=1)
        ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        for ref in ready:
            if ref in self._asked:  # and not of an actor just replaced
                piece = self._asked[ref]
                self._take_in(ref, piece)
                self._keep_playing([piece.rollout])

    def _take_in(self, ref: Ref, piece: Asked) -> None:
        """A piece that is there, or will never be."""
        try:
            collected = get(ref)
        except ObjectLostError as error:
            if piece.published == self._published:
                self._count_loss(f"what {_rollout(piece.rollout)} needs", error)
                self._publish_again()
            self._ask_again([ref])
        except DIED as error:
            self._replace_rollout(piece.rollout, error)
            self._ask_again([ref for ref, each in self._asked.items() if each.actor is piece.actor])
        else:
            self._forget(ref)
            piece.begun.done.append((piece, collected))

    def _ask_again(self, lost: Sequence[Ref]) -> None:
        """For pieces that nobody plays any more, in their order."""
        for ref in lost:
            piece = self._forget(ref)
            self._ask(piece.begun, piece.rollout)

    def _forget(self, ref: Ref) -> Asked:
        piece = self._asked.pop(ref)
        self._playing[piece.rollout] -= 1
        return piece

    def _publish_again(self) -> None:
        """Weights of past selves, and the newest if it is they that are lost."""
        self._published += 1
        self._snapshots.clear()
        self.weights()

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
        if self._begun:
            self._publish()
        return learned

    def _publish(self) -> None:
        """Let rollouts that play on do so with the newest weights; who is lost is found out elsewhere."""
        for index in range(self.num_rollouts):
            self._actors[_rollout(index)].publish.remote(self._weights_ref, self._version)

    def play(self, lineups: Lineups, seed: Sequence[int]) -> MatchResults:
        number = min(self.num_rollouts, len(lineups.table))
        bounds = [len(lineups.table) * k // number for k in range(number + 1)]

        def start(index: int, rollout: ActorHandle) -> Ref:
            refs, share = self._references(set(lineups.players)), (bounds[index], bounds[index + 1])
            return rollout.play.remote(self._weights_ref, self._version, lineups, list(seed), refs, share)

        return joined(self._ask_rollouts(range(number), start))

    def weights(self) -> Mapping[str, np.ndarray]:
        try:
            return get(self._weights_ref)
        except ObjectLostError:
            weights = self._ask_learner(lambda learner: learner.weights.remote())
            self._weights_ref = ray.put(weights)
            return weights

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        assert not self._begun
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
        assert not self._begun
        self._config = config
        self._kill_actors()
        self._batches, self._snapshots = [], {}
        self._deaths.clear()
        self._make_actors()

    def _kill_actors(self) -> None:
        for who, actor in self._actors.items():
            if who.startswith(INFERENCE):
                with contextlib.suppress(RayError):  # it may be gone
                    get(actor.close.remote(), CLOSE_SECONDS)
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
        snapshots = {name for name in names if name != MAIN and not is_bot(name)}
        self._snapshots = {
            name: self._snapshots.get(name) or ray.put(self._fetch(name)) for name in sorted(snapshots)
        }
        return self._snapshots

    # Actors, and what happens when they die

    def _start_rollout(self, index: int, entropy: int) -> Ref:
        options = {"num_cpus": self._room.part, "scheduling_strategy": self._place(index)}
        actor = rollout_class(**options).remote(index)
        self._actors[_rollout(index)] = actor
        server = None
        if self._config.rollout.inference == "node":
            server = self._server_of(get(actor.machine.remote(), OPEN_SECONDS))
        return actor.open.remote(self._config, self.num_rollouts, entropy, sys.path, server)

    def _server_of(self, machine: str) -> str:
        """The socket of the machine's inference server, started where there is none."""
        if machine not in self._servers:
            place = NodeAffinitySchedulingStrategy(machine, soft=False)
            options = {"num_cpus": 0, "num_gpus": int(self._device == "cuda"), "scheduling_strategy": place}
            actor = ray.remote(InferenceActor).options(**options).remote()
            self._actors[f"{INFERENCE} {len(self._servers)}"] = actor
            opened = actor.open.remote(self._config, self._device, sys.path)
            self._servers[machine] = get(opened, OPEN_SECONDS)
        return self._servers[machine]

    def _start_learners(self, state: State | None) -> dict[str, Ref]:
        # On CPUs they learn on the cores that are the rollouts', which wait or, where they overlap, share.
        size, num_gpus = len(self._shares), self._room.part * int(self._device == "cuda")
        for rank, share in enumerate(self._shares):
            place = self._place(self.num_rollouts + rank if num_gpus else share[0])
            options = {"num_cpus": 0, "num_gpus": num_gpus, "scheduling_strategy": place}
            self._actors[_learner(rank)] = ray.remote(LearnerActor).options(**options).remote(rank, size)
        address = get(self._actors[LEARNER].meet.remote(), OPEN_SECONDS) if size > 1 else None
        return {
            _learner(rank): self._actors[_learner(rank)].open.remote(
                self._config, self._device, state, sys.path, address
            )
            for rank in range(size)
        }

    def _share(self, rank: int) -> list[Ref]:
        """Of what was collected, the pieces that this learner learns from; most of rollouts beside it."""
        share = np.array_split(np.arange(len(self._batches)), len(self._shares))[rank]
        return [self._batches[place] for place in share]

    def _place(self, bundle: int) -> PlacementGroupSchedulingStrategy:
        return PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=bundle)

    def _ask_rollouts(self, indices: Sequence[int], call: Callable[[int, ActorHandle], Ref]) -> list[Any]:
        """The results of call(index, rollout), played at once; where a rollout dies, of its successor."""
        refs = [call(index, self._actors[_rollout(index)]) for index in indices]
        results = []
        for index, ref in zip(indices, refs, strict=True):
            while True:
                try:
                    results.append(get(ref))
                    break
                except ObjectLostError as error:
                    self._count_loss(f"what {_rollout(index)} needs", error)
                    self._publish_again()
                except DIED as error:
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
                return get_all([call(rank, self._actors[_learner(rank)]) for rank in ranks])
            except ObjectLostError as error:
                self._count_loss("a fragment", error)
                if self._batches:  # the results of these matches stay unrecorded
                    self._begin(*self._last)
                    self._begun.rotate()
                    self.collect()
                if len(ranks) > 1:  # those that have theirs wait for the one that lacks it
                    self._replace_learners(error)
            except DIED as error:
                self._replace_learners(error)

    def _replace_rollout(self, index: int, error: RayError) -> None:
        """Its matches are lost; the new one opens others, with draws that were not made before."""

        def start() -> dict[str, Ref]:
            entropy = (self._version + 1) * MAX_DEATHS + self._deaths[_rollout(index)]
            return {_rollout(index): self._start_rollout(index, entropy)}

        self._replace([_rollout(index)], start, error)

    def _replace_learners(self, error: RayError) -> None:
        """The published weights are the newest; the optimiser's state is that of the last checkpoint."""
        arrays, meta = self._backup
        try:
            newest = {f"policy:{name}": x for name, x in get(self._weights_ref).items()}
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
                wait_opened(start())
                return
            except DIED as again:
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


def start_engines(configs: Mapping[str, Config], fetch: Fetch, notify: Callable[[str], None]) -> Engines:
    """See `selfplay.engine.start_all`."""
    started = connect()
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
