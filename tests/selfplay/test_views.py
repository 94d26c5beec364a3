"""Runs that see the same game in different ways meet, each with its own view."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch

from envs.phantom_tic_tac_toe import PhantomTicTacToe
from selfplay import contestants, play, recording, views
from selfplay.config import EnvConfig
from selfplay.draws import MatchDraws
from selfplay.errors import UserError
from selfplay.evaluate import evaluate, match_seeds, rotations
from selfplay.players import PolicyPlayer
from selfplay.recording import FirstMatch
from selfplay.views import Meeting, Seeing, Views
from tests.selfplay.test_play import make_run, played, refused

PHANTOM = "phantom_tic_tac_toe"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Who sees all that is known; who sees the last try, its own last action, and values the whole state."""
    path = tmp_path_factory.mktemp("views")
    known = make_run(path / "known", env={"id": PHANTOM}, seed=3)
    last = make_run(
        path / "last",
        env={"id": PHANTOM, "kwargs": {"observation": "last"}},
        policy={
            "encoder": [8],
            "hidden_size": 12,
            "core": "gru",
            "critic": "privileged",
            "previous": True,
        },
        seed=4,
    )
    return known, last


def own_policies(runs):
    """Each side's game and its policy for that, made bold: what it sees shows in what it does."""
    sides = [contestants.find(str(run)) for run in runs]
    games = contestants.games(sides, None, {})
    meeting = Meeting(games, 1)
    parts = contestants.common_parts(sides, meeting.env)
    policies = [
        contestants.seat(side, meeting.game(k)[1], parts, greedy=False)[0] for k, side in enumerate(sides)
    ]
    for player in policies:
        with torch.no_grad():
            player.policy.output_weight[:-1] *= 300
            for weight in player.policy.encoder.weight:
                weight *= 2.5
    return games, parts, policies


def slowly(policies, seed):
    """Actions of one match, the first player at seat 0: two games side by side, everything by hand."""
    envs = [PhantomTicTacToe(1), PhantomTicTacToe(1, observation="last")]
    for env in envs:
        env.restart(np.array([0]), np.array([seed], np.uint64))
    states = [np.zeros((*p.state_shape[:2], 1, p.state_shape[2]), np.float32) for p in policies]
    previous, earned, actions = [0, 0], [0.0, 0.0], []  # 0: no action yet
    while not envs[0].over[0]:
        seat = int(envs[0].to_act[0, 1])
        group, player = envs[seat].groups[0], policies[seat]
        extras = {
            "@state": envs[seat].privileged[""].copy(),
            "@action": np.array([previous[seat]]),
            "@reward": np.array([[earned[seat]]], np.float32),
        }
        obs = {"": group.obs[""][:, seat].copy()} | {path: extras[path] for path in player.extras}
        moment = MatchDraws(np.array([seed], np.uint64), np.array([len(actions)]))
        draws = moment.rows(np.array([0]), np.array([seat]))
        is_first = np.array([previous[seat] == 0])
        decision = player.act(obs, {"": group.mask[""][:, seat].copy()}, is_first, states[seat], draws)
        states[seat], earned[seat] = decision.state, 0.0
        action = int(decision.action[""][0])
        previous[seat] = action + 1
        actions.append((seat, action))
        for env in envs:
            env.step(({"": np.full((1, 2), action)},))
        earned = [held + float(now) for held, now in zip(earned, envs[0].reward[0], strict=True)]
    return actions


def first_match(games, parts, policies, seed):
    """[(seat, action)] of the first match of an evaluation, and its seed."""
    meeting = Meeting(games, 1)
    env = FirstMatch(meeting.env)
    players = [meeting.seated(k, (policy,)) for k, policy in enumerate(policies)]
    evaluate(env, parts, players, games=2, seed=seed)
    return [(seat, int(leaf[""])) for step in env.actions for seat, leaf in step.items()], env.seed


@pytest.mark.parametrize("seed", range(4))
def test_each_side_decides_from_its_own_view(runs, seed):
    games, parts, policies = own_policies(runs)
    assert set(policies[1].extras) == {"@action", "@reward", "@state"}
    actions, match_seed = first_match(games, parts, policies, seed)
    assert match_seed == match_seeds(seed, 1)[0]
    assert actions == slowly(policies, match_seed)


def test_planted_bug_both_see_the_first_view(runs, monkeypatch):
    games, parts, policies = own_policies(runs)
    init = Seeing.__init__
    monkeypatch.setattr(Seeing, "__init__", lambda self, player, view: init(self, player, 0))
    assert any(
        actions != slowly(policies, match_seed)
        for actions, match_seed in (first_match(games, parts, policies, seed) for seed in range(4))
    )


def test_play_replay_and_several_sides(runs, tmp_path, capsys):
    known, last = runs
    file = tmp_path / "match.json"
    argv = [known, last, "--games", 20, "--seed", 1]
    result = played(capsys, *argv, "--save-replay", file)
    assert result["games"] == 20
    assert played(capsys, *argv) == result
    record = recording.load(file)
    assert {decision.seat for step in record.steps for decision in step} == {0, 1}
    assert all(decision.value is not None and decision.top for step in record.steps for decision in step)
    shown = played(capsys, "--replay", file)
    assert shown["verified"]
    assert played(capsys, f"{last}:main-000001", f"{known}:main-000001", "--games", 2)["games"] == 2
    assert played(capsys, last, "random", "--games", 2)["games"] == 2


def test_thoughts_on_record_are_each_policys_own(runs):
    """The likeliest action on record is the one that is played, when the policies are greedy."""
    sides = [contestants.find(str(run)) for run in runs]
    games = contestants.games(sides, None, {})
    meeting = Meeting(games, 2)
    env = FirstMatch(meeting.env)
    parts = contestants.common_parts(sides, env)
    players = [
        meeting.seated(k, contestants.seat(side, meeting.game(k)[1], parts, greedy=True))
        for k, side in enumerate(sides)
    ]
    evaluate(env, parts, players, games=2, seed=0)
    seated = [(sides[k].label, players[k][0]) for k in rotations(env.teams, 1).table[0]]
    record = recording.annotate(env, games[0], Meeting(games, 1).env, seated, 0)
    for step in record.steps:
        for decision in step:
            assert decision.top[0].action == decision.action


def test_games_that_differ_in_more_than_what_is_shown(tmp_path, capsys):
    plain = make_run(tmp_path / "plain")
    opened = make_run(tmp_path / "opened", env={"id": "connect_four", "kwargs": {"opening_plies": 20}})
    line = refused(capsys, plain, opened, "--games", 40)
    assert "do not play the same connect_four" in line
    assert "with {} and with {'opening_plies': 20}" in line
    assert "--env.kwargs.opening_plies VALUE" in line
    same = played(capsys, plain, opened, "--games", 2, "--env.kwargs.opening_plies", 0)
    assert same["games"] == 2


@pytest.mark.parametrize("name", ["to_act", "reward", "terminated", "over", "legal"])
def test_every_difference_is_found(name):
    """One array of the second game is wrong after a step, in one of four matches."""

    class Wrong(PhantomTicTacToe):
        def step(self, actions):
            super().step(actions)
            array = self.groups[0].mask[""][:, 0] if name == "legal" else getattr(self, name)
            array[2] = ~array[2] if array.dtype == bool else array[2] + 1

    games = [EnvConfig(id=PHANTOM), EnvConfig(id=PHANTOM, kwargs={"observation": "last"})]
    env = Views(games, [PhantomTicTacToe(4), Wrong(4, observation="last")])
    env.restart(np.arange(4), np.zeros(4, np.uint64))
    fine = Views(games, [PhantomTicTacToe(4), PhantomTicTacToe(4, observation="last")])
    fine.restart(np.arange(4), np.zeros(4, np.uint64))
    if (
        name == "legal"
    ):  # seat 0 tries a cell, then seat 1 tries the same and acts again: look where it counts
        env.envs[1].step = lambda actions: None
        env.envs[0].step = lambda actions: None
        env.envs[1].groups[0].mask[""][2, 0, 5] = False
    with pytest.raises(
        UserError, match=f"{'what is legal' if name == 'legal' else name} differs after a step"
    ):
        env.step(({"": np.zeros((4, 2), np.int64)},))
    fine.step(({"": np.zeros((4, 2), np.int64)},))


def test_seats_that_differ_are_refused_at_once():
    games = [EnvConfig(id=PHANTOM), EnvConfig(id="connect_four")]
    with pytest.raises(UserError, match="seats, teams or actions"):
        Views(games, [views.worker.make_game(views.Config(env=game), 2) for game in games])


def test_equal_settings_are_one_game(runs):
    games = [EnvConfig(id=PHANTOM), EnvConfig(id=PHANTOM)]
    meeting = Meeting(games, 2)
    assert isinstance(meeting.env, PhantomTicTacToe)
    _, _, policies = own_policies(runs)
    assert isinstance(meeting.seated(1, (policies[0],))[0], PolicyPlayer)


def test_a_person_sees_one_view(runs, monkeypatch, capsys):
    """Whatever the run is shown: the board for the seat."""
    monkeypatch.setattr("sys.stdin", io.StringIO("1\nq\n"))
    assert play.main(["human", str(runs[1]), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["games"] == 0
    assert "not yet tried" in captured.err
