"""Round robins: who sits where, what is kept, what is counted, and what the tables say."""

import csv
import json
import math
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from selfplay import checkpoint, cli, config, contestants, worker
from selfplay.errors import UserError
from selfplay.league.league import League
from selfplay.league.ratings import SCALE, Rating
from selfplay.league.store import Player
from selfplay.learner import Learner
from selfplay.run_directory import RunDirectory
from selfplay.tournament import command, playing, schedule, standings
from selfplay.tournament.entrants import Entrant, evenly_spaced, gather, identity
from selfplay.tournament.playing import Game, Played, meeting_score, play
from selfplay.tournament.schedule import Pair, Piece, match_seed, pieces, seats
from selfplay.tournament.store import FILE, Results

PLAYER_KEYS = [
    "name", "label", "identity", "rating", "ci95", "elo", "elo_ci95", "games", "wins", "draws", "losses",
    "score", "score_ci95", "mean_return", "return_ci95", "p_next", "significant",
]  # fmt: skip
PAIR_KEYS = [
    "a", "b", "games", "wins", "draws", "losses", "mean_score", "ci95", "p_value", "significant", "elo_diff",
    "mean_return", "return_ci95", "opponent_return",
]  # fmt: skip
RPS = ("--env", "rock_paper_scissors")


def make_run(path, *, seed=7, **sections):
    """A run whose policy, as it was drawn, is in its only checkpoint."""
    table = {"env": {"id": "tic_tac_toe"}, "policy": {"encoder": [16], "hidden_size": 16}, "seed": seed}
    settings = config.resolve(table | sections, {}, source="test")
    run = RunDirectory.create(path, settings)
    (policy,) = worker.make_policies(settings, worker.make_game(settings, 1), seed).values()
    arrays, meta = Learner(policy, settings.ppo, seed=0).state()
    checkpoint.save(run.checkpoints, iteration=5, arrays={"learner": arrays}, meta=meta)
    run.close()
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [make_run(folder / f"run{seed}", seed=seed) for seed in (1, 2)]


@pytest.fixture
def held(tmp_path, capsys):
    """Runs a tournament in this process, kept in a folder of the test; the JSON object that it prints."""

    def hold(*argv, output="kept"):
        arguments = ["--json", "--workers", "0", "--output", tmp_path / output]
        assert cli.main(["tournament", *map(str, [*argv, *arguments])]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        return json.loads(line)

    return hold


def by_name(rows):
    return {row["name"]: row for row in rows}


def matches_kept(folder):
    """All that is kept, by what identifies a match."""
    with sqlite3.connect(folder / FILE) as db:
        return set(
            db.execute(
                "SELECT game, kwargs, seed, first, second, number, score, first_return, second_return, "
                "length FROM matches JOIN pairs ON pairs.id = pair"
            )
        )


# Who sits where


def test_seats_by_hand():
    two = seats(np.arange(4), (0, 1))
    assert two.tolist() == [[0, 1], [1, 0], [0, 1], [1, 0]]
    pairs_of_seats = seats(np.arange(2), (0, 0, 1, 1))
    assert pairs_of_seats.tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]
    three = seats(np.arange(6), (0, 1, 2))
    assert three.tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("teams", [(0, 1), (0, 1, 0, 1), (0, 1, 2), (2, 0, 1, 3)])
def test_both_players_hold_every_place_equally_often(teams):
    turn = schedule.round_length(max(teams) + 1)
    lineup = seats(np.arange(5 * turn), teams)
    assert (lineup.mean(axis=0) == 0.5).all()  # every seat
    alone = Counter()
    for row in lineup.tolist():
        holders = {team: row[teams.index(team)] for team in teams}
        alone |= Counter()
        for player in (0, 1):
            own = [team for team, holder in holders.items() if holder == player]
            if len(own) == 1:
                alone[player, own[0]] += 1
    assert len(set(alone.values())) == 1
    assert set(alone) == {(player, team) for player in (0, 1) for team in set(teams)}


def row_always_wins(held, **options):
    """Seat 0 wins whatever is played: between seats held equally often a score of one half."""
    words = ("--env.kwargs.row_payoff", "[[1, 1], [1, 1]]", "--games", 10)
    report = held("bot:0", "random", "--env", "matrix_game", *words, **options)
    return report["pairs"][0]["mean_score"]


def test_an_advantage_of_a_seat_is_nobodys(held, monkeypatch):
    assert row_always_wins(held) == 0.5
    monkeypatch.setattr(playing, "seats", lambda number, teams: seats(np.zeros_like(number), teams))
    assert row_always_wins(held, output="planted") in (0.0, 1.0)  # seats that do not rotate are seen


def test_score_of_three_teams_by_hand():
    # Player 0 alone on team 0, 1, 1; then both others its own, player 1 alone on team 2.
    alone, many = [0, 1, 1], [0, 0, 1]
    returns = np.array([[3, 1, 2], [1, 3, 2], [2, 2, 1], [3, 1, 2], [1, 2, 3], [2, 1, 2]], np.float32)
    lineup = np.array([alone, alone, alone, many, many, many])
    # Match scores of the teams: (1 0 0), (0 1 0), (.5 .5 0), (1 0 0), (0 0 1), (.5 0 .5).
    assert meeting_score(returns, lineup, (0, 1, 2)).tolist() == [1, 0.25, 0.75, 0.75, 0, 0.25]


def test_score_of_two_teams_is_the_matchs():
    returns = np.array([[1, -1, 0, 0], [0, 0, 1, 1], [2, 1, 1, 2]], np.float32)
    lineup = np.array([[0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]])
    assert meeting_score(returns, lineup, (0, 0, 1, 1)).tolist() == [0.5, 1, 0.5]


# What decides a match


def test_seeds_differ_in_every_part():
    pair = Pair.of("b", "a")
    assert pair == Pair.of("a", "b") == Pair("a", "b")
    some = {match_seed(s, p, n) for s in range(5) for p in (pair, Pair("a", "c")) for n in range(20)}
    assert len(some) == 200
    assert match_seed(3, pair, 4) == match_seed(3, Pair.of("a", "b"), 4)
    bits = np.array([[match_seed(0, pair, n) >> k & 1 for k in range(64)] for n in range(2000)])
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.06  # 5 standard deviations


def test_pieces_are_cut_at_multiples_and_hold_what_is_missing():
    pair = Pair("a", "b")
    assert list(pieces(pair, range(5), [], chunk=2)) == [
        Piece(pair, (0, 1)), Piece(pair, (2, 3)), Piece(pair, (4,)),
    ]  # fmt: skip
    assert list(pieces(pair, range(6), [0, 1, 2, 5], chunk=2)) == [Piece(pair, (3,)), Piece(pair, (4,))]
    assert list(pieces(pair, range(4), range(9), chunk=2)) == []


@pytest.mark.parametrize("greedy", [False, True])
def test_how_the_work_is_cut_changes_nothing(runs, greedy):
    sides = [contestants.find(str(path)) for path in runs]
    game = Game("tic_tac_toe", ("{}", "{}"), 3, greedy)
    pair = Pair("a", "b")
    whole = play(game, Piece(pair, tuple(range(24))), *sides)
    shuffled = np.random.default_rng(0).permutation(24)
    for numbers in ([[n] for n in range(24)], np.split(shuffled, 3)):
        cut = [play(game, Piece(pair, tuple(map(int, each))), *sides) for each in numbers]
        joined = Played(*map(np.concatenate, zip(*cut)))
        order = np.argsort(joined.number)
        for column, expected in zip(joined, whole):
            np.testing.assert_array_equal(column[order], expected)
    assert greedy or len(set(whole.length)) > 2


def test_others_and_their_order_change_nothing(runs, held):
    first, second = runs
    one = held(first, second, "random", "--games", 10)
    names = {str(first), str(second)}
    other = held("bot:perfect", second, first, "--games", 10, output="other")
    (pair,) = [row for row in one["pairs"] if {row["a"], row["b"]} == names]
    (again,) = [row for row in other["pairs"] if {row["a"], row["b"]} == names]
    if pair["a"] != again["a"]:
        pair["wins"], pair["losses"] = pair["losses"], pair["wins"]
    assert [pair[key] for key in ("wins", "draws", "losses")] == [
        again[key] for key in ("wins", "draws", "losses")
    ]


def test_each_sees_the_game_in_its_own_way(tmp_path, held):
    """Runs on numbers and on numbers beside an image; the scripted player reads what its opponent does."""
    short = {"max_steps": 20}
    envs = [{"id": "pong", "kwargs": short | more} for more in ({}, {"observation": "both"})]
    plain, seeing = (make_run(tmp_path / f"run{k}", env=env) for k, env in enumerate(envs))
    report = held(plain, seeing, "random", "--games", 4)
    assert report["env_kwargs"] is None
    again = held(seeing, "random", "--games", 4, output="alone")
    assert again["env_kwargs"] == short | {"observation": "both"}
    names = {str(seeing), "random"}
    kept = [row for row in report["pairs"] if {row["a"], row["b"]} == names]
    assert [row["mean_return"] for row in kept] == [row["mean_return"] for row in again["pairs"]]
    assert matches_kept(tmp_path / "alone") < matches_kept(tmp_path / "kept")


def test_identity_is_of_what_plays(runs, tmp_path):
    first, second = (contestants.find(str(path)) for path in runs)
    assert identity(contestants.find("random"), greedy=True) == "random"
    own = identity(first, greedy=False)
    assert len(own) == 64
    moved = tmp_path / "elsewhere"
    moved.symlink_to(runs[0], target_is_directory=True)
    assert identity(contestants.find(str(moved)), greedy=False) == own
    name = next(iter(first.weights))
    further = replace(first, weights=first.weights | {name: first.weights[name] + 1e-6})
    built = first.config.model_copy(update={"policy": first.config.policy.model_copy(update={"core": "gru"})})
    others = {
        identity(second, greedy=False), identity(first, greedy=True), identity(further, greedy=False),
        identity(replace(first, config=built), greedy=False),
    }  # fmt: skip
    assert len(others | {own}) == 5
    longer = first.config.model_copy(update={"seed": 99})
    assert identity(replace(first, config=longer), greedy=False) == own


# Known results


def test_rock_paper_scissors(held):
    report = held("bot:rock", "bot:paper", "bot:scissors", "bot:beat_last", *RPS, "--games", 20)
    wins = {(row["a"], row["b"]): (row["wins"], row["draws"], row["losses"]) for row in report["pairs"]}
    wins |= {(b, a): result[::-1] for (a, b), result in wins.items()}
    assert wins["bot:paper", "bot:rock"] == (20, 0, 0)
    assert wins["bot:rock", "bot:scissors"] == (20, 0, 0)
    assert wins["bot:scissors", "bot:paper"] == (20, 0, 0)
    for name in ("bot:rock", "bot:paper", "bot:scissors"):
        assert wins["bot:beat_last", name] == (20, 0, 0)  # nine rounds of ten
    assert report["anchor"] == "bot:rock"
    players = by_name(report["players"])
    assert report["players"][0]["name"] == "bot:beat_last"
    assert players["bot:beat_last"]["ci95"][1] is None  # it never lost: nothing bounds it above
    assert players["bot:beat_last"]["significant"]
    for name in ("bot:paper", "bot:scissors"):  # a circle is no order
        assert abs(players[name]["rating"]) < 0.1  # but for the prior, of which the anchor has none
    assert report["players"][1]["p_next"] > 0.9
    assert report["players"][3]["p_next"] is None
    pair = next(row for row in report["pairs"] if {row["a"], row["b"]} == {"bot:rock", "bot:paper"})
    assert pair["p_value"] == pytest.approx(2 / 2**20)
    assert pair["mean_return"] == (10 if pair["a"] == "bot:paper" else -10)
    assert pair["opponent_return"] == -pair["mean_return"]


def test_one_ply_against_random(held):
    report = held("bot:one_ply", "random", "--env", "connect_four", "--games", 400)
    best, last = report["players"]
    assert (best["name"], last["name"], report["anchor"]) == ("bot:one_ply", "random", "random")
    (pair,) = report["pairs"]
    assert pair["wins"] + pair["draws"] + pair["losses"] == pair["games"] == report["games"] == 400
    assert 0.9 < pair["mean_score"] < 1
    assert pair["mean_score"] == (pair["wins"] + pair["draws"] / 2) / 400 == best["score"]
    # With one opponent, the anchor: SCALE log((s + 1/2) / (n - s + 1/2)), as of any proportion.
    score = pair["mean_score"] * 400
    assert best["rating"] == pytest.approx(SCALE * math.log((score + 0.5) / (400 - score + 0.5)))
    assert best["elo"] == pytest.approx(best["rating"] * 400 / math.log(10) / SCALE)
    assert last["rating"] == 0
    assert last["ci95"] is None
    low, high = best["ci95"]
    assert low < best["rating"] < high
    assert best["p_next"] < 1e-6


def test_games_that_are_not_zero_sum_have_returns(held):
    """The prisoner's dilemma, 10 rounds: both silent 2 each a round, both speak 1, one speaks 3 and 0."""
    words = ("--env.kwargs.row_payoff", "[[2, 0], [3, 1]]", "--env.kwargs.column_payoff", "[[2, 3], [0, 1]]")
    report = held("bot:0", "bot:1", "bot:copycat", "--env", "matrix_game", *words, "--games", 40)
    assert report["anchor"] is None
    players = by_name(report["players"])
    assert {row["rating"] for row in report["players"]} == {None}
    assert players["bot:0"]["mean_return"] < players["bot:1"]["mean_return"]
    pair = next(row for row in report["pairs"] if "bot:copycat" not in (row["a"], row["b"]))
    assert (pair["a"], pair["mean_return"], pair["opponent_return"]) == ("bot:1", 30, 0)
    assert pair["elo_diff"] is None
    # Against copycat only the first round is chance: silent gets 20 or 18, one who speaks 12 or 10.
    pair = next(row for row in report["pairs"] if {row["a"], row["b"]} == {"bot:0", "bot:copycat"})
    silent = pair["mean_return"] if pair["a"] == "bot:0" else pair["opponent_return"]
    assert 18 < silent < 20


def test_a_game_of_one_team(held):
    words = ("--env", "cartpole", "--env.kwargs.mask_velocity", "false", "--games", 4)
    report = held("bot:linear", "random", *words)
    (pair,) = report["pairs"]
    assert (pair["a"], pair["wins"]) == ("bot:linear", 4)
    assert pair["mean_return"] > 2 * pair["opponent_return"] > 0
    assert by_name(report["players"])["random"]["losses"] == 4


# Statistics


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    [(8, 2, 2 * (1 + 10 + 45) / 1024), (5, 5, 1.0), (0, 10, 2 / 1024), (0, 0, 1.0), (1, 0, 1.0)],
)
def test_sign_test_by_hand(wins, losses, p):
    assert standings.sign_test(wins, losses) == pytest.approx(p)
    assert standings.sign_test(losses, wins) == pytest.approx(p)


def entrant(name):
    return Entrant(name, name, contestants.Contestant(name, name, bot=name))


def made_up(rng, means, matches):
    """Pairs of players whose returns are normal with these means: by pair as it would be kept."""
    played = {}
    for pair in schedule.pairs([*means]):
        returns = np.stack(
            [rng.normal(means[name], 1, matches) for name in (pair.first, pair.second)], axis=1
        )
        score = (returns[:, 0] > returns[:, 1]).astype(float)
        played[pair] = Played(np.arange(matches), score, returns, np.ones(matches, np.int64))
    return played


@pytest.mark.parametrize("rated", [True, False])
def test_equals_are_called_different_as_seldom_as_the_level_says(rated):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        played = made_up(rng, {"a": 0.0, "b": 0.0, "c": 0.0}, 50)
        table = standings.standings([entrant(x) for x in "abc"], played, rated=rated)
        row = {row.name: row for row in table.players}
        order = [each.name for each in table.players]
        if abs(order.index("a") - order.index("b")) == 1:  # not chosen by their difference alone
            found.append(table.players[min(order.index("a"), order.index("b"))].significant)
        assert row["a"].games == 100
    assert 0.005 < np.mean(found) < 0.11


def test_differences_that_are_there_are_found():
    played = made_up(np.random.default_rng(1), {"a": 0.0, "b": 1.0, "c": 3.0}, 200)
    for rated in (True, False):
        table = standings.standings([entrant(x) for x in "abc"], played, rated=rated)
        assert [row.name for row in table.players] == ["c", "b", "a"]
        assert [row.significant for row in table.players] == [True, True, None]
        assert [(row.a, row.b, row.significant) for row in table.pairs] == [
            ("c", "b", True), ("c", "a", True), ("b", "a", True),
        ]  # fmt: skip


def test_p_value_of_returns_counts_matches_between_the_two_once():
    """Var of the difference by hand: two players, each other's only opponent, returns r and -r."""
    own = np.array([1.0, -1.0, 2.0, 4.0])
    pair = Pair("a", "b")
    played = {pair: Played(np.arange(4), np.zeros(4), np.stack([own, -own], axis=1), np.ones(4, np.int64))}
    one, other = (standings._Record(name, played) for name in "ab")
    # The difference is 2 r: mean 3, variance of the mean 4 var(r) / 4 = 13 / 3.
    z = 3 / math.sqrt(13 / 3)
    assert standings.return_p_value(one, other) == pytest.approx(math.erfc(z / math.sqrt(2)))
    assert one.return_interval() == pytest.approx(
        (1.5 - 1.959964 * math.sqrt(13 / 12), 1.5 + 1.959964 * math.sqrt(13 / 12))
    )


# What is kept


def test_a_larger_tournament_plays_only_what_is_missing(held, monkeypatch, tmp_path):
    given = []

    def counted(game, piece, *sides):
        given.extend((piece.pair, number) for number in piece.numbers)
        return play(game, piece, *sides)

    monkeypatch.setattr(command, "play", counted)
    rock, paper = Pair.of("bot:rock", "bot:paper"), Pair.of("bot:rock", "random")
    first = held("bot:rock", "bot:paper", *RPS, "--games", 6)
    assert given == [(rock, n) for n in range(6)]
    given.clear()
    assert held("bot:paper", "bot:rock", *RPS, "--games", 6)["pairs"] == first["pairs"]
    assert given == []
    held("bot:rock", "bot:paper", *RPS, "--games", 8)
    assert given == [(rock, 6), (rock, 7)]
    given.clear()
    report = held("bot:rock", "bot:paper", "random", *RPS, "--games", 6)
    assert set(given) == {(p, n) for p in (paper, Pair.of("bot:paper", "random")) for n in range(6)}
    assert {row["games"] for row in report["pairs"]} == {6}  # of the eight that are kept, the first six
    given.clear()
    held("bot:rock", "bot:paper", *RPS, "--games", 6, "--seed", 1)
    held("bot:rock", "bot:paper", *RPS, "--games", 6, "--env.kwargs.rounds", 3)
    assert len(given) == 12
    assert len(matches_kept(tmp_path / "kept")) == 8 + 12 + 12


def test_csv_says_what_json_says(held, tmp_path):
    report = held("bot:rock", "bot:paper", "random", *RPS, "--games", 30)
    assert list(report) == [
        "env", "env_kwargs", "seed", "greedy", "games_per_pair", "games", "anchor", "players", "pairs",
        "output",
    ]  # fmt: skip
    assert [list(row) for row in report["players"]] == [PLAYER_KEYS] * 3
    assert [list(row) for row in report["pairs"]] == [PAIR_KEYS] * 3
    folder = tmp_path / "kept"
    assert json.loads((folder / "tournament.json").read_text()) == report
    for kind in ("players", "pairs"):
        with (folder / f"{kind}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 3
        for row, said in zip(rows, report[kind], strict=True):
            for key, value in said.items():
                if key.endswith("ci95"):
                    cells = [row[f"{key}_low"], row[f"{key}_high"]]
                    assert cells == ["" if end is None else str(end) for end in value or (None, None)]
                else:
                    assert row[key] == ("" if value is None else str(value))
    sums = Counter()
    for row in report["pairs"]:
        sums.update({row["a"]: row["wins"], row["b"]: row["losses"]})
    assert {row["name"]: row["wins"] for row in report["players"]} == sums


def test_table_for_a_person(tmp_path, capsys):
    argv = ["tournament", "bot:paper", "bot:rock", "random", *RPS, "--games", "30", "--workers", "0"]
    assert cli.main([*argv, "--output", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "rock_paper_scissors: 3 players, 30 matches for each pair, 90 in all (seed 0)"
    assert lines[3].split()[:2] == ["1", "bot:paper"]
    assert lines[3].endswith("60  ~0.324")
    matrix = lines[lines.index("mean score of the row's player against the column's") + 3 :]
    assert matrix[0].split()[:3] == ["1", "bot:paper", "-"]
    assert all("~" in cell for cell in (matrix[1].split() + matrix[2].split()) if cell.startswith("0.4"))


SLOW = """\
import time
from envs.tic_tac_toe import TicTacToe

class Slow(TicTacToe):
    def step(self, actions):
        time.sleep(0.02)
        super().step(actions)
"""


def matches_kept_or_none(folder):
    if not (folder / FILE).exists():
        return set()
    try:
        return matches_kept(folder)
    except sqlite3.OperationalError:  # its tables are being made
        return set()


def killed(line, shell):
    """Start this command, and kill it as soon as something is kept."""
    process = subprocess.Popen(line, **shell, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 200
        while not matches_kept_or_none(shell["cwd"] / "kept"):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.kill()
        process.communicate()


def test_killed_and_interrupted_it_goes_on_where_it_was(tmp_path, capsys, monkeypatch):
    (tmp_path / "slow_game.py").write_text(SLOW)
    total = 20 * schedule.CHUNK
    argv = ["tournament", "random", "bot:perfect", "--env", "python:slow_game:Slow", "--workers", "0"]
    argv += ["--json", "--output", "kept", "--games", str(total)]
    shell = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])}}
    killed([sys.executable, "-m", "selfplay", *argv], shell)
    after_kill = matches_kept(tmp_path / "kept")

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    pieces_left = iter(range(2))

    def interrupted(*arguments):
        if next(pieces_left, None) is None:
            raise KeyboardInterrupt
        return play(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(command, "play", interrupted)
        assert cli.main(argv) == 130
    after_interrupt = matches_kept(tmp_path / "kept")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.strip() == (
        f"stopped: {len(after_interrupt)} of {total} matches are kept in kept/{FILE}; "
        "the same command goes on"
    )
    assert after_kill < after_interrupt
    assert len(after_interrupt) == len(after_kill) + 2 * schedule.CHUNK < total
    assert len(after_kill) % schedule.CHUNK == 0

    assert cli.main(argv) == 0
    assert json.loads(capsys.readouterr().out)["games"] == total
    kept = matches_kept(tmp_path / "kept")
    assert after_interrupt < kept
    # The same as never stopped, in pieces of another size.
    sides = {name: contestants.find(name) for name in ("random", "bot:perfect")}
    pair = Pair.of(*sides)
    ends = [sides[pair.first], sides[pair.second]]
    whole = play(Game("tic_tac_toe", ("{}", "{}"), 0, False), Piece(pair, tuple(range(total))), *ends)
    expected = zip(*(column.tolist() for column in (whole.number, whole.score, whole.length)), strict=True)
    assert sorted((row[5], row[6], row[9]) for row in kept) == list(expected)


def test_a_piece_is_kept_whole_or_not_at_all(tmp_path):
    game, results = Game("g", ("{}", "{}"), 0, False), Results(tmp_path)
    pair, numbers = Pair("a", "b"), np.arange(3)
    good = Played(numbers, np.ones(3), np.ones((3, 2)), np.ones(3, np.int64))
    with pytest.raises(UserError, match="cannot be used"):
        results.add(game, pair, good._replace(score=np.array([1.0, 0.0, np.nan])))  # NaN is NULL, refused
    assert len(results.played(game, pair, 9).number) == 0
    results.add(game, pair, good)
    results.add(game, pair, good._replace(score=np.zeros(3)))  # a match that is kept never changes
    for column, expected in zip(results.played(game, pair, 2), good):
        np.testing.assert_array_equal(column, expected[:2])
    results.close()


def test_files_that_are_no_results_are_refused(tmp_path):
    (tmp_path / FILE).write_bytes(b"something else, long enough to be no database" * 50)
    with pytest.raises(UserError, match=r"results.sqlite cannot be used: .*--output"):
        Results(tmp_path)
    (tmp_path / FILE).unlink()
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("CREATE TABLE t (x)")
    with pytest.raises(UserError, match="table layout 0; this version of selfplay reads 1"):
        Results(tmp_path)


# Who takes part


def past(*iterations):
    return [Player(f"main-{k:06d}", "snapshot", Rating(0, 1), iteration=k) for k in iterations]


@pytest.mark.parametrize(
    ("number", "chosen"),
    [(1, [0]), (2, [0, 50]), (4, [0, 20, 50, 75]), (9, [0, 10, 20, 50, 75, 100])],
)
def test_members_are_spaced_evenly_in_time(number, chosen):
    members = evenly_spaced(past(0, 10, 20, 50, 75, 100), number)
    assert [player.iteration for player in members] == chosen
    assert evenly_spaced([], number) == []


def test_members_of_a_run_enter(tmp_path, held):
    """Past selves of the iterations 1, 2 and 4, and the newest, whose weights are those of 4."""
    path = make_run(tmp_path / "run")
    run = RunDirectory.open(path)
    weights = contestants.find(str(path)).weights
    league = League.open(run.league, run.config.league, (0, 1), 0)
    for k in (1, 2, 4):
        past = {name: array + (4 - k) for name, array in weights.items()}
        league.add_snapshot(past, version=k, iteration=k, agent_steps=k)
    league.commit(4)
    league.close()
    given = gather([str(path), "random"], members=2, greedy=False)
    assert [each.name for each in given] == [str(path), f"{path}:main-000001", "random"]
    report = held(path, "random", "--members", 9, "--games", 2)
    assert {row["name"].rpartition(":")[2] for row in report["players"]} == {
        str(path), "main-000001", "main-000002", "random",
    }  # fmt: skip
    (alone,) = [each for each in gather([str(path)], members=2, greedy=False) if each.name == str(path)]
    assert alone.identity == given[0].identity  # a run is enough where members make it two
    some = gather([f"{path}:main-*[12]", "random"], members=1, greedy=False)
    assert [each.name for each in some] == [f"{path}:main-000001", f"{path}:main-000002", "random"]
    # What a pattern finds and is in already, or twice, is left out: main-000004 has the run's own weights.
    all_of_it = gather([str(path), f"{path}:main-*", f"{path}:*4"], members=1, greedy=False)
    assert [each.name for each in all_of_it] == [str(path), f"{path}:main-000001", f"{path}:main-000002"]
    with pytest.raises(UserError, match=r"mian\* matches no past self; there are main-\*"):
        gather([f"{path}:mian*", "random"], members=1, greedy=False)


def refused(capsys, *argv):
    """The one line that a mistake prints."""
    assert cli.main(["tournament", *map(str, argv)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err.strip()


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["random"], ["at least two players", "random"]),
        ([], ["required: A B"]),
        (["RUN", "RUN"], ["are the same player"]),
        (["RUN", "human"], ["human cannot enter", "bot:NAME"]),
        (["RUN", "randon"], ["no run directory randon", "nearest: random"]),
        (["RUN", "bot:perfct"], ["no bot 'bot:perfct'", "nearest: bot:perfect"]),
        (["random", "bot:rock"], ["--env ID"]),
        (["RUN", "random", "--games", "5"], ["--games 5", "multiple of 2", "4 or 6"]),
        (["RUN", "random", "--games", "0"], ["--games", "whole number >= 1", "'0'"]),
        (["RUN", "random", "--workers", "many"], ["--workers", "whole number or auto", "'many'"]),
        (["RUN", "random", "--env", "connect_four"], ["is not the game of", "tic_tac_toe"]),
        (["RUN", "random", "--outptu", "x"], ["--outptu", "nearest: --output"]),
        (["RUN", "random", "--output", "RUN/config.toml/x"], ["--output", "cannot make this folder"]),
    ],
)
def test_mistakes_are_one_line(argv, parts, runs, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, *(word.replace("RUN", str(runs[0])) for word in argv))
    for part in parts:
        assert part in line
    assert not (tmp_path / "tournaments").exists()


def test_runs_of_different_games_do_not_meet(runs, tmp_path, capsys):
    other = make_run(tmp_path / "other", env={"id": "connect_four"})
    assert "they play different games" in refused(capsys, runs[0], other)


def test_a_player_is_in_once_whatever_it_is_called(runs, tmp_path):
    same = tmp_path / "same"
    same.symlink_to(runs[0], target_is_directory=True)
    with pytest.raises(UserError, match="are the same player"):
        gather([str(runs[0]), str(same)], members=1, greedy=False)
