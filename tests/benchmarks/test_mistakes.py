"""What a user gets wrong in a benchmark is one line, and exit code 2."""

import runpy
import sys

import pytest


@pytest.mark.parametrize(
    ("benchmark", "arguments"),
    [
        ("curve", ["nonsense", "--output", "curve.png"]),
        ("game_speed", ["nonsense"]),
        ("learners", ["nonsense"]),
        ("overlap", ["nonsense"]),
        ("profile_iteration", ["nonsense"]),
        ("slow_games", ["pettingzoo:nonsense"]),
        ("variants", ["nonsense", "--against", "--seed", "1"]),
        ("variants", ["connect_four", "--nonsense", "1"]),
        ("variants", ["connect_four", "--rounds", "1"]),
        ("variants", ["connect_four", "--against", "--rollout.num-games", "7"]),
        ("slow_games", ["openspiel:yacht", "--set", "rollout.num_games=7"]),
    ],
)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_mistakes_are_told_in_a_line(monkeypatch, capsys, tmp_path, benchmark, arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [benchmark, *arguments])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module(f"benchmarks.{benchmark}", run_name="__main__")
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert any(word in line for word in ("nonsense", "rounds", "rollout.num_games=7"))
