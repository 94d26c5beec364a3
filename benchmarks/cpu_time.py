"""CPU time of a run's processes, by what they are, as /proc of Linux shows it."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from typing import NamedTuple

from benchmarks.process_tree import PROC, ProcessTree

TICKS = os.sysconf("SC_CLK_TCK")


class CpuTime(NamedTuple):
    """CPU seconds of a run's processes."""

    rollouts: float = 0.0
    learners: float = 0.0
    driver: float = 0.0  # the run's own process
    ray: float = 0.0  # all that Ray runs beside

    def since(self, then: CpuTime) -> CpuTime:
        return CpuTime(*(after - before for after, before in zip(self, then)))


def cpu_time(tree: ProcessTree, driver: int) -> CpuTime:
    """Of all processes alive, since each began."""
    spent = Counter[str]()
    for pid in tree.look():
        with contextlib.suppress(OSError):  # it has just ended
            # PID (NAME) STATE PARENT ... UTIME STIME ...; the name may hold spaces. Source: proc(5).
            fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
            title = (PROC / str(pid) / "cmdline").read_text()
            spent["driver" if pid == driver else _kind(title)] += int(fields[11]) + int(fields[12])
    return CpuTime(**{kind: ticks / TICKS for kind, ticks in spent.items()})


def _kind(title: str) -> str:
    """Whether an actor's process, which Ray calls after it, is one of ours."""
    if "RolloutActor" in title:
        return "rollouts"
    return "learners" if "LearnerActor" in title else "ray"
