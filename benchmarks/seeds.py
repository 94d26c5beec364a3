"""Train a configuration over several seeds and in variants, and say what came of it, with intervals.

    python -m benchmarks.seeds phantom_tic_tac_toe --seeds 0 1 2 3 4 --play random \
        --variant lstm --variant none --policy.core none --output runs/phantom

Everything after `--variant NAME`, up to the next, is for `selfplay train` and holds in that variant alone;
what comes before the first holds in all. Runs lie in OUTPUT/VARIANT-SEED; those that are finished are not
made again. The table goes to stdout and, as JSON, to OUTPUT/summary.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from selfplay import contestants
from selfplay.cli import guarded
from selfplay.config import Config
from selfplay.errors import UserError
from selfplay.evaluate import SLOTS, evaluate
from selfplay.run_directory import RunDirectory
from selfplay.worker import make_game

VARIANT = "--variant"


@dataclass(frozen=True, slots=True)
class Run:
    """One training, and what it is called."""

    variant: str
    seed: int
    folder: Path
    options: tuple[str, ...]


def main() -> None:
    common, variants = split_variants(sys.argv[1:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("config")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at once, one core each")
    parser.add_argument(
        "--play",
        action="append",
        default=[],
        metavar="OPPONENT",
        help="matches against it; {seed} is the run's",
    )
    parser.add_argument("--games", type=int, default=1000)
    parser.add_argument("--exploitability", action="store_true")
    parser.add_argument(
        "--past", type=int, default=0, metavar="N", help="matches (--games) against N own past selves each"
    )
    parser.add_argument("--output", type=Path, required=True)
    options, train_options = parser.parse_known_args(common)
    runs = [
        Run(name, seed, options.output / f"{name}-{seed}", (*train_options, *own))
        for name, own in variants
        for seed in options.seeds
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(lambda run: measure(run, options), runs))
    machine = f"{os.cpu_count()} cores, {platform.machine()}"
    summary = {"config": options.config, "machine": machine, "runs": rows}
    (options.output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(table(rows))


def split_variants(words: Sequence[str]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """What is for all, and each variant's name with what is for it; without any one is called "run"."""
    common: list[str] = []
    variants: list[tuple[str, list[str]]] = []
    pending = iter(words)
    for word in pending:
        if word == VARIANT:
            variants.append((next(pending), []))
        elif word == "--output" or not variants:  # may come last
            common += [word, next(pending)] if word == "--output" else [word]
        else:
            variants[-1][1].append(word)
    return common, variants or [("run", [])]


def measure(run: Run, options: argparse.Namespace) -> dict[str, Any]:
    """Train, unless that is done, and play."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if not (run.folder / "finished").exists():
        start = time.perf_counter()
        words = [sys.executable, "-m", "selfplay", "train", options.config, "--seed", str(run.seed)]
        words += ["--rollout.num-workers", "0", "--device", "cpu", *run.options, "--run-dir", str(run.folder)]
        run_command(words, environment)
        (run.folder / "finished").write_text(f"{time.perf_counter() - start:.1f}\n")
    row: dict[str, Any] = {"variant": run.variant, "seed": run.seed}
    row["seconds"] = float((run.folder / "finished").read_text())

    def ask(*words: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "selfplay", *words, "--json"]
        result: dict[str, Any] = json.loads(run_command(command, environment))
        return result

    for opponent in options.play:
        games, seed = str(options.games), str(run.seed)
        result = ask("play", str(run.folder), opponent.format(seed=seed), "--games", games, "--seed", seed)
        row |= {f"score/{opponent}": result["mean_score"], "return": result["mean_return"]}
    if options.play:
        last = [each for each in RunDirectory.open(run.folder).metrics() if "league/rating" in each][-1:]
        row |= {"rating": last[0]["league/rating"]} if last else {}
    if options.past:
        row |= against_past(run.folder, options.past, options.games, run.seed)
    if options.exploitability:
        row["exploitability"] = ask("exploitability", str(run.folder))["exploitability"]
        past = ask("exploitability", str(run.folder), "--past", "50")
        row["exploitability of 50 past selves"] = past["exploitability"]
    print(json.dumps(row), file=sys.stderr, flush=True)
    return row


def run_command(words: Sequence[str], environment: Mapping[str, str]) -> str:
    """What a command says on stdout; UserError where it fails, after its own words on stderr."""
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"{' '.join(words)} failed")
    return done.stdout


def against_past(folder: Path, number: int, games: int, seed: int) -> dict[str, float]:
    """Score of a run's last policy against past selves evenly spaced in time: the mean and the lowest.

    Also the lowest against the older half, which are weaker unless something was forgotten; the newest are
    as strong. The lowest of several estimates is partly bad luck; all variants have the same luck.
    """
    newest = contestants.find(str(folder))
    scores = []
    for past in contestants.past_selves(str(folder), number):
        sides = [newest, past]
        game = contestants.common_game(sides, None, {})
        env = make_game(Config(env=game), min(games, SLOTS))
        parts = contestants.common_parts(sides, env)
        seated = [contestants.seat(side, env, parts, greedy=False) for side in sides]
        result = evaluate(env, parts, seated, games=games, seed=seed)
        assert result.mean_score is not None
        scores.append(result.mean_score)
    older = scores[: max(len(scores) // 2, 1)]
    return {
        "past/mean": float(np.mean(scores)),
        "past/lowest": min(scores),
        "past/lowest of the older half": min(older),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Mean over the seeds with its 95% interval, lowest and highest, of every figure and variant."""
    figures = [name for name in rows[0] if name not in ("variant", "seed")]
    lines = ["| variant | seeds | figure | mean | 95% interval | lowest | highest |", "|" + " --- |" * 7]
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == variant]
        for name in figures:
            values = np.array([row[name] for row in own])
            low, high = interval(values)
            lines.append(
                f"| {variant} | {len(own)} | {name} | {values.mean():.3f} | {low:.3f} to {high:.3f} "
                f"| {values.min():.3f} | {values.max():.3f} |"
            )
    return "\n".join(lines)


def interval(values: np.ndarray) -> tuple[float, float]:
    """mean -+ t s / sqrt(n) over n seeds."""
    mean, n = float(values.mean()), len(values)
    half = float(t.ppf(0.975, n - 1) * values.std(ddof=1)) / n**0.5 if n > 1 else float("nan")
    return mean - half, mean + half


if __name__ == "__main__":
    sys.exit(guarded(main))
