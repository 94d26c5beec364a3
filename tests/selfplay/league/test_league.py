import json
import math
import sqlite3
from dataclasses import replace

import numpy as np
import pytest

from selfplay.config import LeagueConfig
from selfplay.league import League, LeagueError, Rating, Store
from selfplay.league.ratings import SCALE, SIGMA
from selfplay.matches import MAIN, MatchResults, joined

TWO_TEAMS = (0, 1)


def settings_of(**keys):
    return LeagueConfig(**{name: list(x) if isinstance(x, tuple) else x for name, x in keys.items()})


def results(players, lineup, returns):
    lineup = np.array(lineup, np.int32)
    return MatchResults(
        tuple(players),
        lineup,
        np.array(returns, np.float32),
        np.ones(len(lineup), np.int32),
        np.zeros(len(lineup), np.uint64),
    )


def duel(player, other, wins, draws, losses):
    """Matches of two players that take the two seats in turn."""
    outcome = np.repeat([1, 0, -1], [wins, draws, losses])
    seat = np.arange(len(outcome)) % 2
    lineup = np.stack([seat, 1 - seat], axis=1)
    return results([player, other], lineup, np.where(lineup == 0, outcome[:, None], -outcome[:, None]))


def snapshot(league, version, iteration=0, value=None):
    weights = {"w": np.full((2, 2), version if value is None else value, np.float32)}
    return league.add_snapshot(weights, version=version, iteration=iteration, agent_steps=version * 100)


def opened(directory, teams=TWO_TEAMS, num_past=0, seed=0, **settings):
    league = League.open(directory, settings_of(**settings), teams, seed)
    for version in range(num_past):
        snapshot(league, version)
    league.commit(0)
    return league


def plain(lineups):
    return [(each.players, each.table.tolist()) for each in lineups]


# Lineups


def test_with_nobody_to_meet_everyone_is_main(tmp_path):
    for teams, num_past in [((0, 1), 0), ((0,), 3), ((0, 0), 3)]:
        league = opened(tmp_path / str(len(teams)) / str(num_past), teams, num_past)
        for drawn in league.draw(3, 5):
            assert drawn.players == (MAIN,)
            assert drawn.table.dtype == np.int32
            assert drawn.table.tolist() == [[0] * len(teams)] * 5


@pytest.mark.parametrize("teams", [(0, 1), (0, 0, 1, 1), (0, 1, 2), (0, 1, 1, 2, 0)])
@pytest.mark.parametrize("opponents", [1, 2, 3])
def test_shares_of_a_draw(tmp_path, teams, opponents):
    team = np.array(teams)
    num_teams = max(teams) + 1
    held = np.zeros(num_teams, int)
    for drawn in opened(tmp_path, teams, 5, opponents=opponents).draw(4, 60):
        assert drawn.players[0] == MAIN
        assert len(set(drawn.players)) == len(drawn.players) == 1 + opponents
        against = [row for row in drawn.table if (row != 0).any()]
        assert len(against) == 12  # 20% of 60
        met = [set(row[row != 0].tolist()) for row in against]
        assert all(len(others) == min(opponents, num_teams - 1) for others in met)  # one for each other team
        times = np.bincount([other for others in met for other in others])[1:]
        assert times.tolist() == [12 * min(opponents, num_teams - 1) // opponents] * opponents
        for row in against:
            (mine,) = set(team[row == 0].tolist())
            assert (row[team == mine] == 0).all()
            held[mine] += 1
    assert np.ptp(held) == 0


@pytest.mark.parametrize(
    ("teams", "units"),
    [
        ((0, 0, 1, 1), (0, 1, 2, 3)),  # two a side, each in a role of its own
        ((1, 1, 0, 0, 0), (0, 0, 1, 2, 1)),  # two chasers; two agents and a scout
        ((0, 0), (0, 1)),  # one team: past selves are its mates
    ],
)
def test_a_learner_may_hold_one_role_of_its_team(tmp_path, teams, units):
    league = League.open(tmp_path, settings_of(opponents=1, self_play=0.5), teams, 0, units=units)
    snapshot(league, 0)
    league.commit(0)
    held = np.zeros(max(units) + 1, int)
    for drawn in league.draw(3, 24):
        assert drawn.players == (MAIN, "main-000000")
        mixed = drawn.table[(drawn.table != 0).any(axis=1)]
        assert len(mixed) == 12
        for row in mixed:
            (mine,) = set(np.array(units)[row == 0].tolist())
            assert ((np.array(units) == mine) == (row == 0)).all()
            held[mine] += 1
    assert np.ptp(held) == 0


def test_a_learner_with_mates_tells_of_itself_alone(tmp_path):
    """MAIN and a past self beat two, then are beaten by them; who of the three others is better it hides."""
    league = League.open(tmp_path, settings_of(), (0, 0, 1, 1), 0, units=(0, 1, 2, 3))
    names = [snapshot(league, k) for k in range(3)]
    won = np.array([[1, 1, -1, -1]] * 3 + [[-1, -1, 1, 1]])
    league.record([results([MAIN, *names], [[0, 1, 2, 3]] * 4, won)], iteration=1)
    league.commit(1)
    wins = {(MAIN, names[1]): 3, (MAIN, names[2]): 3, (names[1], MAIN): 1, (names[2], MAIN): 1}
    assert league.payoffs().counts[..., 0].sum(axis=-1).tolist() == _wins(league, wins)
    # Of each match won, two were beaten, by half a win each: lr 1/100, N 3, p 1/3.
    quality = [player.quality for player in league.players() if player.kind == "snapshot"]
    assert quality == pytest.approx([0, -0.015, -0.015])


def _wins(league, wanted):
    players = league.payoffs().players
    return [[wanted.get((row, column), 0) for column in players] for row in players]


def test_rounding_is_carried_on(tmp_path):
    """20% of 3 matches is .6: over 50 tables that is 30, on every team 15, though no table holds .6."""
    league = opened(tmp_path, num_past=3)
    tables = np.concatenate([drawn.table for _ in range(10) for drawn in league.draw(5, 3)])
    assert (tables != 0).sum(axis=0).tolist() == [15, 15]


def test_rows_are_shuffled(tmp_path):
    table = opened(tmp_path, num_past=3).draw(1, 100)[0].table
    past = np.flatnonzero((table != 0).any(axis=1))
    assert past.max() > 50
    assert past.min() < 50
    assert len(past) == 20


@pytest.mark.parametrize("self_play", [0.0, 1.0])
def test_the_extremes(tmp_path, self_play):
    table = opened(tmp_path, num_past=2, self_play=self_play).draw(1, 7)[0].table
    assert (table != 0).any(axis=1).mean() == 1 - self_play


def test_better_past_selves_are_met_more_often(tmp_path):
    league = opened(tmp_path, num_past=2, opponents=1, self_play=0.0)
    for iteration in range(1, 200):
        league.record([duel(MAIN, "main-000000", 4, 0, 0)], iteration=iteration)
    first, second = (player.quality for player in league.players() if player.kind == "snapshot")
    share = 1 / (1 + math.exp(second - first))
    met = [drawn.players[1] for drawn in league.draw(1000, 1)]
    assert met.count("main-000000") == pytest.approx(1000 * share, abs=1)
    assert share < 0.2


def test_the_seed_decides(tmp_path):
    first, second, other = (opened(tmp_path / str(i), num_past=6, seed=min(i, 1)) for i in range(3))
    second = opened(tmp_path / "again", num_past=6, seed=0)
    assert plain(first.draw(3, 20)) == plain(second.draw(3, 20))
    assert plain(first.draw(3, 20)) != plain(other.draw(3, 20))


# Past selves


def test_a_snapshot_is_a_copy_that_never_changes(tmp_path):
    league = opened(tmp_path)
    array = np.arange(4, dtype=np.float32)
    name = league.add_snapshot({"w": array}, version=7, iteration=1, agent_steps=70)
    league.commit(1)
    (path,) = (tmp_path / "weights").iterdir()
    before = path.read_bytes()
    array += 100
    league.weights(name)["w"][:] = -1
    assert league.weights(name)["w"].tolist() == [0, 1, 2, 3]
    assert path.read_bytes() == before


def test_what_the_table_says_of_a_snapshot(tmp_path):
    league = opened(tmp_path)
    assert league.newest is None
    assert snapshot(league, 3) == "main-000003"
    assert snapshot(league, 12, iteration=4) == league.newest == "main-000012"
    league.commit(4)
    player = league.players()[-1]
    assert (player.parent, player.version, player.iteration) == ("main-000003", 12, 4)
    assert (player.agent_steps, player.rating) == (1200, (0.0, SIGMA))
    assert league.players() == Store(tmp_path, readonly=True).players()


def test_a_version_joins_once(tmp_path):
    league = opened(tmp_path, num_past=1)
    with pytest.raises(LeagueError, match="main-000000"):
        snapshot(league, 0)


def test_damaged_weights_are_named(tmp_path):
    league = opened(tmp_path, num_past=1)
    (path,) = (tmp_path / "weights").iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(LeagueError, match=path.name):
        league.weights("main-000000")


# Results


def test_quality_falls_by_mains_wins_only(tmp_path):
    league = opened(tmp_path, num_past=2)
    league.record(
        [
            duel(MAIN, "main-000000", 3, 2, 4),
            duel(MAIN, "main-000001", 0, 5, 5),
            duel(MAIN, MAIN, 9, 0, 0),
        ],
        iteration=1,
    )
    # N = 2, p = 1/2: three wins cost .01 * 3 / (2 * 1/2).
    assert [p.quality for p in league.players() if p.kind == "snapshot"] == pytest.approx([-0.03, 0.0])
    league.record([duel(MAIN, "main-000001", 1, 0, 0)], iteration=2)
    snapshot(league, 2)
    p = 1 / (1 + math.exp(-0.03))
    assert league.players()[-1].quality == pytest.approx(-0.01 / (2 * p))  # the higher of the two


def test_wins_of_a_team_among_three(tmp_path):
    league = opened(tmp_path, (0, 1, 1, 2), num_past=1)
    league.record(
        [
            results(
                [MAIN, "main-000000"],
                [[0, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 0]],
                [[1, 0, 0, 0], [0, 3, -1, 0], [1, 0, 0, 0], [1, 1, 1, 1]],
            )
        ],
        iteration=1,
    )
    assert league.players()[-1].quality == pytest.approx(-0.02)  # both others beaten in the first two
    assert league.metrics()["league/win_rate_pool"] == pytest.approx(
        (2 + 2 + 0.5 + 1) / 8
    )  # of pairs of teams


def test_metrics_speak_of_the_last_recorded_iteration(tmp_path):
    league = opened(tmp_path, num_past=1)
    assert league.metrics() == {"league/pool_size": 1}
    league.record([duel(MAIN, "main-000000", 2, 1, 1)], iteration=1)
    league.record([duel(MAIN, "main-000000", 0, 0, 1)], iteration=1)
    league.commit(1)
    assert league.metrics()["league/win_rate_pool"] == 0.5
    league.record([duel(MAIN, MAIN, 5, 0, 0)], iteration=2)
    assert league.metrics() == {"league/pool_size": 1}


def test_counts_are_in_the_tables(tmp_path):
    league = opened(tmp_path, num_past=1)
    league.record([duel(MAIN, "main-000000", 2, 1, 4)], iteration=5)
    league.commit(5)
    with sqlite3.connect(tmp_path / "league.sqlite") as db:
        counts = db.execute(
            "SELECT name, sum(wins), sum(draws), sum(losses) FROM results"
            " JOIN lineup_seats ON lineup_seats.lineup = results.lineup AND seat = team"
            " JOIN players ON player = id WHERE results.iteration = 5 GROUP BY name"
        ).fetchall()
    assert sorted(counts) == [("main", 2, 1, 4), ("main-000000", 4, 1, 2)]


# Ratings


def test_a_known_score_against_random(tmp_path):
    league = opened(tmp_path, num_past=1)
    rating = league.rate("main-000000", duel("main-000000", "random", 750, 0, 250), 1)
    assert rating.mu == pytest.approx(SCALE * math.log(3), abs=0.3)
    assert league.metrics() == {
        "league/pool_size": 1,
        "league/win_rate/random": 0.75,
        "league/rating_games": 1000,
        "league/rating": rating.mu,
        "league/rating_sigma": rating.sigma,
        "league/rated_iteration": 0,
    }


def test_anchors_never_move(tmp_path):
    league = opened(tmp_path, num_past=1, anchors=("bot:one_ply", "random"))
    assert league.anchors == {"random": (0.0, 0.0)}
    assert league.uncalibrated == ("bot:one_ply",)
    league.calibrate(duel("bot:one_ply", "random", 90, 0, 10))
    anchors = league.anchors
    assert anchors == {"random": (0.0, 0.0), "bot:one_ply": (SCALE * math.log(90.5 / 10.5), 0.0)}
    for iteration in range(1, 4):
        league.rate("main-000000", duel("main-000000", "bot:one_ply", 60, 0, 0), iteration)
        league.rate(MAIN, duel(MAIN, "random", 0, 0, 60), iteration)
        league.commit(iteration)
    assert league.anchors == anchors
    for attempt in (
        lambda: league.calibrate(duel("bot:one_ply", "random", 1, 0, 0)),
        lambda: league.rate("bot:one_ply", duel("bot:one_ply", "random", 1, 0, 0), 4),
        lambda: league.rate("random", duel("random", "bot:one_ply", 1, 0, 0), 4),
    ):
        with pytest.raises(LeagueError, match="never move"):
            attempt()
    league.close()
    assert opened(tmp_path, anchors=("bot:one_ply",)).anchors == anchors


def test_a_rating_needs_calibrated_anchors(tmp_path):
    league = opened(tmp_path, num_past=2, anchors=("bot:one_ply",))
    for opponent in ("bot:one_ply", "main-000001"):
        with pytest.raises(LeagueError, match=opponent):
            league.rate("main-000000", duel("main-000000", opponent, 1, 0, 0), 1)


def test_a_new_version_starts_at_its_predecessors_mean(tmp_path):
    league = opened(tmp_path, num_past=2)
    older = league.rate("main-000000", duel("main-000000", "random", 10, 0, 54), 1)
    assert older.mu < 0
    rating = league.rate("main-000001", duel("main-000001", "random", 48, 0, 16), 1)
    league.rate("main-000000", duel("main-000000", "random", 10, 0, 54), 2)  # not the newest: says nothing
    snapshot(league, 2)
    assert league.players()[-1].rating == (rating.mu, SIGMA)
    assert league.metrics()["league/rating"] == rating.mu


def test_evidence_about_a_past_self_gathers_and_about_main_starts_anew(tmp_path):
    league = opened(tmp_path, num_past=1)
    for name, ratio in ((MAIN, 1.0), ("main-000000", 0.7)):
        first = league.rate(name, duel(name, "random", 32, 0, 32), 1)
        second = league.rate(name, duel(name, "random", 32, 0, 32), 2)
        assert second.sigma == pytest.approx(ratio * first.sigma, rel=0.05)


def test_lineups_for_ratings(tmp_path):
    league = opened(tmp_path, num_past=1, anchors=("bot:a", "bot:b"), rating_games=10)
    before = league.calibration_lineups()
    assert before.players == ("random", "bot:a", "bot:b")
    assert league.rating_lineups("main-000000").players == ("main-000000", "random")
    rng = np.random.default_rng(0)
    finished = rng.choice([-1, 1], len(before.table))
    league.calibrate(results(before.players, before.table, np.stack([finished, -finished], axis=1)))
    after = league.rating_lineups("main-000000")
    assert after.players == ("main-000000", "random", "bot:a", "bot:b")
    assert np.bincount(after.table.ravel()).tolist() == [30, 10, 10, 10]
    assert (after.table == 0).sum(axis=0).tolist() == [15, 15]
    assert len(league.calibration_lineups().table) == 0
    assert len(opened(tmp_path / "one", (0,)).rating_lineups(MAIN).table) == 0


@pytest.mark.parametrize(
    ("length", "settings", "number"),
    [
        (None, {}, 64),  # nobody knows yet
        (50, {}, 40),  # 0.02 * 100,000 / 50
        (60, {}, 32),  # 33, of which both teams play as many
        (20, {}, 64),  # 100, but no more than rating_games
        (50, {"anchors": ("bot:a",)}, 20),
        (1000, {}, 16),
        (1000, {"rating_games": 10}, 10),
        (1000, {"rating_share": 0.5}, 50),
        (1000, {"rating_share": 0.0}, 16),
    ],
)
def test_ratings_by_long_matches_have_fewer(tmp_path, length, settings, number):
    league = opened(tmp_path, num_past=1, **settings)
    if "anchors" in settings:
        league.calibrate(duel("bot:a", "random", 30, 0, 34))
    if length is not None:
        met = [duel("main-000000", anchor, 32, 0, 32) for anchor in league.anchors]
        met = replace(joined(met), length=np.full(64 * len(met), length, np.int32))
        league.rate("main-000000", met, 0)
        assert league.metrics()["league/rating_games"] == 64
    snapshot(league, 1000)  # 100 decisions a version
    table = league.rating_lineups("main-001000").table
    assert len(table) == number * len(league.anchors)
    assert (table == 0).sum(axis=0).tolist() == [len(table) / 2] * 2


def test_ratings_of_three_teams_and_of_those_who_begin_anew_are_limited_too(tmp_path):
    three = opened(tmp_path / "three", teams=(0, 1, 2), num_past=1)
    line = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]] * 4)
    met = results(["main-000000", "random"], line, np.where(line == 0, 1, 0))
    three.rate("main-000000", replace(met, length=np.full(12, 1000, np.int32)), 0)
    snapshot(three, 1000)
    table = three.rating_lineups("main-001000").table
    assert (table == 0).sum(axis=0).tolist() == [6, 6, 6]  # 16 are not for three

    league = opened(tmp_path / "two", num_past=1, main_exploiters=1)
    met = duel("main-000000", "random", 32, 0, 32)
    league.rate("main-000000", replace(met, length=np.full(64, 50, np.int32)), 0)
    slot = league.slots[1].name
    for steps in (100_000, 50_000):  # of its first snapshot, and of that of the next life
        name = league.add_snapshot(
            {"w": np.zeros((2, 2), np.float32)}, version=1, iteration=1, agent_steps=steps, slot=slot
        )
        assert len(league.rating_lineups(name).table) == steps * 0.02 / 50
        league.begin_anew(slot, 1)


def test_a_resumed_league_knows_how_long_rating_matches_are(tmp_path):
    league = opened(tmp_path, num_past=1)
    met = duel("main-000000", "random", 32, 0, 32)
    league.rate("main-000000", replace(met, length=np.full(64, 50, np.int32)), 0)
    league.commit(0)
    state = json.loads(json.dumps(league.state()))
    league.close()
    again = opened_again(tmp_path)
    again.set_state(state, 0)
    snapshot(again, 1000)
    assert len(again.rating_lineups("main-001000").table) == 40
    assert again.metrics()["league/rating_games"] == 64


# Durability


def play(league, iteration):
    """One iteration; its outcome depends on what the league drew."""
    finished = []
    for drawn in league.draw(2, 17):  # 3.4 matches against past selves: rounding, teams out of step
        outcome = (np.arange(len(drawn.table)) * 7 + drawn.table.sum(axis=1) + iteration) % 3 - 1
        finished.append(results(drawn.players, drawn.table, np.stack([outcome, -outcome], axis=1)))
    league.record(finished, iteration=iteration)
    if iteration % 3 == 0:
        name = snapshot(league, iteration, iteration)
        league.rate(name, duel(name, "random", 30 + iteration, 2, 30), iteration)
    league.commit(iteration)
    return [(r.players, r.lineup.tolist()) for r in finished]


def contents(directory):
    with sqlite3.connect(directory / "league.sqlite") as db:
        tables = (
            "players",
            "results",
            "matches",
            "meetings",
            "payoffs",
            "ratings",
            "lineup_seats",
            "committed",
        )
        return {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in tables}


def test_a_resumed_league_goes_on_bit_for_bit(tmp_path):
    straight = opened(tmp_path / "straight", anchors=("bot:a",))
    straight.calibrate(duel("bot:a", "random", 50, 3, 11))
    straight.commit(0)
    whole = [play(straight, i) for i in range(1, 14)]

    broken = opened(tmp_path / "broken", anchors=("bot:a",))
    broken.calibrate(duel("bot:a", "random", 50, 3, 11))
    broken.commit(0)
    parts = [play(broken, i) for i in range(1, 8)]
    state = json.loads(json.dumps(broken.state()))
    metrics = broken.metrics()
    players = broken.players()
    for i in range(8, 11):  # committed after the checkpoint, then forgotten
        play(broken, i)
    broken.record([duel(MAIN, MAIN, 1, 0, 0)], iteration=11)
    broken.close()

    resumed = opened_again(tmp_path / "broken", anchors=("bot:a",), seed=99)
    resumed.set_state(state, 7)
    assert resumed.metrics() == metrics
    assert resumed.players() == players
    assert resumed.anchors == straight.anchors
    assert resumed.state() == state
    parts += [play(resumed, i) for i in range(8, 14)]
    assert parts == whole
    assert resumed.state() == straight.state()
    assert contents(tmp_path / "broken") == contents(tmp_path / "straight")
    files = [sorted(p.name for p in (tmp_path / d / "weights").iterdir()) for d in ("broken", "straight")]
    assert files[0] == files[1]


def opened_again(directory, seed=0, **settings):
    return League.open(directory, settings_of(**settings), TWO_TEAMS, seed)


def test_ratings_and_qualities_survive_without_a_state(tmp_path):
    league = opened(tmp_path, num_past=1)
    league.record([duel(MAIN, "main-000000", 3, 0, 0)], iteration=1)
    league.rate("main-000000", duel("main-000000", "random", 48, 0, 16), 1)
    league.commit(1)
    players = league.players()
    league.close()
    assert players[-1].rating != Rating(0.0, SIGMA)
    assert players[-1].quality == pytest.approx(-0.03)
    assert opened_again(tmp_path).players() == players


def test_going_back_within_the_same_process(tmp_path):
    league = opened(tmp_path, num_past=2)
    state = league.state()
    first = [play(league, i) for i in range(1, 8)]
    league.set_state(state, 0)
    assert [play(league, i) for i in range(1, 8)] == first


def test_weights_of_forgotten_snapshots_are_removed_and_others_kept(tmp_path):
    league = opened(tmp_path, num_past=1)
    state = league.state()
    snapshot(league, 5, iteration=1)
    league.commit(1)
    league.set_state(state, 0)
    assert len(list((tmp_path / "weights").iterdir())) == 1
    assert league.weights("main-000000")["w"].shape == (2, 2)
    with pytest.raises(LeagueError):
        league.weights("main-000005")


def test_tables_of_another_run_are_refused_and_left_alone(tmp_path):
    here = opened(tmp_path / "here", num_past=1)
    here.rate("main-000000", duel("main-000000", "random", 10, 0, 0), 3)
    here.commit(3)
    snapshot(here, 5, iteration=5)
    here.commit(5)
    there = opened(tmp_path / "there", num_past=2)
    before = contents(tmp_path / "here")
    with pytest.raises(LeagueError, match="main-000001"):
        here.set_state(there.state(), 0)
    assert contents(tmp_path / "here") == before
    assert here.weights("main-000005")


def test_state_is_taken_between_iterations(tmp_path):
    league = opened(tmp_path, num_past=1)
    league.record([], iteration=1)
    with pytest.raises(AssertionError, match="commit"):
        league.state()


def test_thousands_of_matches_at_once(tmp_path):
    """Same counts as match by match, and no loop over matches (which would take seconds)."""
    league = opened(tmp_path, num_past=3)
    rng = np.random.default_rng(0)
    outcome = rng.integers(-1, 2, 200_000)
    lineup = rng.integers(0, 2, (200_000, 2))
    league.record(
        [results([MAIN, "main-000001"], lineup, np.stack([outcome, -outcome], axis=1))], iteration=1
    )
    mine = np.where(lineup[:, 0] == 0, outcome, -outcome)[lineup[:, 0] != lineup[:, 1]]
    assert league.metrics()["league/win_rate_pool"] == pytest.approx((mine.mean() + 1) / 2)
