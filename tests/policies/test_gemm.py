"""The GEMM as kernels call it, of float32 and of bfloat16, against sums in float64."""

import numba
import numpy as np
import pytest
import torch

from policies import gemm

pytestmark = pytest.mark.skipif(not gemm.AVAILABLE, reason="kernels cannot call the GEMM that is used here")

M_K_N = [(1, 1, 1), (1, 7, 40), (3, 84, 16), (64, 24, 96), (255, 17, 9), (256, 16, 8), (600, 33, 20)]
HALVES = [None, True]


@numba.njit
def _factor(x, half):
    return gemm.factor(x, half)


def draw(*shape, apart=0, seed=0):
    """Random numbers whose rows lie so many numbers apart."""
    rng = np.random.default_rng([seed, *shape])
    return rng.standard_normal((shape[0], shape[1] + apart), dtype=np.float32)[:, : shape[1]]


def rounded(x, half):
    """What a factor stands for, in float64."""
    x = torch.from_numpy(x)
    return (x if half is None else x.bfloat16()).double().numpy()


def weight(x, half):
    """(address, what is there)."""
    kept = torch.from_numpy(x).contiguous()
    kept = kept if half is None else kept.bfloat16()
    return kept.data_ptr(), kept


def agree(found, wanted, inner):
    assert found.dtype == np.float32
    assert np.abs(found - wanted).max() < 4e-7 * inner * max(1.0, float(np.abs(wanted).max()))


def test_rounding_is_to_the_nearest_and_else_to_the_even():
    special = [0.0, -0.0, np.inf, -np.inf, 1e-40, -1e-45, 3.4e38, -3.4e38, 1.0, -2.5]
    ties = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0x7F7FFFFF], np.uint32).view(np.float32)
    x = np.concatenate([np.array(special, np.float32), ties, draw(1, 1000)[0]])[None]
    assert np.array_equal(_factor(x, True), torch.from_numpy(x).bfloat16().view(torch.uint16).numpy())
    assert _factor(x, True)[0, 10:14].tolist() == [0x3F80, 0x3F82, 0x3F81, 0x3F80]


def test_what_is_not_a_number_stays_so():
    bits = np.array([[0x7FC00000, 0xFFC00000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF]], np.uint32)
    assert torch.from_numpy(_factor(bits.view(np.float32), True)).view(torch.bfloat16).isnan().all()


def test_rows_apart_are_rounded_as_they_are():
    x = draw(5, 33, apart=4)
    assert np.array_equal(_factor(x, True), _factor(np.ascontiguousarray(x), True))


def test_float32_factors_are_not_copied():
    x = draw(5, 33)
    assert _factor(x, None) is x or _factor(x, None).ctypes.data == x.ctypes.data


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("size", M_K_N, ids=str)
def test_products(size, half):
    m, k, n = size
    x, w = draw(m, k, apart=3), draw(n, k, seed=1)
    for add in (False, True):
        y = draw(m, n, apart=5, seed=2).copy()
        wanted = rounded(x, half) @ rounded(w, half).T + (y if add else 0)
        address, kept = weight(w, half)
        gemm.matmul_t(_factor(x, half), address, y, add)
        agree(y, wanted, k)
    w, y = draw(k, n, seed=1), np.full((m, n), np.nan, np.float32)
    address, kept = weight(w, half)
    gemm.matmul(_factor(x, half), address, y)
    agree(y, rounded(x, half) @ rounded(w, half), k)
    del kept


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("size", M_K_N, ids=str)
def test_gradients_of_weights_are_added(size, half):
    m, k, n = size
    x, grad = draw(m, k, apart=3), draw(m, n, apart=1, seed=1)
    wanted = rounded(grad, half).T @ rounded(x, half)
    wanted = wanted if n < k else wanted.T
    total = draw(*wanted.shape, seed=2).copy()
    wanted = wanted + total
    gemm.add_weight_gradient(_factor(grad, half), _factor(x, half), total)
    agree(total, wanted, m)


def test_tensors_with_gaps_are_refused():
    x, gap = torch.zeros(6, 4).bfloat16(), torch.zeros(4, 9).bfloat16()[:, :6].t()
    for pair in ((x, gap), (gap.t(), x.t()), (x.t().contiguous().t(), gap)):
        with pytest.raises(AssertionError):
            gemm.product(*pair)


@pytest.mark.parametrize("turned", ["none", "weight", "both"])
def test_products_of_tensors(turned):
    x, w = (torch.from_numpy(draw(*shape)).bfloat16() for shape in ((70, 24), (40, 24)))
    if turned != "none":
        w = w.t().contiguous().t()
    if turned == "both":
        x = x.t().contiguous().t()
    agree(gemm.product(x, w).numpy(), (x.double() @ w.double().t()).numpy(), 24)
