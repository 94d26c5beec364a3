"""Waiting for calls of actors, and what a failed one means."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import ray
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

from selfplay.errors import UserError

OPEN_SECONDS = 300.0
"""How long an actor may take to start: its imports, and compiling a game for the first time."""

SIBLING_SECONDS = 30.0
"""How long to look for a learner that died, once another has failed: for that may be why."""

DIED = (RayActorError, NodeDiedError, OutOfMemoryError, WorkerCrashedError)

_COLOUR = re.compile(r"\x1b\[\d*m")

Ref = Any  # ray.ObjectRef, which carries no type through actor handles


class EngineError(RuntimeError):
    """Actors keep dying, or do not start."""


def wait_opened(refs: Mapping[str, Ref]) -> None:
    """Wait until actors are ready."""
    try:
        get_all(list(refs.values()), OPEN_SECONDS)
    except GetTimeoutError as error:
        raise EngineError(
            f"{', '.join(refs)} did not start within {OPEN_SECONDS:g} s: the cluster has no room any more, "
            "or a machine is overloaded (see `ray status`); go on later with --resume"
        ) from error


def get_all(refs: Sequence[Ref], timeout: float | None = None) -> list[Any]:
    """Results of calls that may wait for each other: one that died or lost something is told of first."""
    waiting, failure = list(refs), None
    while waiting:
        done, waiting = ray.wait(waiting, timeout=SIBLING_SECONDS if failure else timeout)
        if not done:
            raise failure or GetTimeoutError
        try:
            get(done[0])
        except (ObjectLostError, *DIED):
            raise
        except Exception as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return list(map(get, refs))


def get(ref: Ref, timeout: float | None = None) -> Any:
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
