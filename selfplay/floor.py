"""The floor of an iteration: the time that its matrix products alone take on this machine.

The products of one acting tick and of one learning update are written down as the network's own code
calls them, with shape and layout, so that their multiply-adds are exact for any network; their rate
is then measured on the spot.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from policies import gemm, linear
from policies.gemm import left_to_torch, product
from policies.linear import matmul_t
from selfplay.config import Config
from selfplay.engine import choose_device, cuda_here, make_learners
from selfplay.learners import Learners
from selfplay.matches import MAIN, Lineups
from selfplay.worker import Worker

ROUNDS = 3
ROUND_SECONDS = 0.15

Multiply = Callable[[Tensor, Tensor], Tensor]
"""x [M, K], weight [N, K] -> x @ weight.T [M, N]."""


class Layout(NamedTuple):
    """How a matrix lies in memory."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Gemm(NamedTuple):
    """One product x [M, K] @ weight [N, K].T as it was called."""

    x: Layout
    weight: Layout

    @property
    def flops(self) -> int:
        """Two for each multiply-add."""
        (rows, inner), (columns, _) = self.x.shape, self.weight.shape
        return 2 * rows * inner * columns


class Count(NamedTuple):
    """What a piece of code computed."""

    flops: int  # of all matrix products, batched ones, attention and convolutions too
    gemms: tuple[Gemm, ...]  # the plain products, in their order


@dataclass(frozen=True, slots=True)
class Work:
    """The network's arithmetic in one iteration."""

    act_flops: float  # of a decision
    learn_flops: float  # of a decision learned from, all epochs together
    act: tuple[Gemm, ...]  # of one tick of one worker
    learn: tuple[Gemm, ...]  # of one thread's part of a minibatch


class Rate(NamedTuple):
    """GFLOP/s."""

    one_thread: float
    all_cores: float  # every core with a thread and matrices of its own


class _Rates(NamedTuple):
    """GFLOP/s of each."""

    act: float
    learn: float


@dataclass(frozen=True, slots=True)
class Floor:
    """What the machine could do if a decision were nothing but its matrix products."""

    work: Work
    gemm: Rate  # as the network multiplies, acting and learning in their proportion
    mkl: Rate  # the same with torch.mm
    act_gflops: float  # `gemm.all_cores` of acting alone
    learn_gflops: float
    decisions_per_s: float  # each acted once and learned from: gemm.all_cores / flops


class Ruler:
    """Measures the floor again and again, in turn with what is to be compared."""

    def __init__(self, config: Config, num_workers: int, num_threads: int) -> None:
        """num_workers: rollouts, at least 1; num_threads: cores, which are the learner's threads too."""
        self._device, self._precision = choose_device(config, cuda_here()), _precision(config)
        self._threads = num_threads
        on_cpu, half = self._device == "cpu", self._precision == torch.bfloat16
        self._learn_by = product if on_cpu and half and gemm.AVAILABLE else matmul_t
        # Only a CPU's products of float32 are slower where much is summed.
        with contextlib.nullcontext() if on_cpu and not half else _summed_at_once():
            self._work = count_work(config, num_workers, num_threads if on_cpu else 1)
        self._noted: list[_Rates] = []

    def note(self) -> None:
        """Measure the rates of the network's products on all cores now."""
        self._noted.append(self._rates(matmul_t, self._learn_by, self._threads))

    def floor(self) -> Floor:
        """By the mean of what was noted."""
        act, learn = map(statistics.fmean, zip(*self._noted, strict=True))
        all_cores = statistics.fmean(map(self._together, self._noted))
        gemm = Rate(self._together(self._rates(matmul_t, self._learn_by, 1)), all_cores)
        mkl = Rate(*(self._together(self._rates(_mm, _mm, number)) for number in (1, self._threads)))
        decisions_per_s = all_cores * 1e9 / (self._work.act_flops + self._work.learn_flops)
        return Floor(self._work, gemm, mkl, act, learn, decisions_per_s)

    def _rates(self, act_by: Multiply, learn_by: Multiply, num_threads: int) -> _Rates:
        work, device = self._work, self._device
        act = flops_per_s(work.act, act_by, num_threads)
        threads = num_threads if device == "cpu" else 1
        learn = flops_per_s(work.learn, learn_by, threads, device, self._precision)
        return _Rates(act / 1e9, learn / 1e9)

    def _together(self, rates: _Rates) -> float:
        """Of acting and learning in their proportion."""
        act, learn = self._work.act_flops, self._work.learn_flops
        return (act + learn) / (act / rates.act + learn / rates.learn)


def _mm(x: Tensor, weight: Tensor) -> Tensor:
    return torch.mm(x, weight.t())


def count_work(config: Config, num_workers: int, num_threads: int) -> Work:
    """Count one tick of a worker's games and an update on the lanes that a thread takes at a time."""
    worker, _ = _alone(config, config.rollout.num_games // num_workers)
    tick = count(worker.rollout.matches.tick)
    act_flops = tick.flops / worker.rollout.matches.decisions

    worker, learners = _alone(
        config, -(-config.rollout.num_games // (config.ppo.num_minibatches * num_threads))
    )
    batch, _ = worker.rollout.collect()
    update = count(lambda: learners.update([batch]))
    return Work(act_flops, update.flops / learners.agent_steps, tick.gemms, update.gemms)


@contextlib.contextmanager
def _summed_at_once() -> Iterator[None]:
    """Within this, weights' gradients are not summed in pieces."""
    before = linear.PIECE
    linear.PIECE = sys.maxsize
    try:
        yield
    finally:
        linear.PIECE = before


def _alone(config: Config, num_games: int) -> tuple[Worker, Learners]:
    """A worker that plays the learner's first weights against themselves; a batch is one minibatch."""
    changes = {
        "rollout": config.rollout.model_copy(update={"num_games": num_games, "num_workers": 0}),
        "ppo": config.ppo.model_copy(update={"num_minibatches": 1, "autocast": False}),
    }
    config = config.model_copy(update=changes)
    worker, learners = Worker(config, 0, 1), make_learners(config, "cpu", 1)
    worker.rollout.matches.spread = 1  # the first tick is of all games
    worker.load(learners.weights(), 0)
    worker.rollout.assign(Lineups((MAIN,), np.zeros((num_games, len(worker.env.teams)), np.int32)), {})
    return worker, learners


def count(function: Callable[[], Any]) -> Count:
    """Run `function` and write down its matrix products."""

    def multiplied(x: Sequence[int], weight: Sequence[int], *rest: Any, **options: Any) -> int:
        return 2 * x[0] * x[1] * weight[0]

    def added(to: Sequence[int], x: Sequence[int], y: Sequence[int], *rest: Any, **options: Any) -> int:
        return 2 * x[0] * x[1] * y[1]

    unknown: dict[Any, Any] = {torch.ops.aten.addmm_: added}
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        unknown[torch.ops.mkldnn._linear_pointwise] = multiplied
    counter, notebook = FlopCounterMode(display=False, custom_mapping=unknown), _Notebook()
    with left_to_torch(), counter, notebook:
        function()
    return Count(counter.get_total_flops(), tuple(notebook.gemms))


class _Notebook(TorchDispatchMode):
    """Writes down the plain matrix products that run under it."""

    def __init__(self) -> None:
        super().__init__()
        self.gemms: list[Gemm] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition(".")[0]
        if name in ("mkldnn::_linear_pointwise", "aten::linear"):
            self._note(args[0], args[1])
        elif name == "aten::mm":
            self._note(args[0], args[1].t())
        elif name in ("aten::addmm", "aten::addmm_"):
            self._note(args[1], args[2].t())
        return func(*args, **(kwargs or {}))

    def _note(self, x: Tensor, weight: Tensor) -> None:
        self.gemms.append(
            Gemm(Layout(tuple(x.shape), x.stride()), Layout(tuple(weight.shape), weight.stride()))
        )


def flops_per_s(
    gemms: Sequence[Gemm],
    multiply: Multiply,
    num_threads: int,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> float:
    """The best of a few short runs of these products over and over, by so many threads at once."""
    flops = sum(gemm.flops for gemm in gemms)
    start, spans = threading.Barrier(num_threads), [0.0] * num_threads

    def run(index: int, passes: int) -> None:
        torch.set_num_threads(1)  # counts for the calling thread alone
        pairs = drawn(gemms, device, dtype)
        _repeat(multiply, pairs, 1, device)
        start.wait()
        begun = time.perf_counter()
        _repeat(multiply, pairs, passes, device)
        spans[index] = time.perf_counter() - begun

    def seconds(passes: int) -> float:
        threads = [threading.Thread(target=run, args=(index, passes)) for index in range(num_threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return max(spans)

    passes = max(1, round(ROUND_SECONDS / seconds(1)))
    return num_threads * passes * flops / min(seconds(passes) for _ in range(ROUNDS))


def drawn(
    gemms: Sequence[Gemm], device: str = "cpu", dtype: torch.dtype = torch.float32
) -> list[tuple[Tensor, Tensor]]:
    """Random matrices of these products, equal ones the same."""
    matrices = {gemm: _matrices(gemm, device, dtype) for gemm in gemms}
    return [matrices[gemm] for gemm in gemms]


def _repeat(multiply: Multiply, pairs: Sequence[tuple[Tensor, Tensor]], passes: int, device: str) -> None:
    with torch.inference_mode():
        for _ in range(passes):
            for x, weight in pairs:
                multiply(x, weight)
    if device == "cuda":
        torch.cuda.synchronize()


def _matrices(gemm: Gemm, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    x, weight = (
        torch.empty_strided(layout.shape, layout.stride, device=device, dtype=dtype).normal_()
        for layout in gemm
    )
    return x, weight


def _precision(config: Config) -> torch.dtype:
    return torch.bfloat16 if config.ppo.autocast else torch.float32
