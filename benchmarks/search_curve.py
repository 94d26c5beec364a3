"""What simulations buy: a policy that searches against the same policy alone, by simulations a decision.

    python -m benchmarks.search_curve RUN... [--simulations 0 4 16 64] [--games 200] [--seed 0]
        [--output FILE.json] [--image FILE.png]

RUN is what `play` takes for a policy. The opponent always samples from the policy. The searching side either
samples by how often each choice was tried, or takes the one tried most often; without simulations that is to
sample from the policy, or to take its likeliest action, so that what searching gains can be told from what
decisiveness gains. Each measurement plays the same seeds.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from selfplay import contestants, worker
from selfplay.cli import guarded
from selfplay.config import Config
from selfplay.evaluate import SLOTS, Evaluation, evaluate
from selfplay.options import Parser, whole
from selfplay.part_play import Seated
from selfplay.search import seating
from selfplay.search.player import SearchPlayer

MODES = {False: "sampled by visits", True: "most visited"}


@dataclass(frozen=True, slots=True)
class Point:
    """A policy with so many simulations against itself without."""

    player: str
    game: str
    simulations: int
    greedy: bool
    seconds: float  # of all matches
    decisions: int | None  # of the searching side; None where nobody searched
    unsearched: int | None  # of those, left to the policy
    result: Evaluation


def measure(word: str, simulations: Sequence[int], *, games: int, seed: int) -> list[Point]:
    """Every number of simulations, sampled and greedy."""
    side = contestants.find(word)
    seating.check_side(side, max(simulations))
    game = contestants.common_game([side], None, {})
    points = []
    for number in simulations:
        for greedy in MODES:
            env = worker.make_game(Config(env=game), min(games, SLOTS))
            parts = seating.seat_by_seat(env)
            alone = contestants.seat(side, env, parts, greedy=False)
            own: Seated = (
                seating.seat(side, game, env, parts, simulations=number, greedy=greedy)
                if number
                else contestants.seat(side, env, parts, greedy=greedy)
            )
            rivals = [alone] * max(env.teams)
            start = time.perf_counter()
            result = evaluate(env, parts, [own, *rivals], games=games, seed=seed)
            seconds = time.perf_counter() - start
            searcher = own[0].searcher if isinstance(own[0], SearchPlayer) else None
            decisions = searcher.decisions if searcher else None
            unsearched = searcher.unsearched if searcher else None
            points.append(Point(side.label, game.id, number, greedy, seconds, decisions, unsearched, result))
            print(described(points[-1]), file=sys.stderr)
    return points


def described(point: Point) -> str:
    """A measurement as one line."""
    result = point.result
    score, low, high = _score(result)
    return (
        f"{point.game}  {point.simulations:4} simulations, {MODES[point.greedy]:17}  "
        f"score {score:.3f} ({low:.3f} to {high:.3f})  mean return {result.mean_return:+.3f}  "
        f"{point.seconds:.1f} s"
    )


def _score(result: Evaluation) -> tuple[float, float, float]:
    """The mean score and its interval."""
    assert result.mean_score is not None
    assert result.score_ci95 is not None
    return result.mean_score, *result.score_ci95


def draw(points: Sequence[Point], path: Path) -> None:
    """Score by simulations, a panel for each player."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    players = list(dict.fromkeys(point.player for point in points))
    figure, panels = plt.subplots(
        1, len(players), figsize=(4.5 * len(players), 3.4), constrained_layout=True, squeeze=False
    )
    for axes, player in zip(panels[0], players):
        own = [point for point in points if point.player == player]
        numbers = sorted({point.simulations for point in own})
        place = {number: k for k, number in enumerate(numbers)}
        for greedy, label in MODES.items():
            chosen = [point for point in own if point.greedy == greedy]
            score, low, high = np.array([_score(point.result) for point in chosen]).T
            x = [place[point.simulations] + 0.05 * (2 * greedy - 1) for point in chosen]
            axes.errorbar(x, score, (score - low, high - score), marker="o", capsize=3, label=label)
        axes.axhline(0.5, color="gray", linewidth=0.8, linestyle=":")
        axes.set_xticks(range(len(numbers)), [str(number) if number else "0\n(policy)" for number in numbers])
        axes.set(xlabel="simulations a decision", ylabel="score against the policy alone")
        axes.set(title=own[0].game, ylim=(0.3, 1.02))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="upper left")
    figure.savefig(path, dpi=130)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    return guarded(_main, list(sys.argv[1:] if argv is None else argv))


def _main(argv: list[str]) -> int:
    parser = Parser(
        prog="python -m benchmarks.search_curve",
        description="Score of a policy that searches against the same policy alone, by simulations.",
    )
    parser.add_argument("run", nargs="+", help="a run directory, DIR:PLAYER or a checkpoint")
    parser.add_argument("--simulations", nargs="+", type=whole(0), default=[0, 4, 16, 64])
    parser.add_argument("--games", type=whole(2), default=200, help="matches of each measurement")
    parser.add_argument("--seed", type=whole(0), default=0)
    parser.add_argument("--output", type=Path, help="JSON of all measurements (default: stdout)")
    parser.add_argument("--image", type=Path, help="picture")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    with contextlib.redirect_stdout(sys.stderr):  # a game's library may greet on stdout
        points = [
            point
            for word in options.run
            for point in measure(word, options.simulations, games=options.games, seed=options.seed)
        ]
    text = json.dumps([asdict(point) for point in points], allow_nan=False, indent=1)
    if options.output:
        options.output.write_text(text + "\n")
    else:
        print(text)
    if options.image:
        draw(points, options.image)
    return 0


if __name__ == "__main__":
    sys.exit(main())
