import json
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import compare
from benchmarks.compare import Contestant, Failed, Measured, Score

MIB = 2**20
RESULT = {"decisions_per_s": 50.0, "rows_per_s": 100.0, "settings": "num_envs 7"}


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    """Processes of tests live for a second or two."""
    monkeypatch.setattr(compare, "SAMPLE_SECONDS", 0.2)


def script(text, **more):
    return Contestant({"connect_four": ["-c", text]}, **more)


def prints(**result):
    return script(f"print('chatter')\nprint({json.dumps(RESULT | result)!r})")


def failure_of(contestant, workload="connect_four"):
    with pytest.raises(Failed) as caught:
        compare.measure(contestant, workload, 1.0)
    return str(caught.value)


def shown(scores, workload="connect_four"):
    console = Console(width=250)
    with console.capture() as capture:
        console.print(compare.table(workload, scores))
    return {line.split("│")[1].strip(): line for line in capture.get().splitlines() if line.count("│") > 2}


def test_the_last_line_is_the_result():
    measured = compare.measure(prints(), "connect_four", 1.0)
    assert (measured.decisions_per_s, measured.rows_per_s, measured.settings) == (50.0, 100.0, "num_envs 7")
    assert measured.floor is None


def test_seconds_are_handed_on():
    told = script("import sys, json\nprint(json.dumps({'decisions_per_s': float(sys.argv[-1])}))")
    assert compare.measure(told, "connect_four", 2.5).decisions_per_s == 2.5


def test_why_there_is_no_result():
    fails = script("import sys\nprint('first', file=sys.stderr)\nraise SystemExit('at last\\n')")
    assert failure_of(fails) == "failed with exit code 1: at last"
    left_out = script("import sys\nprint('no masks', file=sys.stderr)\nsys.exit(3)")
    assert failure_of(left_out) == "no masks"
    assert failure_of(script("print('no JSON')")) == "printed no result (JSONDecodeError)"
    assert failure_of(script("")) == "printed no result (IndexError)"
    assert failure_of(prints(), "cartpole") == "does not play this"
    assert "--install" in failure_of(script("", environment="no_such_environment"))


def test_a_process_that_does_not_end_is_ended():
    begun = time.monotonic()
    with pytest.raises(Failed, match="not done after 1 s"):
        compare.run([sys.executable, "-c", "import time; time.sleep(60)"], 1.0)
    assert time.monotonic() - begun < 20


# A child that holds 200 MiB, orphaned after half a second; it goes on after the process that is measured.
ORPHAN = f"import time; held = bytearray({200 * MIB}); print('held', flush=True); time.sleep(60)"
PARENT = f"""
import subprocess, sys, time
between = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', sys.argv[1]]); " \\
    "print(p.pid, flush=True); time.sleep(1)"
p = subprocess.Popen([sys.executable, "-c", between, {ORPHAN!r}], stdout=subprocess.PIPE, text=True)
print(p.stdout.readline())
p.wait()
time.sleep(1)
"""


def test_memory_is_that_of_the_whole_tree_without_ours():
    held_here = bytearray(b"1" * 400 * MIB)
    printed, memory = compare.run([sys.executable, "-c", PARENT], 30.0)
    assert 200 * MIB < memory < 300 * MIB
    orphan = int(printed.split()[0])
    stat = Path(f"/proc/{orphan}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"
    assert len(held_here) == 400 * MIB


def test_memory_is_the_most_at_any_time():
    freed = f"import time\nheld = bytearray({100 * MIB})\ntime.sleep(.6)\ndel held\ntime.sleep(.6)"
    assert compare.run([sys.executable, "-c", freed], 30.0)[1] > 100 * MIB


def test_an_orphan_is_counted_still(monkeypatch):
    """Its parent gone, it is a descendant by memory alone."""
    samples = []
    tree_memory = compare.ProcessTree.memory
    monkeypatch.setattr(
        compare.ProcessTree, "memory", lambda self: samples.append(tree_memory(self)) or samples[-1]
    )
    compare.run([sys.executable, "-c", PARENT], 30.0)
    assert samples[-1] > 200 * MIB  # a fifth of a second before the end: only the orphan and the root live


def test_a_failure_ends_nobody_elses_rounds_and_the_order_rotates(monkeypatch):
    asked = []

    def measure(contestant, workload, seconds):
        asked.append(contestant)
        if contestant == "b":
            raise Failed("broken")
        return Measured(1.0, 1.0, "", 0, None)

    monkeypatch.setattr(compare, "CONTESTANTS", {name: name for name in "abc"})
    monkeypatch.setattr(compare, "measure", measure)
    scores = compare.compare(["a", "b", "c"], "connect_four", 1.0, 3)
    assert asked == ["a", "b", "c", "c", "a", "c", "a"]
    assert [len(score.measured) for score in scores.values()] == [3, 0, 3]
    assert scores["b"].reason == "broken"


def test_table_by_hand(monkeypatch):
    ours, other = Contestant({}, ours=True), Contestant({})
    contestants = {"slow": ours, "fast": ours, "peer": other, "gone": other}
    monkeypatch.setattr(compare, "CONTESTANTS", contestants)
    scores = {
        "slow": Score([Measured(100.0, 100.0, "", 2**30, 1000.0)]),
        "fast": Score([Measured(speed, speed, "", 2**30, 1000.0) for speed in (150.0, 300.0, 210.0)]),
        "peer": Score([Measured(70.0, 140.0, "num_envs 7", 2**29, None)], "killed"),
        "gone": Score([], "not installed"),
    }
    rows = shown(scores)
    cells = [cell.strip() for cell in rows["fast"].split("│")[1:-1]]
    assert cells == ["fast", "210", "150 – 300", "", "1.00", "21.0%", "1.00", ""]
    cells = [cell.strip() for cell in rows["peer"].split("│")[1:-1]]
    settings = "num_envs 7; 1 measured, then: killed"
    assert cells == ["peer", "70", "70 – 70", "140", "3.00", "7.0%", "0.50", settings]
    assert "2.10" in rows["slow"]
    assert "not installed" in rows["gone"]


def test_whole_run_writes_every_measurement(monkeypatch, tmp_path, capsys):
    contestants = {"peer": prints(), "gone": script("raise SystemExit(3)")}
    monkeypatch.setattr(compare, "CONTESTANTS", contestants)
    file = tmp_path / "speeds.json"
    arguments = ["--workloads", "connect_four", "--contestants", "peer", "gone", "--rounds", "2"]
    assert compare.main([*arguments, "--seconds", "1", "--json", str(file)]) == 0
    found = json.loads(file.read_text())["workloads"]["connect_four"]
    assert [run["decisions_per_s"] for run in found["peer"]["measured"]] == [50.0, 50.0]
    assert found["gone"] == {"measured": [], "reason": "nothing on stderr"}
    assert "peer" in capsys.readouterr().out


def test_every_contestant_has_its_script_and_requirements():
    peers = compare.ROOT / "benchmarks" / "peers"
    for name, contestant in compare.CONTESTANTS.items():
        for arguments in contestant.arguments.values():
            if not contestant.ours:
                assert (peers / f"{arguments[1].rpartition('.')[2]}.py").exists(), name
        if contestant.environment:
            assert (peers / f"{contestant.environment}.txt").exists(), name
