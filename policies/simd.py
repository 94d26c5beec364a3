"""Arithmetic on vectors of float32, written as formulas and put into a kernel as LLVM's own instructions.

For inner loops that Numba leaves scalar, or splits: it must prove that the arrays of a loop do not overlap,
and gives up on more than a few. Here whoever writes the loop says so. A processor with shorter vectors takes
several of its own for each of these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils

NUMBERS = 16
"""Numbers of a vector: 512 bits."""

_FLOAT, _INDEX = ir.FloatType(), ir.IntType(64)
_FLAGS = ("contract", "nsz", "arcp")  # of those in `policies.activations`


class Vector:
    """A value of the kernel being built, one float32 or several; operators give code, not numbers."""

    __array_ufunc__ = None  # so that a NumPy scalar leaves `scalar * vector` to this class

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def _constant(self, number: float | np.float32) -> Any:
        kind, exact = self.value.type, float(np.float32(number))
        return ir.Constant(kind, [exact] * kind.count if isinstance(kind, ir.VectorType) else exact)

    def _apply(self, name: str, left: Any, right: Any) -> Vector:
        first, second = (x.value if isinstance(x, Vector) else self._constant(x) for x in (left, right))
        return Vector(self.builder, getattr(self.builder, name)(first, second, flags=_FLAGS))

    def __add__(self, other: Vector | float) -> Vector:
        return self._apply("fadd", self, other)

    def __sub__(self, other: Vector | float) -> Vector:
        return self._apply("fsub", self, other)

    def __rsub__(self, other: float) -> Vector:
        return self._apply("fsub", other, self)

    def __mul__(self, other: Vector | float) -> Vector:
        return self._apply("fmul", self, other)

    def __truediv__(self, other: Vector) -> Vector:
        return self._apply("fdiv", self, other)

    def __rtruediv__(self, other: float) -> Vector:
        return self._apply("fdiv", other, self)

    __radd__, __rmul__ = __add__, __mul__

    def clamped(self, limit: float | np.float32) -> Vector:
        """Between -limit and limit; NaN stays NaN."""
        builder, value = self.builder, self.value
        for relation, bound in ((">", self._constant(limit)), ("<", self._constant(-limit))):
            value = builder.select(builder.fcmp_ordered(relation, value, bound), bound, value)
        return Vector(builder, value)


class Block:
    """Neighbouring numbers of every row that a loop goes over, from the same place on."""

    def __init__(self, builder: Any, start: Any, numbers: int) -> None:
        self._builder, self._start = builder, start
        self._kind = _FLOAT if numbers == 1 else ir.VectorType(_FLOAT, numbers)

    def _place(self, row: Any, offset: Any) -> Any:
        first = self._builder.inttoptr(row, _FLOAT.as_pointer())
        place = self._builder.gep(first, [self._builder.add(self._start, offset)])
        return self._builder.bitcast(place, self._kind.as_pointer())

    def load(self, row: Any, offset: Any = ir.Constant(_INDEX, 0)) -> Vector:  # noqa: B008 (a constant)
        """The numbers of a row, given by its address; offset: numbers by which it begins later."""
        return Vector(self._builder, self._builder.load(self._place(row, offset), align=4))

    def store(self, x: Vector, row: Any, offset: Any = ir.Constant(_INDEX, 0)) -> None:  # noqa: B008
        self._builder.store(x.value, self._place(row, offset), align=4)

    def splat(self, number: Any) -> Vector:
        """The same number, a value of the kernel, in every place."""
        if self._kind is _FLOAT:
            return Vector(self._builder, number)
        nothing, zero = ir.Constant(self._kind, ir.Undefined), ir.Constant(ir.IntType(32), 0)
        one = self._builder.insert_element(nothing, number, zero)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), self._kind.count), [0] * self._kind.count)
        return Vector(self._builder, self._builder.shuffle_vector(one, nothing, everywhere))

    def zero(self) -> Vector:
        return self.splat(ir.Constant(_FLOAT, 0.0))


def over(builder: Any, width: Any, body: Callable[[Block], None]) -> None:
    """A loop over rows of so many numbers: whole vectors, then what is left one by one."""
    numbers = ir.Constant(width.type, NUMBERS)
    vectors = builder.udiv(width, numbers)
    whole = builder.mul(vectors, numbers)
    with cgutils.for_range(builder, vectors) as loop:
        body(Block(builder, builder.mul(loop.index, numbers), NUMBERS))
    with cgutils.for_range(builder, builder.sub(width, whole)) as loop:
        body(Block(builder, builder.add(whole, loop.index), 1))
