"""A process and all its descendants, as /proc of Linux shows them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

PROC = Path("/proc")


class ProcessTree:
    """Descendants are remembered, so that those whose parent has died since belong to it still."""

    def __init__(self, pid: int) -> None:
        begun = _processes().get(pid, (0, 0))[1]
        self._members = {
            pid: begun
        }  # process -> when it began, in clock ticks since boot: numbers are reused

    def look(self) -> list[int]:
        """Those alive now."""
        alive = _processes()
        self._members = {
            pid: begun for pid, begun in self._members.items() if alive.get(pid, (0, -1))[1] == begun
        }
        grown = True
        while grown:
            born = {
                pid: begun
                for pid, (parent, begun) in alive.items()
                if parent in self._members and pid not in self._members
            }
            self._members |= born
            grown = bool(born)
        return [*self._members]

    def memory(self) -> int:
        """Bytes held now: shares of pages that several hold (PSS), so that their sum counts none twice."""
        return sum(_proportional_bytes(pid) for pid in self.look())

    def kill(self, patience: float = 10.0) -> None:
        """End all of them, and wait until they are gone, or for so many seconds."""
        ends = time.monotonic() + patience
        while (members := self.look()) and time.monotonic() < ends:
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)


def _processes() -> dict[int, tuple[int, int]]:
    """Every process that is no zombie -> its parent, and when it began."""
    found = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                # PID (NAME) STATE PARENT ...; the name may hold spaces and brackets. Source: proc(5).
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    found[int(folder.name)] = int(fields[1]), int(fields[19])
    return found


def _proportional_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    return 0
