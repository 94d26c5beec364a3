"""benchmarks.slow_games: games alone are played by their own rules, and the table's arithmetic."""

import itertools
import subprocess
import sys
import time

import pytest

from benchmarks import slow_games, waiting_game
from benchmarks.cpu_time import CpuTime, cpu_time
from benchmarks.games_alone import PLAY
from benchmarks.process_tree import ProcessTree
from benchmarks.slow_games import Rate, account, row
from envs.conformance import check
from envs.registry import make
from selfplay.errors import UserError


@pytest.mark.parametrize(
    ("game", "decisions"),
    [
        ("gymnasium:CartPole-v1", 1),
        ("openspiel:leduc_poker", 1),
        ("openspiel:goofspiel(num_cards=3)", 2),
        ("pettingzoo:pettingzoo.classic.tictactoe_v3", 1),
        ("pettingzoo:mpe2.simple_tag_v3", 4),
        ("pettingzoo:benchmarks.waiting_game", 2),
    ],
)
@pytest.mark.parametrize("bare", [False, True])
def test_a_game_alone_is_played_through_many_matches(game, decisions, bare):
    source, _, rest = game.partition(":")
    assert set(itertools.islice(PLAY[source](rest, bare), 200)) == {decisions}


@pytest.mark.parametrize("game", ["mpe2.simple_tag_v3", "pettingzoo.classic.tictactoe_v3"])
def test_only_the_library_s_own_game_checks_what_is_played(monkeypatch, game):
    from pettingzoo.utils.wrappers import OrderEnforcingWrapper

    steps = []
    checked = OrderEnforcingWrapper.step
    monkeypatch.setattr(
        OrderEnforcingWrapper, "step", lambda env, action: [steps.append(1), checked(env, action)][-1]
    )
    list(itertools.islice(PLAY["pettingzoo"](game, True), 5))
    assert not steps
    list(itertools.islice(PLAY["pettingzoo"](game, False), 5))
    assert len(steps) >= 5


def test_rates_are_of_decisions_and_of_steps():
    rate = slow_games._count(itertools.cycle([3, 1]), 0.01)
    assert rate.decisions == pytest.approx(2 * rate.steps)


def test_a_row_tells_what_training_costs_beside_the_game(monkeypatch):
    monkeypatch.setattr(slow_games, "num_cores", lambda: 2)
    rates = {
        # 2 cores: 200 us a step of 4 decisions; then the machine is half as fast for all
        "library": [Rate(20_000.0, 5_000.0)] * 4,
        "bare": [Rate(40_000.0, 10_000.0)] * 3 + [Rate(20_000.0, 5_000.0)],
        "adapter": [Rate(32_000.0), Rate(36_000.0), Rate(27_000.0)],  # beside 40, 40 and 30 thousand
        "training": [
            Rate(20_000.0, ratings=0.0, seconds=2.0),
            Rate(24_000.0, ratings=0.6, seconds=3.0),
            Rate(30_000.0, ratings=0.0, seconds=1.0),  # as fast as the game: some luck
        ],
    }
    # Ratios 0.5, 0.6 and 1.0: 83 us for 50 of the bare game's.
    shown = [
        "x", "200", "4.0", "40,000", "0.90", "0.60", "0.50 to 1.00", "10.0%", "40%", "33.3",
    ]  # fmt: skip
    assert row("x", "bare", rates) == shown
    # 1.0, 1.2 and 1.5: 17 us less than the library's 100.
    shown = [
        "y", "400", "4.0", "20,000", "1.60", "1.20", "1.00 to 1.50", "10.0%", "-20%", "-16.7",
    ]  # fmt: skip
    assert row("y", "library", rates) == shown


def test_the_account_of_training_adds_up(monkeypatch):
    monkeypatch.setattr(slow_games, "num_cores", lambda: 2)
    rates = {
        "bare": [Rate(1.0, cpu=2 * each) for each in (90e-6, 110e-6, 300e-6)],  # both processes' sum
        "training": [
            # 100 us a decision alone: 100,000 of them take 10 s
            Rate(1.0, seconds=8.0, number=100_000, game=5.0, acting=1.0, collecting=7.0, ratings=0.5),
            # 205 us: 20.5 s
            Rate(1.0, seconds=12.3, number=100_000, game=20.5, acting=0.0, collecting=20.5),
        ],
    }
    cpu = [CpuTime(rollouts=12.0, learners=2.0, driver=0.5, ray=0.5), CpuTime(rollouts=20.5, ray=4.1)]
    # First: 12 s of rollouts by clocks of 5, 1, 1 and 1; 1 s of two cores' 16 is idle. Second: 1.0 and 0.2.
    means = [0.875, 0.075, 0.075, 0.075, 0.1, 0.025, 0.125, 0.05, 1.4]
    assert account(rates, cpu) == pytest.approx(means)


BUSY = """
import subprocess, sys, time
for name in sys.argv[2:]:
    subprocess.Popen([sys.executable, "-c", sys.argv[1], name])
while time.process_time() < 0.3:
    pass
print(flush=True)
input()
"""


def test_cpu_time_is_told_by_what_a_process_is():
    names = ("ray::RolloutActor.collect", "raylet")
    command = [sys.executable, "-c", BUSY, BUSY, *names]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    tree = ProcessTree(first.pid)
    try:
        for _ in range(1 + len(names)):
            first.stdout.readline()
        spent = cpu_time(tree, first.pid)
    finally:
        tree.kill()
        first.communicate()
    assert min(spent.driver, spent.rollouts, spent.ray) > 0.2
    assert spent.learners == 0.0
    assert spent.since(spent) == CpuTime()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pettingzoo:no_such_game"], "no_such_game"),
        (["connect_four"], "gymnasium:..., pettingzoo:..., openspiel:..."),
        (["openspiel:yacht", "--set", "nonsense"], "--set nonsense: give KEY=VALUE"),
        (["openspiel:yacht", "--set", "rollout.nogames=7"], "rollout.num_games"),
        (["openspiel:yacht", "--rounds", "0"], "rounds"),
        (["openspiel:yacht", "--seconds", "0"], "seconds"),
    ],
)
def test_mistakes_are_told_before_anything_starts(arguments, message):
    with pytest.raises(UserError) as told:
        slow_games.main(arguments)
    assert message in str(told.value)
    assert "\n" not in str(told.value)


def test_the_game_that_waits_keeps_the_contract_and_takes_a_core_as_long_as_it_says():
    check(lambda num_games: make("pettingzoo:benchmarks.waiting_game", num_games, seconds=1e-6))
    game = waiting_game.parallel_env(0.02)
    game.reset()
    begun = time.thread_time()
    rewards = game.step({"first": 0, "second": 3})[1]
    assert time.thread_time() - begun >= 0.02
    assert rewards == {"first": 1, "second": -1}


def test_contestants_take_turns_and_one_that_fails_is_named():
    contestant = slow_games.Contestant("bare", "openspiel:tic_tac_toe", [])
    first, second = contestant.turn(0.05), contestant.turn(0.05)
    contestant.close()
    assert first.decisions > 0
    assert second.steps == pytest.approx(second.decisions)
    with pytest.raises(SystemExit, match="no_such_game"):
        slow_games.Contestant("adapter", "openspiel:no_such_game", [])
