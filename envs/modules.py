"""Modules of other libraries, found by name or refused in one line that says what is missing."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
import sys
from types import ModuleType

_INSTALL = {"pyspiel": "open-spiel", "ale_py": "ale-py"}


def import_module(id: str, name: str) -> ModuleType:
    """The module called `name`; ValueError of one line, with the game's id, if it cannot be imported."""
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a library may fail in any way while it is imported
        raise ValueError(f"game {id!r}: {_reason(name, error)}") from error


def one_line(error: BaseException) -> str:
    """Type and message of an exception, without line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _reason(name: str, error: BaseException) -> str:
    """Why the module cannot be imported: what to install, or the nearest names there are."""
    top = name.partition(".")[0]
    if not exists(top):
        return f"{top} is not installed: pip install {_INSTALL.get(top, top)}"
    own = isinstance(error, ModuleNotFoundError) and error.name is not None
    if own and (name + ".").startswith(f"{error.name}."):  # type: ignore[attr-defined]
        return f"there is no module {name}{_nearest(name)}"
    if own:
        missing = str(error.name).partition(".")[0]  # type: ignore[attr-defined]
        package = f"'pettingzoo[{name.split('.')[1]}]'" if name.startswith("pettingzoo.") else missing
        return f"{name} needs {missing}: pip install {_INSTALL.get(package, package)}"
    return f"cannot import {name}: {one_line(error)}"


def exists(name: str) -> bool:
    """Whether there is such a module; its parent packages are imported to see."""
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _nearest(name: str) -> str:
    """The modules beside the missing one that are most like it."""
    parent, _, last = name.rpartition(".")
    while parent and not exists(parent):
        parent, _, last = parent.rpartition(".")
    if not parent:
        return ""
    near = difflib.get_close_matches(last, modules_of(parent), n=3)
    return f" (near is {', '.join(f'{parent}.{entry}' for entry in near)})" if near else ""


def modules_of(package: str) -> list[str]:
    """Names of the public modules in a package; none where it is not installed."""
    spec = importlib.util.find_spec(package) if exists(package) else None
    paths = spec.submodule_search_locations if spec is not None else None
    return [entry.name for entry in pkgutil.iter_modules(paths or []) if not entry.name.startswith("_")]
