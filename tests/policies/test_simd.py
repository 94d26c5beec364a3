"""Formulas as vectors against NumPy, in widths that do and do not fill whole vectors."""

import numba
import numpy as np
import pytest
from numba import types
from numba.extending import intrinsic

from policies import simd
from policies.simd import over

WIDTHS = [1, 2, 15, 16, 17, 32, 45]


def kernel(formula):
    """formula(block, x, y, k) of rows x, y and a number k, over a width; stored to row z."""

    @intrinsic
    def row(typing_context, x, y, k, z, width):
        def generate(context, builder, signature, arguments):
            x, y, k, z, width = arguments

            def body(block):
                block.store(formula(block, block.load(x), block.load(y), block.splat(k)), z)

            over(builder, width, body)
            return context.get_dummy_value()

        size = types.intp
        return types.none(size, size, types.float32, size, size), generate

    @numba.njit
    def run(x, y, k, z):
        row(x.ctypes.data, y.ctypes.data, k, z.ctypes.data, x.shape[0])

    return run


FORMULAS = {
    "sums": lambda b, x, y, k: (x + y) - (1.5 - x) + (k + 2.0),
    "products": lambda b, x, y, k: 0.5 * x * y * np.float32(3.0) * k,
    "quotients": lambda b, x, y, k: x / (y * y + 1.0) + 1.0 / (k * k + 2.0),
    "clamped": lambda b, x, y, k: (x + y).clamped(0.7) * k,
    "zero": lambda b, x, y, k: b.zero() - y,
}


def plain(name, x, y, k):
    return {
        "sums": (x + y) - (1.5 - x) + (k + 2),
        "products": 1.5 * x * y * k,
        "quotients": x / (y * y + 1) + 1 / (k * k + 2),
        "clamped": np.clip(x + y, -0.7, 0.7) * k,
        "zero": -y,
    }[name]


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas(name):
    run = kernel(FORMULAS[name])
    rng = np.random.default_rng(0)
    for width in WIDTHS:
        x, y = rng.standard_normal((2, width)).astype(np.float32)
        padded = np.full(width + 2, 7.0, np.float32)
        run(x, y, np.float32(-1.25), padded[1:-1])
        np.testing.assert_allclose(padded[1:-1], plain(name, x, y, -1.25), rtol=2e-6, atol=1e-6)
        assert padded[0] == padded[-1] == 7.0


def test_what_is_not_a_number_passes_the_clamp():
    run = kernel(lambda block, x, y, k: x.clamped(2.0))
    for width in WIDTHS:
        x = np.full(width, 5.0, np.float32)
        x[-1] = np.nan
        z = np.zeros_like(x)
        run(x, x, np.float32(0), z)
        assert np.isnan(z[-1])
        assert (z[:-1] == 2.0).all()


def test_a_row_may_be_read_and_written_at_once():
    run = kernel(lambda block, x, y, k: x + y * k)
    x = np.arange(45, dtype=np.float32)
    run(x, x, np.float32(2.0), x)
    np.testing.assert_array_equal(x, 3 * np.arange(45))


def test_a_loop_that_forgets_the_rest_is_seen(monkeypatch):
    def whole_vectors_alone(builder, width, body):
        lanes = width.type(simd.NUMBERS)
        simd.over(builder, builder.mul(builder.udiv(width, lanes), lanes), body)

    monkeypatch.setitem(globals(), "over", whole_vectors_alone)
    with pytest.raises(AssertionError):
        test_formulas("sums")
