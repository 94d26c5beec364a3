import numpy as np
import pytest

from selfplay.config import LeagueConfig
from selfplay.league.pool import Pool, leaver
from selfplay.league.ratings import Rating
from selfplay.league.roles import begins_anew, is_done, slots
from selfplay.league.store import Player
from selfplay.league.thin_cells import thinnest, uncertainty
from selfplay.matches import MatchResults
from tests.selfplay.league.test_league import opened, snapshot


def past(name, quality=0.0, retired=None):
    return Player(name, "snapshot", Rating(0, 1), "main", quality=quality, retired=retired)


def test_who_is_beaten_most_surely_leaves():
    counts = np.array([[9, 0, 0], [90, 0, 10], [0, 0, 0], [3, 0, 7]])
    # Lower ends of Wilson's interval: .70, .83, 0, .11.
    assert leaver(counts, [False] * 4) == 1
    assert leaver(counts, [False, True, False, False]) == 0
    assert leaver(np.zeros((3, 3)), [True, False, False]) == 1  # the oldest that may


def test_a_pool_knows_who_moved_and_who_left():
    pool = Pool([past("a", 1.0), past("gone", 5.0, retired=3), past("b", 2.0)])
    assert pool.names == ["a", "b"]
    assert pool.joining_quality() == 2.0
    assert pool.moved() == []
    pool.quality = np.array([0.5, 2.0])
    assert pool.moved() == [("a", 0.5)]
    assert pool.moved() == []
    pool.leave("a")
    pool.join(past("c", 7.0))
    assert pool.names == ["b", "c"]
    assert pool.quality.tolist() == [2.0, 7.0]


def test_a_full_pool_keeps_its_size_and_everybodys_history(tmp_path):
    league = opened(tmp_path, pool_size=3)
    for version in range(6):
        snapshot(league, version, version)
        league.commit(version)
    retired = {p.name: p.retired for p in league.players() if p.retired is not None}
    assert len(retired) == 3
    assert "main-000005" not in retired
    assert {name for drawn in league.draw(4, 40) for name in drawn.players}.isdisjoint(retired)
    assert league.metrics()["league/pool_size"] == 3
    for name in retired:
        assert league.weights(name)["w"].shape == (2, 2)
    state = league.state()
    league.close()
    again = opened(tmp_path, pool_size=3)
    assert again.state()["quality"] == state["quality"]
    again.close()


def test_what_is_forgotten_on_resume_is_not_retired(tmp_path):
    league = opened(tmp_path, pool_size=2, num_past=2)
    state = league.state()
    snapshot(league, 7, 7)
    league.commit(7)
    assert sum(p.retired is not None for p in league.players()) == 1
    league.set_state(state, 0)
    assert sum(p.retired is not None for p in league.players()) == 0
    assert league.state() == state


def test_exploiters_have_slots_of_their_own():
    config = LeagueConfig(main_exploiters=2, league_exploiters=1)
    assert [slot.name for slot in slots(config)] == [
        "main", "main_exploiter_0", "main_exploiter_1", "league_exploiter_0",
    ]  # fmt: skip
    assert [slot.name for slot in slots(LeagueConfig())] == ["main"]


@pytest.mark.parametrize(
    ("iterations", "scores", "done"),
    [(10, [0.9], False), (50, [0.9], True), (50, [0.9, 0.6], False), (99, [0.7], False), (100, [0.0], True),
     (60, [], False)],
)  # fmt: skip
def test_when_an_exploiter_is_frozen(iterations, scores, done):
    config = LeagueConfig(exploiter_iterations=100, exploiter_win_rate=0.7)
    assert is_done(config, iterations, np.array(scores)) is done


def test_who_begins_anew():
    config = LeagueConfig(exploiter_reset=0.25)
    assert begins_anew(config, "main_exploiter", 0.99)
    assert begins_anew(config, "league_exploiter", 0.24)
    assert not begins_anew(config, "league_exploiter", 0.25)
    assert not begins_anew(config, "main", 0.0)


def test_uncertainty_by_hand():
    """Never met: Beta(1, 1), 1/12. Two wins and two draws: Beta(4, 2), 8 / (36 * 7)."""
    counts = np.array([[[0, 0, 0], [2, 2, 0]], [[0, 2, 2], [0, 0, 0]]])
    np.testing.assert_allclose(uncertainty(counts), [[1 / 12, 8 / 252], [8 / 252, 1 / 12]])


def test_the_thinnest_cells_come_first():
    value = np.array([[9, 1, 3, 2], [1, 9, 3, 5], [3, 3, 9, 2], [2, 5, 2, 9]], float)
    assert thinnest(value, 3) == [(1, 3), (1, 2), (0, 2)]
    assert len(thinnest(value, 99)) == 6
    assert thinnest(np.zeros((1, 1)), 2) == []


def test_evaluators_fill_the_whole_table(tmp_path):
    """Each table is of the pair known least, so that after a while everybody met everybody."""
    league = opened(tmp_path, num_past=4, anchors=("random",))
    rng = np.random.default_rng(0)
    for iteration in range(1, 11):
        (table,) = league.thin_lineups(1, 4)
        returns = rng.choice([-1.0, 1.0], len(table.table))
        result = MatchResults(
            table.players, table.table, np.stack([returns, -returns], 1).astype(np.float32),
            np.ones(len(returns), np.int32), np.zeros(len(returns), np.uint64),
        )  # fmt: skip
        league.record_evaluation([result], iteration=iteration)
        league.commit(iteration)
    names = ["random", *(f"main-{k:06d}" for k in range(4))]
    met = league.payoffs(names).matches.sum(axis=2)
    assert met[~np.eye(5, dtype=bool)].min() == met[~np.eye(5, dtype=bool)].max() == 4
