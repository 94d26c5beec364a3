"""The GPU's benchmark, on a CPU and tiny."""

import json

import pytest

from benchmarks import gpu
from selfplay import floor


def test_every_part_gives_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "QUICK", gpu.QUICK._replace(workers=1))  # each a process that imports all
    file = tmp_path / "gpu.json"
    rows = gpu.main(
        ["--device", "cpu", "--quick", "--json", str(file), "--parts", "learner", "copies", "stacks"]
    )
    rows += gpu.main(["--device", "cpu", "--quick", "--parts", "acting", "server"])
    assert {row["what"].split()[-1] for row in rows} >= {"learn", "act", "ask", "turn", "there", "back"}
    for row in rows:
        assert row.get("decisions_per_s", 1) > 0
        assert 0 < row.get("floor_share", 1) < 2
    assert len(json.loads(file.read_text())["rows"]) == len(rows) - 2


def test_products_of_a_gradient_by_hand():
    # 84 inputs -> 8 -> 4 x 8 gates from 8 inputs and 8 units -> 7 logits and a value, of 16 x 5 decisions;
    # nobody wants the gradient of the observation, and that of the state at t = 0 is data.
    counted = gpu.counted(8, 5)
    assert isinstance(counted, floor.Count)
    encoder, gates, hidden, heads = 84 * 8, 8 * 32, 8 * 32, 8 * 8
    whole = 2 * encoder + 3 * (gates + hidden + heads)
    assert counted.flops == pytest.approx(2 * 16 * 5 * whole, rel=0.02)


def test_training_is_measured_too():
    (row,) = gpu.main(["--device", "cpu", "--quick", "--parts", "whole"])
    assert row["decisions_per_s"] > 0
