import json
import math
import os
import pty
import shutil
import subprocess
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
from gymnasium.spaces import Discrete, MultiBinary

from envs.bots import random_bot
from envs.connect_four import ConnectFour, one_ply
from envs.vector import Group
from selfplay import checkpoint, cli, config, contestants, play, recording, worker
from selfplay.errors import UserError
from selfplay.evaluate import SLOTS, elo_difference, evaluate, rotations, score_interval, summary
from selfplay.league.league import League
from selfplay.learner import Learner
from selfplay.matches import MatchResults, score
from selfplay.parts import split
from selfplay.players import BotPlayer
from selfplay.run_directory import RunDirectory
from tests.playing import evaluate_alone

JSON_KEYS = [
    "games", "wins", "draws", "losses", "mean_score", "score_ci95", "mean_return", "elo_diff", "seed",
    "return_ci95",
]  # fmt: skip


class HighestNumber:
    """Every team of one seat chooses 0..2 at once, for two rounds; the larger sum is the return."""

    id = "python:highest_number:make"
    zero_sum = False

    def __init__(self, num_games, *, num_teams=3, num_inputs=1):
        shape = (num_games, num_teams)
        self.num_games = num_games
        self.teams = tuple(range(num_teams))
        self.bots = {
            f"plays_{k}": lambda obs, mask, rng, k=k: {"": np.full(len(obs[""]), k, np.int64)}
            for k in range(3)
        }
        obs = {"": np.zeros((*shape, num_inputs), np.int8)}
        self.groups = (Group("seat", self.teams, MultiBinary(num_inputs), Discrete(3), obs),)
        self.round = np.zeros(num_games, int)
        self.to_act = np.zeros(shape, bool)
        self.reward = np.zeros(shape, np.float32)
        self.terminated = np.zeros(shape, bool)
        self.truncated = np.zeros(shape, bool)
        self.over = np.ones(num_games, bool)

    def restart(self, games, seeds):
        self.round[games] = 0
        self.over[games] = self.terminated[games] = False
        self.to_act[games] = True

    def step(self, actions):
        running = ~self.over
        self.reward[:] = np.where(running[:, None], actions[0][""], 0)
        self.round += running
        self.over[:] = self.round == 2
        self.terminated[:] = (running & self.over)[:, None]
        self.to_act[:] = ~self.over[:, None]

    def state(self):
        return None

    def set_state(self, state):
        raise NotImplementedError

    def render(self, game):
        return f"round {self.round[game]}"

    def action_names(self, game):
        return None


@pytest.fixture
def highest_number(monkeypatch):
    module = types.ModuleType("highest_number")
    module.make = HighestNumber
    monkeypatch.setitem(sys.modules, "highest_number", module)
    return HighestNumber.id


def make_run(path, *, seed=7, **sections):
    """A run whose policy, as it was drawn, is in its checkpoints and main-000003; main-000001 is another."""
    table = {"env": {"id": "connect_four"}, "policy": {"encoder": [16], "hidden_size": 16}, "seed": seed}
    settings = config.resolve(table | sections, {}, source="test")
    run = RunDirectory.create(path, settings)
    env = worker.make_game(settings, 1)
    (policy,) = worker.make_policies(settings, env, seed).values()
    learner = Learner(policy, settings.ppo, seed=0)
    arrays, meta = learner.state()
    for iteration in (3, 5):
        checkpoint.save(run.checkpoints, iteration=iteration, arrays={"learner": arrays}, meta=meta)
    league = League.open(run.league, settings.league, env.teams, 0)
    older = {name: array + 1 for name, array in learner.weights().items()}
    league.add_snapshot(older, version=1, iteration=1, agent_steps=5)
    league.add_snapshot(learner.weights(), version=3, iteration=3, agent_steps=10)
    league.commit(3)
    league.close()
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run")


def refused(capsys, *argv):
    """The one line that a mistake prints."""
    assert play.main(list(map(str, argv))) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err.strip()


def played(capsys, *argv):
    """The JSON object that is the only output."""
    assert play.main([*map(str, argv), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


# Numbers


@pytest.mark.parametrize(
    ("mean", "games", "low", "high"),
    [
        # Wilson 1927 by hand with z^2 = 3.8415: at m = 1, n / (n + z^2) to 1; at m = .5, symmetric.
        (1.0, 10, 10 / 13.8415, 1.0),
        (0.0, 10, 0.0, 3.8415 / 13.8415),
        (0.5, 100, 0.40383, 0.59617),
        # 81 of 263, Newcombe 1998 (Stat. Med. 17, table I, method 3)
        (81 / 263, 263, 0.2553, 0.3662),
    ],
)
def test_interval_by_hand(mean, games, low, high):
    assert score_interval(mean, games) == pytest.approx((low, high), abs=1e-4)


def test_interval_covers_the_truth_with_draws_as_often_as_it_says():
    rng = np.random.default_rng(0)
    games, truth = 60, 0.3 + 0.4 / 2
    scores = rng.choice([1.0, 0.5, 0.0], p=[0.3, 0.4, 0.3], size=(4000, games)).mean(axis=1)
    covered = [low <= truth <= high for low, high in (score_interval(m, games) for m in scores)]
    assert np.mean(covered) >= 0.95


@pytest.mark.parametrize(
    ("mean", "games", "elo"),
    [
        (0.5, 10, 0.0),
        (10 / 11, 1000, 400.0),  # odds 10 : 1 are 400 points
        (1 / 11, 1000, -400.0),
        (1.0, 50, 400 * math.log10(99)),  # 49.5 of 50
        (0.0, 50, -400 * math.log10(99)),
        (1.0, 1, 0.0),
    ],
)
def test_elo_by_hand(mean, games, elo):
    assert elo_difference(mean, games) == pytest.approx(elo)


def test_summary_by_hand():
    # Two teams of two seats; player 0 on team 0, 1, 0, 1: it wins, draws, loses, wins.
    lineup = np.array([[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]], np.int32)
    returns = np.array([[3, 0, 1, 0], [1, 2, 1, 0], [0, 4, 0, 2], [0, 1, 0, 1]], np.float32)
    results = MatchResults(("0", "1"), lineup, returns, np.ones(4, np.int32), np.zeros(4, np.uint64))
    result = summary(results, (0, 1, 0, 1), seed=7)
    assert (result.games, result.wins, result.draws, result.losses) == (4, 2, 1, 1)
    assert result.mean_score == 0.625
    assert result.mean_return == (2 + 1 + 0 + 1) / 4
    assert result.elo_diff == pytest.approx(400 * math.log10(0.625 / 0.375))
    assert result.seed == 7


# Matches


@pytest.mark.parametrize("teams", [(0, 1), (0, 1, 2), (0, 0, 1, 1), (0, 1, 0, 1), (0,)])
def test_every_player_holds_every_seat_equally_often(teams):
    num_teams = max(teams) + 1
    table = rotations(teams, 4 * num_teams).table
    for seat in range(len(teams)):
        assert np.bincount(table[:, seat]).tolist() == [4] * num_teams
    assert table[0].tolist() == list(teams)  # A begins
    for row in table:  # a team is one player
        assert len(set(zip(teams, row.tolist()))) == num_teams


class Spy(BotPlayer):
    """Random, and keeps the seats in which it begins."""

    def __init__(self, env):
        super().__init__(random_bot(env.groups[0].action_space))
        self.begun = []

    def act(self, obs, mask, is_first, state, rng):
        self.begun += [int(view.sum()) for view in obs[""][is_first]]  # discs seen: 0 as seat 0, 1 as seat 1
        return super().act(obs, mask, is_first, state, rng)


def test_every_scheduled_match_is_played_to_its_end_beyond_the_slots():
    env = ConnectFour(16)
    players = [Spy(env), Spy(env)]
    result = evaluate_alone(env, players, games=50, seed=0)
    assert result.games == result.wins + result.draws + result.losses == 50
    for player in players:
        assert np.bincount(player.begun).tolist() == [25, 25]


def test_random_against_random_is_even():
    env = ConnectFour(SLOTS)
    random = BotPlayer(random_bot(env.groups[0].action_space))
    result = evaluate_alone(env, [random, random], games=4000, seed=3)
    low, high = result.score_ci95
    assert low <= 0.5 <= high
    assert high - low < 0.04
    assert abs(result.mean_return) < 0.06


def test_one_ply_beats_random_from_either_side(capsys):
    result = played(capsys, "bot:one_ply", "random", "--games", 200, "--env", "connect_four")
    assert list(result) == JSON_KEYS
    assert result["mean_score"] > 0.85
    assert result["wins"] + result["draws"] + result["losses"] == result["games"] == 200
    swapped = played(capsys, "random", "bot:one_ply", "--games", 200, "--env", "connect_four")
    assert swapped["mean_score"] < 0.15
    assert swapped["mean_return"] < -0.7
    assert swapped["elo_diff"] < -300


def test_the_seed_fixes_the_result(run, capsys):
    argv = [run, "bot:one_ply", "--games", 20]
    results = [played(capsys, *argv, "--seed", seed) for seed in (5, 5, 6, 7, 8)]
    assert results[0] == results[1]
    assert any(result["mean_return"] != results[0]["mean_return"] for result in results[2:])


def test_three_teams_and_one(highest_number, capsys):
    three = ["bot:plays_1", "bot:plays_2", "bot:plays_0", "--env", highest_number]
    result = played(capsys, *three)
    assert result["games"] == 102  # the default, made a multiple of 3
    assert result["losses"] == 102  # the only best wins
    assert result["mean_return"] == 2.0
    assert result["elo_diff"] is None
    best = played(capsys, "bot:plays_2", "bot:plays_2", "bot:plays_0", "--env", highest_number, "--games", 3)
    assert best["draws"] == 3
    argv = ["bot:plays_2", "--env", highest_number, "--env.kwargs.num_teams", "1", "--games", "5"]
    alone = played(capsys, *argv)
    assert (alone["games"], alone["mean_return"]) == (5, 4.0)


def test_a_player_may_hold_one_role_or_seat_of_its_team(monkeypatch, highest_number, capsys):
    """Two teams, of two backs and a keeper and of a keeper: a team's return is the mean of its seats'."""

    class InTeams(HighestNumber):
        seat_names = ("back_0", "back_1", "keeper_0", "keeper_1")

        def __init__(self, num_games):
            super().__init__(num_games, num_teams=4)
            self.teams = (0, 0, 0, 1)

    sys.modules["highest_number"].make = InTeams
    rest = ["--env", highest_number, "--games", 12, "--lineup"]
    for held, turns in (("role", 3), ("seat", 4)):
        result = played(capsys, "bot:plays_2", "bot:plays_0", *rest, held)
        assert (result["wins"], result["mean_return"], result["elo_diff"]) == (12, 4.0, None)
        # A plays 0 and the others 1: both backs (0, 0, 1 | 1) or one of three (0, 1, 1 | 1) lose as the lone
        # keeper does (1, 1, 1 | 0).
        result = played(capsys, "bot:plays_0", "bot:plays_1", *rest, held)
        assert (result["losses"], result["mean_return"]) == (12, 0.0)
        # B holds the unit after A's, and plays 2, C 1. By roles: (0, 0, 2 | 1) 2/3 to 1 loses, (1, 1, 0 | 2)
        # loses, (2, 2, 1 | 0) loses. By seats: (0, 2, 1 | 1) even, (1, 0, 2 | 1) even, and two losses.
        result = played(capsys, "bot:plays_0", "bot:plays_2", "bot:plays_1", *rest, held)
        assert (result["draws"], result["losses"]) == {3: (0, 12), 4: (6, 6)}[turns]
        assert play.main(["random", "random", "--env", highest_number, "--games", "7", "--lineup", held]) == 2
        assert f"a multiple of {turns}, such as" in capsys.readouterr().err


def test_mates_of_one_team_hold_a_role_each(capsys):
    argv = ["random", "random", "--env", "signalling", "--games", 400, "--lineup", "role"]
    result = played(capsys, *argv)
    assert result["games"] == result["draws"] == 400  # nobody can win
    assert play.main(["random", "random", "--env", "signalling", "--lineup", "role"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("signalling: random and random\n")
    assert "wins" not in shown
    for wrong, told in [
        (["random", "--lineup", "role"], "signalling has 2, team by team, played by 2 to 2 players; 1 given"),
        (["random", "random", "random", "--lineup", "seat"], "played by 2 to 2 players; 3 given"),
        (["random", "random", "--lineup", "role", "--games", "3"], "a multiple of 2, such as 2 or 4"),
    ]:
        assert play.main([*wrong, "--env", "signalling"]) == 2
        assert told in capsys.readouterr().err
    assert play.main(["random", "random", "--env", "cartpole", "--lineup", "seat"]) == 2
    assert "cartpole has only one" in capsys.readouterr().err


# Who plays


def test_forms_of_a_runs_player(run, capsys):
    forms = [run, f"{run}:main", f"{run}:main-000003", run / "checkpoints" / "iteration-00000003"]
    results = [played(capsys, form, "random", "--games", 10) for form in forms]
    assert all(result == results[0] for result in results)  # they hold the same weights
    assert played(capsys, f"{run}:random", f"{run}:random", "--games", 2)["games"] == 2


def test_weights_are_those_that_were_saved(run):
    settings = RunDirectory.open(run).config
    env = worker.make_game(settings, 1)
    (policy,) = worker.make_policies(settings, env, settings.seed).values()
    drawn = policy.state_dict()
    for text in (str(run), f"{run}:main-000003"):
        (seated,) = contestants.seat(contestants.find(text), env, split(env, ["group"]), greedy=True)
        assert seated.greedy
        for name, tensor in seated.policy.state_dict().items():
            assert (tensor == drawn[name]).all()


def test_without_a_checkpoint_the_newest_past_self_plays(run, tmp_path):
    shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("iteration-*"))
    assert contestants.find(str(tmp_path / "copy")).label == f"{tmp_path / 'copy'} (main-000003)"
    assert contestants.find(str(run)).label == f"{run} (iteration-00000005)"


def test_arguments_for_training_only_are_left_out(tmp_path, capsys):
    table = {"id": "connect_four", "train_kwargs": {"opening_plies": 20}}
    path = make_run(tmp_path / "run", env=table)
    file = tmp_path / "match.json"
    played(capsys, path, "random", "--games", 2, "--save-replay", file)
    assert recording.load(file).env_kwargs == {}


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["nowhere", "random"], ["no run directory nowhere", "bot:NAME"]),
        (["nowhere:main-000001", "random"], ["no run directory nowhere"]),
        (["ramdom", "random"], ["nearest: random"]),
        (
            ["{run}:main-003", "random"],
            ["no player 'main-003'", "nearest: main-000003", "it has ", "random"],
        ),
        (["{run}", "bot:one_plie"], ["no bot 'bot:one_plie'", "bot:one_ply"]),
        (["{run}", "random", "--env", "chess"], ["--env chess", "plays connect_four"]),
        (["random", "random"], ["--env ID"]),
        (["random", "random", "--env", "connect_five"], ["'connect_four'?"]),
        (["random", "random", "--env", "connect_four", "--env.kwargs.plies", "1"], ["no kwarg 'plies'"]),
        (["{run}"], ["played by 2", "1 given"]),
        (["{run}", "random", "--games", "7"], ["--games 7", "multiple of 2", "6 or 8"]),
        (["{run}", "random", "--games", "0"], ["--games", "'0'"]),
        (["{run}", "random", "--seed", "-1"], ["--seed", "'-1'"]),
        (["{run}", "random", "--game", "7"], ["unknown option --game; nearest: --games"]),
        (["{run}", "random", "--save-replay", "nowhere/match.json"], ["no folder nowhere"]),
        (["{run}", "human", "--render"], ["without people"]),
        (["{run}/checkpoints/iteration-00000004", "random"], ["iteration-00000004", "newest: "]),
        (["{run}/checkpoints", "random"], ["not a run directory"]),
    ],
)
def test_mistakes(argv, parts, run, capsys):
    line = refused(capsys, *(word.replace("{run}", str(run)) for word in argv))
    for part in parts:
        assert part in line


def test_a_damaged_checkpoint_is_refused_with_the_newest_good_one(run, tmp_path, capsys):
    path = tmp_path / "copy"
    shutil.copytree(run, path)
    damaged = path / "checkpoints" / "iteration-00000005" / "learner.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    line = refused(capsys, path, "random")
    assert str(damaged) in line
    assert f"newest good: {path / 'checkpoints' / 'iteration-00000003'}" in line


def test_a_checkpoint_outside_its_run_is_refused(run, tmp_path, capsys):
    shutil.copytree(run / "checkpoints" / "iteration-00000005", tmp_path / "loose")
    assert "config.toml" in refused(capsys, tmp_path / "loose", "random")


def test_runs_of_different_games(run, tmp_path, highest_number, capsys):
    other = make_run(tmp_path / "other", env={"id": highest_number, "kwargs": {"num_teams": 2}})
    line = refused(capsys, run, other)
    assert f"{run} connect_four" in line
    assert f"{other} {highest_number}" in line
    third = make_run(tmp_path / "third", env={"id": highest_number, "kwargs": {"num_teams": 3}})
    line = refused(capsys, other, third)
    assert "{'num_teams': 3}" in line
    assert "--env.kwargs.num_teams VALUE" in line
    assert played(capsys, other, third, "--env.kwargs.num_teams", "2", "--games", 2)["games"] == 2


def test_a_policy_of_other_spaces(tmp_path, highest_number, capsys):
    path = make_run(tmp_path / "other", env={"id": highest_number, "kwargs": {"num_teams": 2}})
    argv = [path, "random", "--games", 2]
    assert played(capsys, *argv)["games"] == 2
    line = refused(capsys, *argv, "--env.kwargs.num_inputs", "5")
    assert f"{path} (iteration-00000005) does not fit {highest_number}" in line
    assert "size mismatch" in line


def test_weights_of_another_configuration(run, tmp_path, capsys):
    """As where somebody edits config.toml, or a run of an older version."""
    shutil.copytree(run, tmp_path / "copy")
    file = tmp_path / "copy" / "config.toml"
    text = file.read_text()
    file.write_text(text.replace("hidden_size = 16", "hidden_size = 24"))
    assert "does not fit connect_four" in refused(capsys, tmp_path / "copy", "random")
    file.write_text(text.replace('core = "lstm"', 'core = "gru"'))
    assert "does not fit connect_four" in refused(capsys, tmp_path / "copy", "random")
    file.write_text(text.replace("hidden_size = 16", "hidden_sise = 16"))
    assert "hidden_sise" in refused(capsys, tmp_path / "copy", "random")


def test_a_match_that_goes_on_and_on_says_so(capsys):
    env = ConnectFour(2)
    random = (BotPlayer(random_bot(env.groups[0].action_space)),)
    watch = play.Patience(4, seconds=0.0)
    evaluate(env, split(env, ["group"]), [random, random], games=4, seed=0, watch=watch)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "0 of 4 matches are over after 0 s; 2 decisions made"
    assert lines[-1].startswith("3 of 4 matches are over")
    evaluate(env, split(env, ["group"]), [random, random], games=4, seed=0, watch=play.Patience(4))
    assert capsys.readouterr().err == ""


# Recordings


def test_replay_round_trip(run, tmp_path, capsys):
    file = tmp_path / "match.json"
    argv = [run, "bot:one_ply", "--games", 4, "--seed", 3]
    watched = played(capsys, *argv, "--save-replay", file)
    assert watched == played(capsys, *argv)  # watching changes nothing
    record = recording.load(file)
    assert record.seed == 3
    assert record.lineup == (f"{run} (iteration-00000005)", "bot:one_ply")
    boards = list(recording.play_again(record, ConnectFour(1)))
    assert len(boards) == len(record.steps) + 1
    assert [decision.seat for step in record.steps for decision in step][:4] == [0, 1, 0, 1]
    assert boards[-1][0].splitlines()[-1] in ("X has won", "O has won", "draw")
    assert sorted(record.returns) in ([-1.0, 1.0], [0.0, 0.0])
    for step in record.steps:
        for decision in step:
            assert decision.name == str(decision.action + 1)
            if decision.seat == 0:
                assert 0 <= decision.entropy <= math.log(7) + 1e-6
                assert [choice.probability for choice in decision.top] == sorted(
                    (choice.probability for choice in decision.top), reverse=True
                )
            else:
                assert (decision.value, decision.entropy, decision.top) == (None, None, ())


def test_thoughts_on_record_are_those_of_the_policy_that_acted(run):
    """Values with the recurrent state as it was at each decision, not begun anew."""
    env = recording.FirstMatch(ConnectFour(1))
    (policy,) = contestants.seat(contestants.find(str(run)), env, split(env, ["group"]), greedy=True)
    acted = []

    class Listening:
        state_shape, extras = policy.state_shape, ()

        def act(self, obs, mask, is_first, state, rng):
            decision = policy.act(obs, mask, is_first, state, rng)
            acted.append((int(decision.action[""].item()), float(decision.value.item())))
            return decision

    rival = BotPlayer(one_ply)
    evaluate_alone(env, [Listening(), rival], games=2, seed=0)
    game = config.EnvConfig(id="connect_four")
    record = recording.annotate(env, game, ConnectFour(1), [("A", policy), ("B", rival)], 0)
    own = [decision for step in record.steps for decision in step if decision.seat == 0]
    assert 4 <= len(own) < len(acted)
    assert [decision.action for decision in own] == [action for action, _ in acted[: len(own)]]
    values = [value for _, value in acted[: len(own)]]
    assert [decision.value for decision in own] == pytest.approx(values, abs=1e-5)
    assert [decision.top[0].action for decision in own] == [decision.action for decision in own]


def test_a_replay_that_ends_otherwise_is_refused(run, tmp_path, capsys):
    file = tmp_path / "match.json"
    played(capsys, run, "random", "--games", 2, "--save-replay", file)
    record = recording.load(file)
    wrong = replace(record, returns=tuple(-x for x in record.returns))
    with pytest.raises(UserError, match="as on record"):
        list(recording.play_again(wrong, ConnectFour(1)))
    with pytest.raises(UserError, match="as on record"):
        list(recording.play_again(replace(record, steps=record.steps[:-1]), ConnectFour(1)))
    with pytest.raises(UserError, match="does not ask"):
        list(recording.play_again(replace(record, steps=record.steps[1:]), ConnectFour(1)))
    file.write_text("{}")
    with pytest.raises(UserError, match="not a replay"):
        recording.load(file)


def test_a_replay_is_shown_without_its_game(run, tmp_path, capsys):
    """All of it where nobody is at a terminal, and whether the game still gives it."""
    file = tmp_path / "match.json"
    played(capsys, run, "random", "--games", 2, "--save-replay", file)
    record = recording.load(file)
    assert [board for board, _ in recording.play_again(record, ConnectFour(1))] == list(record.boards)
    assert play.main(["--replay", str(file)]) == 0
    out = capsys.readouterr().out
    assert all(board in out for board in record.boards)
    assert f"seat 1: random\n\n{record.boards[0]}" in out
    assert f"{len(record.steps)}. seat" in out
    assert "returns: seat 0 " in out
    assert out.endswith("verified: connect_four gives the same match\n")
    assert played(capsys, "--replay", file) == {
        "env_id": "connect_four",
        "lineup": list(record.lineup),
        "returns": list(record.returns),
        "steps": len(record.steps),
        "verified": True,
    }
    recording.save(replace(record, env_id="openspiel:no_such_game"), file)
    assert play.main(["--replay", str(file)]) == 0
    assert "not verified: " in capsys.readouterr().out


def test_code_that_a_replay_names_is_not_run(highest_number, tmp_path, capsys):
    file = tmp_path / "match.json"
    players = ["bot:plays_2", "bot:plays_1", "bot:plays_0"]
    played(capsys, *players, "--env", highest_number, "--games", 3, "--save-replay", file)
    assert played(capsys, "--replay", file)["verified"] is False
    assert played(capsys, "--replay", file, "--env", highest_number)["verified"] is True
    assert "--env connect_four is not the game on record" in refused(
        capsys, "--replay", file, "--env", "connect_four"
    )


def broken_first(change):
    def apply(table):
        change(table["steps"][0][0])

    return apply


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("boards"), "'boards'"),
        (lambda t: t["boards"].pop(), "a board before each step"),
        (lambda t: t["boards"].__setitem__(0, 3), "3 is not of type str"),
        (lambda t: t.update(returns=[1.0]), "a return for each seat"),
        (lambda t: t.update(returns=["1", "2"]), "'1' is not of type float"),
        (lambda t: t.update(match_seed=-1), "match_seed"),
        (lambda t: t.update(steps=7), "not iterable"),
        (lambda t: t.update(format=1), "another format"),
        (broken_first(lambda d: d.update(seat=2)), "not in the lineup"),
        (broken_first(lambda d: d.update(value=None)), "value and entropy"),
        (broken_first(lambda d: d["top"].append({})), "'action'"),
        (broken_first(lambda d: d.update(action="left")), "does not fit"),
        (broken_first(lambda d: d.update(action=[1, 2])), "does not fit"),
        (broken_first(lambda d: d.update(action=9)), "cannot be played again"),
        (lambda t: t.update(returns=[-x for x in t["returns"]]), "as on record"),
    ],
)
def test_damaged_replays_are_refused_in_one_line(run, tmp_path, capsys, change, words):
    file = tmp_path / "match.json"
    played(capsys, run, "bot:one_ply", "--games", 2, "--save-replay", file)
    table = json.loads(file.read_text())
    change(table)
    file.write_text(json.dumps(table))
    assert words in refused(capsys, "--replay", file)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"format": NaN}'])
def test_what_is_no_replay_is_refused(tmp_path, capsys, content):
    file = tmp_path / "match.json"
    file.write_bytes(content)
    assert "is not a replay" in refused(capsys, "--replay", file)
    assert "cannot read" in refused(capsys, "--replay", tmp_path / "nowhere.json")


def test_a_replay_is_turned_by_keys_at_a_terminal(run, tmp_path, capsys):
    file = tmp_path / "match.json"
    played(capsys, run, "random", "--games", 2, "--save-replay", file)
    pages = len(recording.load(file).boards)
    ours, theirs = pty.openpty()
    shown = subprocess.Popen(
        [sys.executable, "-m", "selfplay.play", "--replay", str(file)], stdin=theirs, stdout=theirs
    )
    os.close(theirs)

    def page():
        text = b""
        while not text.rstrip().endswith(b"quits"):
            text += os.read(ours, 4096)
        return text.decode()

    try:
        assert f"[1 of {pages}]" in page()
        os.write(ours, b"\n")
        assert f"[2 of {pages}]" in page()
        os.write(ours, b"\x1b[C")
        assert f"[3 of {pages}]" in page()
        os.write(ours, b"\x1b[D")
        assert f"[2 of {pages}]" in page()
        os.write(ours, b"q")
        assert shown.wait(timeout=60) == 0
    finally:
        shown.kill()
        os.close(ours)


def test_simultaneous_moves_are_recorded(highest_number, tmp_path, capsys):
    file = tmp_path / "match.json"
    players = ["bot:plays_2", "bot:plays_1", "bot:plays_0"]
    played(capsys, *players, "--env", highest_number, "--games", 3, "--save-replay", file)
    record = recording.load(file)
    assert [[decision.action for decision in step] for step in record.steps] == [[2, 1, 0], [2, 1, 0]]
    assert [board for board, _ in recording.play_again(record, HighestNumber(1))] == [
        "round 0", "round 1", "round 2"
    ]  # fmt: skip


def test_render_shows_boards_and_thoughts(run, capsys):
    assert play.main([str(run), "random", "--games", "2", "--render"]) == 0
    captured = capsys.readouterr()
    assert f"seat 0: {run} (iteration-00000005)" in captured.out
    assert "1. seat 0 plays" in captured.out
    assert "entropy" in captured.out
    assert "mean score" in captured.out
    played(capsys, run, "random", "--games", 2, "--render")  # boards go to stderr: stdout is one line


def test_json_is_the_only_line_of_stdout(run, capfd):
    assert cli.main(["play", str(run), "random", "--games", "10", "--seed", "4", "--json"]) == 0
    (line,) = capfd.readouterr().out.splitlines()
    result = json.loads(line)
    assert list(result) == JSON_KEYS
    low, high = result["score_ci95"]
    assert 0 <= low < result["mean_score"] < high <= 1
    assert result["seed"] == 4


def test_nobody_wins_where_there_is_no_opponent():
    assert score(np.array([[3.0], [-1.0]]), (0,)).tolist() == [[0.5], [0.5]]
    assert score(np.array([[3.0, 1.0]]), (0, 0)).tolist() == [[0.5, 0.5]]
    assert score(np.array([[3.0, 1.0], [2.0, 2.0]]), (0, 1)).tolist() == [[1.0, 0.0], [0.5, 0.5]]
