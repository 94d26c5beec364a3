"""Where rollouts and learner run: `local` (this process) or `cluster` (Ray actors), one interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from policies import gemm
from policies.policy import Policy
from selfplay.compiled_gradients import obstacle
from selfplay.config import Config, PPOConfig, resolve_num_workers
from selfplay.data_parallel import Siblings
from selfplay.errors import UserError
from selfplay.learner import Learner
from selfplay.learners import Learners
from selfplay.matches import Lineups, MatchResults
from selfplay.memory import keep_freed_memory
from selfplay.replay import ReplayDifference
from selfplay.worker import LEARNER, Collected, Fetch, make_game, make_policies

Arrays = dict[str, dict[str, np.ndarray]]


class Learned(NamedTuple):
    """What the driver hears of one update; the weights stay where they are needed."""

    version: int
    agent_steps: int  # decisions learned from since the run began
    metrics: dict[str, float]


class Engine(Protocol):
    """Rollouts and a learner, in step: `begin`, `collect`, then `learn`, which publishes new weights.

    One more `begin` may come before `learn`, even before `collect`: then rollouts and learner work at the
    same time, no rollout waits for a slower one, and what is played is one version behind until the new
    weights are there. `play` and `state` want rollouts at rest: nothing begun and not collected.
    """

    num_rollouts: int

    def begin(self, lineups: Sequence[Lineups], *, shared: bool = False) -> None:
        """The rollouts play with the weights published last until a batch of lanes is complete.

        Each plays an equal part; shared: whoever is faster plays more, if another batch is being played.
        """
        ...

    def collect(self) -> list[Collected]:
        """Wait for the batch that was begun, of each rollout; `learn` is of this one then."""
        ...

    def check_replay(self) -> ReplayDifference | None:
        """Whether the fragments just collected replay to what was logged; ReplayError if not.

        None: of some part of the seats no lane was yet played by the present weights alone, so that it was
        not checked.
        """
        ...

    def learn(self) -> Learned:
        """Update on the fragments just collected, and publish."""
        ...

    def play(self, lineups: Lineups, seed: Sequence[int]) -> MatchResults:
        """Play every lineup once, shared out among the rollouts, without learning from it."""
        ...

    def weights(self) -> Mapping[str, np.ndarray]:
        """The published weights."""
        ...

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """Everything the next iteration depends on, for a checkpoint."""
        ...

    def set_state(self, arrays: Arrays, meta: Mapping[str, Any]) -> bool:
        """Go on from what `state` gave; False where matches in mid-play had to begin anew."""
        ...

    def reset(self, config: Config) -> None:
        """Begin anew with a fresh policy and fresh matches, as this configuration's seed draws them."""
        ...

    def close(self) -> None: ...


class Evaluators(Protocol):
    """Rollouts that are set aside for matches nobody learns from: `begin`, then `collect`."""

    number: int

    def begin(self, tables: Sequence[Lineups], seed: Sequence[int]) -> None:
        """Each evaluator plays one of these tables, once; their players are frozen."""
        ...

    def collect(self) -> list[MatchResults]:
        """Wait for what was begun; of an evaluator that died there is nothing."""
        ...

    def close(self) -> None: ...


class Engines(NamedTuple):
    """What runs the learners of a league."""

    of_slot: dict[str, Engine]
    together: bool  # whether there is room for all to play and learn at the same time, or they take turns
    evaluators: Evaluators


def start_all(configs: Mapping[str, Config], fetch: Fetch, notify: Callable[[str], None]) -> Engines:
    """An engine for each slot, by its own configuration: of the same shape, with another seed."""
    first = next(iter(configs.values()))
    if resolve_num_workers(first) == 0:
        from selfplay.engine.local import LocalEngine, LocalEvaluators

        engines = {slot: LocalEngine(config, fetch) for slot, config in configs.items()}
        evaluators = LocalEvaluators(next(iter(engines.values())), first.league.evaluators)
        return Engines({**engines}, False, evaluators)
    from selfplay.engine.cluster import start_engines

    return start_engines(configs, fetch, notify)


def start(config: Config, fetch: Fetch, notify: Callable[[str], None]) -> Engine:
    """The one engine that the configuration asks for. fetch: a snapshot's weights; notify: news."""
    if resolve_num_workers(config) == 0:
        from selfplay.engine.local import LocalEngine

        return LocalEngine(config, fetch)
    from selfplay.engine.cluster import RayEngine

    return RayEngine(config, fetch, notify)


def make_learners(
    config: Config, device: str, num_threads: int, siblings: Siblings | None = None
) -> Learners:
    """The learners of this configuration, on a device where they will stay."""
    keep_freed_memory()
    torch.set_num_threads(1)  # a learner's own threads share the cores by lanes
    policies = make_policies(config, make_game(config, 1), config.seed)
    if config.ppo.autocast and device == "cpu":
        for part, policy in policies.items():
            _check_half(part, policy, config.ppo)
    learners = {
        part: Learner(
            policy.to(device),
            config.ppo,
            seed=np.random.SeedSequence(config.seed, spawn_key=(LEARNER, *([k] if k else []))),
            num_threads=num_threads,
            siblings=siblings,
        )
        for k, (part, policy) in enumerate(policies.items())
    }
    return Learners(learners, anneal_steps=config.ppo.anneal_steps, siblings=siblings)


def choose_device(config: Config, has_gpu: bool) -> str:
    """cpu or cuda, as configured and as there is."""
    if config.device == "cuda" and not has_gpu:
        raise UserError("device=cuda, but no CUDA device is visible; allowed here: auto, cpu")
    if config.device == "cpu" or not has_gpu:
        return "cpu"
    return "cuda"


def _check_half(part: str, policy: Policy, config: PPOConfig) -> None:
    """Refuse what the CPU here cannot learn in bfloat16."""
    if not gemm.HALF:
        raise UserError(
            "ppo.autocast=true needs a CUDA device, or a CPU with AMX, which is not here; set it to false"
        )
    if why := obstacle(policy, config):
        raise UserError(
            f"ppo.autocast=true: on a CPU the network of {part} cannot learn in bfloat16, because of {why}; "
            "set it to false"
        )


def cuda_here() -> bool:
    return torch.cuda.is_available()
