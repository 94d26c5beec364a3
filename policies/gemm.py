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

from policies.activations import JIT
from policies.linear import ONEDNN, PIECE

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
def _sgemm(typing_context, turn_a, turn_b, m, n, k, a, lda, b, ldb, beta, c):  # type: ignore[no-untyped-def]
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
        rows, columns, inner, lda, ldb = (size(arguments[i]) for i in (2, 3, 4, 6, 8))
        a, b, c = (builder.inttoptr(arguments[i], pointer) for i in (5, 7, 10))
        one, beta = kept(ir.Constant(ir.FloatType(), 1.0)), kept(arguments[9])
        kind = ir.FunctionType(ir.VoidType(), [pointer] * 13)
        function = cgutils.get_or_insert_function(builder.module, kind, f"selfplay_{_SGEMM}")
        builder.call(function, [first, second, rows, columns, inner, one, a, lda, b, ldb, beta, c, rows])
        return context.get_dummy_value()

    sizes, where = types.intp, types.intp
    return types.none(
        types.boolean, types.boolean, sizes, sizes, sizes, where, sizes, where, sizes, types.float32, where
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


# Matrices below lie by rows and without gaps; to BLAS each is transposed, so that it gets both in turn.


@numba.njit(**JIT)
def matmul_t(x, weight, y, add):  # type: ignore[no-untyped-def]
    """y [M, N] = x [M, K] @ weight [N, K].T, plus y itself if `add`; weight by its address.

    The call that `policies.linear.matmul_t` ends in: on as many threads both give the same numbers.
    """
    (m, k), n = x.shape, y.shape[1]
    share = np.float32(1.0 if add else 0.0)
    _sgemm(True, False, n, m, k, weight, k, x.ctypes.data, k, share, y.ctypes.data)


@numba.njit(**JIT)
def matmul(x, weight, y):  # type: ignore[no-untyped-def]
    """y [M, N] = x [M, K] @ weight [K, N]; weight by its address."""
    (m, k), n = x.shape, y.shape[1]
    _sgemm(False, False, n, m, k, weight, n, x.ctypes.data, k, np.float32(0.0), y.ctypes.data)


TILE = 16
"""Numbers a side of what is transposed at once: two such squares stay in the first cache."""


@numba.njit(**JIT)
def weight_gradient(grad, x, weight_grad):  # type: ignore[no-untyped-def]
    """weight_grad [N, K] = grad [M, N].T @ x [M, K], to an address.

    `policies.linear.weight_gradient`, number for number.
    """
    (m, n), k = grad.shape, x.shape[1]
    turned = np.empty((k, n) if n >= k else (0, 0), np.float32)
    share = np.float32(0.0)
    for start in range(0, m, PIECE):
        rows, a, b = min(PIECE, m - start), x[start:].ctypes.data, grad[start:].ctypes.data
        if n < k:
            _sgemm(False, True, k, n, rows, a, k, b, n, share, weight_grad)
        else:
            _sgemm(False, True, n, k, rows, b, n, a, k, share, turned.ctypes.data)
        share = np.float32(1.0)
    if n < k:
        return
    written = floats(weight_grad, n * k)
    for top in range(0, n, TILE):
        for left in range(0, k, TILE):
            for i in range(top, min(top + TILE, n)):
                for j in range(left, min(left + TILE, k)):
                    written[i * k + j] = turned[j, i]
