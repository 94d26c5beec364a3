"""Where a learner stays, and in which precision it can learn there."""

import pytest

from policies import gemm
from selfplay import config
from selfplay.engine import choose_device
from selfplay.errors import UserError


def half(**overrides):
    return config.load("connect_four", {"ppo.autocast": True, **overrides})


def test_where_there_is_a_gpu():
    assert choose_device(half(), has_gpu=True) == "cuda"
    assert choose_device(config.load("connect_four", {}), has_gpu=False) == "cpu"
    with pytest.raises(UserError, match="device=cuda, but no CUDA device is visible"):
        choose_device(half(device="cuda"), has_gpu=False)


def test_a_cpu_without_units_for_bfloat16_is_refused(monkeypatch):
    monkeypatch.setattr(gemm, "HALF", False)
    for options in ({}, {"device": "cpu"}):
        with pytest.raises(UserError, match="needs a CUDA device, or a processor with AMX"):
            choose_device(half(**options), has_gpu=bool(options))


@pytest.mark.parametrize(
    "network",
    [{"policy.core": "gru"}, {"policy.critic": "separate"}, {"ppo.magnet_coef": 1}, {"env.id": "signalling"}],
    ids=str,
)
def test_networks_that_only_autograd_knows_are_refused_on_a_cpu(monkeypatch, network):
    monkeypatch.setattr(gemm, "HALF", True)
    assert choose_device(half(), has_gpu=False) == "cpu"
    with pytest.raises(UserError, match=r"on a CPU the network of \w+ cannot learn in bfloat16"):
        choose_device(half(**network), has_gpu=False)
