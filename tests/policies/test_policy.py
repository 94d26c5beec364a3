"""Encoder, linear layer and the whole policy: one forward for acting and learning."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from policies.encoders.observation import ObservationInput
from policies.linear import linear, matmul_t, weight_gradient
from policies.policy import Policy, PolicySpec
from policies.spaces import leaves

SPACE = spaces.Dict(
    {
        "a": spaces.Discrete(4, start=-1),
        "b": spaces.Dict({"c": spaces.Box(-9, 9, (2, 2)), "d": spaces.MultiBinary(3)}),
        "e": spaces.Tuple((spaces.MultiDiscrete([2, 3]), spaces.Discrete(2))),
    }
)


def observation_input(space, normalize="off", cnn="small"):
    return ObservationInput(leaves(space), cnn=cnn, normalize=normalize)


def draw_obs(space, *shape):
    return {
        "a": torch.randint(-1, 3, shape),
        "b/c": torch.randn(*shape, 2, 2),
        "b/d": torch.randint(0, 2, (*shape, 3), dtype=torch.int8),
        "e/0": torch.stack((torch.randint(0, 2, shape), torch.randint(0, 3, shape)), dim=-1),
        "e/1": torch.randint(0, 2, shape),
    }


@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (3, 5, 7), (64, 17, 129), (257, 33, 8), (5, 1, 9)])
def test_linear_and_its_gradients(m, k, n):
    torch.manual_seed(m)
    x, weight, bias = torch.randn(m, k), torch.randn(n, k), torch.randn(n)
    grad = torch.randn(m, n)
    ours = [t.clone().requires_grad_() for t in (x, weight, bias)]
    theirs = [t.double().requires_grad_() for t in (x, weight, bias)]
    got = linear(*ours)
    wanted = torch.nn.functional.linear(*theirs)
    torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-5)
    for one, two in zip(
        torch.autograd.grad(got, ours, grad), torch.autograd.grad(wanted, theirs, grad.double()), strict=True
    ):
        torch.testing.assert_close(one.double(), two, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(matmul_t(x, weight), x @ weight.t(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weight_gradient(grad, x), grad.t() @ x, rtol=1e-5, atol=1e-4)


def test_linear_of_strided_views_and_of_data_alone():
    x, weight, bias = torch.randn(6, 10)[:, ::2], torch.randn(5, 7).t(), torch.zeros(7)
    torch.testing.assert_close(linear(x, weight, bias), x @ weight.t(), rtol=1e-5, atol=1e-5)
    weight = weight.contiguous().requires_grad_()
    out = linear(x, weight, bias)
    (grad,) = torch.autograd.grad(out.sum(), weight)  # a gradient expanded from one number
    torch.testing.assert_close(grad, torch.ones(7, 6) @ x, rtol=1e-5, atol=1e-5)


def test_one_hots_stand_side_by_side():
    # a: 0 of -1..2 -> place 1. b/c and b/d as they are. e/0: (1, 0). e/1: 1.
    obs = {
        "a": torch.tensor([0]),
        "b/c": torch.tensor([[[0.5, -2.0], [3.0, 4.0]]]),
        "b/d": torch.tensor([[1, 0, 1]], dtype=torch.int8),
        "e/0": torch.tensor([[1, 0]]),
        "e/1": torch.tensor([1]),
    }
    encoder = observation_input(SPACE)
    assert encoder.output_size == 4 + 4 + 3 + 5 + 2
    wanted = [0, 1, 0, 0] + [0.5, -2, 3, 4] + [1, 0, 1] + [0, 1] + [1, 0, 0] + [0, 1]
    got = encoder(obs).x
    assert got.dtype == torch.float32
    assert got.tolist() == [wanted]


def test_leaves_are_taken_by_name_not_by_order():
    obs = draw_obs(SPACE, 5)
    encoder = observation_input(SPACE)
    assert torch.equal(encoder(obs).x, encoder(dict(reversed(obs.items()))).x)


def make(core="lstm", num_layers=1, seed=0):
    torch.manual_seed(seed)
    spec = PolicySpec((12,), core=core, hidden_size=10, num_layers=num_layers)
    policy = Policy(SPACE, spaces.Discrete(5), spec)
    with torch.no_grad():
        policy.output_weight[:-1] *= 300
    return policy


@pytest.mark.parametrize("core", ["lstm", "none"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_steps_one_by_one_are_the_unroll(core, num_layers):
    policy = make(core, num_layers)
    policy.value_mean.fill_(3.0)
    policy.value_std.fill_(7.0)
    length, lanes = 11, 6
    layers, vectors, units = policy.state_shape
    obs, is_first = draw_obs(SPACE, length, lanes), torch.rand(length, lanes) < 0.2
    state = torch.randn(layers, vectors, lanes, units)
    with torch.no_grad():
        whole = policy.unroll(obs, is_first, state)
        for t in range(length):
            out = policy.step({path: leaf[t] for path, leaf in obs.items()}, is_first[t], state)
            torch.testing.assert_close(out.head.flat, whole.head.flat[t], rtol=1e-5, atol=2e-5)
            torch.testing.assert_close(out.value, whole.value[t], rtol=1e-5, atol=2e-5)
            state = out.state
    torch.testing.assert_close(state, whole.state, rtol=1e-5, atol=5e-6)


def test_rows_do_not_see_each_other():
    policy = make(num_layers=2)
    obs, is_first, state = draw_obs(SPACE, 7), torch.rand(7) < 0.5, torch.randn(2, 2, 7, 10)
    out = policy.step(obs, is_first, state)
    for row in range(7):
        alone = policy.step(
            {path: leaf[row : row + 1] for path, leaf in obs.items()},
            is_first[row : row + 1],
            state[:, :, row : row + 1],
        )
        torch.testing.assert_close(alone.head.flat[0], out.head.flat[row], rtol=1e-5, atol=2e-5)
        torch.testing.assert_close(alone.state[:, :, 0], out.state[:, :, row], rtol=1e-5, atol=2e-6)


def test_the_value_is_in_units_of_reward():
    policy = make()
    obs, first, state = draw_obs(SPACE, 4), torch.ones(4, dtype=torch.bool), torch.zeros(1, 2, 4, 10)
    raw = policy.step(obs, first, state).value
    policy.value_mean.fill_(-2.0)
    policy.value_std.fill_(0.5)
    torch.testing.assert_close(policy.step(obs, first, state).value, raw * 0.5 - 2.0)
    assert {"value_mean", "value_std"} <= set(policy.state_dict())


def test_first_play_is_near_uniform():
    torch.manual_seed(1)
    policy = Policy(SPACE, spaces.Discrete(5), PolicySpec())
    state = torch.zeros(1, 2, 64, 128)
    out = policy.step(draw_obs(SPACE, 64), torch.ones(64, dtype=torch.bool), state)
    assert (out.head.flat.softmax(-1) - 0.2).abs().max() < 0.01
    assert out.value.std() > 1e-3


def test_gradients_of_the_whole_policy():
    policy, exact = make(num_layers=2), make(num_layers=2).double()
    obs, is_first, state = draw_obs(SPACE, 6, 4), torch.rand(6, 4) < 0.3, torch.randn(2, 2, 4, 10)
    weight = torch.randn(6, 4, 5)
    grads = []
    for network, kind in ((policy, torch.float32), (exact, torch.float64)):
        x = network.encoder(
            network.input({k: v.reshape(24, *v.shape[2:]) for k, v in obs.items()}).x.to(kind)
        )
        hidden, _ = network.core(x.reshape(6, 4, -1), is_first, state.to(kind))
        y = linear(hidden.reshape(24, -1), network.output_weight, network.output_bias).reshape(6, 4, -1)
        loss = (y[..., :-1] * weight).sum() + y[..., -1].sum()
        grads.append(torch.autograd.grad(loss, list(network.parameters())))
    out = policy.unroll(obs, is_first, state)
    loss = (out.head.flat * weight).sum() + out.value.sum()
    grads.append(torch.autograd.grad(loss, list(policy.parameters())))
    for one, wanted, whole in zip(*grads, strict=True):
        scale = max(1.0, float(wanted.abs().max()))
        assert float((one - wanted).abs().max()) < 2e-5 * scale
        assert float((whole - wanted).abs().max()) < 2e-5 * scale


def test_state_shapes():
    assert make("lstm", 2).state_shape == (2, 2, 10)
    layers, vectors, units = make("none").state_shape
    assert np.prod((layers, vectors, units)) == 0
