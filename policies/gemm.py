"""MKL's float32 GEMM as kernels call it: a forward or an unroll needs no interpreter between its products.

torch has MKL within it. Where `policies.linear` takes another GEMM, or torch has none of MKL, kernels have
none: `AVAILABLE` is False.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import llvmlite.binding as llvm
import numba
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from policies.activations import JIT
from policies.linear import ONEDNN

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


@intrinsic
def _sgemm(typing_context, x, weight, y, rows, inputs, outputs, share, turned):  # type: ignore[no-untyped-def]
    """BLAS's routine, to which everything is transposed and which takes all by address."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = ir.IntType(8).as_pointer()

        def kept(value):  # type: ignore[no-untyped-def]
            return builder.bitcast(cgutils.alloca_once_value(builder, value), pointer)

        a, w, result = (builder.inttoptr(each, pointer) for each in arguments[:3])
        m, k, n = (kept(builder.trunc(each, ir.IntType(32))) for each in arguments[3:6])
        one, beta = kept(ir.Constant(ir.FloatType(), 1.0)), kept(arguments[6])
        transposed, plain = (kept(ir.Constant(ir.IntType(8), ord(letter))) for letter in "TN")
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [pointer] * 13), f"selfplay_{_SGEMM}"
        )
        how = builder.select(arguments[7], transposed, plain)
        stride = builder.select(arguments[7], k, n)
        builder.call(function, [how, plain, n, m, k, one, w, stride, a, k, beta, result, n])
        return context.get_dummy_value()

    return types.none(*[types.intp] * 6, types.float32, types.boolean), generate


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


@numba.njit(**JIT)
def matmul_t(x, weight, y, add):  # type: ignore[no-untyped-def]
    """y [M, N] = x [M, K] @ weight [N, K].T, plus y itself if `add`; float32, contiguous, weight's address.

    The call that `policies.linear.matmul_t` ends in: both give the same numbers.
    """
    share = 1.0 if add else 0.0
    _sgemm(x.ctypes.data, weight, y.ctypes.data, x.shape[0], x.shape[1], y.shape[1], share, True)


@numba.njit(**JIT)
def matmul(x, weight, y):  # type: ignore[no-untyped-def]
    """y [M, N] = x [M, K] @ weight [K, N], the same way."""
    _sgemm(x.ctypes.data, weight, y.ctypes.data, x.shape[0], x.shape[1], y.shape[1], 0.0, False)
