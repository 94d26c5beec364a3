"""Where an iteration's time goes: one worker's `collect` and one learner's `update`, on one thread.

    python -m benchmarks.profile_iteration connect_four [--num-games 512] [--iterations 20] [--past-selves 2]

Functions are wrapped by timers of this thread's CPU time, so that other processes disturb little; each is
told without what its callees are told for. A fifth of the matches are against past selves.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from policies import compiled, heads, linear, lstm, lstm_kernels, policy, unroll_kernels
from policies.encoders.mlp import MLP
from policies.encoders.observation import ObservationInput
from selfplay import compiled_gradients, lanes, learner, losses, part_play, players, rollout, worker
from selfplay import config as configuration
from selfplay.cli import guarded
from selfplay.engine import make_learners
from selfplay.league.lineups import past_rows
from selfplay.matches import MAIN, Lineups

WARM_UP = 3

PARTS: list[tuple[Any, str, str]] = [
    (worker.Worker, "collect", "worker: weights, lineups"),
    (rollout.Matches, "tick", "tick: the rest"),
    (rollout.Matches, "_open", "tick: open matches"),
    (rollout.Matches, "_finish", "tick: finish matches"),
    (worker.TimedEnv, "step", "game: step"),
    (worker.TimedEnv, "restart", "game: restart"),
    (part_play.PartPlay, "act", "tick: gather rows and states, scatter"),
    (part_play.PartPlay, "views", "tick: copy obs and masks"),
    (part_play.PartPlay, "settle", "tick: settle, Python"),
    (lanes, "_settle", "tick: settle, kernel"),
    (lanes.Lanes, "open", "tick: places to record at, initial states"),
    (lanes.Lanes, "record", "tick: record obs, masks, actions"),
    (lanes.Lanes, "take", "hand over fragments"),
    (players.PolicyPlayer, "decide", "forward: player"),
    (players.PolicyPlayer, "_decide_at", "forward: player"),
    (policy.Policy, "unroll", "forward: policy, the rest"),
    (ObservationInput, "forward", "forward: obs to float32"),
    (compiled.Compiled, "encoded", "forward: obs to float32"),
    (MLP, "forward", "forward: encoder but GEMM"),
    (lstm.LSTM, "forward", "forward: LSTM but GEMM and kernels"),
    (lstm, "_forward", "forward: unroll, allocation"),
    (lstm._Unroll, "backward", "backward: unroll, allocation"),
    (linear._Linear, "forward", "forward: linear"),
    (linear._Linear, "backward", "backward: linear, sum of bias"),
    (linear, "weight_gradient", "backward: GEMM of weights, transposes"),
    (lstm, "weight_gradient", "backward: GEMM of weights, transposes"),
    (linear, "matmul_t", "GEMM"),
    (lstm, "matmul_t", "GEMM"),
    (compiled.Compiled, "draw", "forward: addresses, allocation"),
    (compiled, "_draw", "kernel: forward and choice, its GEMMs within"),
    (compiled_gradients.CompiledGradients, "arrays", "update: encoding, copies"),
    (compiled_gradients.CompiledGradients, "__call__", "update: addresses"),
    (compiled_gradients, "_gradients", "kernel: loss and gradients, their GEMMs within"),
    (unroll_kernels, "forward", "kernel: unroll, its GEMMs within"),
    (unroll_kernels, "backward", "kernel: unroll backward, its GEMMs within"),
    (lstm_kernels, "forward", "kernel: cell"),
    (lstm_kernels, "reset", "kernel: reset"),
    (lstm_kernels, "backward", "kernel: backward"),
    (heads.CategoricalHead, "sample", "head: sample"),
    (heads.CategoricalHead, "evaluate", "head: evaluate"),
    (learner.Learner, "update", "update: the rest"),
    (learner.Learner, "_prepare", "update: advantages"),
    (learner.Learner, "_step", "update: step, the rest"),
    (learner.Learner, "_gradients", "update: sums of the loss"),
    (learner.Learner, "weights", "update: copy weights out"),
    (learner.Batch, "lanes", "update: pick lanes"),
    (losses, "ppo_loss", "loss"),
    (torch.autograd, "grad", "backward: autograd, the rest (head, loss, relu)"),
    (learner, "clip_gradient_", "optimiser: clip"),
    (learner, "adam_step_", "optimiser: Adam"),
]


class Clock:
    """Time of nested calls by phase, each call without those within it."""

    def __init__(self) -> None:
        self.phase = ""
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)  # by phase and label
        self.calls: dict[tuple[str, str], int] = defaultdict(int)
        self._within = [0.0]  # seconds of the callees of each open call

    def wrap(self, owner: Any, name: str, label: str) -> None:
        """Time the function `name` of a module or class under this label."""
        function = owner.__dict__[name]
        if isinstance(function, staticmethod):
            setattr(owner, name, staticmethod(self._timed(function.__func__, label)))
        else:
            setattr(owner, name, self._timed(function, label))

    def _timed(self, function: Callable[..., Any], label: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            self._within.append(0.0)
            start = time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                spent = time.thread_time() - start
                self.seconds[self.phase, label] += spent - self._within.pop()
                self.calls[self.phase, label] += 1
                self._within[-1] += spent

        return timed

    def table(self, phase: str, decisions: int) -> Table:
        """The phase's parts, the longest first."""
        shown = Table("", "share", "ns a decision", "calls", "us a call", title=phase, title_justify="left")
        for column in shown.columns[1:]:
            column.justify = "right"
        parts = {label: seconds for (when, label), seconds in self.seconds.items() if when == phase}
        whole = sum(parts.values())
        for label, seconds in sorted(parts.items(), key=lambda part: -part[1]):
            calls = self.calls[phase, label]
            each = (f"{seconds / whole:.1%}", f"{seconds / decisions * 1e9:,.0f}", f"{calls:,}")
            shown.add_row(label, *each, f"{seconds / calls * 1e6:,.1f}")
        shown.add_section()
        shown.add_row("all", "", f"{whole / decisions * 1e9:,.0f}")
        return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--num-games", type=int, default=512)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--past-selves", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    overrides = {"rollout.num_games": options.num_games, "rollout.num_workers": 0}
    config = configuration.load(options.config, overrides)
    player, pupil = worker.Worker(config, 0, 1), make_learners(config, "cpu", 1)
    first = pupil.weights()
    lineups = mixed(player.env.teams, options.num_games, options.past_selves)
    clock = Clock()
    for owner, name, label in PARTS:
        clock.wrap(owner, name, label)
    acted = learned = 0
    for number in range(WARM_UP + options.iterations):
        if number == WARM_UP:
            clock.seconds.clear()
            clock.calls.clear()
            acted, learned = player.rollout.matches.decisions, pupil.agent_steps
        weights = pupil.weights()
        clock.phase = "collect"
        fragment, _ = player.collect(weights, pupil.version, lineups, lambda name: first)
        clock.phase = "update"
        pupil.update([fragment])
    console = Console(width=110)
    console.print(clock.table("collect", player.rollout.matches.decisions - acted))
    console.print(clock.table("update", pupil.agent_steps - learned))


def mixed(teams: tuple[int, ...], num_games: int, num_past: int) -> Lineups:
    """A fifth of the matches against past selves."""
    table = np.zeros((2 * num_games, len(teams)), np.int32)
    rows = len(table) // 5 if num_past else 0
    table[:rows] = past_rows(rows, num_past, 0, np.asarray(teams))
    names = (MAIN, *(f"{MAIN}-{number:06d}" for number in range(num_past)))
    return Lineups(names, np.random.default_rng(0).permutation(table))


if __name__ == "__main__":
    sys.exit(guarded(main))
