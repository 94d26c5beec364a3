"""A Ray cluster of the tests' own, on ports and in a folder that nothing else uses."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A cluster in which this process is the driver; `RayEngine` finds it and leaves it running."""
    import ray

    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: sockets have short paths
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        ray.init(
            address="local",
            num_cpus=4,
            object_store_memory=200_000_000,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            _temp_dir=folder,
        )
        try:
            yield
        finally:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def outside(tmp_path: Path) -> dict[str, str]:
    """The environment of a user's shell whose Ray knows of no cluster and keeps its token elsewhere."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return kept | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": "local", "HOME": str(tmp_path)}
