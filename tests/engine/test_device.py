"""Where learners stay, and in which precision they can learn there."""

import pytest

from policies import gemm, linear
from selfplay import config
from selfplay.engine import choose_device, make_learners
from selfplay.errors import UserError


def half(**overrides):
    return config.load("connect_four", {"ppo.autocast": True, "policy.hidden_size": 8, **overrides})


def test_where_there_is_a_gpu():
    assert choose_device(config.load("connect_four", {}), has_gpu=True) == "cuda"
    assert choose_device(config.load("connect_four", {}), has_gpu=False) == "cpu"
    with pytest.raises(UserError, match="device=cuda, but no CUDA device is visible"):
        choose_device(half(device="cuda"), has_gpu=False)


def test_a_cpu_without_units_for_bfloat16_is_refused(monkeypatch):
    monkeypatch.setattr(gemm, "HALF", False)
    with pytest.raises(UserError, match="needs a CUDA device, or a CPU with AMX, which is not here"):
        make_learners(half(), "cpu", 1)
    make_learners(half(**{"ppo.autocast": False}), "cpu", 1)


@pytest.mark.parametrize(
    ("network", "why"),
    [
        ({"policy.core": "gru"}, "policy.core='gru'"),
        ({"policy.core": "lstm_layer_norm"}, "policy.core='lstm_layer_norm'"),
        ({"policy.critic": "separate"}, "policy.critic='separate'"),
        ({"ppo.magnet_coef": 0.1}, "ppo.magnet_coef=0.1"),
        ({"env.id": "pong"}, "actions of other kinds"),
    ],
    ids=str,
)
def test_networks_that_only_autograd_knows_are_refused_on_a_cpu(monkeypatch, network, why):
    monkeypatch.setattr(gemm, "HALF", True)
    make_learners(half(), "cpu", 1)
    with pytest.raises(UserError, match=f"the network of .* cannot learn in bfloat16, because of {why}"):
        make_learners(half(**network), "cpu", 1)


def test_what_a_processor_is_told_by(monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("vendor_id : GenuineIntel\nflags : fpu avx512f amx_bf16 amx_tile\n")
    monkeypatch.setattr(linear, "Path", lambda path: tmp_path / path.rpartition("/")[2])
    assert linear.processor_has("GenuineIntel")
    assert linear.processor_has("amx_bf16")
    assert not linear.processor_has("amx")
    (tmp_path / "cpuinfo").unlink()
    assert not linear.processor_has("GenuineIntel")
