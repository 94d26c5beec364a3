"""What runs on CUDA, with tensors that only say that they lie there: whoever mixes devices fails.

It needs torch built for CUDA and no GPU. Neither numbers nor the backward pass exist here.
"""

import copy

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from benchmarks import gpu
from policies import lstm
from policies.encoders import images
from policies.policy import Policy, PolicySpec
from selfplay import learner as learning
from selfplay import players
from selfplay.config import PPOConfig
from selfplay.cuda_graphs import GraphedGradients
from selfplay.learner import Learner
from selfplay.optim import clip_gradient_
from tests.selfplay.test_cuda_graphs import NETWORKS, OBS, make_batch

pytestmark = pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="torch is built without CUDA")

LANES = 6


def moved(module, *_):
    """`Module.to` as it would be: torch's own cannot put fake tensors in place."""
    for each in module.modules():
        for name, param in each._parameters.items():
            each._parameters[name] = None if param is None else torch.nn.Parameter(param.detach().to("cuda"))
        for name, buffer in each._buffers.items():
            each._buffers[name] = None if buffer is None else buffer.to("cuda")
    return module


def no_gradients(loss, params):
    assert loss.is_cuda
    return [torch.zeros_like(param) for param in params]


def sent(array, device):
    assert device.type == "cuda"
    return torch.as_tensor(array).to("cuda")


def fetched(tensors):
    assert all(x.is_cuda for x in tensors)
    return [np.zeros(x.shape, np.float32) for x in tensors]


def unrecorded(graphed, batch, lanes, entropy_coef):
    assert lanes.is_cuda
    return graphed._gradients(batch.lanes(lanes), batch.logp.new_tensor(entropy_coef))


@pytest.fixture(autouse=True)
def fake_cuda(monkeypatch):
    """Tensors on CUDA without a device, copies to and from it, numbers that are asked for, autocast."""
    mode = FakeTensorMode()
    monkeypatch.setattr(learning.copy, "deepcopy", lambda x, real=copy.deepcopy: real(x, {id(mode): mode}))
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr(torch.autograd, "grad", no_gradients)
    monkeypatch.setattr(torch.nn.Module, "to", moved)
    monkeypatch.setattr(lstm, "unroll_for", lambda *_: lstm.reference_unroll)
    monkeypatch.setattr(learning, "to_device", sent)
    monkeypatch.setattr(players, "to_device", sent)
    monkeypatch.setattr(players, "to_host", fetched)
    monkeypatch.setattr(GraphedGradients, "__call__", unrecorded)
    monkeypatch.setattr(torch.Tensor, "__float__", lambda x: 0.5)
    monkeypatch.setattr(FakeTensor, "tolist", lambda x: np.zeros(x.shape).tolist())
    with mode:
        yield


@pytest.mark.parametrize(
    "ppo",
    [
        {"autocast": True, "grad_clip_sigma": None},
        {"advantage": "vtrace", "epochs": 2},
        {"magnet_coef": 0.1, "magnet_iterations": 1, "normalize_value": True, "normalize_reward": True},
    ],
    ids=str,
)
def test_updates_and_decisions(ppo):
    rows = gpu.make_rows(LANES, policy := gpu.make_policy(16, "cpu"))
    fragment = gpu.make_fragment(8, policy)
    learner = Learner(policy.to("cuda"), PPOConfig(num_minibatches=2, **ppo), seed=0)
    for _ in range(2):
        learner.update([fragment])
    player = players.PolicyPlayer(policy)
    assert player.decide(*rows).logp.shape == (LANES,)
    assert player.value(rows.obs, rows.is_first, rows.state).shape == (LANES,)
    assert all(x.is_cuda for x in [*policy.state_dict().values(), learner.grads])


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("action_space", "spec", "ppo"), NETWORKS, ids=str)
def test_every_network(action_space, spec, ppo, half, monkeypatch):
    monkeypatch.setattr(images, "IMAGE_SIZE", 8)
    policy = Policy(OBS, action_space, PolicySpec(**{"encoder": (16,), "hidden_size": 16, **spec}))
    learner = Learner(policy.to("cuda"), PPOConfig(autocast=half, **ppo), seed=0)
    batch = make_batch(policy, action_space, lambda array: sent(array, learner.device), LANES)
    row = learner._shared_gradients(batch, None, torch.arange(4, device="cuda"), 0.1)
    learner.flat.grad = row[: len(learner.flat)]
    clip_gradient_(learner.flat, learner.second_moment, 5.0, norm=row[-2])

    out = policy.step({path: leaf[0] for path, leaf in batch.obs.items()}, batch.is_first[0], batch.state)
    legal = {path: leaf[0] for path, leaf in batch.mask.items()}
    for made, logp in (
        policy.head.sample(out.head, legal, torch.zeros(LANES, policy.head.num_uniforms, device="cuda")),
        policy.head.best(out.head, legal),
    ):
        assert all(x.is_cuda for x in (logp, *made.values()))


def test_devices_that_are_mixed_are_seen():
    with pytest.raises(RuntimeError, match="devices"):
        torch.zeros(3, device="cuda") + torch.zeros(3)
