"""tanh and the logistic function for kernels of recurrent cells, and the options these are compiled with."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numba
import numpy as np

F32 = np.float32
LIMIT = F32(7.90531110763549805)  # where the approximation reaches 1
_FAST = {"contract", "nsz", "arcp", "reassoc"}  # not the flags that assume away NaN
JIT = {"nogil": True, "cache": True, "fastmath": _FAST, "error_model": "numpy"}


@numba.njit(inline="always", **JIT)
def quotient(x):  # type: ignore[no-untyped-def]
    """Numerator and denominator of a rational approximation of tanh, degree 13 over 6, for |x| <= LIMIT.

    Within 4e-7 of it; it vectorises, libm's tanh does not.
    """
    s = x * x
    p = F32(-2.76076847742355e-16)
    p = p * s + F32(2.00018790482477e-13)
    p = p * s + F32(-8.60467152213735e-11)
    p = p * s + F32(5.12229709037114e-08)
    p = p * s + F32(1.48572235717979e-05)
    p = p * s + F32(6.37261928875436e-04)
    p = p * s + F32(4.89352455891786e-03)
    q = F32(1.19825839466702e-06)
    q = q * s + F32(1.18534705686654e-04)
    q = q * s + F32(2.26843463243900e-03)
    q = q * s + F32(4.89352518554385e-03)
    return x * p, q


@numba.njit(inline="always", **JIT)
def tanh(x):  # type: ignore[no-untyped-def]
    x = LIMIT if x > LIMIT else x  # as comparisons, which let NaN through
    x = -LIMIT if x < -LIMIT else x
    p, q = quotient(x)
    return p / q


@numba.njit(inline="always", **JIT)
def sigmoid(x):  # type: ignore[no-untyped-def]
    return F32(0.5) * tanh(F32(0.5) * x) + F32(0.5)


def forget_stale(path: str, *within: ModuleType) -> None:
    """Delete what Numba has kept of a file's kernels, if a module whose kernels are within them is newer.

    Numba looks at a kernel's own file alone. To be called before any of them is.
    """
    newest = max(Path(str(module.__file__)).stat().st_mtime for module in within)
    for kept in Path(path).parent.glob(f"__pycache__/{Path(path).stem}.*.nbi"):
        if kept.stat().st_mtime < newest:
            kept.unlink(missing_ok=True)
