"""Learners of one machine add their gradients up in shared memory.

Through gloo's sockets and threads a megabyte takes milliseconds where both cores are busy, which is half
of a minibatch's own time; here it takes as long as reading it.
"""

from __future__ import annotations

import mmap
import os
import pickle
import platform
import tempfile
import time
from pathlib import Path
from typing import TypeVar

import numpy as np
from torch import Tensor
from torch.distributed import TCPStore as TCPStore  # type: ignore[attr-defined]

SLOT = 4 << 20
"""Bytes that each brings at a time."""

LINE = 64
"""Bytes of a cache line: every rank counts on one of its own."""

SPINS = 20
"""How often to look for the others before sleeping between looks: rollouts may have use for the core."""

T = TypeVar("T")


def usable() -> bool:
    """Whether what one process writes is seen by another in the order it was written."""
    return platform.machine() in ("x86_64", "AMD64")


class SharedMemory:
    """`selfplay.data_parallel.Siblings` in processes of one machine.

    Two tables with a slot for each rank serve in turn, so that one count of arrivals is enough: whoever
    writes to a table again has seen everybody arrive at the other, hence done with reading this one.
    """

    def __init__(self, store: TCPStore, rank: int, size: int, timeout: float) -> None:
        """store: by which they find each other; timeout: seconds that one waits for the others."""
        self.rank, self._size, self._timeout = rank, size, timeout
        self._calls = 0
        memory = _mapped(store, rank, size)
        tables = np.frombuffer(memory, np.uint8, 2 * size * SLOT, offset=size * LINE)
        self._tables = tables.reshape(2, size, SLOT)
        self._arrived = np.frombuffer(memory, np.int64, size * LINE // 8)[:: LINE // 8]
        self._exchange(np.zeros(1, np.uint8))
        if rank == 0:  # all have it open: now nothing is left behind, however they end
            os.unlink(store.get("shared memory").decode())

    def all(self, mine: T) -> list[T]:
        data = np.frombuffer(pickle.dumps(mine), np.uint8)
        sizes = self._exchange(np.array([len(data)]).view(np.uint8)).view(np.int64)[:, 0].tolist()
        padded = np.zeros(max(sizes), np.uint8)
        padded[: len(data)] = data
        pieces = [self._exchange(padded[k : k + SLOT]).copy() for k in range(0, len(padded), SLOT)]
        whole = np.concatenate(pieces, axis=1)
        return [pickle.loads(row[:size].tobytes()) for row, size in zip(whole, sizes, strict=True)]

    def add_(self, x: Tensor) -> None:
        flat = x.view(-1).numpy()
        step = SLOT // flat.itemsize
        for start in range(0, len(flat), step):
            mine = flat[start : start + step]
            first, *others = self._exchange(mine.view(np.uint8)).view(flat.dtype)
            mine[:] = first
            for other in others:  # in the same order everywhere: sums are equal to the bit
                mine += other

    def _exchange(self, mine: np.ndarray) -> np.ndarray:
        """Everybody's bytes [size, n], mine [n] among them, until the call after the next."""
        table = self._tables[self._calls % 2]
        table[self.rank, : len(mine)] = mine
        self._calls += 1
        self._arrived[self.rank] = self._calls
        looks, end = 0, 0.0
        while (self._arrived < self._calls).any():
            looks += 1
            if looks < SPINS:
                time.sleep(0)
                continue
            end = end or time.monotonic() + self._timeout
            if time.monotonic() > end:
                raise TimeoutError(f"learner {self.rank}: no sign of another for {self._timeout:g} s")
            time.sleep(1e-4)
        return table[:, : len(mine)]


def _mapped(store: TCPStore, rank: int, size: int) -> mmap.mmap:
    """Zeros that all ranks share; the first one makes them."""
    if rank == 0:
        folder = Path("/dev/shm")
        handle, path = tempfile.mkstemp(prefix="selfplay-", dir=folder if folder.is_dir() else None)
        os.ftruncate(handle, size * LINE + 2 * size * SLOT)
        store.set("shared memory", path)
    else:
        handle = os.open(store.get("shared memory").decode(), os.O_RDWR)
    memory = mmap.mmap(handle, 0)
    os.close(handle)
    return memory
