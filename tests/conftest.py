"""One thread for each test process: two that share a core spin and wait for each other."""

from __future__ import annotations

import gc
import os
import sys
from functools import cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when numpy, numba and torch are first imported

import hypothesis
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

ROOT = Path(__file__).parents[1]

# The first call of a compiled function takes seconds, so no deadline; in CI the same examples every time.
hypothesis.settings.register_profile("selfplay", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("selfplay")


# Torch, numba and thousands of tests are a million objects: Python looks for garbage among them less often.
gc.set_threshold(100_000, 50, 100)


def pytest_collection_finish() -> None:
    """What is imported stays, so it is not looked at again."""
    gc.freeze()


ALONE = "alone"


class ByFile(LoadFileScheduling):
    """In several processes: a file's tests stay together, and those with Ray or timings do not meet.

    These begin first, for they take longest.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return ALONE if _wants_to_be_alone(file) else file

    def _assign_work_unit(self, node: WorkerController) -> None:
        if ALONE in self.workqueue:
            self.workqueue.move_to_end(ALONE, last=False)
        super()._assign_work_unit(node)


@cache
def _wants_to_be_alone(file: str) -> bool:
    return file.endswith("test_guard.py") or "mark.ray" in (ROOT / file).read_text(encoding="utf-8")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    return ByFile(config, log)


@pytest.fixture(autouse=True)
def _one_torch_thread() -> None:
    """Undo what a test before this one set; costs nothing where torch is not imported."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run directory that does not exist yet."""
    return tmp_path / "run"
