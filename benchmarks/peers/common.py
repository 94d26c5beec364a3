"""What every peer's script needs and no more: its command line, its clock, its one line of JSON."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

WORKLOADS = ("cartpole", "connect_four", "simple_tag", "rock_paper_scissors")
LEFT_OUT = 3  # exit code: the peer cannot play this workload, and the last line of stderr says why


class CannotRun(Exception):
    """The peer cannot play the workload; the message is the reason, in one line."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was learned from over a stretch of wall time."""

    decisions: int  # of seats that were to act
    rows: int  # of the network: frames that step waiting seats too have more of them than decisions
    seconds: float


class Meter:
    """Counts what was learned from between a warm-up and the end; `tick` once after each iteration.

    The warm-up lasts for so many iterations (compilation, first buffers) and so many seconds at least.
    """

    def __init__(self, seconds: float, *, warm_up_iterations: int = 3, warm_up_seconds: float = 3.0) -> None:
        self._seconds = seconds
        self._warm_up_iterations = warm_up_iterations
        self._warm_up_ends = time.perf_counter() + warm_up_seconds
        self._iteration = 0
        self._begun: float | None = None  # None while warming up
        self._now = 0.0
        self._decisions = 0
        self._rows = 0

    def tick(self, decisions: int, rows: int | None = None) -> bool:
        """Whether to go on after an iteration that learned from so many decisions (None: as many rows)."""
        self._now = time.perf_counter()
        self._iteration += 1
        if self._begun is None:
            if self._iteration >= self._warm_up_iterations and self._now >= self._warm_up_ends:
                self._begun = self._now
            return True
        self._decisions += int(decisions)
        self._rows += int(decisions if rows is None else rows)
        return self._now - self._begun < self._seconds

    def result(self) -> Measured:
        """What the iterations since the warm-up learned from; one of them there must have been."""
        if self._begun is None or self._now == self._begun:
            raise RuntimeError("nothing was measured: the run ended in its warm-up")
        return Measured(self._decisions, self._rows, self._now - self._begun)


Settings = Mapping[str, Any]


def main(
    description: str | None,
    measure: Callable[..., Measured],
    settings: Mapping[str, Settings],
) -> None:
    """A peer's command line: WORKLOAD --seconds S, and an option for each of the workload's settings.

    measure(workload, seconds, **settings) measures once; settings: workload -> what is best for the peer
    there (int, float, str or bool each). The last line on stdout is the result as JSON.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--seconds", type=float, default=10.0, help="measure for so long after the warm-up")
    workload = next((word for word in sys.argv[1:] if word in settings), None)
    best = settings[workload] if workload else {}
    for name, value in best.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            parser.add_argument(option, action=argparse.BooleanOptionalAction, default=value)
        else:
            parser.add_argument(option, type=type(value), default=value, help=f"(default: {value})")
    chosen = vars(parser.parse_args())
    workload, seconds = chosen.pop("workload"), chosen.pop("seconds")
    if workload not in settings:
        left_out(f"not written for {workload}")
    try:
        measured = measure(workload, seconds, **chosen)
    except CannotRun as error:
        left_out(str(error))
    print(json.dumps(as_json(measured, chosen)), flush=True)


def left_out(reason: str) -> None:
    """End the process as one that cannot play the workload."""
    print(reason, file=sys.stderr, flush=True)
    sys.exit(LEFT_OUT)


def as_json(measured: Measured, settings: Settings) -> dict[str, Any]:
    """The line that `benchmarks.compare` reads."""
    return {
        "decisions_per_s": measured.decisions / measured.seconds,
        "rows_per_s": measured.rows / measured.seconds,
        "settings": ", ".join(f"{name} {value}" for name, value in settings.items()),
        **asdict(measured),
    }
