"""What a process runs with: of Python, of packages, of this project."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

PACKAGES = ("selfplay", "torch", "ray", "numpy", "gymnasium", "numba")


def installed() -> dict[str, str]:
    """Name -> version: Python, packages that are there, the checkout's commit, the platform."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if commit := _commit():
        found["git commit"] = commit
    return found | {"platform": platform.platform(terse=True)}


def _commit() -> str | None:
    """The checkout's commit, where this package lies in one."""
    folder = Path(__file__).parents[1]
    if not (folder / ".git").exists():
        return None
    command: Sequence[str] = ("git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):  # no git, or a checkout on a disk that does not answer
        return None
    return done.stdout.strip() or None
