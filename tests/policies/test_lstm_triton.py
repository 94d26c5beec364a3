"""The CUDA unroll against the definition; its kernels run in Triton's interpreter, on a CPU."""

import importlib.util
import math

import pytest
import torch

from policies.lstm import reference_unroll, unroll_for

pytest.importorskip("triton", reason="Triton comes with CUDA builds of torch")

SIZES = [(1, 1, 1), (2, 3, 5), (7, 5, 16), (4, 9, 33), (3, 2, 600)]  # T, N, H


@pytest.fixture(scope="module")
def interpreted():
    """The module anew, with its kernels interpreted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        spec = importlib.util.find_spec("policies.lstm_triton")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def draw(length, lanes, width, first=0.3):
    """input_gates, is_first, state, weight, bias, gradient of the outputs"""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    is_first = torch.rand(length, lanes, generator=generator) < first
    gates, state = normal(length, lanes, 4 * width), normal(2, lanes, width)
    weight, bias = normal(4 * width, width) / math.sqrt(width), normal(4 * width)
    return gates, is_first, state, weight, bias, normal(length, lanes, width)


def gradients(unroll, gates, is_first, state, weight, bias, output_grad):
    gates, weight, bias = (x.clone().requires_grad_() for x in (gates, weight, bias))
    outputs, last = unroll(gates.clone(), is_first, state, weight, bias)
    grads = torch.autograd.grad((outputs * output_grad).sum(), (gates, weight, bias))
    return [x.detach() for x in (outputs, *last, *grads)]


def exact(*case):
    return gradients(reference_unroll, *(x.double() if x.is_floating_point() else x for x in case))


@pytest.mark.parametrize("first", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_values_and_gradients_are_those_of_the_definition(interpreted, size, first):
    case = draw(*size, first=first)
    found = gradients(interpreted.unroll, *case)
    names = ("outputs", "hidden", "cell", "grad gates", "grad weight", "grad bias")
    for name, got, wanted in zip(names, found, exact(*case), strict=True):
        assert got.dtype == torch.float32, name
        assert float((got - wanted).abs().max()) < 5e-6 * max(1.0, float(wanted.abs().max())), name


def test_bfloat16_gates_with_float32_cells(interpreted):
    gates, *rest, output_grad = draw(16, 4, 24)
    case = gates.bfloat16(), *rest, output_grad.bfloat16()
    found = gradients(interpreted.unroll, *case)
    wanted = exact(*(x.float() if x.is_floating_point() else x for x in case))
    types = [torch.bfloat16, torch.float32, torch.float32, torch.bfloat16, torch.float32, torch.float32]
    assert [x.dtype for x in found] == types
    for got, exactly in zip(found, wanted, strict=True):
        # A rounding is 2^-9 of the number, and the states send it on over 16 steps.
        assert float((got - exactly).abs().max()) < 0.03 * max(1.0, float(exactly.abs().max()))


def test_a_nan_before_a_reset_does_not_survive_it(interpreted):
    gates, is_first, state, *rest = draw(3, 2, 8, first=0.0)
    is_first[1], state[:, 0] = True, math.nan
    outputs, _, _, gates_grad, *_ = gradients(interpreted.unroll, gates, is_first, state, *rest)
    assert torch.isnan(outputs[0, 0]).all()
    assert torch.isfinite(outputs[1:]).all()
    assert torch.isfinite(gates_grad[1:]).all()
    is_first[0] = True
    again = gradients(interpreted.unroll, gates, is_first, state, *rest)
    assert all(torch.isfinite(x).all() for x in again)


def test_states_given_are_not_written(interpreted):
    gates, is_first, state, weight, bias, _ = draw(3, 2, 8)
    before = state.clone()
    interpreted.unroll(gates, is_first, state, weight, bias)
    assert torch.equal(state, before)


def test_it_is_what_cuda_unrolls_with():
    cuda = torch.device("cuda")
    assert unroll_for(cuda, torch.float32).__module__ == "policies.lstm_triton"
    assert unroll_for(cuda, torch.float64) is reference_unroll


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_kernels_compile_for_nvidia_without_one(dtype, tmp_path, monkeypatch):
    # The interpreter takes more Python than the compiler does; sm_80 is an A100's, sm_90 an H100's.
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from policies import lstm_triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    half = ("gates", "hidden_gates", "hidden", "grad_output", "grad_next", "grad_gates")
    flags = ("is_first", "is_first_next")
    constants = {"width": 128, "block": lstm_triton.BLOCK}
    for kernel in (lstm_triton._forward, lstm_triton._backward):
        types = {name: "*" + dtype if name in half else "*fp32" for name in kernel.arg_names}
        types |= {name: "*u8" for name in flags if name in types} | {"size": "i32"}
        types |= dict.fromkeys(constants, "constexpr")
        for capability in (80, 90):
            target = GPUTarget("cuda", capability, 32)
            assert compile(ASTSource(kernel, types, constexprs=constants), target=target).asm["cubin"]
