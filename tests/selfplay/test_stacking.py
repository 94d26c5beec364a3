"""Policies in one stacked forward decide as they do one after another; on a CPU by the functions of CUDA."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from policies import categorical, gru, lstm, lstm_layer_norm, policy
from policies.encoders import mlp
from policies.policy import Policy, PolicySpec
from policies.spaces import leaves
from selfplay.players import PolicyPlayer
from selfplay.stacking import Rows, Stack

OBS = spaces.Dict({"vector": spaces.Box(-9, 9, (3,)), "kind": spaces.Discrete(4)})
ACTIONS = {
    "categorical": spaces.Discrete(5),
    "box": spaces.Box(-2, 3, (2,)),
    "composite": spaces.Dict({"kind": spaces.Discrete(3), "aim": spaces.Box(-2, 9, (2,))}),
}


@pytest.fixture
def as_on_cuda(monkeypatch):
    """torch's own functions in place of the CPU's kernels."""

    def linear(x, weight, bias=None, *, relu=False):
        y = torch.nn.functional.linear(x, weight, bias)
        return torch.relu(y) if relu else y

    monkeypatch.setattr(gru._Unroll, "apply", gru.reference_unroll)
    for module in (policy, mlp, lstm, lstm_layer_norm, gru):
        monkeypatch.setattr(module, "linear", linear)
    monkeypatch.setattr(categorical, "draw", categorical._draw_by_sums)


def draw_rows(network, action_space, rows, seed):
    rng = np.random.default_rng(seed)
    obs = {"vector": rng.normal(size=(rows, 3)).astype(np.float32), "kind": rng.integers(0, 4, rows)}
    mask = {}
    if isinstance(action_space, spaces.Discrete):
        mask[""] = rng.random((rows, 5)) < 0.5
        mask[""][:, 0] = True
    layers, vectors, width = network.state_shape
    state = rng.normal(size=(layers, vectors, rows, width)).astype(np.float32)
    uniform = rng.random((rows, network.head.num_uniforms), dtype=np.float32)
    return Rows(obs, mask, rng.random(rows) < 0.3, state, uniform)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of log_ndtr under vmap
@pytest.mark.parametrize("core", ["lstm", "gru", "lstm_layer_norm"])
@pytest.mark.parametrize("head", ACTIONS)
def test_decisions_are_those_of_one_after_another(as_on_cuda, head, core):
    torch.manual_seed(0)
    spec = PolicySpec((16,), core, 9, 2)
    policies = [Policy(OBS, ACTIONS[head], spec) for _ in range(3)]
    for k, each in enumerate(policies):
        each.value_mean.fill_(k)  # buffers are each one's own too
        with torch.no_grad():
            each.output_weight *= 30
    rows = [draw_rows(policies[0], ACTIONS[head], size, size) for size in (4, 7, 1)]
    found = Stack(policies).decide(rows)
    for each, own, got in zip(policies, rows, found, strict=True):
        wanted = PolicyPlayer(each).decide(*own)
        assert set(got.action) == set(leaves(ACTIONS[head]))
        for path, action in wanted.action.items():
            assert got.action[path].dtype == action.dtype
            np.testing.assert_allclose(got.action[path], action, rtol=1e-5, atol=1e-6)
        for name in ("logp", "value", "state"):
            assert getattr(got, name).shape == getattr(wanted, name).shape
            np.testing.assert_allclose(getattr(got, name), getattr(wanted, name), rtol=1e-4, atol=1e-5)
