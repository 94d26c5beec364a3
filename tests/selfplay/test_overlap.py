"""Playing the next batch while this one is learned from: when, whose weights, and what must find rest."""

import json
import re
import signal
from dataclasses import replace

import numpy as np
import pytest

from selfplay import checkpoint, overlap, train, training
from selfplay import config as configuration
from selfplay.config import Config
from selfplay.engine import Learned, make_learners
from selfplay.engine.local import LocalEngine
from selfplay.errors import ConfigError
from selfplay.fragments import concatenate
from selfplay.league.league import League
from selfplay.league.roles import Slot
from selfplay.league.store import Store
from selfplay.matches import MAIN, Lineups, MatchResults
from selfplay.members import Member, take_turn
from selfplay.overlap import BLOCK, HELD, ROUNDS, WARM_UP, Overlap
from selfplay.worker import Collected, Piece, Worker, together
from tests.selfplay import test_roles
from tests.selfplay.test_resume import assert_same_run

STEPS = 64 * 2 * 3  # of an iteration: games, seats, length


def config_of(staleness=1, **changes):
    """One process, which plays ahead when it is told to, only not at the same time."""
    table = {
        "env": {"id": "connect_four"},
        "policy": {"encoder": [8], "hidden_size": 6},
        "rollout": {"num_games": 64, "num_workers": 0, "fragment_length": 3, "staleness": staleness},
        "ppo": {"anneal_steps": 2000},
        "league": {"snapshot_iterations": 100, "rating_games": 2},
        "checkpoint": {"seconds": "none"},
        "device": "cpu",
    }
    for section, values in changes.items():
        table[section] = table.get(section, {}) | values
    return Config.model_validate(table)


def trained(path, *, resume=False, **changes):
    """The rows of a run."""
    assert train.run(config_of(**changes), path, resume) == 0
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def overlapped(rows):
    return "".join(str(row["data/overlap"]) for row in rows)


def test_taking_turns_is_fresh_and_playing_ahead_one_version_older(run_dir, tmp_path):
    turns = trained(run_dir, staleness=0, stop={"iterations": 8})
    ahead = trained(tmp_path / "ahead", stop={"iterations": 8})
    assert (overlapped(turns), overlapped(ahead)) == ("00000000", "01111111")
    assert turns[0]["data/staleness_max"] == 0
    assert ahead[0] | {name: 0 for name in ahead[0] if name.startswith(("time", "speed", "seconds"))} == (
        turns[0] | {name: 0 for name in turns[0] if name.startswith(("time", "speed", "seconds"))}
    )
    # Every decision of the second batch is of version 0, which the learner has left.
    assert (ahead[1]["data/staleness"], ahead[1]["data/staleness_max"]) == (1, 1)
    for one, other in zip(turns[2:], ahead[2:]):
        assert 0 < one["data/staleness"] < 1 < other["data/staleness"] < 2
        assert other["agent_steps"] == one["agent_steps"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"stop": {"iterations": 6}, "league": {"snapshot_iterations": 3}}, "011011"),
        ({"stop": {"iterations": 6}, "checkpoint": {"iterations": 2}}, "010101"),
        ({"stop": {"agent_steps": 4 * STEPS}}, "0111"),
        ({"stop": {"agent_steps": 4 * STEPS + 1}}, "01111"),
        ({"stop": {"iterations": 1}}, "0"),
    ],
)
def test_snapshots_checkpoints_and_the_end_find_the_rollouts_at_rest(run_dir, changes, expected):
    assert overlapped(trained(run_dir, **changes)) == expected


def test_a_run_in_two_parts_is_the_run_at_once(tmp_path):
    changes = {"checkpoint": {"iterations": 4, "seconds": "none"}, "league": {"snapshot_iterations": 3}}
    whole = trained(tmp_path / "whole", stop={"iterations": 12}, **changes)
    trained(tmp_path / "parts", stop={"iterations": 6}, **changes)
    trained(tmp_path / "parts", stop={"iterations": 12}, resume=True, **changes)
    assert overlapped(whole) == "011001010011"
    assert_same_run(tmp_path / "whole", tmp_path / "parts", 12)


ROLES = {"snapshot_iterations": 3, "exploiter_iterations": 5, "main_exploiters": 1, "league_exploiters": 1}


@pytest.fixture
def plays_ahead(monkeypatch):
    """slot -> whether its rollouts played ahead while it learned, iteration by iteration."""
    noted = {}
    record = training.Training._record

    def watched(self):
        for member in self._members:
            noted[member.slot.name] = noted.get(member.slot.name, "") + str(int(member.ahead))
        record(self)

    monkeypatch.setattr(training.Training, "_record", watched)
    return noted


def test_exploiters_play_ahead_and_rest_where_they_are_frozen(run_dir, plays_ahead):
    trained(run_dir, league=ROLES, stop={"iterations": 12})
    assert plays_ahead == {
        "main": "110110110110",  # frozen every third
        "main_exploiter_0": "111101111010",  # every fifth; begun anew, it is checked first; the end
        "league_exploiter_0": "111101111010",
    }
    with Store(run_dir / "league", readonly=True) as store:
        names = [player.name for player in store.players() if player.kind == "snapshot"]
    assert {"main_exploiter_0-000005", "main_exploiter_0.2-000010"} <= set(names)


def test_an_exploiter_that_is_done_while_it_plays_ahead_is_frozen_one_iteration_later(
    run_dir, monkeypatch, plays_ahead
):
    def done(self, slot, iteration):
        """As when the only past self that it cannot beat is retired in iteration 3: nobody knows before."""
        return iteration >= 3 and self._counted >= 3

    monkeypatch.setattr(League, "is_done", done)
    trained(run_dir, league=ROLES | {"league_exploiters": 0}, stop={"iterations": 5})
    assert plays_ahead["main_exploiter_0"] == "11100"
    with Store(run_dir / "league", readonly=True) as store:
        frozen = [p.name for p in store.players() if p.kind == "snapshot" and p.role == "main_exploiter"]
    assert frozen == ["main_exploiter_0-000004", "main_exploiter_0.2-000005"]


def test_roles_in_two_parts_are_the_run_at_once(tmp_path):
    changes = {"checkpoint": {"iterations": 4, "seconds": "none"}, "league": ROLES}
    trained(tmp_path / "whole", stop={"iterations": 8}, **changes)
    trained(tmp_path / "parts", stop={"iterations": 4}, **changes)
    trained(tmp_path / "parts", stop={"iterations": 8}, resume=True, **changes)
    assert test_roles.rows(tmp_path / "whole") == test_roles.rows(tmp_path / "parts")
    assert test_roles.tables(tmp_path / "whole") == test_roles.tables(tmp_path / "parts")


@pytest.mark.parametrize(("league", "expected"), [({}, True), (ROLES, False)])
def test_rollouts_may_share_batches_where_only_one_learns(run_dir, monkeypatch, league, expected):
    begin, noted = LocalEngine.begin, []

    def noting(self, lineups, *, shared):
        noted.append(shared)
        begin(self, lineups, shared=shared)

    monkeypatch.setattr(LocalEngine, "begin", noting)
    trained(run_dir, league=league, stop={"iterations": 2})
    assert set(noted) == {expected}


def test_a_signal_finds_only_an_exploiter_ahead(run_dir, monkeypatch, plays_ahead):
    """In iteration 3 the main learner rests for its snapshot; the signal comes while the last one learns."""
    learn, calls = LocalEngine.learn, []

    def interrupted(self):
        calls.append(learn(self))
        if len(calls) == 9:
            signal.raise_signal(signal.SIGTERM)
        return calls[-1]

    monkeypatch.setattr(LocalEngine, "learn", interrupted)
    assert train.run(config_of(league=ROLES), run_dir, resume=False) == 143
    assert {slot: each[2:] for slot, each in plays_ahead.items()} == {
        "main": "00",
        "main_exploiter_0": "10",
        "league_exploiter_0": "10",
    }
    assert checkpoint.newest(run_dir / "checkpoints").name == "iteration-00000004"


def test_a_signal_lets_what_is_begun_be_learned_from(run_dir, monkeypatch):
    learn = LocalEngine.learn

    def interrupted(self):
        learned = learn(self)
        if learned.version == 3:
            signal.raise_signal(signal.SIGINT)
        return learned

    monkeypatch.setattr(LocalEngine, "learn", interrupted)
    assert train.run(config_of(), run_dir, resume=False) == 130
    rows = (run_dir / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == 4
    assert trained(run_dir, stop={"iterations": 5}, resume=True)[-1]["iteration"] == 5


def test_until_the_replay_check_has_passed_play_waits(run_dir, monkeypatch):
    """Fragments of an older version cannot be checked."""
    check, calls = LocalEngine.check_replay, []

    def late(self):
        calls.append(check(self))
        return calls[-1] if len(calls) == 3 else None

    monkeypatch.setattr(LocalEngine, "check_replay", late)
    assert overlapped(trained(run_dir, stop={"iterations": 5})) == "00011"
    assert len(calls) == 3


def test_new_weights_are_taken_up_between_two_decisions_and_older_ones_never():
    config = config_of(rollout={"fragment_length": 8})
    worker, weights = Worker(config, 0, 1), make_learners(config, "cpu", 1).weights()
    lineups = Lineups((MAIN,), np.zeros((1, 2), np.int32))
    left = dict(weights) | {"output_bias": np.where(np.arange(8) == 0, 99, 0).astype(np.float32)}
    assert left["output_bias"].shape == weights["output_bias"].shape
    matches, ticks, tick = worker.rollout.matches, [], worker.rollout.matches.tick

    def publishing(*arguments):
        ticks.append(worker.rollout.version)
        tick(*arguments)
        if len(ticks) == 5:
            worker.publish(left, 7)
        if len(ticks) == 9:
            worker.publish(weights, 6)

    matches.tick = publishing
    batch, _ = worker.collect(weights, 4, lineups, {}.get)
    version, action, mask = batch[0].version, batch[0].action[""], batch[0].mask[""]
    assert ticks == [4] * 5 + [7] * (len(ticks) - 5)
    assert len(ticks) > 10
    assert set(np.unique(version)) == {4, 7}
    assert (np.diff(version, axis=0) >= 0).all()
    can = mask[..., 0]
    assert (action[can & (version == 7)] == 0).all()  # the leftmost column, wherever it has room
    assert (action[can & (version == 4)] != 0).mean() > 0.5
    # The next batch begins with what the worker has, if that is newer; a state that it goes on from does not.
    batch, _ = worker.collect(weights, 5, lineups, {}.get)
    assert (batch[0].version[-1] == 7).all()
    worker.set_state(*worker.state(), {}.get)
    batch, _ = worker.collect(weights, 5, lineups, {}.get)
    assert (batch[0].version[-1] == 5).all()


def test_pieces_of_a_batch_are_the_batch_and_the_next_has_lineups_of_its_own():
    config = config_of(rollout={"fragment_length": 8})
    weights = make_learners(config, "cpu", 1).weights()
    tables = [
        np.array(rows, np.int32) for rows in ([[0, 1]] * 50 + [[1, 0]] * 50, [[0, 0]] * 7 + [[0, 1]] * 90)
    ]
    lineups = [Lineups((MAIN, "random"), table) for table in tables]
    one, other = Worker(config, 0, 1), Worker(config, 0, 1)
    for number in range(4):
        which = lineups[number % 2]
        batch, whole = one.collect(weights, number, which, {}.get)
        parts = [other.collect(weights, number, which, {}.get, Piece(number, 4)) for _ in range(4)]
        found = together([collected for _, collected in parts])
        lanes = concatenate([piece[0] for piece, _ in parts])
        for name in ("logp", "is_first", "reward", "version"):
            np.testing.assert_array_equal(getattr(lanes, name), getattr(batch[0], name))
        for name in ("lineup", "returns", "length", "seed"):
            np.testing.assert_array_equal(getattr(found.results, name), getattr(whole.results, name))
        assert (found.decisions, found.present) == (whole.decisions, whole.present)
        assert found.seconds == sum(collected.seconds for _, collected in parts)
    # A state that it goes on from has no batch, whatever its number is.
    assert other.set_state(*other.state(), {}.get)
    other.collect(weights, 4, lineups[0], {}.get, Piece(number, 4))
    assert len(other.rollout.matches.table) == 100


def test_what_came_with_the_last_piece_counts_for_the_whole():
    nobody = np.zeros((1, 2), np.int32)
    results = MatchResults(("a", "b"), nobody, *(np.zeros(shape) for shape in ((1, 2), 1, 1)))
    turned = replace(results, players=("b", "a"), lineup=np.array([[0, 1]], np.int32))
    one = Collected(results, 10, 4.0, 2.0, 1.0, 1, 3, "early", ("a",))
    two = Collected(turned, 5, 2.0, 1.0, 0.5, 2, 5, "late", ("a", "b"))
    both = together([one, two])
    assert replace(both, results=results) == Collected(results, 15, 6.0, 3.0, 1.5, 3, 5, "late", ("a", "b"))
    successor = replace(two, failures=0, cause="")  # of a worker that died in between
    assert replace(together([one, successor]), results=results) == Collected(
        results, 15, 6.0, 3.0, 1.5, 3, 3, "early", ("a", "b")
    )
    assert [[both.results.players[k] for k in row] for row in both.results.lineup] == [["a", "a"], ["b", "a"]]
    assert together([one]) is one


class Noting:
    """An engine that writes down what it is told, letter by letter."""

    def __init__(self):
        self.told = ""

    def begin(self):
        self.told += "b"

    def collect(self):
        self.told += "c"
        return []

    def check_replay(self):
        self.told += "r"

    def learn(self):
        self.told += "l"
        return Learned(0, 0, {})


def test_the_next_batch_is_begun_with_this_one_so_that_no_rollout_waits_for_another():
    member = Member(Slot(MAIN, "main"), Noting(), unchecked=False)

    def turn(may):
        member.engine.told = ""
        take_turn([member], lambda each: each.engine.begin(), lambda each: may)
        return member.engine.told, member.overlapped, member.ahead

    assert turn(True) == ("bbcl", False, True)
    assert turn(True) == ("bcl", True, True)
    assert turn(False) == ("cl", True, False)
    assert turn(False) == ("bcl", False, False)
    member.unchecked = True
    assert turn(False) == ("bcrl", False, False)
    # One that is checked only now begins the next batch before it learns, as ever.
    checked = Member(Slot(MAIN, "main"), Noting())
    checked.engine.check_replay = lambda: "found"
    take_turn([checked], lambda each: each.engine.begin(), lambda each: not each.unchecked)
    assert checked.engine.told == "bcbl"


def trial(speeds, ahead=0.5, slower=1.0, lucky=1):
    """What is wanted at each iteration of a trial, and what is said; speeds: of turns, of overlapping.

    ahead: staleness of what was played ahead, 0.5 of everything else; slower: what a block takes longer than
    the one before; lucky: a block in which nearly nothing runs beside it.
    """
    choice, wanted, said = Overlap("auto"), [], []
    while choice.chosen is None:
        wanted.append(choice.wanted())
        block = (len(wanted) - 1 - WARM_UP) // BLOCK
        seconds = 100 / speeds["0110"[block % 4] == "1"] * slower**block
        seconds *= 0.2 if block == lucky else 1
        was_ahead = len(wanted) > 1 and wanted[-2]
        said.append(choice.observe(100, seconds, ahead if was_ahead else 0.5))
        assert choice.trial_left() == WARM_UP + 2 * ROUNDS * BLOCK - len(wanted) or choice.chosen is not None
    assert not any(said[:-1])
    return choice, wanted, said[-1]


def test_the_trial_alternates_and_every_block_ends_at_rest():
    _, wanted, _ = trial((1.0, 1.0))
    turns, ahead = [False] * BLOCK, [True] * (BLOCK - 1) + [False]
    assert ROUNDS == 4
    assert wanted == [False] * WARM_UP + (turns + ahead + ahead + turns) * 2


@pytest.mark.parametrize(
    ("speeds", "chosen", "told"),
    [
        ((100, 120), True, "1.20 times .* play on"),
        ((100, 104), True, "1.04 times .* play on"),
        ((100, 101), False, "1.01 .* turns"),
        ((100, 60), False, "0.60"),
    ],
)
def test_the_faster_way_is_kept_by_its_median(speeds, chosen, told):
    choice, _, said = trial(speeds)
    assert choice.chosen is chosen
    assert choice.wanted() is chosen
    assert re.search(told, said)
    assert choice.observe(1, 1e9, 0.5) is None
    assert choice.trial_left() == 0
    again = Overlap("auto")
    again.set_state(choice.state())
    assert again.wanted() is chosen
    for configured in (0, 1):
        other = Overlap(configured)
        other.set_state(choice.state())
        assert other.wanted() == bool(configured)


@pytest.mark.parametrize("slower", [1.2, 0.8])
def test_a_machine_that_changes_its_speed_is_fair_to_both_ways(slower):
    """Two blocks of each way come later than their pair's other one."""
    choice, _, said = trial((100, 100), slower=slower, lucky=None)
    assert " is 1.00 times" in said
    assert choice.chosen is False


@pytest.mark.parametrize(
    ("ahead", "chosen", "told"),
    [
        (0.9, True, "learning is 1.04 times"),  # 1.04 / 1
        (
            1.4,
            False,
            "in 50% of iterations, as its staleness allows, is 1.02",
        ),  # 1 / (0.5 + 0.5 / 1.04) = 1.0196
        (1.25, True, "in 60% of iterations, .* 1.02 times .* play on"),  # 1.0236
        (99.0, False, "in 0% .* 1.00"),
    ],
)
def test_the_trial_counts_what_holding_the_staleness_leaves_of_the_gain(ahead, chosen, told):
    choice, _, said = trial((100, 104), ahead)
    assert choice.chosen is chosen
    assert re.search(told, said)


@pytest.mark.parametrize("ahead", [1.5, 1.2, 0.9])
def test_staleness_is_held_at_one(ahead):
    """Batches played ahead are so old, others half a version: as many are played ahead as one allows."""
    share = min(1.0, (HELD - 0.5) / (ahead - 0.5))
    choice, ages, played = Overlap(1), [], []
    for _ in range(300):
        played.append(choice.wanted())
        ages.append(ahead if played[-1] else 0.5)
        choice.observe(100, 1.0, ages[-1])
        again = Overlap(1)
        again.set_state(json.loads(json.dumps(choice.state())))
        assert again.wanted() == choice.wanted()
    late = slice(100, None)
    assert sum(ages[late]) / 200 <= 1
    assert sum(played[late]) / 200 == pytest.approx(share, abs=0.06)


def test_auto_takes_turns_in_one_process(run_dir, monkeypatch):
    monkeypatch.setattr(overlap, "WARM_UP", 0)
    monkeypatch.setattr(overlap, "BLOCK", 2)
    assert overlapped(trained(run_dir, staleness="auto", stop={"iterations": 5})) == "00000"


def test_a_resumed_run_keeps_its_choice(run_dir, monkeypatch):
    # The driver believes in two workers, the engine is this process.
    monkeypatch.setattr(training, "resolve_num_workers", lambda config: 2)
    monkeypatch.setattr(overlap, "MARGIN", 0.0)
    for name, value in (("WARM_UP", 1), ("BLOCK", 2), ("ROUNDS", 1)):
        monkeypatch.setattr(overlap, name, value)
    rows = trained(run_dir, staleness="auto", stop={"iterations": 7})
    assert overlapped(rows) == "0000101"
    rows = trained(run_dir, staleness="auto", stop={"iterations": 10}, resume=True)
    assert overlapped(rows) == "0000101" + "011"


@pytest.mark.parametrize("value", [2, -1, "often", True, 0.5])
def test_other_values_are_refused(value):
    with pytest.raises(ConfigError, match=r"rollout\.staleness=.* it must be an integer >= 0"):
        configuration.load("connect_four", {"rollout.staleness": value})
