"""What is written for a CUDA device, on one: `make test ARGS="-m gpu"`."""

import threading

import numpy as np
import pytest
import torch

from benchmarks import gpu
from policies.lstm import reference_unroll, unroll_for
from selfplay.config import PPOConfig
from selfplay.inference.channel import Channel, make_fields
from selfplay.inference.player import RemotePlayer
from selfplay.inference.server import InferenceServer
from selfplay.learner import Learner
from selfplay.players import PolicyPlayer
from selfplay.stacking import Stack
from selfplay.transfer import to_device, to_host

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
CUDA = torch.device("cuda")


def gradients(unroll, gates, is_first, state, weight, bias, output_grad):
    gates, weight, bias = (x.clone().requires_grad_() for x in (gates, weight, bias))
    outputs, last = unroll(gates.clone(), is_first, state, weight, bias)
    grads = torch.autograd.grad((outputs * output_grad).sum(), (gates, weight, bias))
    return [x.detach().double() for x in (outputs, *last, *grads)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize("size", [(16, 64, 128), (5, 3, 33), (1, 257, 1024)], ids=str)
def test_tritons_unroll_is_the_definition(size, dtype, tolerance):
    torch.backends.cuda.matmul.allow_tf32 = False
    length, lanes, width = size
    torch.manual_seed(0)
    gates = torch.randn(length, lanes, 4 * width, device=CUDA).to(dtype)
    is_first = torch.rand(length, lanes, device=CUDA) < 0.3
    state, weight = torch.randn(2, lanes, width, device=CUDA), torch.randn(4 * width, width, device=CUDA)
    weight, output_grad = weight / width**0.5, torch.randn(*size, device=CUDA).to(dtype)
    bias = torch.randn(4 * width, device=CUDA)
    fused = unroll_for(CUDA, torch.float32)
    assert fused is not reference_unroll, "this torch has no Triton"
    found = gradients(fused, gates, is_first, state, weight, bias, output_grad)
    exact = (gates, is_first, state, weight, bias, output_grad)
    exact = (x.double() if x.is_floating_point() else x for x in exact)
    for got, wanted in zip(found, gradients(reference_unroll, *exact), strict=True):
        assert float((got - wanted).abs().max()) < tolerance * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize("ppo", [{}, {"autocast": True}, {"magnet_coef": 0.1, "normalize_value": True}])
def test_an_update_by_graphs_is_the_update_without(ppo):
    config = PPOConfig(num_minibatches=2, epochs=2, **ppo)
    learners = [Learner(gpu.make_policy(64, "cuda"), config, seed=0) for _ in range(2)]
    learners[1].graphed = None
    fragment = gpu.make_fragment(32, learners[0].policy)
    for _ in range(3):
        one, two = (learner.update([fragment]) for learner in learners)
        for name, value in two.items():
            assert one[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    for name, weight in learners[1].weights().items():
        np.testing.assert_allclose(learners[0].weights()[name], weight, rtol=1e-3, atol=1e-5, err_msg=name)


def test_arrays_go_there_and_back():
    rng = np.random.default_rng(0)
    for _ in range(20):  # so that pinned memory is used again while copies are under way
        arrays = [rng.normal(size=(1000, k)).astype(np.float32) for k in (1, 300)] + [rng.random(7) < 0.5]
        for array, back in zip(arrays, to_host([to_device(x, CUDA) for x in arrays]), strict=True):
            np.testing.assert_array_equal(back, array)


def check_decisions(found, wanted):
    same = found.action[""] == wanted.action[""]
    assert same.mean() > 0.99  # a draw may fall on the other side of a rounding
    np.testing.assert_allclose(found.logp[same], wanted.logp[same], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.value, wanted.value, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.state, wanted.state, rtol=1e-3, atol=1e-4)


def test_a_player_decides_as_on_the_cpu():
    policy = gpu.make_policy(64, "cpu")
    rows = gpu.make_rows(500, policy)
    wanted = PolicyPlayer(policy).decide(*rows)
    check_decisions(PolicyPlayer(gpu.make_policy(64, "cuda")).decide(*rows), wanted)


def test_stacked_policies_decide_as_one_after_another():
    policies = [gpu.make_policy(64, "cuda", seed) for seed in range(3)]
    rows = [gpu.make_rows(size, policies[0], size) for size in (200, 50, 1)]
    for policy, own, found in zip(policies, rows, Stack(policies).decide(rows), strict=True):
        check_decisions(found, PolicyPlayer(policy).decide(*own))


def test_a_server_on_the_gpu_decides_as_the_worker():
    policy = gpu.make_policy(64, "cpu")
    server = InferenceServer({"all": policy}, "cuda")
    thread = threading.Thread(target=server.serve)
    thread.start()
    channel = Channel(server.path, "all", make_fields(policy, gpu.GAME), 300)
    player = RemotePlayer(channel, policy, "main")
    player.load({name: x.numpy() for name, x in policy.state_dict().items()}, 0)
    rows = gpu.make_rows(500, policy)
    found, wanted = (each.act(*rows[:4], np.random.default_rng(5)) for each in (player, PolicyPlayer(policy)))
    check_decisions(found, wanted)
    channel.close()
    server.stop()
    thread.join()
