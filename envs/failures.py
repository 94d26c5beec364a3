"""What went wrong in somebody else's code, in one line."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from envs.modules import one_line
from envs.vector import GameError

RAISED = (Exception, SystemExit)
"""What somebody else's code may raise; SystemExit too, which must not end our process."""


def describe(error: BaseException) -> str:
    """The exception in one line, and the line of code it came from: the user's last, else a library's."""
    frames = traceback.extract_tb(error.__traceback__)
    here = str(Path(__file__).parent)
    libraries = {path for name, path in sysconfig.get_paths().items() if "lib" in name}
    theirs = [frame for frame in frames if not frame.filename.startswith(here)]
    own = [frame for frame in theirs if not any(frame.filename.startswith(path) for path in libraries)]
    where = [
        f" ({Path(frame.filename).name}:{frame.lineno}: {frame.line})" for frame in own or theirs or frames
    ]
    return one_line(error) + "".join(where[-1:])


def parts(call: str, result: Any, names: Sequence[str]) -> tuple[Any, ...]:
    """What a call of another library's interface returned; GameError unless it is a tuple of these parts."""
    if not isinstance(result, tuple) or len(result) != len(names):
        what = f"{len(result)} values" if isinstance(result, tuple) else f"one value, {result!r:.60}"
        old = " (an old interface?)" if not isinstance(result, tuple) or len(result) == 4 else ""
        raise GameError(f"{call} must return ({', '.join(names)}), not {' '.join(what.split())}{old}")
    return result
