"""The process that decides for all workers of its machine."""

from __future__ import annotations

import contextlib
import copy
import json
import mmap
import os
import selectors
import shutil
import socket
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from envs.vector import Tree
from policies.policy import Policy
from selfplay.inference.channel import MESSAGE_BYTES, Field, Kind, Shared, Status, pack, under, unpack
from selfplay.players import PolicyPlayer
from selfplay.weights import load_weights


class _Asked(NamedTuple):
    """Rows of one worker that wait for their decisions."""

    port: _Port
    arrays: Tree  # views of the shared memory


class _Port:
    """The server's end of a channel."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.part = ""
        self.shared: Shared | None = None
        self.held: set[str] = set()

    def answer(self, status: Status, text: str = "") -> None:
        self.connection.sendall(pack(status, 0, text))


class InferenceServer:
    """Waits for requests and answers those that wait at the same time by one forward for each policy."""

    def __init__(self, policies: Mapping[str, Policy], device: str) -> None:
        """policies: of each part, whose weights are not looked at."""
        self._networks = {part: copy.deepcopy(policy).to(device) for part, policy in policies.items()}
        self._players: dict[tuple[str, str], PolicyPlayer] = {}  # by part and name
        self._folder = tempfile.mkdtemp(prefix="selfplay-inference-")
        self.path = str(Path(self._folder) / "socket")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self.path)
        self._listener.listen()
        self._wake, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._ports: dict[int, _Port] = {}  # by file descriptor
        self.forwards = self.requests = 0

    def serve(self) -> None:
        """Answer until `stop`; an error is told to every worker that waits or asks."""
        try:
            while self._turn():
                pass
        except BaseException as error:
            for port in self._ports.values():
                self._tell(port, Status.FAILED, f"{type(error).__name__}: {error}")
            raise
        finally:
            self._close()

    def stop(self) -> None:
        """End `serve`, which may run in another thread."""
        self._wake.send(b"-")

    def _turn(self) -> bool:
        """Answer what has arrived; False once it is time to stop."""
        waiting: dict[tuple[str, str, Kind], list[_Asked]] = defaultdict(list)
        for key, _ in self._selector.select():
            if key.fileobj is self._woken:
                return False
            if key.fileobj is self._listener:
                self._accept()
            else:
                self._receive(self._ports[key.fd], waiting)
        for (part, name, kind), asked in waiting.items():
            self._decide(self._players[part, name], kind, asked)
            self.forwards += 1
            self.requests += len(asked)
            for each in asked:
                self._tell(each.port, Status.DONE)
        return True

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        self._ports[connection.fileno()] = _Port(connection)
        self._selector.register(connection, selectors.EVENT_READ)

    def _receive(self, port: _Port, waiting: dict[tuple[str, str, Kind], list[_Asked]]) -> None:
        try:
            message, fds, _, _ = socket.recv_fds(port.connection, MESSAGE_BYTES, 1)
        except ConnectionError:
            message, fds = b"", []
        if not message:
            self._drop(port)
            return
        number, rows, text = unpack(message)
        kind = Kind(number)
        if kind in (Kind.DRAW, Kind.VALUE):
            assert port.shared is not None
            waiting[port.part, text, kind].append(_Asked(port, port.shared.arrays(rows)))
        else:
            self._tell(port, self._administer(port, kind, text, fds))

    def _administer(self, port: _Port, kind: Kind, text: str, fds: Sequence[int]) -> Status:
        if kind is Kind.OPEN:
            port.part, fields, capacity = json.loads(text)
            shared = [Field(name, dtype, tuple(shape), *rest) for name, dtype, shape, *rest in fields]
            port.shared = Shared(fds[0], shared, capacity)
        elif kind is Kind.LET_GO:
            self._let_go(port, text)
        else:
            port.held.add(text)
            if kind is Kind.GIVE:
                self._players[port.part, text] = self._player(port.part, fds[0])
            elif (port.part, text) not in self._players:
                return Status.MISSING
        return Status.DONE

    def _player(self, part: str, fd: int) -> PolicyPlayer:
        """The part's network with the weights in a file."""
        policy = copy.deepcopy(self._networks[part])
        with os.fdopen(fd, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            weights, offset = {}, 0
            for name, x in policy.state_dict().items():
                array = np.empty(tuple(x.shape), torch.empty(0, dtype=x.dtype).numpy().dtype)
                array.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8, array.nbytes, offset)
                weights[name], offset = array, offset + array.nbytes
        load_weights(policy, weights)
        return PolicyPlayer(policy)

    def _let_go(self, port: _Port, name: str) -> None:
        """Forget a policy that no worker holds any more."""
        port.held.discard(name)
        if not any(name in each.held for each in self._ports.values() if each.part == port.part):
            self._players.pop((port.part, name), None)

    def _drop(self, port: _Port) -> None:
        """A worker is gone, and with it what only it held."""
        self._selector.unregister(port.connection)
        self._ports.pop(port.connection.fileno())
        for name in tuple(port.held):
            self._let_go(port, name)
        port.connection.close()

    def _tell(self, port: _Port, status: Status, text: str = "") -> None:
        with contextlib.suppress(ConnectionError):  # the worker has died; its end of file is yet to be read
            port.answer(status, text)

    def _decide(self, player: PolicyPlayer, kind: Kind, asked: Sequence[_Asked]) -> None:
        """One forward of all rows; the decisions go to where each worker looks for them."""
        assert asked[0].port.shared is not None
        names = (field.name for field in asked[0].port.shared.fields if not field.answer)
        inputs = {name: _joined([x.arrays[name] for x in asked], name) for name in names}
        obs, is_first, state = under("obs:", inputs), inputs["is_first"], inputs["state"]
        if kind is Kind.VALUE:
            found = {"value": player.value(obs, is_first, state)}
        else:
            decision = player.decide(obs, under("mask:", inputs), is_first, state, inputs["uniform"])
            assert decision.logp is not None
            assert decision.value is not None
            found = {f"action:{path}": leaf for path, leaf in decision.action.items()}
            found |= {"logp": decision.logp, "value": decision.value, "next_state": decision.state}
        start = 0
        for each in asked:
            stop = start + len(each.arrays["is_first"])
            for name, array in found.items():
                each.arrays[name][...] = array.take(range(start, stop), axis=_axis(name))
            start = stop

    def _close(self) -> None:
        for port in self._ports.values():
            port.connection.close()
        for each in (self._listener, self._wake, self._woken):
            each.close()
        self._selector.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _axis(name: str) -> int:
    """Of the rows."""
    return 2 if name in ("state", "next_state") else 0


def _joined(arrays: Sequence[np.ndarray], name: str) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=_axis(name))
