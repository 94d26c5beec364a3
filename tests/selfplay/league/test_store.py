import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from selfplay.league import LeagueError, Player, Rating, Store
from selfplay.league.outcomes import Outcomes

ROOT = Path(__file__).parents[3]


def add(store, name, iteration=0, quality=None, kind="bot", parent=None):
    return store.add_player(
        Player(name, kind, Rating(0.0, 8.0), iteration=iteration, quality=quality, parent=parent)
    )


def one_lineup(*ids, counts=((1, 0, 2), (2, 0, 1))):
    """Three matches of two teams, with seeds that hold every byte that a text could not."""
    seeds = np.array([0, 2**64 - 1, 0x00FF80C3_0000000A], np.uint64)
    one, two = np.array(counts)
    pairs = np.array([[[np.zeros(3, np.int64), one], [two, np.zeros(3, np.int64)]]])
    return Outcomes(
        np.array([ids]), np.array([3]), np.array([counts]), np.array([[5.0, 4.0]]), np.array([[-1.0, 1.0]]),
        pairs, (seeds,),
    )  # fmt: skip


def rows(directory, query):
    with sqlite3.connect(directory / "league.sqlite") as db:
        return db.execute(query).fetchall()


def test_players_come_back_in_order(tmp_path):
    player = Player(
        "main-000003",
        "snapshot",
        Rating(1.25, 2.5),
        "main",
        version=3,
        iteration=2,
        agent_steps=99,
        quality=0.5,
    )
    with Store(tmp_path) as store:
        add(store, "random")
        store.add_player(player, "seed = 1")
        store.commit(2)
    with Store(tmp_path) as store:
        assert [p.name for p in store.players()] == ["random", "main-000003"]
        assert store.players()[1] == player
        assert store.config("main-000003") == "seed = 1"
        with pytest.raises(LeagueError, match="no configuration of random"):
            store.config("random")
        assert store.iteration == 2


def test_counts_of_one_iteration_add_up(tmp_path):
    with Store(tmp_path) as store:
        a, b = add(store, "a"), add(store, "b")
        for iteration in (1, 1, 2):
            store.add_results(iteration, "train", one_lineup(a, b))
        store.commit(2)
    assert rows(tmp_path, "SELECT iteration, team, wins, draws, losses FROM results") == [
        (1, 0, 2, 0, 4), (1, 1, 4, 0, 2), (2, 0, 1, 0, 2), (2, 1, 2, 0, 1),
    ]  # fmt: skip
    assert rows(tmp_path, "SELECT seat, player FROM lineup_seats") == [(0, a), (1, b)]
    sums = "SELECT matches, placement, returns FROM results WHERE iteration = 1 AND team = 0"
    assert rows(tmp_path, sums) == [(6, 10.0, -2.0)]


def test_every_match_can_be_found_by_its_iteration(tmp_path):
    with Store(tmp_path) as store:
        a, b = add(store, "a"), add(store, "b")
        for kind in ("train", "train", "rating"):
            store.add_results(1, kind, one_lineup(a, b))
        store.commit(1)
    seeds = [0, 2**64 - 1, 0x00FF80C3_0000000A]
    with Store(tmp_path, readonly=True) as store:
        assert [m.seed for m in store.matches(1)] == [*seeds, *seeds, *seeds]
        assert [m.kind for m in store.matches(1)] == ["rating"] * 3 + ["train"] * 6
        assert {m.lineup for m in store.matches(1)} == {("a", "b")}
        assert store.matches(2) == []


def test_what_was_not_committed_is_not_there(tmp_path):
    with Store(tmp_path) as store:
        add(store, "a")
        store.commit(0)
        add(store, "b")
    with Store(tmp_path) as store:
        assert [p.name for p in store.players()] == ["a"]


def test_truncate_goes_back_to_the_iteration(tmp_path):
    with Store(tmp_path) as store:
        a = add(store, "a")
        old = add(store, "old", 1, quality=0.0, kind="snapshot")
        store.add_results(1, "train", one_lineup(a, old))
        store.add_rating(1, "old", Rating(3.0, 2.0))
        store.commit(1)
        new = add(store, "new", 2, quality=0.0, kind="snapshot", parent="old")
        add(store, "newer", 3, quality=0.0, kind="snapshot", parent="new")
        store.add_results(2, "train", one_lineup(a, old))
        store.add_results(3, "train", one_lineup(a, new))
        store.add_rating(2, "old", Rating(4.0, 1.0))
        store.commit(3)
        add(store, "uncommitted", 1)
        store.truncate(1)
        store.commit(1)
        assert [p.name for p in store.players()] == ["a", "old"]
        assert store.players()[1].rating == (3.0, 2.0)
        assert store.rating_history() == [(1, "old", (3.0, 2.0))]
        newest = add(store, "new", 2)  # takes the number of the one before
        store.add_results(2, "train", one_lineup(a, newest))
        store.commit(2)
    assert rows(tmp_path, "SELECT DISTINCT iteration FROM results") == [(1,), (2,)]
    assert rows(tmp_path, "PRAGMA foreign_key_check") == []
    assert len(rows(tmp_path, "SELECT * FROM lineups")) == 2


def test_a_rating_keeps_its_history(tmp_path):
    with Store(tmp_path) as store:
        add(store, "a")
        for iteration, mu in ((1, 1.0), (1, 2.0), (4, 3.0)):
            store.add_rating(iteration, "a", Rating(mu, 1.0))
        assert store.rating_history() == [(1, "a", (2.0, 1.0)), (4, "a", (3.0, 1.0))]
        assert store.players()[0].rating == (3.0, 1.0)


def test_a_reader_sees_committed_iterations_while_another_writes(tmp_path):
    with Store(tmp_path) as writer:
        add(writer, "a")
        writer.commit(0)
        add(writer, "b")
        with Store(tmp_path, readonly=True) as reader:
            assert [p.name for p in reader.players()] == ["a"]
            with pytest.raises(LeagueError):
                add(reader, "c")


def test_reading_where_there_is_no_league_makes_none(tmp_path):
    with pytest.raises(LeagueError, match="no league here"):
        Store(tmp_path, readonly=True)
    assert list(tmp_path.iterdir()) == []


def test_a_kill_in_mid_transaction_leaves_the_last_committed_iteration(tmp_path):
    writer = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from selfplay.league import Player, Rating, Store
store = Store(Path({str(tmp_path)!r}))
store._db.execute("PRAGMA cache_size = 1")  # so that uncommitted pages reach the file
for i in range(200):
    store.add_player(Player(f"old-{{i:03}}", "bot", Rating(0.0, 1.0)))
store.commit(1)
for i in range(2000):
    store.add_player(Player(f"new-{{i:04}}", "bot", Rating(0.0, 1.0)))
store.set_quality([(f"old-{{i:03}}", 1.0) for i in range(200)])
print("ready", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", writer], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.communicate()
    journal = tmp_path / "league.sqlite-journal"
    assert journal.stat().st_size > 0  # the file was being rewritten
    with Store(tmp_path) as store:
        assert store.iteration == 1
        players = store.players()
        assert len(players) == 200
        assert all(p.name.startswith("old") and p.quality is None for p in players)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"this is no database at all" * 200,
        lambda data: data[: len(data) // 2],
        lambda data: data[:4096] + bytes(range(256)) * 16 + data[8192:],
    ],
    ids=["foreign", "cut", "page"],
)
@pytest.mark.parametrize("readonly", [False, True])
def test_a_damaged_database_is_named(tmp_path, damage, readonly):
    with Store(tmp_path) as store:
        for i in range(200):
            add(store, f"player-{i}")
        store.commit(0)
    path = tmp_path / "league.sqlite"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(LeagueError, match=r"league\.sqlite") as caught:
        Store(tmp_path, readonly=readonly)
    assert isinstance(caught.value, ValueError)


def test_another_table_layout_is_refused(tmp_path):
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / "league.sqlite") as db:
        db.execute("PRAGMA user_version = 7")
    with pytest.raises(LeagueError, match="layout 7"):
        Store(tmp_path)


def test_weights_of_an_unknown_player_name_those_that_exist(tmp_path):
    with Store(tmp_path) as store:
        digest = store.save_weights({"w": np.ones(2)})
        store.add_player(Player("main-000001", "snapshot", Rating(0.0, 1.0), weights=digest))
        with pytest.raises(LeagueError, match="main-000001"):
            store.weights("main-000002")
