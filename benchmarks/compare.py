"""This framework and others at the same workloads: in turn, on the same cores, in the same minutes.

    python -m benchmarks.compare --install                    # once: the others' environments, in .peers/
    python -m benchmarks.compare [--workloads W ...] [--contestants NAME ...] [--seconds 10] [--rounds 3]

All learn with encoder 128, LSTM 128 and one epoch of PPO, each with the settings that are best for it
(`benchmarks/peers`). Counted are decisions, of seats that were to act, learned from per second, learning
included, after a warm-up. Every measurement is a process of its own; the order rotates from round to round.
All play their present selves alone, but for `selfplay_league`, which meets past selves in a fifth of its
matches; ours keeps a league, rates it and writes metrics in any case. `selfplay_bfloat16` is `selfplay` with
`--ppo.autocast true`: all others multiply in float32, so "ours / it" and the floor are without it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.peers.common import LEFT_OUT, WORKLOADS
from benchmarks.process_tree import ProcessTree

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".peers"
PATIENCE = 400.0  # seconds that a measurement may take beside what is measured: imports, compilation, warm-up
SAMPLE_SECONDS = 2.0  # between two looks at the memory: each walks all page tables, 10 ms a process or more


@dataclass(frozen=True, slots=True)
class Contestant:
    """What is run, and where."""

    arguments: Mapping[str, Sequence[str]]  # workload -> arguments of Python
    environment: str | None = (
        None  # folder of .peers, and its requirements in peers/ENVIRONMENT.txt; None: ours
    )
    settings: Mapping[str, str] = field(default_factory=dict)  # workload -> one line; peers print their own
    ours: bool = False
    half: bool = False  # ours, learning in bfloat16, which no other does; its floor is another

    @property
    def python(self) -> Path:
        return PEERS / self.environment / "bin" / "python" if self.environment else Path(sys.executable)


def _ours(
    num_workers: int, self_play: float, tuned: Mapping[str, tuple[int, int]], half: bool = False
) -> Contestant:
    """`selfplay bench`; tuned: workload -> (matches at once, minibatches), the best of a few.

    self_play: share of matches against the present self, which is all that the peers play.
    """
    arguments, settings, staleness = {}, {}, "1" if num_workers else "0"
    for workload, (num_games, minibatches) in tuned.items():
        arguments[workload] = [
            "-m", "selfplay", "bench", *OUR_RUNS[workload], "--json",
            "--rollout.num-workers", str(num_workers), "--league.self-play", str(self_play),
            "--rollout.num-games", str(num_games),
            "--ppo.num-minibatches", str(minibatches),
            "--rollout.staleness", staleness, "--ppo.autocast", str(half).lower(),
        ]  # fmt: skip
        settings[workload] = (
            f"num_games {num_games}, minibatches {minibatches}, Ray workers {num_workers}, "
            f"staleness {staleness}{', learning in bfloat16' if half else ''}"
        )
    return Contestant(arguments, settings=settings, ours=True, half=half)


def _peer(module: str, *options: str, workloads: Iterable[str] = WORKLOADS, own: bool = True) -> Contestant:
    """A script of benchmarks/peers; own: with an environment of its own."""
    arguments = {name: ["-m", f"benchmarks.peers.{module}", name, *options] for name in workloads}
    return Contestant(arguments, module if own else None)


OUR_RUNS = {
    "cartpole": ["default", "--env.id", "cartpole"],
    "connect_four": ["connect_four"],
    "simple_tag": ["default", "--env.id", "pettingzoo:mpe2.simple_tag_v3"],
    "rock_paper_scissors": ["default", "--env.id", "rock_paper_scissors"],
}

# fmt: off
TWO_WORKERS = {
    "cartpole": (4096, 4), "connect_four": (4096, 8),
    "simple_tag": (256, 4), "rock_paper_scissors": (4096, 8),
}
CONTESTANTS = {
    "selfplay": _ours(2, 1.0, TWO_WORKERS),
    "selfplay_bfloat16": _ours(2, 1.0, TWO_WORKERS, half=True),
    "selfplay_league": _ours(2, 0.8, {"connect_four": (2048, 4)}),
    "selfplay_one_process": _ours(0, 1.0, {
        "cartpole": (2048, 4), "connect_four": (2048, 8),
        "simple_tag": (128, 4), "rock_paper_scissors": (2048, 8),
    }),
    "jax_interleaved": _peer("jax_ppo", "--interleaved", workloads=["connect_four"]),
    "jax": _peer("jax_ppo"),
    "pufferlib": _peer("pufferlib_ppo"),
    "sample_factory": _peer("sample_factory_appo"),
    "cleanrl_style": _peer("cleanrl_style"),
    "sb3_contrib": _peer("sb3_recurrent_ppo"),
    "rllib": _peer("rllib_ppo", own=False),
}
# fmt: on


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement."""

    decisions_per_s: float
    rows_per_s: float  # of the network; more where waiting seats are stepped too
    settings: str
    memory: int  # bytes, the most that all its processes held at once
    floor: float | None  # decisions/s of the network's matrix products alone; ours measure it


class Failed(Exception):
    """There is nothing to compare with; the message is the reason, in one line."""


@dataclass(slots=True)
class Score:
    """A contestant's measurements at one workload."""

    measured: list[Measured] = field(default_factory=list)
    reason: str = ""  # why there are not more

    @property
    def speed(self) -> float:
        """Median decisions/s."""
        return statistics.median(run.decisions_per_s for run in self.measured)


def measure(contestant: Contestant, workload: str, seconds: float) -> Measured:
    """One process, from start to end."""
    if workload not in contestant.arguments:
        raise Failed("does not play this")
    if not contestant.python.exists():
        raise Failed("not installed: python -m benchmarks.compare --install")
    arguments = contestant.arguments[workload]
    printed, memory = run([str(contestant.python), *arguments, "--seconds", str(seconds)], seconds + PATIENCE)
    try:
        result = json.loads(printed.splitlines()[-1])
        speed = float(result["decisions_per_s"])
        rows = float(result.get("rows_per_s", speed))
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise Failed(f"printed no result ({type(error).__name__})") from error
    settings = result.get("settings") or contestant.settings.get(workload, "")
    return Measured(speed, rows, settings, memory, result.get("floor_decisions_per_s"))


def run(command: Sequence[str], limit: float) -> tuple[str, int]:
    """What a process prints on stdout, and the most bytes that it and its descendants held at once."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    ends = time.monotonic() + limit
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=err)
        tree = ProcessTree(process.pid)
        memory, code = 0, None
        try:
            while code is None and time.monotonic() < ends:
                memory = max(memory, tree.memory())
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(SAMPLE_SECONDS)
        finally:
            tree.kill()
            process.wait()
        out.seek(0)
        err.seek(0)
        if code is None:
            raise Failed(f"not done after {limit:.0f} s")
        if code:
            said = [line for line in err.read().splitlines() if line.strip()] or ["nothing on stderr"]
            raise Failed(said[-1] if code == LEFT_OUT else f"failed with exit code {code}: {said[-1]}")
        return out.read(), memory


def compare(names: Sequence[str], workload: str, seconds: float, rounds: int) -> dict[str, Score]:
    """Every contestant in every round; whoever fails is not asked again."""
    scores = {name: Score() for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            score = scores[name]
            if score.reason:
                continue
            try:
                score.measured.append(measure(CONTESTANTS[name], workload, seconds))
                said = f"{score.measured[-1].decisions_per_s:,.0f}"
            except Failed as error:
                score.reason = said = str(error)
            print(f"{workload}, round {number + 1}: {name}: {said}", file=sys.stderr, flush=True)
    return scores


def table(workload: str, scores: Mapping[str, Score]) -> Table:
    """A row for each contestant, those without a result too."""
    equals = {name: score for name, score in scores.items() if not CONTESTANTS[name].half}
    ours = [score.speed for name, score in equals.items() if CONTESTANTS[name].ours and score.measured]
    floors = [run.floor for score in equals.values() for run in score.measured if run.floor]
    floor = statistics.median(floors) if floors else None
    shown = Table(title=workload, title_justify="left")
    for column in ("", "decisions/s", "min – max", "rows/s", "ours / it", "of the floor", "GiB"):
        shown.add_column(column, justify="right" if column else "left", no_wrap=True)
    shown.add_column("settings")
    for name, score in scores.items():
        if not score.measured:
            shown.add_row(name, *["–"] * 6, score.reason)
            continue
        speeds = [run.decisions_per_s for run in score.measured]
        rows = statistics.median(run.rows_per_s for run in score.measured)
        memory = statistics.median(run.memory for run in score.measured)
        notes = [score.measured[-1].settings]
        if score.reason:
            notes.append(f"{len(speeds)} measured, then: {score.reason}")
        shown.add_row(
            name,
            f"{score.speed:,.0f}",
            f"{min(speeds):,.0f} – {max(speeds):,.0f}",
            f"{rows:,.0f}" if rows > 1.001 * score.speed else "",
            f"{max(ours) / score.speed:.2f}" if ours else "–",
            f"{score.speed / floor:.1%}" if floor else "–",
            f"{memory / 2**30:.2f}",
            "; ".join(notes),
        )
    return shown


def install(names: Sequence[str]) -> int:
    """Make the environments anew with venv and pip; how many could not be made."""
    failures = 0
    environments = dict.fromkeys(CONTESTANTS[name].environment for name in names)
    for environment in filter(None, environments):
        folder, requirements = PEERS / environment, ROOT / "benchmarks" / "peers" / f"{environment}.txt"
        print(f"{folder} from {requirements.name}", flush=True)
        python = str(folder / "bin" / "python")
        pip = [python, "-m", "pip", "install", "-q", "-r", str(requirements)]
        extras = [python, "-m", "benchmarks.peers.extras", environment]
        for command in ([sys.executable, "-m", "venv", "--clear", str(folder)], pip, extras):
            if subprocess.run(command, check=False, cwd=ROOT).returncode:
                print(f"could not be made: {' '.join(command)}", file=sys.stderr)
                failures += 1
                break
    return failures


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=WORKLOADS, metavar="W")
    parser.add_argument(
        "--contestants", nargs="+", choices=CONTESTANTS, default=[*CONTESTANTS], metavar="NAME"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement, beside its warm-up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--install", nargs="*", choices=CONTESTANTS, metavar="NAME", help="only install them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there too")
    options = parser.parse_args(argv)
    if options.install is not None:
        return min(1, install(options.install or [*CONTESTANTS]))
    scores = {}
    for workload in options.workloads:
        scores[workload] = compare(options.contestants, workload, options.seconds, options.rounds)
        Console(width=None if sys.stdout.isatty() else 200).print(table(workload, scores[workload]))
        if options.json:
            options.json.write_text(json.dumps(as_json(scores, options.seconds), indent=1) + "\n")
    return 0


def as_json(scores: Mapping[str, Mapping[str, Score]], seconds: float) -> dict[str, Any]:
    """Every measurement, and the machine."""
    return {
        "machine": {
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "seconds": seconds,
        "workloads": {
            workload: {name: asdict(score) for name, score in found.items()}
            for workload, found in scores.items()
        },
    }


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is being measured ends too
    sys.exit(main())
