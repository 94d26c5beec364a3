import json

import numpy as np
import pytest
import torch

from policies import gemm
from selfplay import bench, cli, config, floor
from selfplay.matches import MatchResults
from selfplay.worker import Collected

TINY = ["--rollout.num-games", "16", "--rollout.fragment-length", "4", "--rollout.num-workers", "0"]
TINY += ["--policy.encoder", "8", "--policy.hidden-size", "4", "--league.rating-games", "2"]


def tiny(**overrides):
    values = {"rollout.num_games": 16, "rollout.fragment_length": 4, "rollout.num_workers": 0}
    values |= {"policy.encoder": [8], "policy.hidden_size": 4}
    return config.load("connect_four", values | overrides)


# 84 inputs -> 8 -> 4 x 4 gates from 8 inputs and 4 units -> 7 logits and a value, in multiply-adds.
ENCODER, INPUT, HIDDEN, HEADS = 84 * 8, 8 * 16, 4 * 16, 4 * 8
FORWARD = ENCODER + INPUT + HIDDEN + HEADS
BACKWARD = ENCODER + 2 * (INPUT + HIDDEN + HEADS)  # nobody wants the gradient of the observation


def test_flops_of_a_small_network_by_hand():
    counted = floor.count_work(tiny(), 1, 1)
    assert counted.act_flops == 2 * FORWARD
    assert counted.learn_flops == 2 * (FORWARD + BACKWARD)


def test_what_an_update_repeats_is_counted_again():
    once = floor.count_work(tiny(), 1, 1)
    assert floor.count_work(tiny(**{"ppo.epochs": 3}), 1, 1).learn_flops == 3 * once.learn_flops
    magnet = floor.count_work(tiny(**{"ppo.magnet_coef": 0.1}), 1, 1)
    assert magnet.learn_flops == once.learn_flops + 2 * FORWARD
    shallow = floor.count_work(tiny(**{"policy.core": "none"}), 1, 1)
    assert shallow.act_flops == 2 * (ENCODER + 8 * 8)


def test_products_have_the_shapes_of_the_run():
    counted = floor.count_work(tiny(**{"ppo.num_minibatches": 2}), 2, 2)
    assert [gemm.x.shape for gemm in counted.act] == [(8, 84), (8, 8), (8, 4), (8, 4)]  # 16 games, 2 workers
    lanes = 16 * 2 // (2 * 2)  # games, seats; minibatches, threads
    assert counted.learn[0].x.shape == (4 * lanes, 84)
    assert counted.learn[2].x.shape == (lanes, 4)
    assert sum(gemm.flops for gemm in counted.learn) == counted.learn_flops * 4 * lanes


@pytest.mark.parametrize("multiply", [torch.nn.functional.linear, floor.matmul_t])
def test_every_way_to_multiply_is_counted(multiply):
    x, weight = torch.ones(6, 5), torch.ones(5, 3).t()
    counted = floor.count(lambda: multiply(x, weight))
    assert counted.flops == 2 * 6 * 5 * 3
    assert counted.gemms == (floor.Gemm(((6, 5), (5, 1)), ((3, 5), (1, 3))),)
    with torch.inference_mode():
        assert floor.count(lambda: multiply(x, weight)) == counted


def test_the_rate_counts_the_work_of_every_thread():
    gemm = floor.Gemm(floor.Layout((64, 32), (32, 1)), floor.Layout((16, 32), (1, 16)))
    calls = []

    def multiply(x, weight):
        calls.append((x.shape, x.stride(), weight.shape, weight.stride()))
        return x

    assert floor.flops_per_s([gemm, gemm], multiply, 2) > 0
    assert set(calls) == {(*gemm.x, *gemm.weight)}


def row(steps, *, overlap, **times):
    return {"agent_steps": steps, "data/overlap": overlap} | {f"time/{k}": v for k, v in times.items()}


def measured(overlap=0):
    """Two iterations of 300 and 100 decisions in 4 s, on two workers."""
    empty = MatchResults((), *(np.zeros(0) for _ in range(4)))
    parts = [
        [Collected(empty, 200, 0.75, 0.375, 0.25), Collected(empty, 190, 0.25, 0.0, 0.25)],
        [Collected(empty, 60, 1.0, 0.5, 0.125), Collected(empty, 50, 1.0, 0.625, 0.125)],
    ]
    rows = [
        (11.5, row(1300, sample=0.875, learn=0.5, update=0.375, league=0.0, overlap=0)),
        (13.5, row(1400, sample=1.125, learn=0.25, update=0.25, league=0.5, overlap=overlap)),
    ]
    return bench.Measured(10.0, 14.0, 1000, rows, parts)


def report(overlap=0):
    work = floor.Work(10.0, 30.0, (), ())
    rates = floor.Floor(work, floor.Rate(4.0, 8.0), floor.Rate(2.0, 3.0), 5.0, 10.0, 200.0)
    return bench.make_report(measured(overlap), rates, env="any", num_workers=2, num_games=4, cores=2)


def test_speeds_by_hand():
    told = report()
    assert (told.seconds, told.iterations, told.agent_steps) == (4.0, 2, 400)
    assert told.decisions_per_s == 100.0
    assert told.decisions_per_s_median == (300 / 1.5 + 100 / 2) / 2
    assert told.acted_per_s == 125.0
    assert told.floor_share == 0.5


def test_parts_are_joined_without_the_time_between_them():
    whole = measured()
    first = bench.Measured(10.0, 12.0, 1000, whole.rows[:1], whole.collected[:1])
    later = [(clock + 5.0, metrics) for clock, metrics in whole.rows[1:]]
    second = bench.Measured(17.0, 19.0, 1300, later, whole.collected[1:])
    assert bench.joined([first, second]) == whole
    assert bench.joined([whole]) == whole


def test_the_floor_is_the_mean_of_what_was_noted(monkeypatch):
    rates = iter([2e9, 4e9, 6e9, 12e9, *[5e9] * 6])  # of acting and learning in turn
    monkeypatch.setattr(floor, "flops_per_s", lambda *args: next(rates))
    ruler = floor.Ruler(tiny(), 1, 2)
    act, learn = 2 * FORWARD, 2 * (FORWARD + BACKWARD)
    ruler.note()
    ruler.note()
    found = ruler.floor()
    noted = [(act + learn) / (act / a + learn / b) for a, b in ((2, 4), (6, 12))]
    assert found.gemm.all_cores == pytest.approx(sum(noted) / 2)
    assert found.decisions_per_s == pytest.approx(sum(noted) / 2 * 1e9 / (act + learn))
    assert (found.act_gflops, found.learn_gflops) == (4, 8)
    assert (found.gemm.one_thread, *found.mkl) == pytest.approx((5, 5, 5))


@pytest.mark.skipif(not gemm.AVAILABLE, reason="kernels cannot call the GEMM that is used here")
def test_the_floor_is_of_the_precision_that_is_learned_in(monkeypatch):
    calls = []

    def rate(gemms, multiply, num_threads, device="cpu", dtype=torch.float32):
        calls.append((multiply, num_threads, dtype, len(gemms)))
        return 1e9

    monkeypatch.setattr(floor, "flops_per_s", rate)
    wide = {"rollout.num_games": 128, "ppo.num_minibatches": 1}  # 512 rows, which float32 sums 128 at a time
    for half in (False, True):
        floor.Ruler(tiny(**wide, **{"ppo.autocast": half}), 1, 2).note()
    (*act, products), (*learn, pieces), (*act_too, same), (*learn_half, whole) = calls
    assert act == act_too == [floor.matmul_t, 2, torch.float32]
    assert products == same
    assert learn == [floor.matmul_t, 2, torch.float32]
    assert learn_half == [gemm.product, 2, torch.bfloat16]
    assert whole < pieces


def test_the_split_is_the_whole():
    # Workers' means: playing .5 and 1, acting .1875 and .5625, game .25 and .125.
    assert report().split == {
        "acting": (0.75, 0.1875),
        "game": (0.375, 0.09375),
        "bookkeeping": (0.0625 + 0.3125 + 0.5, 0.21875),
        "learning": (0.625, 0.15625),
        "transfer": (0.125 + 0.375 + 0.125, 0.15625),
        "other": (0.75, 0.1875),
    }
    # 500 acted at 5 GFLOP/s and 400 learned from at 10, in 4 s.
    assert report().floor_split == {"acting": 500 * 10 / 5e9 / 4, "learning": 400 * 30 / 10e9 / 4}


def test_phases_side_by_side_share_the_cores():
    """The second iteration's matches were played while the first was learned from."""
    split = report(overlap=1).split
    assert split["transfer"].seconds == 0.125 + 0.375
    assert split["other"].seconds == 0.75 + 0.125
    crowded = bench._split(measured(overlap=1)._replace(ended=12.5))  # phases take 3.125 s of 2.5
    expected = {
        "acting": 0.6,
        "game": 0.3,
        "bookkeeping": 0.7,
        "learning": 0.5,
        "transfer": 0.4,
        "other": 0.0,
    }
    assert {name: span.seconds for name, span in crowded.items()} == pytest.approx(expected)
    assert sum(span.share for span in crowded.values()) == pytest.approx(1)


def test_json_is_the_last_line_and_all_of_stdout(capfd):
    code = cli.main(["bench", "connect_four", "--json", "--seconds", "1", *TINY])
    out, err = capfd.readouterr()
    assert code == 0, err
    [line] = out.splitlines()
    told = json.loads(line)
    assert told["decisions_per_s"] * told["seconds"] == pytest.approx(told["agent_steps"])
    assert told["agent_steps"] == told["iterations"] * 16 * 2 * 4
    assert told["acted_per_s"] > told["decisions_per_s"]  # past selves sat in some seats
    assert told["floor_share"] == pytest.approx(told["decisions_per_s"] / told["floor_decisions_per_s"])
    assert told["flops_per_decision"] == {"act": 2 * FORWARD, "learn": 2 * (FORWARD + BACKWARD)}
    assert told["gemm_gflops"].keys() == told["gemm_gflops_mkl"].keys() == {"one_thread", "all_cores"}
    phases = ("acting", "game", "bookkeeping", "learning", "transfer", "other")
    assert tuple(told["split"]) == phases
    assert told["floor_split"].keys() == {"acting", "learning"}
    assert sum(span["seconds"] for span in told["split"].values()) == pytest.approx(told["seconds"])
    assert sum(span["share"] for span in told["split"].values()) == pytest.approx(1)
    assert all(span["seconds"] >= 0 for span in told["split"].values())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "bench what? Give CONFIG"),
        (["conect_four"], "nearest: connect_four"),
        (["connect_four", "--seconds", "0"], "--seconds 0 is not allowed"),
        (["connect_four", "--seconds", "soon"], "--seconds: invalid float value: 'soon'"),
        (["connect_four", "--lr", "5"], "nearest: --ppo.lr"),
    ],
)
def test_mistakes(capsys, argv, message):
    assert cli.main(["bench", *argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_the_table_shows_every_part(capsys):
    from rich.console import Console

    Console(width=100).print(bench.table(report()))
    text = capsys.readouterr().out
    for words in (
        "decisions/s",
        "50.0%",
        "acting",
        "game",
        "bookkeeping",
        "learning",
        "transfer",
        "other",
        "8 GFLOP/s",
    ):
        assert words in text
