"""Siblings through shared memory: sums equal to the bit, of any size, and no wait without an end."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from selfplay import shared_memory
from selfplay.shared_memory import SharedMemory, TCPStore


def together(size, work, timeout=20.0):
    """work(siblings) of every rank, each in a thread with a map of the memory of its own."""
    first = TCPStore("127.0.0.1", 0, size, is_master=True, wait_for_workers=False)

    def one(rank):
        store = TCPStore("127.0.0.1", first.port, size, is_master=False) if rank else first
        return work(SharedMemory(store, rank, size, timeout))

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("slot", [64, 4096])  # so that a tensor takes many calls, or one
def test_everybody_gets_the_sum_to_the_bit(monkeypatch, size, slot):
    monkeypatch.setattr(shared_memory, "SLOT", slot)
    brought = torch.randn(size, 4, 7, 11, generator=torch.Generator().manual_seed(0))

    def work(siblings):
        own = brought[siblings.rank].clone()
        for row in own:
            siblings.add_(row)
        return own

    wanted = brought[0].clone()
    for other in brought[1:]:
        wanted += other
    for got in together(size, work):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("slot", [64, 4096])
def test_objects_come_in_order_of_rank(monkeypatch, slot):
    monkeypatch.setattr(shared_memory, "SLOT", slot)

    def work(siblings):
        found = []
        for k in range(20):
            if siblings.rank == k % 3:  # now this one is late, now that one
                time.sleep(0.002)
            found.append(siblings.all({"rank": siblings.rank, "k": k, "x": np.arange(k * siblings.rank)}))
        return found

    for found in together(3, work):
        for k, parts in enumerate(found):
            assert [(part["rank"], part["k"], len(part["x"])) for part in parts] == [
                (0, k, 0), (1, k, k), (2, k, 2 * k),
            ]  # fmt: skip


def test_one_that_never_comes_is_an_error_in_the_end():
    def work(siblings):
        if siblings.rank == 0:
            with pytest.raises(TimeoutError, match=r"learner 0: no sign of another for 0\.3 s"):
                siblings.all(1)

    together(2, work, timeout=0.3)


def test_nothing_is_left_behind():
    before = set(Path("/dev/shm").glob("selfplay-*"))
    together(2, lambda siblings: siblings.all(1))
    assert set(Path("/dev/shm").glob("selfplay-*")) <= before
