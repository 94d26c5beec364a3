"""Checkpoints: arrays as safetensors, the rest as JSON, sealed by a manifest of hashes.

A checkpoint is a folder `iteration-00000120`. It is written beside its place and renamed into it,
so that a folder of that name is whole, and loading one runs no code. Damage that comes later is
found by the hashes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from selfplay.errors import CheckpointError
from selfplay.matches import MAIN

FORMAT = 1
MANIFEST = "manifest.json"
META = "meta.json"
_NAME = re.compile(r"iteration-\d{8,}")

Arrays = dict[str, dict[str, np.ndarray]]


def save(
    directory: Path,
    *,
    iteration: int,
    arrays: Mapping[str, Mapping[str, np.ndarray]],
    meta: Mapping[str, Any],
    keep: int = 3,
) -> Path:
    """Write `directory`/iteration-N and remove all but the newest `keep`.

    arrays: leaves by name for each file stem; meta: whatever JSON holds, integers of any size too.
    """
    target = directory / f"iteration-{iteration:08d}"
    directory.mkdir(parents=True, exist_ok=True)
    _sweep(directory)
    partial = directory / f".partial-{target.name}"
    partial.mkdir()
    files = {f"{stem}.safetensors": _pack(leaves) for stem, leaves in arrays.items()}
    files[META] = _json({"format": FORMAT, "iteration": iteration, "meta": dict(meta)})
    for name, content in files.items():
        _write(partial / name, content)
    seals = {name: {"size": len(content), "sha256": _hash(content)} for name, content in files.items()}
    _write(partial / MANIFEST, _json({"files": seals}))
    _sync(partial)
    _retire([target])
    partial.rename(target)
    _retire(_all(directory)[:-keep])
    _sync(directory)
    _sweep(directory)
    return target


def load(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Arrays (writable, owned by the caller) and meta of a checkpoint, each byte verified.

    Raises CheckpointError with the file, the cause and the newest good checkpoint beside it.
    """
    if not path.is_dir():
        last = newest(path.parent)
        beside = f"newest: {last}" if last else "there is none beside it"
        raise CheckpointError(f"no checkpoint {path}; {beside}")
    try:
        return _load(path)
    except CheckpointError as error:
        good = newest_good(path.parent, other_than=path)
        remedy = (
            f"newest good: {good}; remove {path} to go on from there" if good else "no good one beside it"
        )
        raise CheckpointError(f"{error}; {remedy}") from error


def newest(directory: Path) -> Path | None:
    """The checkpoint of the highest iteration, not yet verified."""
    found = _all(directory)
    return found[-1] if found else None


def to_go_on_from(directory: Path) -> Path:
    """The newest in a run's directory of them; CheckpointError if there is none."""
    path = newest(directory)
    if path is None:
        raise CheckpointError(f"{directory.parent} has no checkpoint to go on from; begin a new run")
    return path


def prefix(slot: str) -> str:
    """Of a slot's files in a checkpoint; the main learner's have none."""
    return "" if slot == MAIN else f"{slot}-"


def iteration_of(path: Path) -> int:
    """After which a checkpoint was made."""
    return int(path.name.rpartition("-")[2])


def newest_good(directory: Path, *, other_than: Path | None = None) -> Path | None:
    """The checkpoint of the highest iteration that loads."""
    for path in reversed(_all(directory)):
        if other_than is not None and path.name == other_than.name:
            continue
        try:
            _load(path)
        except CheckpointError:
            continue
        return path
    return None


def _load(path: Path) -> tuple[Arrays, dict[str, Any]]:
    files = {name: _verified(path / name, seal) for name, seal in _manifest(path).items()}
    if META not in files:
        raise CheckpointError(f"{path / MANIFEST} is damaged: it does not list {META}")
    head = json.loads(files.pop(META))
    if head["format"] != FORMAT:
        raise CheckpointError(f"{path} has format {head['format']}; this version reads format {FORMAT}")
    return {name.removesuffix(".safetensors"): _unpack(content) for name, content in files.items()}, head[
        "meta"
    ]


def _manifest(path: Path) -> dict[str, dict[str, Any]]:
    """Size and hash by file name."""
    content = _read(path / MANIFEST)
    try:
        files = json.loads(content)["files"]
        sound = all(_plain(name) and {"size", "sha256"} <= set(seal) for name, seal in files.items())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path / MANIFEST} is damaged: not a manifest") from error
    if not sound:
        raise CheckpointError(f"{path / MANIFEST} is damaged: not a manifest")
    return files


def _verified(path: Path, seal: Mapping[str, Any]) -> bytes:
    content = _read(path)
    if len(content) != seal["size"]:
        raise CheckpointError(f"{path} is damaged: {len(content)} bytes, {seal['size']} were written")
    if _hash(content) != seal["sha256"]:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one that was written")
    return content


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error


def _plain(name: str) -> bool:
    """A file name that cannot lead out of its folder."""
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name) is not None


def _pack(leaves: Mapping[str, np.ndarray]) -> bytes:
    return safetensors.numpy.save({name: np.asarray(leaf, order="C") for name, leaf in leaves.items()})


def _unpack(content: bytes) -> dict[str, np.ndarray]:
    return {name: np.array(leaf) for name, leaf in safetensors.numpy.load(content).items()}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write(path: Path, content: bytes) -> None:
    assert _plain(path.name), path.name
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _retire(paths: list[Path]) -> None:
    """Take folders out of sight whole, so that no moment shows half of one under its name."""
    for path in paths:
        if path.exists():
            path.rename(path.with_name(f".retired-{path.name}"))


def _sweep(directory: Path) -> None:
    """Delete what is retired, and what a crash left half written."""
    for path in directory.iterdir():
        if path.name.startswith((".partial-", ".retired-")):
            shutil.rmtree(path)


def _all(directory: Path) -> list[Path]:
    """Checkpoints, oldest first."""
    if not directory.is_dir():
        return []
    found = [path for path in directory.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=iteration_of)
