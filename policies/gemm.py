"""MKL's float32 GEMM as kernels call it: a forward or an unroll needs no interpreter between its products.

torch has MKL within it. Where `policies.linear` takes another GEMM, or torch has none of MKL, kernels have
none: `AVAILABLE` is False.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path

import llvmlite.binding as llvm
import numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from policies import activations, linear
from policies.activations import JIT, forget_stale
from policies.linear import ONEDNN, PIECE

forget_stale(__file__, activations, linear)

_SGEMM, _SET_THREADS = "sgemm_", "MKL_Set_Num_Threads_Local"


def _find() -> bool:
    """Tell LLVM where they are, under names of our own: by these kernels look for them, kept ones too."""
    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if ONEDNN or not path.exists():
        return False
    library = ctypes.CDLL(str(path))
    if not all(hasattr(library, name) for name in (_SGEMM, _SET_THREADS)):
        return False
    for name in (_SGEMM, _SET_THREADS):
        address = ctypes.cast(getattr(library, name), ctypes.c_void_p)
        llvm.add_symbol(f"selfplay_{name}", address.value)
    return True


AVAILABLE = _find()


@contextlib.contextmanager
def left_to_torch() -> Iterator[None]:
    """Within this, networks ask torch for each product, where it can be seen."""
    global AVAILABLE
    before, AVAILABLE = AVAILABLE, False
    try:
        yield
    finally:
        AVAILABLE = before


@intrinsic
def _sgemm(typing_context, turn_a, turn_b, m, n, k, a, lda, b, ldb, beta, c, ldc):  # type: ignore[no-untyped-def]
    """BLAS's routine: C [m, n] = A @ B + beta C by columns, A and B turned where so told; all by address."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer, letter = ir.IntType(8).as_pointer(), ir.IntType(8)

        def kept(value):  # type: ignore[no-untyped-def]
            return builder.bitcast(cgutils.alloca_once_value(builder, value), pointer)

        def turned(flag):  # type: ignore[no-untyped-def]
            return kept(builder.select(flag, ir.Constant(letter, ord("T")), ir.Constant(letter, ord("N"))))

        def size(value):  # type: ignore[no-untyped-def]
            return kept(builder.trunc(value, ir.IntType(32)))

        first, second = turned(arguments[0]), turned(arguments[1])
        rows, columns, inner, lda, ldb, ldc = (size(arguments[i]) for i in (2, 3, 4, 6, 8, 11))
        a, b, c = (builder.inttoptr(arguments[i], pointer) for i in (5, 7, 10))
        one, beta = kept(ir.Constant(ir.FloatType(), 1.0)), kept(arguments[9])
        kind = ir.FunctionType(ir.VoidType(), [pointer] * 13)
        function = cgutils.get_or_insert_function(builder.module, kind, f"selfplay_{_SGEMM}")
        builder.call(function, [first, second, rows, columns, inner, one, a, lda, b, ldb, beta, c, ldc])
        return context.get_dummy_value()

    sizes, where = types.intp, types.intp
    return types.none(
        types.boolean,
        types.boolean,
        sizes,
        sizes,
        sizes,
        where,
        sizes,
        where,
        sizes,
        types.float32,
        where,
        sizes,
    ), generate


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


@intrinsic
def _pointer(typing_context, address):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(types.intp), generate


@numba.njit(inline="always", **JIT)
def floats(address, number):  # type: ignore[no-untyped-def]
    """The [number] float32 that lie at an address, which somebody else keeps there."""
    return numba.carray(_pointer(address), (number,))


# Rows of matrices below may lie apart, the numbers of one lie side by side; weights lie without gaps. To BLAS
# each matrix is transposed, so that it gets both in turn.


@numba.njit(inline="always", **JIT)
def _distance(x):  # type: ignore[no-untyped-def]
    """From row to row, in numbers."""
    return max(x.strides[0] // 4, x.shape[1], 1)


@numba.njit(**JIT)
def matmul_t(x, weight, y, add):  # type: ignore[no-untyped-def]
    """y [M, N] = x [M, K] @ weight [N, K].T, plus y itself if `add`; weight by its address."""
    (m, k), n = x.shape, y.shape[1]
    share = np.float32(1.0 if add else 0.0)
    _sgemm(
        True, False, n, m, k, weight, k, x.ctypes.data, _distance(x), share, y.ctypes.data, _distance(y)
    )  # fmt: skip


@numba.njit(**JIT)
def matmul(x, weight, y):  # type: ignore[no-untyped-def]
    """y [M, N] = x [M, K] @ weight [K, N]; weight by its address."""
    (m, k), n = x.shape, y.shape[1]
    share = np.float32(0.0)
    _sgemm(
        False, False, n, m, k, weight, n, x.ctypes.data, _distance(x), share, y.ctypes.data, _distance(y)
    )  # fmt: skip


@numba.njit(**JIT)
def add_weight_gradient(grad, x, total):  # type: ignore[no-untyped-def]
    """total [N, K] += grad [M, N].T @ x [M, K] where N < K, else total [K, N] += x.T @ grad."""
    narrow = grad.shape[1] < x.shape[1]
    first, second = (grad, x) if narrow else (x, grad)
    k, n = total.shape
    for start in range(0, grad.shape[0], PIECE):
        rows, a, b = min(PIECE, grad.shape[0] - start), first[start:], second[start:]
        _sgemm(
            False, True, n, k, rows, b.ctypes.data, _distance(b), a.ctypes.data, _distance(a),
            np.float32(1.0), total.ctypes.data, n,
        )  # fmt: skip


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
