"""Lower bounds from trained best responses: games with a known answer, and the statistics around them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from selfplay import best_response, cli, contestants, exploitability, worker
from selfplay import config as configuration
from selfplay.best_response import Effort, aligned, deviators, learner_config, lower_bound, seatings
from selfplay.config import Config, EnvConfig
from selfplay.errors import UserError
from selfplay.matches import MatchResults

DILEMMA = {"row_payoff": [[3, 0], [5, 1]], "column_payoff": [[3, 5], [0, 1]], "names": ["give", "take"]}
SMALL = Effort(budget=4096, seeds=1, games=256, seed=0)


def _bound(player: str, id: str, effort: Effort = SMALL, **kwargs):
    said: list[str] = []
    return lower_bound(contestants.find(player), EnvConfig(id=id, kwargs=kwargs), effort, said.append)


# Who deviates, and who sits where.


@pytest.mark.parametrize(
    ("teams", "seats"),
    [
        ((0, 1), [[0], [1]]),
        ((0, 1, 0, 1), [[0, 2], [1, 3]]),
        ((0, 1, 1, 1), [[0], [1, 2, 3]]),
        ((0, 1, 2), [[0], [1], [2]]),
        ((0, 0, 0), [[0], [1], [2]]),  # one team: nobody else would be left
    ],
)
def test_deviators(teams, seats):
    assert [np.flatnonzero(unit).tolist() for unit in deviators(teams)] == seats


def test_seatings_are_even_and_shuffled():
    units = deviators((0, 1, 1))
    plain = seatings(units, 4)
    assert plain.tolist() == [[0, 1, 1], [1, 0, 0], [0, 1, 1], [1, 0, 0]]
    shuffled = seatings(units, 100, np.random.default_rng(0))
    assert (shuffled[:, 0] == 0).sum() == (shuffled[:, 1] == 0).sum() == 50
    assert (shuffled[:, 1] == shuffled[:, 2]).all()
    assert (shuffled[::2, 0] == 0).any()
    assert (shuffled[1::2, 0] == 0).any()


def test_matches_are_compared_by_their_seeds():
    first = _results(seed=[3, 1, 2], returns=[30, 10, 20])
    second = _results(seed=[2, 4, 3], returns=[200, 400, 300])
    one, two = aligned([first, second])
    assert one[:, 0].tolist() == [20, 30]
    assert two[:, 0].tolist() == [200, 300]
    with pytest.raises(UserError, match="no match was finished"):
        aligned([first, _results(seed=[9], returns=[0])])


def _results(seed, returns) -> MatchResults:
    returns = np.array(returns, np.float32)
    return MatchResults(
        ("main",),
        np.zeros((len(seed), 2), np.int32),
        np.stack([returns, -returns], axis=1),
        np.ones(len(seed), np.int32),
        np.array(seed, np.uint64),
    )


# The statistics: what candidates seemed to be worth does not count in what they are found to be worth.


class _Luck:
    """A game of luck: whoever plays, each match is a standard normal number for either seat."""

    units = deviators((0, 1))

    def __init__(self, seed: int) -> None:
        self.effort, self._seed, self.frozen = Effort(1, 1, 64, 0), seed, "frozen"

    def play(self, table, players, purpose) -> MatchResults:
        number = 0 if players == "frozen" else int(players)
        rng = np.random.default_rng([self._seed, number, purpose, int(table[0, 0])])
        returns = rng.standard_normal(table.shape).astype(np.float32)
        seeds = np.arange(len(table), dtype=np.uint64)
        return MatchResults(("main", "frozen"), table, returns, np.ones(len(table), np.int32), seeds)


def _lucky_gains() -> np.ndarray:
    gains = []
    for seed in range(60):
        luck = _Luck(seed)
        candidates = [best_response._Candidate(str(k or "frozen"), str(k or "frozen")) for k in range(21)]
        chosen = best_response._chosen(luck, candidates)
        gains.append(best_response._measured(luck, candidates, chosen).nash_conv)
    return np.array(gains)


def test_choosing_among_many_does_not_flatter(monkeypatch):
    gains = _lucky_gains()
    error = gains.std() / len(gains) ** 0.5
    assert abs(gains.mean()) < 4 * error
    # Measured by the matches that they were chosen by, candidates of no worth look well.
    monkeypatch.setattr(best_response, "SELECTION", best_response.MEASUREMENT)
    monkeypatch.setattr(best_response, "SELECTION_SHARE", 1)
    assert _lucky_gains().mean() > 4 * error


def test_the_interval_covers_the_truth():
    """Of candidates 1 and 2 against the player, whose gains are 0, in about 95 of 100 measurements."""
    covered = 0
    for seed in range(100):
        candidates = [best_response._Candidate(name, name) for name in ("frozen", "1", "2")]
        low, high = best_response._measured(_Luck(seed), candidates, [1, 2]).ci95
        covered += low <= 0 <= high
    assert 88 <= covered <= 99


def test_the_player_itself_gains_exactly_nothing():
    candidates = [best_response._Candidate("the player itself", "frozen")]
    found = best_response._measured(_Luck(0), candidates, [0, 0])
    assert (found.nash_conv, found.ci95) == (0, (0, 0))


# Trained.


def test_rock_is_beaten():
    found = _bound("bot:rock", "rock_paper_scissors", rounds=1)
    assert found.nash_conv == 2
    assert found.ci95 == (2, 2)
    assert [gain.seats for gain in found.gains] == [[0], [1]]
    assert [(gain.own, gain.best_response) for gain in found.gains] == [(0, 1), (0, 1)]


def test_where_sums_are_not_zero_a_gain_is_over_what_the_player_gets_itself():
    """Two who always give get 3 a round, one who takes from a giver 5."""
    found = _bound("bot:give", "matrix_game", rounds=1, **DILEMMA)
    assert [(gain.own, gain.best_response, gain.gain) for gain in found.gains] == [(3, 5, 2), (3, 5, 2)]
    assert found.nash_conv == 4
    nothing = _bound("bot:take", "matrix_game", rounds=1, **DILEMMA)
    assert nothing.nash_conv == 0


def test_nothing_is_found_where_there_is_nothing():
    found = _bound("random", "rock_paper_scissors", rounds=1)
    low, high = found.ci95
    assert low <= 0
    assert abs(found.nash_conv) < 0.5


def test_it_is_no_more_than_the_exact_number():
    found = _bound("random", "kuhn_poker", Effort(budget=8000, seeds=1, games=512, seed=0))
    assert found.ci95[0] < 11 / 12
    assert found.nash_conv > 0.3


def test_the_same_effort_gives_the_same_bound():
    first, again, other = (
        _bound("random", "kuhn_poker", Effort(budget=512, seeds=seeds, games=64, seed=5))
        for seeds in (1, 1, 2)
    )
    assert first == again
    assert first.gains[0].own == other.gains[0].own


def test_three_seats_each_alone():
    found = _bound("random", "openspiel:kuhn_poker(players=3)", Effort(512, 1, 64, 0))
    assert [gain.seats for gain in found.gains] == [[0], [1], [2]]


def test_teams_and_groups_of_their_own():
    """A speaker and a listener have a policy each; as one team's seats, each deviates alone."""
    found = _bound("random", "signalling", Effort(512, 1, 64, 0))
    assert [gain.seats for gain in found.gains] == [[0], [1]]


# How they learn.


def test_a_learner_has_the_runs_network_and_no_magnet():
    run = configuration.load("kuhn_poker", {"policy.hidden_size": 48, "rollout.num_workers": 2})
    player = contestants.Contestant("", "", config=run, weights={})
    env = worker.make_game(Config(env=run.env), 1)
    found = learner_config(player, run.env, Effort(100_000, 1, 64, 7), env)
    assert found.policy == run.policy
    assert found.ppo.lr == run.ppo.lr
    assert (found.ppo.magnet_coef, found.ppo.entropy_final) == (0, 0)
    assert found.ppo.anneal_steps == 100_000
    assert (found.rollout.num_workers, found.seed) == (0, 7)
    assert found.rollout.num_games == best_response.FEWEST_GAMES


def test_a_large_budget_leaves_the_matches_as_they_are():
    bot = contestants.find("bot:rock")
    game = EnvConfig(id="rock_paper_scissors")
    env = worker.make_game(Config(env=game), 1)
    games = [
        learner_config(bot, game, Effort(budget, 1, 64, 0), env).rollout.num_games
        for budget in (1_000, 1_000_000, 100_000_000)
    ]
    assert games == [32, 256, 1024]


# The command.


def test_a_run_its_past_selves_and_the_report(capfd, run_dir):
    words = (
        "train default --env.id kuhn_poker --rollout.num-workers 0 --rollout.num-games 32 "
        "--policy.hidden-size 16 --stop.iterations 2 --league.snapshot-iterations 1 --league.rating-games 2 "
        f"--seed 1 --device cpu --run-dir {run_dir}"
    )
    assert cli.main(words.split()) == 0
    before = sorted(run_dir.rglob("*"))
    options = ["--method", "lower_bound", "--budget", "500", "--games", "64", "--seeds", "2"]
    found = []
    for player in (str(run_dir), f"{run_dir}:main-000000", f"{run_dir}:random"):
        capfd.readouterr()
        assert exploitability.main([player, *options, "--json"]) == 0
        out, err = capfd.readouterr()
        found.append(json.loads(out))
        assert "best response 1 of 2" in err
    assert sorted(run_dir.rglob("*")) == before
    for each in found:
        assert each["method"] == "lower_bound"
        assert "LOWER BOUND" in each["meaning"]
        assert each["nash_conv"] == pytest.approx(sum(gain["gain"] for gain in each["gains"]))
        assert each["exploitability"] == each["nash_conv"] / 2
        assert each["ci95"][0] <= each["nash_conv"] <= each["ci95"][1]
        assert (each["budget"], each["seeds"], each["games"], each["seed"]) == (500, 2, 64, 0)
        assert each["information_states"] is None
    assert exploitability.main([str(run_dir), *options]) == 0
    assert "NashConv            at least" in capfd.readouterr().out


def test_without_being_told_it_is_a_lower_bound_where_nothing_else_can_be_had(capfd):
    words = "bot:rock --env rock_paper_scissors --env.kwargs.rounds 1 --budget 1000 --games 16 --json"
    assert exploitability.main(words.split()) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["method"] == "lower_bound"
    assert err.startswith(
        "not exact: bot:rock does not tell its probabilities; what follows is a lower bound"
    )


def test_ctrl_c_ends_it_at_once():
    words = "exploitability bot:rock --env rock_paper_scissors --budget 100000000"
    process = subprocess.Popen(
        [sys.executable, "-m", "selfplay", *words.split()], stderr=subprocess.PIPE, text=True
    )
    try:
        said = ""
        while "learned" not in said:
            said = process.stderr.readline()
            assert said, "it ended by itself"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in rest
