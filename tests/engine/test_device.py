"""Where learners stay, and in which precision they can learn there."""

import pytest

from policies import gemm, linear
from selfplay import cli, config
from selfplay.engine import choose_device, make_learners
from selfplay.errors import UserError
from selfplay.run_directory import RunDirectory


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


@pytest.mark.skipif(not gemm.AVAILABLE, reason="kernels cannot call the GEMM that is used here")
def test_a_run_in_bfloat16_goes_on_without_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gemm, "HALF", True)  # MKL has the product for other processors too, only slower
    small = ["--rollout.num-games=16", "--rollout.fragment-length=4", "--policy.encoder=8"]
    small += ["--policy.hidden-size=4", "--league.rating-games=2", "--rollout.num-workers=0"]
    losses = []
    for half in ("true", "false"):
        folder = tmp_path / half
        argv = [
            "connect_four",
            *small,
            "--ppo.autocast",
            half,
            "--stop.iterations=2",
            "--run-dir",
            str(folder),
        ]
        assert cli.main(["train", *argv]) == 0
        losses.append([row["loss/value"] for row in RunDirectory.open(folder).metrics()])
    (begun, half_loss), (also_begun, loss) = losses
    assert begun == pytest.approx(also_begun, rel=0.02)
    assert (begun, half_loss) != (also_begun, loss)

    resume = ["train", "--resume", str(tmp_path / "true"), "--stop.iterations=3"]
    monkeypatch.setattr(gemm, "HALF", False)
    assert cli.main(resume) == 2
    assert "a CPU with AMX, which is not here; set it to false" in capsys.readouterr().err
    assert cli.main([*resume, "--ppo.autocast", "false"]) == 0
    # What is refused leaves the run as it was told before.
    assert cli.main([*resume[:-1], "--stop.iterations=4", "--ppo.autocast", "true"]) == 2
    assert not RunDirectory.open(tmp_path / "true").config.ppo.autocast
    assert [row["iteration"] for row in RunDirectory.open(tmp_path / "true").metrics()] == [1, 2, 3]
