"""What a GPU makes of the network: learning, copies, acting, opponents; one process, without Ray.

    python -m benchmarks.gpu [--device cuda] [--seconds 2] [--json FILE] [--quick]

The network is LSTM-H behind an encoder of H units on Connect Four's observations, T = 16. A decision is one
that was learned from, or one that was made. The floor of learning is its matrix products alone, each at its
own shape, at the rate that this device gives them. `--quick`: every measurement once, tiny.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from envs.registry import make
from policies import lstm
from policies.linear import matmul_t
from policies.policy import Policy, PolicySpec
from selfplay import bench, floor
from selfplay import config as configuration
from selfplay.config import PPOConfig
from selfplay.fragments import Fragment
from selfplay.inference.channel import Channel, make_fields
from selfplay.inference.player import RemotePlayer
from selfplay.inference.server import InferenceServer
from selfplay.learner import Batch, Learner
from selfplay.players import PolicyPlayer, draw_uniform
from selfplay.stacking import Rows, Stack
from selfplay.transfer import to_device, to_host

LENGTH = 16
MINIBATCHES = 4
GAME = make("connect_four", 1).groups[0]


class Size(NamedTuple):
    """What is measured."""

    widths: tuple[int, ...]  # H
    lanes: tuple[int, ...]  # of a batch
    rows: tuple[int, ...]  # of an acting forward
    stacks: tuple[int, ...]  # opponents at once
    workers: int  # that ask the inference server
    seconds: float  # of a measurement


FULL = Size((128, 512, 1024), (1024, 4096), (256, 1024, 4096), (1, 2, 4, 8), 4, 2.0)
QUICK = Size((16,), (16,), (8,), (2,), 2, 0.01)


def make_policy(width: int, device: str, seed: int = 0) -> Policy:
    torch.manual_seed(seed)
    spec = PolicySpec((width,), hidden_size=width)
    return Policy(GAME.observation_space, GAME.action_space, spec).to(device)


def draw_obs(rng: np.random.Generator, *leading: int) -> np.ndarray:
    leaf = GAME.obs[""]
    return (rng.random((*leading, *leaf.shape[2:])) < 0.3).astype(leaf.dtype)


def make_fragment(lanes: int, policy: Policy) -> Fragment:
    """What no game made, but might have."""
    rng = np.random.default_rng(0)
    layers, vectors, width = policy.state_shape

    def number() -> np.ndarray:
        return rng.normal(size=(LENGTH, lanes)).astype(np.float32)

    never = np.zeros((LENGTH, lanes), bool)
    ended = rng.random((LENGTH, lanes)) < 0.05
    return Fragment(
        obs={"": draw_obs(rng, LENGTH, lanes)},
        mask={"": np.ones((LENGTH, lanes, 7), bool)},
        is_first=np.roll(ended, 1, axis=0),
        action={"": rng.integers(0, 7, (LENGTH, lanes)).astype(GAME.action_space.dtype)},
        logp=np.full((LENGTH, lanes), -np.log(7), np.float32),
        value=number(),
        reward=number(),
        terminated=ended,
        truncated=never,
        next_value=number(),
        initial_state=rng.normal(size=(layers, vectors, lanes, width)).astype(np.float32),
        version=np.zeros((LENGTH, lanes), np.int32),
    )


def make_rows(rows: int, policy: Policy, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    layers, vectors, width = policy.state_shape
    return Rows(
        {"": draw_obs(rng, rows)},
        {"": np.ones((rows, 7), bool)},
        np.zeros(rows, bool),
        rng.normal(size=(layers, vectors, rows, width)).astype(np.float32),
        draw_uniform(policy, rows, rng),
    )


def per_second(device: str, seconds: float, function: Callable[..., Any], *arguments: Any) -> float:
    """Calls a second, after three to warm up."""
    for _ in range(3):
        function(*arguments)
    _wait(device)
    calls, begun = 0, time.perf_counter()
    while not calls or time.perf_counter() - begun < seconds:
        function(*arguments)
        calls += 1
    _wait(device)
    return calls / (time.perf_counter() - begun)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def unrolled_plainly() -> contextlib.AbstractContextManager[Any]:
    """The LSTM by its definition in torch's own functions, in place of Triton's kernels."""
    return mock.patch.object(lstm, "unroll_for", return_value=lstm.reference_unroll)


def measure_learner(device: str, size: Size) -> Iterator[dict[str, Any]]:
    """Updates, with every combination of bfloat16, Triton's kernels and CUDA graphs."""
    switches = itertools.product((False, True), repeat=3) if device == "cuda" else [(False, False, False)]
    for width, lanes, (half, triton, graphs) in itertools.product(size.widths, size.lanes, [*switches]):
        plain = unrolled_plainly() if device == "cuda" and not triton else contextlib.nullcontext()
        ppo = PPOConfig(autocast=half, num_minibatches=MINIBATCHES)
        with plain:
            learner = Learner(make_policy(width, device), ppo, seed=0)
            if not graphs:
                learner.graphed = None
            rate = per_second(device, size.seconds, learner.update, [make_fragment(lanes, learner.policy)])
        work = counted(width, lanes // MINIBATCHES)
        dtype = torch.bfloat16 if half else torch.float32
        gemm = floor.flops_per_s(work.gemms, matmul_t, 1, device, dtype)
        flops = rate * MINIBATCHES * work.flops
        yield {
            "what": "learn", "H": width, "lanes": lanes, "bfloat16": half, "triton": triton,
            "graphs": graphs, "decisions_per_s": rate * lanes * LENGTH, "tflops": flops / 1e12,
            "gemm_tflops": gemm / 1e12, "floor_share": flops / gemm,
        }  # fmt: skip


def counted(width: int, lanes: int) -> floor.Count:
    """The products of so many lanes' gradient, written down and not computed."""
    learner = Learner(make_policy(width, "meta"), PPOConfig(), seed=0)
    learner.device = torch.device("cpu")  # autocast knows no meta device
    real = Learner(make_policy(width, "cpu"), PPOConfig(), seed=0)
    fragment = make_fragment(lanes, real.policy)
    batch, _ = real._prepare(fragment, torch.as_tensor(fragment.reward))

    def meta(x: Any) -> Any:
        return {path: leaf.to("meta") for path, leaf in x.items()} if isinstance(x, dict) else x.to("meta")

    part = Batch(*map(meta, batch))
    coef = torch.zeros((), device="meta")
    return floor.count(lambda: learner._gradients(part, coef, learner.grad_views[0]))


def measure_copies(device: str, size: Size) -> Iterator[dict[str, Any]]:
    """A batch to the device and back: as it lies, and through pinned memory."""
    target = torch.device(device)
    for width, lanes in itertools.product(size.widths, size.lanes):
        fragment = make_fragment(lanes, make_policy(width, "cpu"))
        arrays = [fragment.initial_state, fragment.logp, *fragment.obs.values(), *fragment.mask.values()]
        there = [to_device(x, target) for x in arrays]
        ways: dict[str, tuple[Callable[..., Any], Sequence[Any]]] = {
            "there": (lambda all_: [to_device(x, target) for x in all_], arrays),
            "there, pageable": (lambda all_: [torch.as_tensor(x, device=target) for x in all_], arrays),
            "back": (to_host, there),
            "back, pageable": (lambda all_: [x.cpu() for x in all_], there),
        }
        gigabytes = sum(x.nbytes for x in arrays) / 1e9
        for way, (copy, what) in ways.items():
            rate = per_second(device, size.seconds / 4, copy, what)
            yield {"what": f"copy {way}", "H": width, "lanes": lanes, "gb_per_s": rate * gigabytes}


def measure_acting(device: str, size: Size) -> Iterator[dict[str, Any]]:
    """Decisions of one forward, copies both ways included."""
    for width in size.widths:
        player = PolicyPlayer(make_policy(width, device))
        for rows in size.rows:
            asked = make_rows(rows, player.policy)
            rate = per_second(device, size.seconds, player.decide, *asked)
            yield {"what": "act", "H": width, "rows": rows, "decisions_per_s": rate * rows}


def measure_stacks(device: str, size: Size) -> Iterator[dict[str, Any]]:
    """K opponents who share the rows: one after another, and in one forward where that is on CUDA."""
    for width, number in itertools.product(size.widths, size.stacks):
        rows = size.rows[0] // number
        policies = [make_policy(width, device, seed) for seed in range(number)]
        asked = [make_rows(rows, policies[0], seed) for seed in range(number)]
        players = [PolicyPlayer(policy) for policy in policies]
        rates = {"in turn": per_second(device, size.seconds / 2, _in_turn, players, asked)}
        if device == "cuda":
            rates["stacked"] = per_second(device, size.seconds / 2, Stack(policies).decide, asked)
        for way, rate in rates.items():
            made = rate * rows * number
            yield {"what": f"{number} opponents {way}", "H": width, "rows": rows, "decisions_per_s": made}


def _in_turn(players: Sequence[PolicyPlayer], asked: Sequence[Rows]) -> None:
    for player, rows in zip(players, asked, strict=True):
        player.decide(*rows)


def _ask(path: str, width: int, rows: int, seconds: float, results: Any) -> None:
    """A worker that does nothing but ask."""
    torch.set_num_threads(1)
    policy = make_policy(width, "cpu")
    channel = Channel(path, "all", make_fields(policy, GAME), rows)
    player = RemotePlayer(channel, policy, "main")
    player.load({name: x.numpy() for name, x in policy.state_dict().items()}, 0)
    asked, rng = make_rows(rows, policy), np.random.default_rng(0)
    results.send(per_second("cpu", seconds, player.act, *asked[:4], rng) * rows)
    results.recv()  # stay until everybody is done, so that nobody measures a server with less to do
    channel.close()


def _serve(width: int, device: str, pipe: Any) -> None:
    torch.set_num_threads(1)
    server = InferenceServer({"all": make_policy(width, "cpu")}, device)
    thread = threading.Thread(target=server.serve)
    thread.start()
    pipe.send(server.path)
    pipe.recv()
    server.stop()
    thread.join()


def measure_server(device: str, size: Size) -> Iterator[dict[str, Any]]:
    """Decisions of all workers that one server decides for."""
    context = multiprocessing.get_context("spawn")
    for width in size.widths:
        for rows in size.rows:
            ours, theirs = context.Pipe()
            server = context.Process(target=_serve, args=(width, device, theirs), daemon=True)
            server.start()
            path = ours.recv()
            pipes = [context.Pipe() for _ in range(size.workers)]
            workers = [
                context.Process(target=_ask, args=(path, width, rows, size.seconds, end), daemon=True)
                for _, end in pipes
            ]
            for worker, (_, end) in zip(workers, pipes, strict=True):
                worker.start()
                end.close()  # the worker's alone now, so that its death is an end of file here
            rates = [pipe.recv() for pipe, _ in pipes]
            for pipe, _ in pipes:
                pipe.send(None)
            for worker in workers:
                worker.join()
            ours.send(None)
            server.join()
            yield {
                "what": f"{size.workers} workers ask",
                "H": width,
                "rows": rows,
                "decisions_per_s": sum(rates),
            }


def measure_whole(device: str, size: Size) -> Iterator[dict[str, Any]]:
    """Training in one process, as `selfplay bench connect_four` measures it: games and acting on the CPU."""
    for width in size.widths:
        overrides: dict[str, Any] = {"rollout.num_workers": 0, "device": device, "policy.hidden_size": width}
        overrides |= {"policy.encoder": [width], "rollout.num_games": max(size.lanes) // 4}
        overrides |= {"league.rating_games": 2} if size is QUICK else {}
        config = configuration.load("connect_four", overrides)
        measured = bench.measure(config, 5 * size.seconds)
        steps = measured.rows[-1][1]["agent_steps"] - measured.steps_before
        rate = steps / (measured.ended - measured.begun)
        learning = sum(row["time/learn"] for _, row in measured.rows) / (measured.ended - measured.begun)
        yield {"what": "train", "H": width, "decisions_per_s": rate, "learning": learning}


PARTS: dict[str, Callable[[str, Size], Iterator[dict[str, Any]]]] = {
    "learner": measure_learner,
    "copies": measure_copies,
    "acting": measure_acting,
    "stacks": measure_stacks,
    "server": measure_server,
    "whole": measure_whole,
}


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, help="of a measurement")
    parser.add_argument("--json", metavar="FILE", help="write the rows there")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device is visible; there is --device cpu")
    size = QUICK if options.quick else FULL
    if options.seconds is not None:
        size = size._replace(seconds=options.seconds)
    torch.set_num_threads(1)
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU, one thread"
    rows: list[dict[str, Any]] = []
    console = Console(width=120)
    for part in options.parts:
        found = list(PARTS[part](options.device, size))
        console.print(table(f"{part} ({name}, torch {torch.__version__})", found))
        rows += found
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"device": name, "torch": torch.__version__, "rows": rows}, file, indent=1)
    return rows


def table(title: str, rows: list[dict[str, Any]]) -> Table:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    shown = Table(*columns, title=title, title_justify="left")
    for row in rows:
        shown.add_row(*(_shown(row.get(name, "")) for name in columns))
    return shown


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return str(value)


if __name__ == "__main__":
    main()
