"""MKL's GEMM as kernels call it: a forward or an unroll needs no interpreter between its products.

torch has MKL within it. Where `policies.linear` takes another GEMM, or torch has none of MKL, kernels have
none: `AVAILABLE` is False. Of float32, or of bfloat16 with sums in float32, for which some processors have
units that are several times as fast: `HALF` tells whether this one does.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import llvmlite.binding as llvm
import numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from torch import Tensor

from policies import activations, linear
from policies.activations import JIT, forget_stale
from policies.linear import ONEDNN, PIECE, processor_has

forget_stale(__file__, activations, linear)

_SGEMM, _BGEMM, _SET_THREADS = "sgemm_", "gemm_bf16bf16f32_", "MKL_Set_Num_Threads_Local"


def _find() -> bool:
    """Tell LLVM where they are, under names of our own: by these kernels look for them, kept ones too."""
    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if ONEDNN or not path.exists():
        return False
    library = ctypes.CDLL(str(path))
    names = _SGEMM, _BGEMM, _SET_THREADS
    if not all(hasattr(library, name) for name in names):
        return False
    for name in names:
        address = ctypes.cast(getattr(library, name), ctypes.c_void_p)
        llvm.add_symbol(f"selfplay_{name}", address.value)
    return True


AVAILABLE = _find()
HALF = AVAILABLE and processor_has("amx_bf16")


@contextlib.contextmanager
def left_to_torch() -> Iterator[None]:
    """Within this, networks ask torch for each product, where it can be seen."""
    global AVAILABLE
    before, AVAILABLE = AVAILABLE, False
    try:
        yield
    finally:
        AVAILABLE = before


def _routine(name: str) -> Any:
    @intrinsic
    def call(typing_context, turn_a, turn_b, m, n, k, a, lda, b, ldb, beta, c, ldc):  # type: ignore[no-untyped-def]
        """BLAS's: C [m, n] = A @ B + beta C by columns, A and B turned where so told; all by address."""

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            pointer, letter = ir.IntType(8).as_pointer(), ir.IntType(8)

            def kept(value):  # type: ignore[no-untyped-def]
                return builder.bitcast(cgutils.alloca_once_value(builder, value), pointer)

            def turned(flag):  # type: ignore[no-untyped-def]
                yes, no = (ir.Constant(letter, ord(each)) for each in "TN")
                return kept(builder.select(flag, yes, no))

            def size(value):  # type: ignore[no-untyped-def]
                return kept(builder.trunc(value, ir.IntType(32)))

            first, second = turned(arguments[0]), turned(arguments[1])
            rows, columns, inner, lda, ldb, ldc = (size(arguments[i]) for i in (2, 3, 4, 6, 8, 11))
            a, b, c = (builder.inttoptr(arguments[i], pointer) for i in (5, 7, 10))
            one, beta = kept(ir.Constant(ir.FloatType(), 1.0)), kept(arguments[9])
            kind = ir.FunctionType(ir.VoidType(), [pointer] * 13)
            function = cgutils.get_or_insert_function(builder.module, kind, f"selfplay_{name}")
            builder.call(function, [first, second, rows, columns, inner, one, a, lda, b, ldb, beta, c, ldc])
            return context.get_dummy_value()

        sizes, where, beta = [types.intp] * 3, [types.intp] * 2, types.float32
        return types.none(types.boolean, types.boolean, *sizes, *where, *where, beta, *where), generate

    return call


_sgemm, _bgemm = _routine(_SGEMM), _routine(_BGEMM)


@intrinsic
def _set_threads(typing_context, number):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        kind = ir.FunctionType(ir.IntType(32), [ir.IntType(32)])
        function = cgutils.get_or_insert_function(builder.module, kind, f"selfplay_{_SET_THREADS}")
        return builder.call(function, arguments)

    return types.int32(types.int32), generate


@numba.njit(**JIT)
def set_num_threads(number):  # type: ignore[no-untyped-def]
    """Of MKL's threads in products that this thread asks for (0: as the process has it); gives the last."""
    return _set_threads(number)


def _pointer_to(kind: Any) -> Any:
    @intrinsic
    def pointer(typing_context, address):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.intp), generate

    return pointer


_pointer, _words = _pointer_to(types.float32), _pointer_to(types.uint32)


@numba.njit(inline="always", **JIT)
def floats(address, number):  # type: ignore[no-untyped-def]
    """The [number] float32 that lie at an address, which somebody else keeps there."""
    return numba.carray(_pointer(address), (number,))


# Rows of matrices below may lie apart, the numbers of one lie side by side; weights lie without gaps. To BLAS
# each matrix is transposed, so that it gets both in turn. All factors of a product are float32, or all are
# bfloat16, the upper halves of float32 numbers as uint16; its result is float32.


@numba.njit(inline="always", **JIT)
def _rounded_row(x, y):  # type: ignore[no-untyped-def]
    """y [N] uint16 = x [N] uint32, bits of float32, rounded to the nearest bfloat16, else the even one."""
    for j in range(len(x)):
        word = x[j]
        near = (word + np.uint32(0x7FFF) + ((word >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        nan = (word & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)  # rounding would carry it to 0
        y[j] = np.uint16(np.uint32(0x7FC0) if nan else near)


@numba.njit(**JIT)
def round_to(x, y):  # type: ignore[no-untyped-def]
    """y [M, N] = x [M, N] as bfloat16; nothing where `place` gave x itself."""
    if y.itemsize == 2:
        for r in range(x.shape[0]):
            bits = numba.carray(_words(x.ctypes.data + r * x.strides[0]), (x.shape[1],))
            _rounded_row(bits, y[r])


Half = Literal[True] | None
"""Whether factors are bfloat16. Not a bool: by None and True Numba knows two types, of two kernels."""


def place(x: np.ndarray, half: Half) -> np.ndarray:
    """For x [..., N] as a factor: x itself, or if `half` as much for bfloat16."""
    return x if half is None else np.empty(x.shape, np.uint16)


@overload(place)
def _place(x, half):  # type: ignore[no-untyped-def]
    if isinstance(half, types.NoneType):
        return lambda x, half: x
    return lambda x, half: np.empty(x.shape, np.uint16)


@numba.njit(**JIT)
def factor(x, half):  # type: ignore[no-untyped-def]
    """x [M, N] as a factor, as `place` has it."""
    y = place(x, half)
    round_to(x, y)
    return y


@numba.njit(inline="always", **JIT)
def _distance(x):  # type: ignore[no-untyped-def]
    """From row to row, in numbers."""
    return max(x.strides[0] // x.itemsize, x.shape[1], 1)


@numba.njit(inline="always", **JIT)
def _multiply(half, turn_a, turn_b, m, n, k, a, lda, b, ldb, beta, c, ldc):  # type: ignore[no-untyped-def]
    if half:
        _bgemm(turn_a, turn_b, m, n, k, a, lda, b, ldb, beta, c, ldc)
    else:
        _sgemm(turn_a, turn_b, m, n, k, a, lda, b, ldb, beta, c, ldc)


ROWS = 256
"""Rows of a bfloat16 product at a time. A result that left the second cache would take longer to write than
the product itself."""


@numba.njit(**JIT)
def _product(x, weight, turned, distance, y, share):  # type: ignore[no-untyped-def]
    """y [M, N] = x [M, K] @ W [K, N] + share * y; weight lies as W does, or turned as its transpose."""
    (m, k), n = x.shape, y.shape[1]
    half = x.itemsize == 2
    some = ROWS if half else max(1, m)
    for start in range(0, m, some):
        a, c = x[start:], y[start:]
        _multiply(
            half, turned, False, n, min(some, m - start), k, weight, distance, a.ctypes.data, _distance(a),
            share, c.ctypes.data, _distance(c),
        )  # fmt: skip


@numba.njit(**JIT)
def matmul_t(x, weight, y, add):  # type: ignore[no-untyped-def]
    """y [M, N] = x [M, K] @ weight [N, K].T, plus y itself if `add`; weight by its address."""
    _product(x, weight, True, x.shape[1], y, np.float32(1.0 if add else 0.0))


@numba.njit(**JIT)
def matmul(x, weight, y):  # type: ignore[no-untyped-def]
    """y [M, N] = x [M, K] @ weight [K, N]; weight by its address."""
    _product(x, weight, False, y.shape[1], y, np.float32(0.0))


@numba.njit(**JIT)
def _add_products(first, second, total):  # type: ignore[no-untyped-def]
    """total [K, N] += first [M, K].T @ second [M, N]."""
    k, n = total.shape
    some = max(1, first.shape[0]) if first.itemsize == 2 else PIECE
    for start in range(0, first.shape[0], some):
        rows, a, b = min(some, first.shape[0] - start), first[start:], second[start:]
        _multiply(
            first.itemsize == 2, False, True, n, k, rows, b.ctypes.data, _distance(b), a.ctypes.data,
            _distance(a), np.float32(1.0), total.ctypes.data, n,
        )  # fmt: skip


@numba.njit(**JIT)
def add_weight_gradient(grad, x, total):  # type: ignore[no-untyped-def]
    """total [N, K] += grad [M, N].T @ x [M, K] where N < K, else total [K, N] += x.T @ grad."""
    if grad.shape[1] < x.shape[1]:
        _add_products(grad, x, total)
    else:
        _add_products(x, grad, total)


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x [M, K] @ weight [N, K].T of bfloat16 -> [M, N] float32, as kernels multiply.

    weight, or both, may be transposed views of matrices without gaps.
    """
    y, factor = np.empty((len(x), len(weight)), np.float32), x.view(torch.uint16).numpy()
    if not x.is_contiguous():
        assert x.t().is_contiguous(), x.stride()
        assert weight.t().is_contiguous(), weight.stride()
        y[:] = 0
        _add_products(factor.T, weight.t().view(torch.uint16).numpy(), y)
    elif weight.is_contiguous():
        matmul_t(factor, weight.data_ptr(), y, False)
    else:
        assert weight.t().is_contiguous(), weight.stride()
        matmul(factor, weight.data_ptr(), y)
    return torch.from_numpy(y)


TILE = 16
"""Numbers a side of what is transposed at once: two such squares stay in the first cache."""


@numba.njit(**JIT)
def write_gradient(total, turned, first, width, gradient):  # type: ignore[no-untyped-def]
    """To an address the weights' gradient [N, width] of inputs from `first` on.

    total [N, K], or if turned [K, N].
    """
    number = total.shape[1] if turned else total.shape[0]
    written = floats(gradient, number * width)
    for top in range(0, number, TILE):
        for left in range(0, width, TILE):
            for i in range(top, min(top + TILE, number)):
                for j in range(left, min(left + TILE, width)):
                    written[i * width + j] = total[first + j, i] if turned else total[i, first + j]
