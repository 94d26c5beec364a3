"""Weights of snapshots: safetensors files that are named by their own SHA-256 and never change."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from selfplay.league.errors import LeagueError

_OURS = re.compile(r"[0-9a-f]{64}\.safetensors(\.tmp)?")


def path_of(directory: Path, digest: str) -> Path:
    """Where the weights with this SHA-256 lie."""
    return directory / f"{digest}.safetensors"


def save(directory: Path, weights: Mapping[str, np.ndarray]) -> str:
    """Write a copy of the arrays durably and return its SHA-256.

    An existing file of that name is replaced: that heals a damaged one.
    """
    # safetensors writes the bytes of a transposed array in the wrong order, without a word.
    data = safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in weights.items()})
    digest = hashlib.sha256(data).hexdigest()
    path = path_of(directory, digest)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_directory(directory)
    return digest


def load(directory: Path, digest: str, player: str) -> dict[str, np.ndarray]:
    """Read weights back as fresh arrays, after checking that the file is what was written."""
    path = path_of(directory, digest)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LeagueError(f"the weights of {player} cannot be read: {path}: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise LeagueError(
            f"the weights of {player} are damaged: {path} does not match its SHA-256; "
            "restore the file from a copy of the run directory, or choose another player"
        )
    try:
        return {name: array.copy() for name, array in sorted(safetensors.numpy.load(data).items())}
    except SafetensorError as error:
        raise LeagueError(f"the weights of {player} are no safetensors file: {path}: {error}") from error


def keep_only(directory: Path, digests: set[str]) -> None:
    """Remove the weights that no player has any more, and what a crash left half written."""
    kept = {path_of(directory, digest).name for digest in digests}
    for path in directory.iterdir():
        if _OURS.fullmatch(path.name) and path.name not in kept:
            path.unlink()


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
