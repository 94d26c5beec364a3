"""Scale: what is asked for, how it is laid out, and the extrapolation by hand."""

import json

import pytest

from benchmarks.scale import __main__ as scale
from benchmarks.scale import costs, league, sweeps

REPORT = {
    "seconds": 6.0,
    "iterations": 3,
    "floor_share": 0.25,
    "split": {phase: {"seconds": 0.3, "share": 0.05} for phase in sweeps.PHASES},
}


@pytest.fixture
def speeds(monkeypatch):
    """Decisions a second that each call of `selfplay bench` reports, by a word of its command line."""
    commands, given = [], {}

    def run(command, limit):
        commands.append(command)
        speed = next(speed for word, speed in given.items() if word in command)
        return f"chatter\n{json.dumps(REPORT | {'decisions_per_s': speed})}\n", 2**30

    monkeypatch.setattr(sweeps, "run", run)
    monkeypatch.setattr(sweeps, "num_cores", lambda: 2)
    return given, commands


def cells(text):
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in row] for row in rows]
    return {row[0]: dict(zip(head, row)) for row in rows}


def test_rounds_gather_in_the_file(speeds, tmp_path, capsys):
    given, commands = speeds
    file = tmp_path / "scale.json"
    arguments = ["--axis", "cores", "--values", "1", "2", "--rounds", "1", "--json", str(file)]
    given |= {"0-0": 100.0, "0-1": 150.0}
    scale.main(arguments)
    given |= {"0-0": 200.0, "0-1": 250.0}
    scale.main(arguments)
    assert [command[:3] for command in commands[:2]] == [["taskset", "--cpu-list", f"0-{k}"] for k in (0, 1)]
    assert all(commands[k][-2:] == ["--rollout.num-workers", str(k + 1)] for k in (0, 1))
    found = json.loads(file.read_text())["cores"]
    assert [report["decisions_per_s"] for report in found["2"]] == [150.0, 250.0]
    rows = cells(capsys.readouterr().out.rpartition("**")[2])
    assert rows["2"]["decisions/s"] == "200"
    assert rows["2"]["lowest – highest"] == "150 – 250"
    assert (rows["1"]["step"], rows["2"]["step"]) == ("", "67%")  # 200 of 2 cores, 150 of one
    assert (rows["2"]["ms"], rows["2"]["learning"], rows["2"]["GiB"]) == ("2,000", "100", "1.0")


def test_minibatches_keep_their_size():
    for games in sweeps.AXES["games"].values:
        options = sweeps.AXES["games"].point(games).options
        assert 2 * games / int(options[-1]) == sweeps.LANES


def test_league_counts_what_was_made_up(monkeypatch):
    monkeypatch.setattr(league, "SIZES", ((3, 2), (5, 2)))
    found = {}
    scale.measure("pool", None, 1.0, found)
    scale.measure("pool", None, 1.0, found)
    text = scale.table("pool", found["pool"])
    assert [line.split("|")[1].strip() for line in text.splitlines()[4:]] == ["3", "5"]
    assert all(seconds > 0 for spent in found["pool"][0] for seconds in spent)
    with league.opened(3) as opened:
        assert len([player for player in opened.players() if player.kind == "snapshot"]) == 3


COSTS = costs.Costs(
    batch=1000,
    play_speed=100,
    learn_speed=300,
    matches=0.1,
    fragment_bytes=50,
    weights_bytes=600,
    state_bytes=2000,
    minibatches=5,
    call=0.01,
    round_trip=0.001,
    put=1e-3,
    get=1,
    move=1,
    fetch=0.5,
    match=1e-5,
    commit=0.2,
    rating=4 * 64,
    rated=64,
    snapshot_iterations=8,
)


def test_extrapolation_by_hand():
    # Of 128 cores 96 play, at 9,600 decisions/s, which 32 learn; an iteration takes 10 s; two machines.
    found = [load.amount for load in costs.loads(COSTS, 128)]
    assert found == pytest.approx(
        [96, 9600, 96_000, 480_000, 120, 1200, 960, 0.096, 0.0096, 4.8, 0.02, 0.05, 192_000, 3.2]
    )


def test_the_driver_is_full_where_its_time_is():
    rows = [line for line in costs.table(COSTS).splitlines() if "calls" in line]
    assert rows[0].endswith("| 1,333 |")  # 1,000 workers that take 10 ms each of 10 s


def test_middle_and_prefixes():
    assert costs.middle([COSTS, COSTS._replace(batch=4), COSTS._replace(batch=8)]).batch == 8
    assert [costs.shown(x) for x in (0, 1.5, 999, 12_345, 2.5e9, 3e-3, 4.2e-7)] == [
        "0", "1.5", "999", "12.3 k", "2.5 G", "3 m", "420 n",
    ]  # fmt: skip


def test_pickled_counts_arrays_and_the_rest():
    import numpy as np

    assert 4000 < costs.pickled({"x": np.zeros(1000, np.float32)}) < 4300


@pytest.mark.slow
@pytest.mark.ray
def test_costs_of_a_small_run():
    small = {"rollout.num_games": 16, "ppo.num_minibatches": 4, "policy.hidden_size": 8}
    measured = costs.measure(0.1, small | {"policy.encoder": [8], "league.rating_games": 4})
    assert all(value > 0 for value in measured)
    assert measured.batch == pytest.approx(16 * 16, rel=0.2)
