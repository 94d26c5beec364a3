"""Every core: exact resets, lanes by themselves, acting as learning, gradients; and the definitions."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from policies import gru, gru_kernels
from policies.cores import CORES
from policies.gru import GRU
from policies.lstm import LSTM
from policies.lstm_layer_norm import LayerNormLSTM

RECURRENT = [name for name in CORES if name != "none"]
SIZES = [(1, 1, 1), (2, 3, 5), (7, 5, 16), (16, 9, 33), (3, 64, 17)]  # T, N, H


def make(name, *, size=3, width=11, num_layers=1, seed=0):
    """A core with every parameter drawn, so that none hides behind a zero or a one."""
    torch.manual_seed(seed)
    core = CORES[name](size, width, num_layers)
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return core


def draw(core, length, lanes, *, size=3, first=0.3, scale=1.0):
    """x, is_first, state"""
    layers, vectors, width = core.state_shape
    is_first = torch.rand(length, lanes) < first
    return torch.randn(length, lanes, size), is_first, torch.randn(layers, vectors, lanes, width) * scale


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("name", CORES)
def test_the_interface(name, num_layers):
    core = make(name, num_layers=num_layers)
    x, is_first, state = draw(core, 4, 5)
    before = state.clone()
    y, last = core(x, is_first, state)
    assert y.shape == (4, 5, core.output_size)
    assert last.shape == state.shape
    assert y.dtype == last.dtype == torch.float32
    assert torch.equal(state, before)
    assert core.state_shape[0] in (0, 1, num_layers)


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("name", CORES)
def test_a_reset_in_the_middle_is_two_unrolls(name, num_layers):
    core = make(name, num_layers=num_layers)
    x, _, state = draw(core, 9, 4, scale=50.0)
    is_first = torch.zeros(9, 4, dtype=torch.bool)
    is_first[5] = True
    whole, last = core(x, is_first, state)
    before, _ = core(x[:5], is_first[:5], state)
    after, last_after = core(x[5:], is_first[5:], torch.full_like(state, 1e6))
    assert torch.equal(whole, torch.cat((before, after)))
    assert torch.equal(last, last_after)


@pytest.mark.parametrize("name", RECURRENT)
def test_without_a_reset_the_past_does_matter(name):
    core = make(name)
    x, is_first, state = draw(core, 3, 4, first=0.0)
    one, _ = core(x, is_first, state)
    two, _ = core(x, is_first, state + 1)
    assert ((one - two).abs().amax(-1) > 1e-4).all()


@pytest.mark.parametrize("pieces", [(1,) * 12, (5, 7), (1, 10, 1)])
@pytest.mark.parametrize("name", CORES)
def test_unrolling_in_pieces_is_unrolling_at_once(name, pieces):
    core = make(name, width=21, num_layers=2)
    x, is_first, state = draw(core, 12, 6)
    whole, last = core(x, is_first, state)
    outs = []
    for one, first in zip(x.split(pieces), is_first.split(pieces), strict=True):
        out, state = core(one, first, state)
        outs.append(out)
    torch.testing.assert_close(torch.cat(outs), whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(state, last, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CORES)
def test_lanes_do_not_see_each_other(name):
    core = make(name, num_layers=2)
    x, is_first, state = draw(core, 5, 7)
    whole, last = core(x, is_first, state)
    for n in range(7):
        lane = slice(n, n + 1)
        alone, end = core(x[:, lane], is_first[:, lane], state[:, :, lane])
        torch.testing.assert_close(alone[:, 0], whole[:, n], rtol=0, atol=1e-5)
        torch.testing.assert_close(end[:, :, 0], last[:, :, n], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", RECURRENT)
def test_a_nan_before_a_reset_does_not_survive_it(name):
    core = make(name)
    layers, vectors, width = core.state_shape
    is_first = torch.tensor([[True, True], [False, False]])
    y, last = core(torch.ones(2, 2, 3), is_first, torch.full((layers, vectors, 2, width), math.nan))
    assert torch.isfinite(y).all()
    assert torch.isfinite(last).all()


@pytest.mark.parametrize("name", RECURRENT)
def test_a_reset_stops_gradients(name):
    core = make(name)
    x, _, state = draw(core, 6, 2)
    is_first = torch.zeros(6, 2, dtype=torch.bool)
    is_first[4, 0] = True
    x.requires_grad_()
    (grad,) = torch.autograd.grad(core(x, is_first, state)[0][4:].square().sum(), x)
    assert (grad[:4, 0] == 0).all()
    assert (grad[:4, 1] != 0).any(-1).all()


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("name", RECURRENT)
def test_gradients_are_those_of_float64(name, num_layers):
    """Float64 runs the plain definition, float32 what is fast."""
    core = make(name, num_layers=num_layers)
    x, is_first, state = draw(core, 8, 5)
    weight = torch.randn(8, 5, core.output_size)
    exact = make(name, num_layers=num_layers).double()
    exact.load_state_dict(core.state_dict())
    grads = []
    for network, kind in ((core, torch.float32), (exact, torch.float64)):
        inputs = [x.to(kind).requires_grad_(), *network.parameters()]
        y, _ = network(inputs[0], is_first, state.to(kind))
        grads.append(torch.autograd.grad((y * weight).sum(), inputs))
    for one, two in zip(*grads, strict=True):
        assert float(two.abs().max()) > 0
        assert float((one - two).abs().max()) < 5e-5 * max(1.0, float(two.abs().max()))


def numeric_gradient(function, x, epsilon=1e-6):
    """Central differences of a function of x, float64."""
    grad = torch.zeros_like(x)
    for k in range(x.numel()):
        for sign in (1, -1):
            moved = x.clone()
            moved.view(-1)[k] += sign * epsilon
            grad.view(-1)[k] += sign * float(function(moved)) / (2 * epsilon)
    return grad


@pytest.mark.parametrize("name", RECURRENT)
def test_gradients_are_differences(name):
    core = make(name, width=3, num_layers=2).double()
    x, is_first, state = draw(core, 4, 2)
    x, state = x.double().requires_grad_(), state.double()
    is_first[2, 1] = True
    loss = core(x, is_first, state)[0].square().sum()
    (grad,) = torch.autograd.grad(loss, x)
    with torch.no_grad():
        wanted = numeric_gradient(lambda moved: core(moved, is_first, state)[0].square().sum(), x.detach())
    torch.testing.assert_close(grad, wanted, rtol=1e-5, atol=1e-7)


PAGE = Path(__file__).parents[2] / "docs" / "adding_a_policy.md"


def page_core(change=lambda source: source):
    """The core that the page shows, as it is registered there."""
    source = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)[0]
    scope = {}
    exec(compile(change(source), "minimal.py", "exec"), scope)
    return lambda input_size, hidden_size, num_layers: scope["MinimalUnit"](input_size, hidden_size)


def check_page_core():
    test_a_reset_in_the_middle_is_two_unrolls("minimal", 1)
    test_without_a_reset_the_past_does_matter("minimal")
    test_lanes_do_not_see_each_other("minimal")
    test_gradients_are_those_of_float64("minimal", 1)


def test_the_pages_example_is_a_core(monkeypatch):
    monkeypatch.setitem(CORES, "minimal", page_core())
    check_page_core()


def test_the_pages_example_without_its_reset_is_none(monkeypatch):
    reset = "            hidden = hidden.masked_fill(first[:, None], 0.0)\n"
    monkeypatch.setitem(CORES, "minimal", page_core(lambda source: source.replace(reset, "")))
    with pytest.raises(AssertionError):
        check_page_core()


# The GRU's fused cells against its definition.


def draw_gru(length, lanes, width, first=0.3, scale=1.0):
    """input_gates, is_first, state, weight, bias"""
    torch.manual_seed(length)
    gates, state = torch.randn(length, lanes, 3 * width) * scale, torch.randn(lanes, width)
    weight, bias = torch.randn(3 * width, width) / math.sqrt(width), torch.randn(width)
    return gates, torch.rand(length, lanes) < first, state, weight, bias


def gru_gradients(unroll, gates, is_first, state, weight, bias, output_grad):
    gates, weight, bias = (x.clone().requires_grad_() for x in (gates, weight, bias))
    outputs, last = unroll(gates.clone(), is_first, state, weight, bias)
    grads = torch.autograd.grad((outputs * output_grad).sum(), (gates, weight, bias))
    return [x.detach() for x in (outputs, last, *grads)]


@pytest.mark.parametrize("scale", [1.0, 6.0])
@pytest.mark.parametrize("first", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_fused_gru_is_its_definition(size, first, scale):
    case = draw_gru(*size, first=first, scale=scale)
    output_grad = torch.randn(size)
    fused = gru_gradients(gru._Unroll.apply, *case, output_grad)
    exact = [x.double() if x.is_floating_point() else x for x in case]
    wanted = gru_gradients(gru.reference_unroll, *exact, output_grad.double())
    for name, one, two in zip(("outputs", "last", "gates", "weight", "bias"), fused, wanted, strict=True):
        assert float((one - two).abs().max()) < 1e-5 * max(1.0, float(two.abs().max())), name


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_gru_is_torchs_own(size):
    length, lanes, width = size
    torch.manual_seed(0)
    theirs, ours = torch.nn.GRU(11, width, num_layers=2), GRU(11, width, 2)
    for layer in range(2):
        biases = getattr(theirs, f"bias_ih_l{layer}"), getattr(theirs, f"bias_hh_l{layer}")
        ours.input_weight[layer].data = getattr(theirs, f"weight_ih_l{layer}").data
        ours.hidden_weight[layer].data = getattr(theirs, f"weight_hh_l{layer}").data
        ours.bias[layer].data = biases[0].data.clone()
        ours.bias[layer].data[: 2 * width] += biases[1].data[: 2 * width]
        ours.candidate_bias[layer].data = biases[1].data[2 * width :]
    x, state = torch.randn(length, lanes, 11), torch.randn(2, 1, lanes, width)
    wanted, hidden = theirs(x, state[:, 0].contiguous())
    got, last = ours(x, torch.zeros(length, lanes, dtype=torch.bool), state)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(last[:, 0], hidden, rtol=1e-5, atol=2e-6)


def test_a_gru_step_hand_worked():
    # Gates 0, state 1, W 0, b 2: r = z = 1/2, n = tanh(0 + 1/2 * 2) = .761594, h = (n + 1) / 2 = .880797.
    # Where it is first, the state is 0: h = n / 2 = .380797.
    gates, state, weight, bias = (
        torch.zeros(1, 1, 3),
        torch.ones(1, 1),
        torch.zeros(3, 1),
        torch.tensor([2.0]),
    )
    for unroll in (gru.reference_unroll, gru._Unroll.apply):
        for first, wanted in ((False, 0.880797), (True, 0.380797)):
            out, last = unroll(gates.clone(), torch.tensor([[first]]), state, weight, bias)
            assert out.item() == last.item() == pytest.approx(wanted, abs=1e-6)


# Broken kernels: the comparison above must see each of them.


def reset_never(is_first, hidden, hidden_in):
    hidden_in[...] = hidden


def reset_after_use(is_first, hidden, hidden_in):
    hidden_in[...] = hidden
    hidden[is_first] = 0


def backward_through_resets(grad, grad_next, first_next, *rest, original=gru_kernels.backward):
    original(grad, grad_next, np.zeros_like(first_next), *rest)


def backward_without_the_direct_way(*args, original=gru_kernels.backward):
    original(*args)
    args[-1][...] = 0


def backward_without_the_reset_gate(*args, original=gru_kernels.backward):
    original(*args)
    args[7][:, -args[5].shape[1] :] = args[6][:, -args[5].shape[1] :]


@pytest.mark.parametrize(
    ("kernel", "broken"),
    [
        ("reset", reset_never),
        ("reset", reset_after_use),
        ("backward", backward_through_resets),
        ("backward", backward_without_the_direct_way),
        ("backward", backward_without_the_reset_gate),
    ],
)
def test_broken_kernels_are_seen(monkeypatch, kernel, broken):
    monkeypatch.setattr(gru_kernels, kernel, broken)
    with pytest.raises(AssertionError):
        test_the_fused_gru_is_its_definition((16, 9, 33), 0.3, 1.0)


# The LSTM with layer normalisation against the paper's equations, number by number.


def norm(row, gain=None, shift=None):
    row = np.asarray(row)
    row = (row - row.mean()) / math.sqrt(row.var() + 1e-5)
    return row * (1 if gain is None else gain) + (0 if shift is None else shift)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_layer_norm_by_the_equations():
    core = make("lstm_layer_norm", num_layers=2).double()
    x, is_first, state = draw(core, 6, 3)
    with torch.no_grad():
        got, last = core(x.double(), is_first, state.double())
        weights = {name: p.numpy() for name, p in core.named_parameters()}
    for n in range(3):
        hidden, cell = state[:, 0, n].double().numpy().copy(), state[:, 1, n].double().numpy().copy()
        for t in range(6):
            below = x[t, n].double().numpy()
            for layer in range(2):
                w = {name.split(".")[0]: p for name, p in weights.items() if name.endswith(f".{layer}")}
                if is_first[t, n]:
                    hidden[layer], cell[layer] = 0, 0
                gates = norm(w["input_weight"] @ below, w["input_gain"]) + w["bias"]
                gates = gates + norm(w["hidden_weight"] @ hidden[layer], w["hidden_gain"])
                i, f, g, o = np.split(gates, 4)
                cell[layer] = sigmoid(f) * cell[layer] + sigmoid(i) * np.tanh(g)
                shown = norm(cell[layer], w["cell_gain"], w["cell_bias"])
                hidden[layer] = sigmoid(o) * np.tanh(shown)
                below = hidden[layer]
            np.testing.assert_allclose(got[t, n], below, rtol=0, atol=1e-12)
        np.testing.assert_allclose(last[:, 0, n], hidden, rtol=0, atol=1e-12)
        np.testing.assert_allclose(last[:, 1, n], cell, rtol=0, atol=1e-12)


def test_layer_norm_takes_the_inputs_size_away():
    core = make("lstm_layer_norm")
    x, is_first, state = draw(core, 4, 3)
    one, _ = core(x * 10, is_first, state)
    two, _ = core(x * 1000, is_first, state)
    torch.testing.assert_close(one, two, rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", [LSTM, LayerNormLSTM])
def test_memory_is_kept_at_first(kind):
    """Forget gates begin open: the bias there is 1."""
    bias = kind(3, 5, 1).bias[0]
    assert bias.tolist() == [0] * 5 + [1] * 5 + [0] * 10
