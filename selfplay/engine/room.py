"""Ray's cluster: joining or starting it, and the part of it that each engine has."""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import NamedTuple

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from selfplay.config import Config, is_python_game, resolve_num_workers
from selfplay.errors import UserError

ROOM_SECONDS = 60.0
"""How long to wait for the cluster's CPUs and GPUs at the start."""

MOST_LEARNERS = 8
"""Learners that share a CPU's cores under "auto"; more than two were never measured."""


def connect() -> bool:
    """Join the cluster of `ray job submit`, or of `ray start` on this machine; else start one, and say so."""
    if ray.is_initialized():
        return False
    # Ray tells of a token that it made for us, on every start; whoever reaches into the cluster needs it.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    # Ray gives all actors a low priority alike; here rollouts make way for the learner by themselves.
    os.environ.setdefault("RAY_worker_niceness", "0")
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


def fit_workers(config: Config, cpus: int) -> int:
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


def fit_learners(config: Config, num_rollouts: int, device: str, num_gpus: int) -> int:
    """As configured and as there is room for; under "auto" what was measured to be fastest."""
    wanted = config.num_learners
    if wanted == "auto":
        machines = sum(node["Alive"] for node in ray.nodes())
        alone = device == "cuda" or machines > 1 or is_python_game(config.env.id)
        return 1 if alone else min(num_rollouts, MOST_LEARNERS)
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


def reserve(num_rollouts: int, num_gpus: int, part: float) -> PlacementGroup:
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
