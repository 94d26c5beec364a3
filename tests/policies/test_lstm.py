"""The fused LSTM against its definition, and acting against learning."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import gemm, lstm, lstm_kernels, unroll_kernels
from policies.lstm import LSTM, reference_unroll

SIZES = [(1, 1, 1), (2, 3, 5), (7, 5, 16), (16, 9, 33), (3, 64, 17), (5, 2, 128)]  # T, N, H


@pytest.fixture(params=["kernels", "interpreted"])
def way(request, monkeypatch):
    """Unrolls as one kernel, where they can be, and step by step."""
    if request.param == "kernels" and not gemm.AVAILABLE:
        pytest.skip("kernels cannot call the GEMM that is used here")
    monkeypatch.setattr(gemm, "AVAILABLE", request.param == "kernels")


def draw(length, lanes, width, seed=0, scale=1.0, first=0.3):
    """input_gates, is_first, state, weight, bias"""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator) * scale

    is_first = torch.rand(length, lanes, generator=generator) < first
    gates, state = normal(length, lanes, 4 * width), normal(2, lanes, width)
    return gates, is_first, state, normal(4 * width, width) / math.sqrt(width), normal(4 * width)


def gradients(unroll, gates, is_first, state, weight, bias, output_grad):
    gates, weight, bias = (x.clone().requires_grad_() for x in (gates, weight, bias))
    outputs, last = unroll(gates, is_first, state, weight, bias)
    grads = torch.autograd.grad((outputs * output_grad).sum(), (gates, weight, bias))
    return [x.detach() for x in (outputs, *last, *grads)]


@pytest.mark.parametrize("first", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_values_and_gradients_are_those_of_the_definition(way, size, first):
    case = draw(*size, first=first)
    output_grad = torch.randn(size, generator=torch.Generator().manual_seed(1))
    fused = gradients(lstm._Unroll.apply, *case, output_grad)
    # The definition in float64: what the kernels approximate, without rounding of its own.
    exact = [x.double() if x.is_floating_point() else x for x in case]
    for name, got, wanted in zip(
        ("outputs", "hidden", "cell", "grad gates", "grad weight", "grad bias"),
        fused,
        gradients(reference_unroll, *exact, output_grad.double()),
        strict=True,
    ):
        scale = max(1.0, float(wanted.abs().max()))
        assert float((got - wanted).abs().max()) < 5e-6 * scale, name


@pytest.mark.parametrize("first", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_acting_is_the_definition_too(way, size, first):
    # Without gradients nothing is copied to be reset: the step itself leaves out what came before.
    case = draw(*size, first=first)
    exact = [x.double() if x.is_floating_point() else x for x in case]
    with torch.no_grad():
        for got, wanted in zip(lstm._unroll(*case), reference_unroll(*exact), strict=True):
            assert float((got - wanted).abs().max()) < 5e-6 * max(1.0, float(wanted.abs().max()))


@settings(max_examples=25)
@given(
    st.integers(1, 9),
    st.integers(1, 7),
    st.integers(1, 20),
    st.integers(0, 999),
    st.sampled_from([0.1, 1, 6]),
)
def test_any_size_and_scale(length, lanes, width, seed, scale):
    case = draw(length, lanes, width, seed, scale)
    output_grad = torch.ones(length, lanes, width)
    fused = gradients(lstm._Unroll.apply, *case, output_grad)
    exact = [x.double() if x.is_floating_point() else x for x in case]
    for got, wanted in zip(fused, gradients(reference_unroll, *exact, output_grad.double()), strict=True):
        # Weights of scale 6 send the rounding of a state on, amplified at every step.
        assert float((got - wanted).abs().max()) < 1e-5 * max(1.0, float(wanted.abs().max())) * max(
            1, scale**3
        )


def test_one_step_hand_worked():
    # No input from before (is_first): with gates i = f = o = 0 and g = 1: c = .5 tanh 1 = .380797,
    # h = .5 tanh(.380797) = .181700. The state before, which would be 7, must not matter.
    gates = torch.tensor([[[0.0, 0.0, 1.0, 0.0]]])
    first = torch.ones(1, 1, dtype=torch.bool)
    seven = torch.full((2, 1, 1), 7.0)
    for unroll in (reference_unroll, lstm._Unroll.apply):
        out, (hidden, cell) = unroll(gates.clone(), first, seven, torch.ones(4, 1), torch.zeros(4))
        assert out.item() == hidden.item() == pytest.approx(0.1817002, abs=1e-6)
        assert cell.item() == pytest.approx(0.3807971, abs=1e-6)
    # Not first: every gate gets h W = 7: c = s(7) 7 + s(7) tanh 8 = 7.992708 , h = s(7) tanh c = .999089
    s = 1 / (1 + math.exp(-7))
    wanted = s * 7 + s * math.tanh(8)
    for unroll in (reference_unroll, lstm._Unroll.apply):
        out, (_, cell) = unroll(gates.clone(), ~first, seven, torch.ones(4, 1), torch.zeros(4))
        assert cell.item() == pytest.approx(wanted, abs=1e-5)
        assert out.item() == pytest.approx(s * math.tanh(wanted), abs=1e-6)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_definition_is_torchs_own_lstm(size):
    length, lanes, width = size
    torch.manual_seed(0)
    theirs, ours = torch.nn.LSTM(11, width, num_layers=2), LSTM(11, width, 2)
    for layer in range(2):
        ours.input_weight[layer].data = getattr(theirs, f"weight_ih_l{layer}").data
        ours.hidden_weight[layer].data = getattr(theirs, f"weight_hh_l{layer}").data
        ours.bias[layer].data = (
            getattr(theirs, f"bias_ih_l{layer}") + getattr(theirs, f"bias_hh_l{layer}")
        ).data
    x, state = torch.randn(length, lanes, 11), torch.randn(2, 2, lanes, width)
    wanted, (hidden, cell) = theirs(x, (state[:, 0].contiguous(), state[:, 1].contiguous()))
    got, last = ours(x, torch.zeros(length, lanes, dtype=torch.bool), state)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(last, torch.stack((hidden, cell), dim=1), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_every_parameters_gradient_through_layers_and_resets(num_layers):
    torch.manual_seed(3)
    module = LSTM(6, 13, num_layers)
    x = torch.randn(8, 5, 6, requires_grad=True)
    is_first, state = torch.rand(8, 5) < 0.25, torch.randn(num_layers, 2, 5, 13)
    weight = torch.randn(8, 5, 13)
    inputs = [x, *module.parameters()]
    got = torch.autograd.grad((module(x, is_first, state)[0] * weight).sum(), inputs)
    double = LSTM(6, 13, num_layers).double()
    double.load_state_dict(module.state_dict())
    y = x.detach().double().requires_grad_()
    assert y.dtype != torch.float32  # so that this is the plain definition
    out = double(y, is_first, state.double())[0]
    wanted = torch.autograd.grad((out * weight).sum(), [y, *double.parameters()])
    for one, two in zip(got, wanted, strict=True):
        assert float((one - two).abs().max()) < 2e-5 * max(1.0, float(two.abs().max()))


@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_reset_cuts_the_past_off_exactly(num_layers):
    # What follows a reset is bit by bit what a lane gives that begins there, from any state.
    torch.manual_seed(4)
    module = LSTM(3, 19, num_layers)
    x, is_first = torch.randn(9, 4, 3), torch.zeros(9, 4, dtype=torch.bool)
    is_first[5] = True
    whole, last = module(x, is_first, torch.randn(num_layers, 2, 4, 19) * 50)
    fresh, last_fresh = module(x[5:], is_first[5:], torch.full((num_layers, 2, 4, 19), 1e6))
    assert torch.equal(whole[5:], fresh)
    assert torch.equal(last, last_fresh)
    assert all((module(x, is_first, last)[1] == last).flatten())


def test_a_reset_stops_gradients_both_ways():
    # d(output after)/d(input before) = 0, and the other lane's is not.
    torch.manual_seed(5)
    module = LSTM(3, 8, 1)
    x = torch.randn(6, 2, 3, requires_grad=True)
    is_first = torch.zeros(6, 2, dtype=torch.bool)
    is_first[4, 0] = True
    out, _ = module(x, is_first, torch.zeros(1, 2, 2, 8))
    (grad,) = torch.autograd.grad(out[4:].sum(), x)
    assert (grad[:4, 0] == 0).all()
    assert (grad[:4, 1] != 0).all()


def test_a_nan_before_a_reset_does_not_survive_it():
    module = LSTM(3, 8, 1)
    state = torch.full((1, 2, 2, 8), math.nan)
    out, last = module(torch.ones(2, 2, 3), torch.tensor([[True, True], [False, False]]), state)
    assert torch.isfinite(out).all()
    assert torch.isfinite(last).all()


@pytest.mark.parametrize("pieces", [(1,) * 12, (5, 7), (1, 10, 1)])
def test_unrolling_in_pieces_is_unrolling_at_once(pieces):
    torch.manual_seed(6)
    module = LSTM(4, 21, 2)
    x, is_first, state = torch.randn(12, 6, 4), torch.rand(12, 6) < 0.2, torch.randn(2, 2, 6, 21)
    whole, last = module(x, is_first, state)
    outs = []
    for one, first in zip(x.split(pieces), is_first.split(pieces), strict=True):
        out, state = module(one, first, state)
        outs.append(out)
    torch.testing.assert_close(torch.cat(outs), whole, rtol=0, atol=2e-6)
    torch.testing.assert_close(state, last, rtol=0, atol=5e-6)


def test_states_given_are_not_written():
    module = LSTM(4, 8, 1)
    state = torch.randn(1, 2, 3, 8)
    before = state.clone()
    module(torch.randn(5, 3, 4), torch.ones(5, 3, dtype=torch.bool), state)
    assert torch.equal(state, before)


def test_the_kernels_tanh_and_sigmoid():
    x = np.linspace(-30, 30, 60_001, dtype=np.float32)[:, None]
    lanes = len(x)
    zeros = np.zeros((lanes, 4), np.float32)
    gates = zeros.copy()
    gates[:, :1] = x  # i = sigmoid(x)
    gates[:, 2:3] = x  # g = tanh(x)
    hidden, cell = np.empty_like(x), np.empty_like(x)
    lstm_kernels.forward(gates, zeros, zeros[0], np.zeros(lanes, bool), np.zeros_like(x), hidden, cell)
    exact = x.astype(np.float64)
    assert np.abs(gates[:, 2:3] - np.tanh(exact)).max() < 5e-7
    assert np.abs(gates[:, :1] - 1 / (1 + np.exp(-exact))).max() < 5e-7
    assert np.abs(gates).max() <= 1 + 1e-6
    assert (gates[:, :2] >= -1e-7).all()


# Broken kernels: the comparison above must see each of them.


def reset_never(is_first, hidden, hidden_in):
    hidden_in[...] = hidden


def forward_keeps_the_cell(gates, hidden_gates, bias, is_first, *rest, original=lstm_kernels.forward):
    original(gates, np.where(is_first[:, None], 0, hidden_gates), bias, np.zeros_like(is_first), *rest)


def forward_without_resets(gates, hidden_gates, bias, is_first, *rest, original=lstm_kernels.forward):
    original(gates, hidden_gates, bias, np.zeros_like(is_first), *rest)


def test_acting_without_resets_is_seen(monkeypatch):
    monkeypatch.setattr(gemm, "AVAILABLE", False)
    monkeypatch.setattr(lstm_kernels, "forward", forward_without_resets)
    with pytest.raises(AssertionError):
        test_acting_is_the_definition_too(None, (16, 9, 33), 0.3)


def backward_through_resets(grad, grad_next, first_next, *rest, original=lstm_kernels.backward):
    original(grad, grad_next, np.zeros_like(first_next), *rest)


def backward_reset_a_step_early(grad, grad_next, first_next, *rest, original=lstm_kernels.backward):
    original(grad, grad_next, np.roll(first_next, 1), *rest)


def backward_forgets_what_opened_here(
    grad, grad_next, first_next, gates, is_first, *rest, original=lstm_kernels.backward
):
    original(grad, grad_next, first_next, gates, np.zeros_like(is_first), *rest)


@pytest.mark.parametrize(
    ("kernel", "broken"),
    [
        ("reset", reset_never),
        ("forward", forward_keeps_the_cell),
        ("backward", backward_through_resets),
        ("backward", backward_reset_a_step_early),
        ("backward", backward_forgets_what_opened_here),
    ],
)
def test_broken_kernels_are_seen(monkeypatch, kernel, broken):
    monkeypatch.setattr(gemm, "AVAILABLE", False)
    monkeypatch.setattr(lstm_kernels, kernel, broken)
    with pytest.raises(AssertionError):
        test_values_and_gradients_are_those_of_the_definition(None, (16, 9, 33), 0.3)


def unrolls_without_resets(gates, is_first, *rest, original=unroll_kernels.forward):
    original(gates, np.zeros_like(is_first), *rest)


def begins_at_another_cell(gates, is_first, hidden, cell, *rest, original=unroll_kernels.forward):
    original(gates, is_first, hidden, np.zeros_like(cell), *rest)


def unrolls_back_through_resets(grad, gates, is_first, *rest, original=unroll_kernels.backward):
    original(grad, gates, np.zeros_like(is_first), *rest)


def forgets_where_it_began(grad, gates, is_first, first_cell, *rest, original=unroll_kernels.backward):
    original(grad, gates, is_first, np.zeros_like(first_cell), *rest)


@pytest.mark.skipif(not gemm.AVAILABLE, reason="kernels cannot call the GEMM that is used here")
@pytest.mark.parametrize(
    ("kernel", "broken"),
    [
        ("forward", unrolls_without_resets),
        ("forward", begins_at_another_cell),
        ("backward", unrolls_back_through_resets),
        ("backward", forgets_where_it_began),
    ],
)
def test_broken_unrolls_are_seen(monkeypatch, kernel, broken):
    monkeypatch.setattr(unroll_kernels, kernel, broken)
    with pytest.raises(AssertionError):
        test_values_and_gradients_are_those_of_the_definition(None, (16, 9, 33), 0.3)


@pytest.mark.skipif(not gemm.AVAILABLE, reason="kernels cannot call the GEMM that is used here")
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_one_kernel_gives_what_the_steps_one_by_one_do(monkeypatch, size):
    case, output_grad = draw(*size), torch.randn(size, generator=torch.Generator().manual_seed(1))
    whole = gradients(lstm._Unroll.apply, *case, output_grad)
    monkeypatch.setattr(gemm, "AVAILABLE", False)
    for got, wanted in zip(gradients(lstm._Unroll.apply, *case, output_grad), whole, strict=True):
        # Not to the bit: what is multiplied and added in one instruction is the compiler's choice.
        assert float((got - wanted).abs().max()) < 2e-6 * max(1.0, float(wanted.abs().max()))
