"""The driver of a run: sample, learn, record, publish."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from gymnasium.spaces import Discrete

from envs.vector import GameError, VectorEnv
from selfplay import checkpoint, engine
from selfplay import config as configuration
from selfplay.config import Config, PolicyConfig, StopConfig, resolve_num_workers
from selfplay.engine import Arrays, Learned
from selfplay.errors import CheckpointError, UserError
from selfplay.health import Health
from selfplay.league.league import League
from selfplay.league.payoff_image import payoff_image
from selfplay.matches import LIVE, MAIN
from selfplay.members import Member, Times, slot_config, take_turn
from selfplay.overlap import Overlap
from selfplay.parts import units
from selfplay.rollout import too_many_failures
from selfplay.run_directory import RunDirectory
from selfplay.view import View
from selfplay.worker import LEAGUE, Collected, Weights, make_game

LINEUPS_PER_GAME = 2
"""Lineups drawn for each game of an iteration; a rollout that finishes more matches begins again."""

CALIBRATION, RATING, EVALUATION = 1, 2, 3  # purposes of matches beside training, for their seeds

_FIXED = {
    "env": ("id", "kwargs", "train_kwargs"),
    "policy": tuple(PolicyConfig.model_fields),
    "rollout": ("num_games", "fragment_length"),
}  # what a checkpoint's arrays depend on


class Interruption:
    """The signal that asks a run to end, once there is one."""

    number: int | None = None
    deferred = False  # whether there is something to save before the end


class Training:
    """One run, from its start or from a checkpoint, until it is to stop."""

    def __init__(
        self, config: Config, run: RunDirectory, view: View, interruption: Interruption | None = None
    ) -> None:
        self.config, self.run, self.view = config, run, view
        self._interruption = interruption or Interruption()
        env = make_game(config, 1)
        self.teams = env.teams
        self.league = League.open(
            run.league,
            config.league,
            env.teams,
            np.random.SeedSequence(config.seed, spawn_key=(LEAGUE,)),
            units=_units(config, env),
            winners=env.zero_sum if config.league.winners == "auto" else config.league.winners == "on",
            network=configuration.dump(config.model_copy(update={"stop": StopConfig()})),
        )
        choices = all(isinstance(group.action_space, Discrete) for group in env.groups)
        self._health = Health(discrete=choices)
        self._live: dict[str, Weights] = {}  # of the main learner, as exploiters meet it
        view.message("starting: some seconds, more the first time")
        configs = {slot.name: slot_config(config, k, 1) for k, slot in enumerate(self.league.slots)}
        self._engines = engine.start_all(configs, self._weights_of, view.message)
        self._members = [Member(slot, self._engines.of_slot[slot.name]) for slot in self.league.slots]
        self.main = self._members[0]
        self.iteration = 0
        self.agent_steps = 0
        self.seconds = 0.0
        self.overlap = Overlap(self._staleness())
        self._last = (1, 0, 0.0)  # iterations, agent steps and seconds that the next one is expected to add
        self._saved_iteration = -1
        self._saved_seconds = 0.0

    def loop(self) -> None:
        """Sample -> learn -> record -> publish, until a stop condition or a signal."""
        side_by_side = self._engines.together
        while self._ahead() or not self._finished():
            start = time.perf_counter()
            self._begin_evaluation()
            groups = [self._members] if side_by_side else [[member] for member in self._members]
            spent = [take_turn(group, self._begin_batch, self._may_play_ahead) for group in groups]
            self.iteration += 1
            trained = time.perf_counter()
            self._record()
            if self._snapshot_due(self.iteration):
                self.snapshot(self.main)
            for exploiter in self._members[1:]:
                if not exploiter.ahead and self.league.is_done(exploiter.slot.name, self.iteration):
                    self._freeze(exploiter)
            self.league.commit(self.iteration)
            end = time.perf_counter()
            times = sum(spent, Times())
            shares = {"sample": times.sample, "learn": times.learn, "league": end - trained}
            self._report(shares, end - start)
            if not self._ahead() and self._checkpoint_due():
                self.save()

    def _ahead(self) -> bool:
        """Whether somebody's rollouts play for the next iteration already."""
        return any(member.ahead for member in self._members)

    def _begin_batch(self, member: Member) -> None:
        """Let a member's rollouts play, with its newest weights, matches that the league draws now."""
        num_rollouts = member.engine.num_rollouts
        num_lineups = LINEUPS_PER_GAME * self.config.rollout.num_games // num_rollouts
        live = None if member.is_main else self._publish_live()
        slot = member.slot.name
        lineups = self.league.draw(num_rollouts, num_lineups, slot=slot, live=live)
        member.faces = {name for table in lineups for name in table.players}
        # While it is collected from one member, others' rollouts are asked for nothing more.
        member.engine.begin(lineups, shared=len(self._members) == 1)

    def _publish_live(self) -> str:
        """The name under which exploiters meet the main learner as it is now."""
        name = f"{MAIN}{LIVE}{self.main.learned.version:06d}"
        if name not in self._live:
            self._live[name] = self.main.engine.weights()
        return name

    def _weights_of(self, name: str) -> Weights:
        """Of a past self, or of the main learner at a version that exploiters meet."""
        return self._live[name] if LIVE in name else self.league.weights(name)

    def _begin_evaluation(self) -> None:
        evaluators = self._engines.evaluators
        if evaluators.number:
            tables = self.league.thin_lineups(evaluators.number, self.config.league.evaluation_games)
            evaluators.begin(tables, [self.config.seed, EVALUATION, self.iteration])

    def _record(self) -> None:
        """The league hears of all matches that ended, in an order that does not depend on who was faster."""
        for member in self._members:
            results = [part.results for part in member.collected]
            self.league.record(results, iteration=self.iteration, slot=member.slot.name)
        self.league.record_evaluation(self._engines.evaluators.collect(), iteration=self.iteration)
        present = {name for member in self._members for part in member.collected for name in part.present}
        present = present.union(*(member.faces for member in self._members if member.ahead))
        self._live = {name: weights for name, weights in self._live.items() if name in present}

    def _freeze(self, exploiter: Member) -> None:
        """An exploiter joins the past selves as it is; only then it may begin anew."""
        self.snapshot(exploiter)
        slot = exploiter.slot.name
        if self.league.gives_way(slot):
            learner = self.league.begin_anew(slot, self.iteration)
            self.view.message(f"iteration {self.iteration}: {learner} begins anew")
            life = int(learner.rpartition(".")[2])
            exploiter.engine.reset(slot_config(self.config, self._members.index(exploiter), life))
            exploiter.unchecked = True

    def _may_play_ahead(self, member: Member) -> bool:
        """Whether a member's rollouts need not rest after this iteration.

        They do for the run's end, a checkpoint, and the member's own snapshot. Clock and number of decisions
        are expected to go on as in the iteration before, and the pool of past selves, which decides with
        whether an exploiter is done, to stay; where it comes otherwise, the rest comes one iteration later.
        """
        coming = self.iteration + 1
        frozen = (
            self._snapshot_due(coming) if member.is_main else self.league.is_done(member.slot.name, coming)
        )
        return self.overlap.wanted() and not (
            member.unchecked or frozen or self._finished(*self._last) or self._checkpoint_due(*self._last)
        )

    def begin(self) -> None:
        """What precedes the first iteration: anchors are rated, the untrained policy joins the pool."""
        lineups = self.league.calibration_lineups()
        if len(lineups.table):
            # The same matches in every run, so that ratings of different runs share a scale.
            self.league.calibrate(self.main.engine.play(lineups, [0, CALIBRATION]))
        self.snapshot(self.main)
        self.league.commit(0)
        self.save()

    def snapshot(self, member: Member) -> None:
        """A learner's policy as it is now joins the past selves, rated against the anchors."""
        name = self.league.add_snapshot(
            member.engine.weights(),
            version=self.iteration,
            iteration=self.iteration,
            agent_steps=member.learned.agent_steps,
            slot=member.slot.name,
        )
        lineups = self.league.rating_lineups(name)
        if len(lineups.table):
            results = member.engine.play(lineups, [self.config.seed, RATING, self.iteration])
            self.league.rate(name, results, self.iteration)

    def resume(self) -> None:
        """Go on from the run's newest checkpoint; what was written after it is forgotten."""
        path = checkpoint.to_go_on_from(self.run.checkpoints)
        arrays, meta = checkpoint.load(path)
        self._refuse_another(meta["config"])
        self.iteration, self.agent_steps = meta["iteration"], meta["agent_steps"]
        self.seconds = self._saved_seconds = meta["seconds"]
        self._saved_iteration = self.iteration
        self.league.set_state(meta["league"], self.iteration)
        self.overlap.set_state(meta["overlap"])
        self.run.truncate(self.iteration)
        for row in self.run.metrics():
            self._health.note(row)
        if not self._set_engines(arrays, meta["engines"]):
            self.view.message(
                "matches under way begin anew: the game cannot give its state, or the workers changed"
            )
        self.view.message(f"goes on from {path.name}")

    def _set_engines(self, arrays: Arrays, metas: Mapping[str, Any]) -> bool:
        """Every member goes on from its part of a checkpoint; False where matches had to begin anew."""
        self._live = {name: arrays[_live_stem(name)] for name in metas["live"]}
        same = True
        for member in self._members:
            slot, meta = member.slot.name, metas[member.slot.name]
            prefix = checkpoint.prefix(slot)
            own = {stem.removeprefix(prefix): x for stem, x in arrays.items() if _is_of(stem, prefix)}
            same &= member.engine.set_state(own, meta)
            learner = meta["learner"]
            member.learned = Learned(learner["version"], learner["agent_steps"], {})
        return same

    def _engine_states(self) -> tuple[Arrays, dict[str, Any]]:
        """Of all members, and the versions of the main learner that exploiters have at the table."""
        arrays: Arrays = {}
        metas: dict[str, Any] = {"live": sorted(self._live)}
        for member in self._members:
            own, metas[member.slot.name] = member.engine.state()
            arrays |= {f"{checkpoint.prefix(member.slot.name)}{stem}": x for stem, x in own.items()}
        for name, weights in self._live.items():
            arrays[_live_stem(name)] = dict(weights)
        return arrays, metas

    def _refuse_another(self, then: dict[str, Any]) -> None:
        """A configuration that the checkpoint's arrays do not fit, before anything is changed."""
        now = self.config.model_dump()
        for section, keys in _FIXED.items():
            for key in keys:
                if key not in then[section]:
                    raise CheckpointError(
                        f"{self.run.path}: its checkpoints know no {section}.{key}: an earlier version made "
                        "them, whose runs cannot be gone on with; begin a new run"
                    )
                if now[section][key] != then[section][key]:
                    raise UserError(
                        f"{self.run.path / 'config.toml'}: {section}.{key}={now[section][key]!r}, but the "
                        f"run was made with {then[section][key]!r}; put it back, or begin a new run"
                    )

    def save(self) -> Path:
        """Write a checkpoint of everything the next iteration depends on."""
        arrays, metas = self._engine_states()
        self._saved_iteration, self._saved_seconds = self.iteration, self.seconds
        return checkpoint.save(
            self.run.checkpoints,
            iteration=self.iteration,
            arrays=arrays,
            meta={
                "iteration": self.iteration,
                "agent_steps": self.agent_steps,
                "seconds": self.seconds,
                "config": self.config.model_dump(),
                "league": self.league.state(),
                "overlap": self.overlap.state(),
                "engines": metas,
            },
            keep=self.config.checkpoint.keep,
        )

    def save_last(self) -> None:
        if self._saved_iteration != self.iteration:
            self.save()

    def close(self) -> None:
        for member in self._members:
            member.engine.close()
        self._engines.evaluators.close()
        self.league.close()

    def _staleness(self) -> int | Literal["auto"]:
        """As configured; in one process nothing can overlap, and beside exploiters nothing is tried."""
        chosen = self.config.rollout.staleness
        alone = resolve_num_workers(self.config) == 0 or len(self._members) > 1
        return 0 if chosen == "auto" and alone else chosen

    def _finished(self, iterations: int = 0, agent_steps: int = 0, seconds: float = 0.0) -> bool:
        """Whether the run is to end, here or so much later."""
        stop = self.config.stop
        return (
            self._interruption.number is not None
            or (stop.iterations is not None and self.iteration + iterations >= stop.iterations)
            or (stop.agent_steps is not None and self.agent_steps + agent_steps >= stop.agent_steps)
            or (stop.seconds is not None and self.seconds + seconds >= stop.seconds)
        )

    def _snapshot_due(self, iteration: int) -> bool:
        return iteration % self.config.league.snapshot_iterations == 0

    def _checkpoint_due(self, iterations: int = 0, agent_steps: int = 0, seconds: float = 0.0) -> bool:
        """Whether to save, here or so much later."""
        every = self.config.checkpoint
        waited = self.seconds + seconds - self._saved_seconds
        return (every.iterations is not None and (self.iteration + iterations) % every.iterations == 0) or (
            every.seconds is not None and waited >= every.seconds
        )

    def _report(self, times: dict[str, float], elapsed: float) -> None:
        """One row of metrics, to the run directory and to whoever watches."""
        collected, learned = self.main.collected, self.main.learned
        steps = learned.agent_steps - self.agent_steps
        self.agent_steps = learned.agent_steps
        self.seconds += elapsed
        self._last = (1, steps, elapsed)
        lengths = np.concatenate([part.results.length for part in collected])
        metrics: dict[str, Any] = {
            "iteration": self.iteration,
            "agent_steps": self.agent_steps,
            "seconds": self.seconds,
            "speed/decisions_per_s": steps / elapsed,
            "speed/acted_per_s": sum(part.decisions for part in collected) / elapsed,
            **{f"time/{name}": value for name, value in times.items()},
            **learned.metrics,
            "data/overlap": int(self.main.overlapped),
            **self.league.metrics(),
        }
        for exploiter in self._members[1:]:
            slot = exploiter.slot.name
            metrics |= {f"{slot}/{name}": value for name, value in exploiter.learned.metrics.items()}
            metrics[f"{slot}/data/overlap"] = int(exploiter.overlapped)
            metrics[f"{slot}/agent_steps"] = exploiter.learned.agent_steps
        parts = [part for member in self._members for part in member.collected]
        metrics["match/dropped"] = dropped = sum(part.dropped for part in parts)
        if dropped:
            self._tell_of_failures(parts, dropped)
        if len(lengths):
            metrics["match/length"] = float(lengths.mean())
            metrics["match/finished"] = len(lengths)
            metrics["match/return"] = float(np.concatenate(list(map(_main_returns, collected))).mean())
        self._health.note(metrics)
        if self._snapshot_due(self.iteration):
            metrics["league/findings"] = self._look_after()
        self.run.append(metrics)
        self.view.update(metrics)
        age = max(member.learned.metrics["data/staleness"] for member in self._members)
        if found := self.overlap.observe(steps, times["sample"] + times["learn"], age):
            self.view.message(found)

    def _look_after(self) -> int:
        """Show the payoffs, and say what is newly wrong; gives how much is wrong."""
        names = [player.name for player in self.league.players() if player.kind != "learning"]
        if len(names) > 1:
            pixels = payoff_image(self.league.payoffs(names), names)
            self.run.picture("league/payoffs", pixels, self.agent_steps)
        number, new = self._health.look(self.league)
        for finding in new:
            self.view.message(f"iteration {self.iteration}: {finding.text}")
        return number

    def _tell_of_failures(self, collected: Sequence[Collected], dropped: int) -> None:
        """Say why matches were dropped; too often, and it is the end. Each worker counts its own too."""
        failures, limit = sum(part.failures for part in collected), self.config.env.max_failures
        cause = next(part.cause for part in collected if part.dropped)
        if failures > limit:
            raise GameError(too_many_failures(self.config.env.id, failures, limit, cause))
        self.view.message(f"dropped {dropped} matches; {failures} failures of {limit} allowed: {cause}")


def _units(config: Config, env: VectorEnv) -> tuple[int, ...]:
    """What the learner holds in a match with past selves; refused where that is everything in every case."""
    held = config.league.lineup
    found = units(env, held)
    if held != "team" and max(found) == 0:
        seats = '; league.lineup="seat" has more' if len(found) > 1 else ""
        raise UserError(
            f'league.lineup="{held}": {config.env.id} has only one, so that nobody else could play{seats}'
        )
    return found


def _live_stem(name: str) -> str:
    """Of the file in a checkpoint that holds the main learner at a version that exploiters meet."""
    return f"live-{name.partition(LIVE)[2]}"


def _is_of(stem: str, prefix: str) -> bool:
    return stem.startswith(prefix or ("learner", "rollout"))


def _main_returns(collected: Collected) -> np.ndarray:
    """Returns of the seats that the learning player held, in the matches that ended."""
    results = collected.results
    seated = np.array([name == MAIN for name in results.players], bool)[results.lineup]
    return results.returns[seated]
