"""How a process that computes keeps its memory: freed buffers stay, and cycles are looked for seldom."""

from __future__ import annotations

import ctypes
import gc

NEW_OBJECTS = 20_000
"""Objects that may be new before Python looks for cycles among them; its own choice is 700."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Let malloc reuse large buffers instead of returning them to the system; only glibc can be told.

    Page faults of fresh buffers cost more than what is computed in them.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 1 << 30)
        mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)


def collect_seldom() -> None:
    """Let a game make lists of thousands of tuples, such as the throws of its dice, without a search each.

    They are freed without one; what lies in cycles is freed a little later.
    """
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])
