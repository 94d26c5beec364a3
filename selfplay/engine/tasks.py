"""Independent pieces of work, in this process or as Ray's tasks: the same results in any order.

A piece is a function's arguments; what several pieces share is named by keys, and reaches Ray's processes
by reference, each once a machine.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

Result = TypeVar("Result")


class Task(NamedTuple):
    """One call: function(*arguments, *(shared[key] for key in keys))."""

    arguments: tuple[Any, ...]
    keys: tuple[str, ...]


def run_here(
    function: Callable[..., Result], tasks: Iterable[Task], shared: Mapping[str, Any]
) -> Iterator[tuple[Task, Result]]:
    """Each task with its result, one after the other."""
    for task in tasks:
        yield task, function(*task.arguments, *(shared[key] for key in task.keys))


def run_on_ray(
    function: Callable[..., Result], tasks: Sequence[Task], shared: Mapping[str, Any], *, num_workers: int
) -> Iterator[tuple[Task, Result]]:
    """Each task with its result, as they come from so many processes with a CPU each.

    A process that dies is replaced by Ray and its task begun again, three times at most. Joins the cluster
    that there is, else starts one, and stops it when the last result was taken or the caller stops asking.
    """
    import ray

    from selfplay.engine.calls import get
    from selfplay.engine.room import connect

    started = connect()
    waiting: dict[Any, Task] = {}
    try:
        refs = {key: ray.put(shared[key]) for key in {key for task in tasks for key in task.keys}}
        remote = ray.remote(_call).options(num_cpus=1)
        left = deque(tasks)
        while left or waiting:
            while left and len(waiting) < num_workers:
                task = left.popleft()
                values = [refs[key] for key in task.keys]
                waiting[remote.remote(sys.path, function, task.arguments, *values)] = task
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            yield waiting.pop(done), get(done)
    finally:
        for ref in waiting:
            ray.cancel(ref, force=True)
        if started:
            ray.shutdown()


def _call(
    path: list[str], function: Callable[..., Result], arguments: tuple[Any, ...], *shared: Any
) -> Result:
    """What one of Ray's processes does."""
    sys.path.extend(folder for folder in path if folder and folder not in sys.path)
    return function(*arguments, *shared)
