"""What went wrong in somebody else's code, in one line."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

from envs.modules import one_line


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
