"""What a worker and the inference server of its machine say to each other, for one part of the seats."""

from __future__ import annotations

import json
import math
import mmap
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from gymnasium import Space

from envs.vector import Group, Tree
from policies.policy import Policy
from policies.spaces import dtype_of, leaves

ALIGNMENT = 64
"""Of the arrays in shared memory, in bytes: a line of the cache."""

MESSAGE_BYTES = 1 << 16
"""The longest message; arrays are not in messages."""

_HEADER = struct.Struct("<BI")


class InferenceError(RuntimeError):
    """The inference server is gone, or could not answer."""


class Kind(IntEnum):
    """What a worker asks for."""

    OPEN = 0  # text: part and fields; with shared memory
    HOLD = 1  # text: a policy's name; the answer says whether its weights are there
    GIVE = 2  # text: a policy's name; with its weights, in the order of its state_dict
    LET_GO = 3  # text: a policy's name
    DRAW = 4  # decide rows; text: by whom
    VALUE = 5  # value rows; text: by whom


class Status(IntEnum):
    """What the server answers."""

    DONE = 0
    MISSING = 1  # weights
    FAILED = 2  # text: why; the server has ended


class Field(NamedTuple):
    """An array of R rows in shared memory."""

    name: str
    dtype: str
    shape: tuple[int, ...]  # of a row
    axis: int = 0  # of the rows
    answer: bool = False  # whether the server writes it

    def array(self, buffer: mmap.mmap, offset: int, rows: int) -> np.ndarray:
        shape = (*self.shape[: self.axis], rows, *self.shape[self.axis :])
        return np.ndarray(shape, self.dtype, buffer, offset)

    def nbytes(self, rows: int) -> int:
        size = np.dtype(self.dtype).itemsize * math.prod(self.shape) * rows
        return -(-size // ALIGNMENT) * ALIGNMENT


def make_fields(policy: Policy, group: Group) -> list[Field]:
    """Everything that goes with a row, there and back."""
    layers, vectors, width = policy.state_shape
    state = (layers, vectors, width)

    def spaces(prefix: str, found: Mapping[str, Space], *, answer: bool) -> list[Field]:
        return [
            Field(prefix + path, dtype_of(space).str, tuple(space.shape or ()), answer=answer)
            for path, space in found.items()
        ]

    return [
        *spaces("obs:", policy.inputs, answer=False),
        *(Field("mask:" + path, leaf.dtype.str, leaf.shape[2:]) for path, leaf in group.mask.items()),
        Field("is_first", "|b1", ()),
        Field("state", "<f4", state, axis=2),
        Field("uniform", "<f4", (policy.head.num_uniforms,)),
        *spaces("action:", leaves(group.action_space), answer=True),
        Field("logp", "<f4", (), answer=True),
        Field("value", "<f4", (), answer=True),
        Field("next_state", "<f4", state, axis=2, answer=True),
    ]


class Shared:
    """Memory of two processes with room for so many rows."""

    def __init__(self, fd: int, fields: Sequence[Field], capacity: int) -> None:
        """fd: of the memory's file; it is closed here."""
        self.fields, self.capacity = list(fields), capacity
        size = sum(field.nbytes(capacity) for field in fields)
        try:
            if os.fstat(fd).st_size < size:
                os.ftruncate(fd, size)
            self._buffer = mmap.mmap(fd, size)
        finally:
            os.close(fd)

    def arrays(self, rows: int) -> Tree:
        """Views of the first rows, by field."""
        found, offset = {}, 0
        for field in self.fields:
            found[field.name] = field.array(self._buffer, offset, rows)
            offset += field.nbytes(self.capacity)
        return found


def under(prefix: str, arrays: Tree) -> Tree:
    """The arrays whose names begin with prefix, by the rest of their names."""
    return {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}


def pack(kind: int, rows: int, text: str) -> bytes:
    return _HEADER.pack(kind, rows) + text.encode()


def unpack(message: bytes) -> tuple[int, int, str]:
    """kind, rows, text"""
    kind, rows = _HEADER.unpack_from(message)
    return kind, rows, message[_HEADER.size :].decode()


class Channel:
    """A worker's end."""

    def __init__(self, path: str, part: str, fields: Sequence[Field], capacity: int) -> None:
        """path: the server's socket; capacity: rows that are asked for at once, at most."""
        self.capacity = capacity
        self.outputs = tuple(field.name for field in fields if field.answer)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._socket.connect(path)
        except OSError as error:
            raise InferenceError(f"no inference server at {path}: {error.strerror}") from error
        fd = os.memfd_create("selfplay-inference")
        self._shared = Shared(os.dup(fd), fields, capacity)
        self._unneeded: list[str] = []
        self.ask(Kind.OPEN, 0, json.dumps([part, fields, capacity]), fd)

    def arrays(self, rows: int) -> Tree:
        """Shared views of so many rows, by field."""
        return self._shared.arrays(rows)

    def hold(self, name: str, weights: Mapping[str, np.ndarray], order: Sequence[str]) -> None:
        """Have the server keep a policy until `let_go`; order: the names in its state_dict."""
        while self._unneeded:
            self.ask(Kind.LET_GO, 0, self._unneeded.pop())
        if self.ask(Kind.HOLD, 0, name) is Status.MISSING:
            fd = os.memfd_create("selfplay-weights")
            with os.fdopen(os.dup(fd), "wb") as file:
                for key in order:
                    file.write(np.ascontiguousarray(weights[key]).data)
            self.ask(Kind.GIVE, 0, name, fd)

    def let_go(self, name: str) -> None:
        """A policy is not asked any more; said with the next `hold`, for this may come at any moment."""
        self._unneeded.append(name)

    def ask(self, kind: Kind, rows: int, text: str, fd: int | None = None) -> Status:
        """Ask and wait for the answer; fd is closed."""
        try:
            message = [pack(kind, rows, text)]
            if fd is None:
                self._socket.sendmsg(message)
            else:
                socket.send_fds(self._socket, message, [fd])
            answer = self._socket.recv(MESSAGE_BYTES)
        except OSError as error:
            raise InferenceError(f"the inference server of this machine is gone: {error.strerror}") from error
        finally:
            if fd is not None:
                os.close(fd)
        if not answer:
            raise InferenceError("the inference server of this machine is gone: it ended without a word")
        status, _, reason = unpack(answer)
        if status == Status.FAILED:
            raise InferenceError(f"the inference server of this machine has ended: {reason}")
        return Status(status)

    def close(self) -> None:
        self._socket.close()
