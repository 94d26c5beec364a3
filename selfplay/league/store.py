"""The league on disk: RUN/league/league.sqlite, one transaction an iteration, and the weights beside it.

Writes gather in an open transaction until `commit`, so that a killed process leaves the last committed
iteration. A rollback journal, unlike a write-ahead log, also works on network file systems and leaves one
file between transactions. Other processes may read (`readonly=True`) while one writes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from selfplay.league import weights as weight_files
from selfplay.league.errors import LeagueError
from selfplay.league.outcomes import Outcomes
from selfplay.league.ratings import Rating

SCHEMA = 1
"""Number of the table layout below, kept in the file's user_version."""

_TABLES = """
CREATE TABLE committed (iteration INTEGER NOT NULL);
CREATE TABLE players (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('learning', 'snapshot', 'bot')),
    parent TEXT REFERENCES players (name),
    version INTEGER,               -- of the published weights; null for what has none
    iteration INTEGER NOT NULL,    -- in which the player joined
    agent_steps INTEGER,
    weights TEXT,                  -- SHA-256 of weights/SHA256.safetensors
    quality REAL,                  -- of snapshots
    prior_mu REAL NOT NULL,        -- rating on joining
    prior_sigma REAL NOT NULL
);
CREATE TABLE lineups (id INTEGER PRIMARY KEY);
CREATE TABLE lineup_seats (
    lineup INTEGER NOT NULL REFERENCES lineups (id) ON DELETE CASCADE,
    seat INTEGER NOT NULL,
    player INTEGER NOT NULL REFERENCES players (id),
    PRIMARY KEY (lineup, seat)
) WITHOUT ROWID;
CREATE TABLE results (             -- how many matches of a lineup each team won, drew and lost
    iteration INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('train', 'rating')),
    lineup INTEGER NOT NULL REFERENCES lineups (id),
    team INTEGER NOT NULL,
    wins INTEGER NOT NULL,
    draws INTEGER NOT NULL,
    losses INTEGER NOT NULL,
    PRIMARY KEY (iteration, kind, lineup, team)
) WITHOUT ROWID;
CREATE TABLE ratings (             -- history; the newest row of a player is its rating
    player INTEGER NOT NULL REFERENCES players (id),
    iteration INTEGER NOT NULL,
    mu REAL NOT NULL,
    sigma REAL NOT NULL,
    PRIMARY KEY (player, iteration)
) WITHOUT ROWID;
CREATE VIEW standings AS
    SELECT players.*, coalesce(rating.mu, prior_mu) AS mu, coalesce(rating.sigma, prior_sigma) AS sigma
    FROM players LEFT JOIN ratings AS rating ON rating.player = players.id AND rating.iteration =
        (SELECT max(iteration) FROM ratings WHERE player = players.id);
INSERT INTO committed VALUES (-1);
"""


@dataclass(frozen=True, slots=True)
class Player:
    """A row of the league's table."""

    name: str
    kind: Literal["learning", "snapshot", "bot"]
    rating: Rating
    parent: str | None = None  # the past self before
    version: int | None = None  # of the published weights
    iteration: int = 0  # in which it joined
    agent_steps: int | None = None
    weights: str | None = None  # SHA-256 of the safetensors file
    quality: float | None = None  # of snapshots


class Store:
    """Tables and weight files of one league, in `directory`."""

    def __init__(self, directory: Path, *, readonly: bool = False) -> None:
        self.path = directory / "league.sqlite"
        self.weights_directory = directory / "weights"
        if readonly and not self.path.exists():
            raise LeagueError(f"there is no league here: {self.path} does not exist")
        if not readonly:
            self.weights_directory.mkdir(parents=True, exist_ok=True)
        with self._named_errors():
            # The owner may hand the store to another thread (an actor's); only one uses it at a time.
            # A reader too opens for writing: it may have to roll back what a killed writer left half done.
            self._db = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode={'rw' if readonly else 'rwc'}",
                uri=True,
                timeout=30,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                self._open(readonly)
            except BaseException:
                self._db.close()
                raise

    def _open(self, readonly: bool) -> None:
        self._db.execute("PRAGMA foreign_keys = ON")
        problem = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise sqlite3.DatabaseError(problem)
        (schema,) = self._db.execute("PRAGMA user_version").fetchone()
        (num_tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if schema == 0 and num_tables == 0 and not readonly:
            self._db.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")
        elif schema != SCHEMA:
            raise LeagueError(
                f"{self.path} has table layout {schema}; this version of selfplay reads {SCHEMA}"
            )
        if readonly:
            self._db.execute("PRAGMA query_only = ON")
        else:
            self._db.execute("PRAGMA journal_mode = TRUNCATE")
            self._db.execute("PRAGMA synchronous = FULL")
        self._lineup_of = self._read_lineups()

    def _read_lineups(self) -> dict[tuple[int, ...], int]:
        """The number of each lineup, by the players of its seats."""
        seats: dict[int, list[int]] = {}
        query = "SELECT lineup, player FROM lineup_seats ORDER BY lineup, seat"
        for lineup, player in self._db.execute(query):
            seats.setdefault(lineup, []).append(player)
        return {tuple(players): lineup for lineup, players in seats.items()}

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise LeagueError(
                f"the league's database {self.path} cannot be used: {error}; "
                "if it is damaged, restore it from a copy of the run directory"
            ) from error

    def close(self) -> None:
        """Let go of the file; what was not committed is lost."""
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Reading

    @property
    def iteration(self) -> int:
        """The last committed one; -1 before the first commit."""
        with self._named_errors():
            return int(self._db.execute("SELECT iteration FROM committed").fetchone()[0])

    def players(self) -> list[Player]:
        """All players in the order in which they joined."""
        with self._named_errors():
            rows = self._db.execute(
                "SELECT name, kind, mu, sigma, parent, version, iteration, agent_steps, weights, quality "
                "FROM standings ORDER BY id"
            ).fetchall()
        return [Player(name, kind, Rating(mu, sigma), *rest) for name, kind, mu, sigma, *rest in rows]

    def ids(self) -> dict[str, int]:
        """The number of each player in the tables."""
        with self._named_errors():
            return dict(self._db.execute("SELECT name, id FROM players"))

    def rating_history(self) -> list[tuple[int, str, Rating]]:
        """(iteration, player, rating) for every time that a rating moved."""
        with self._named_errors():
            rows = self._db.execute(
                "SELECT ratings.iteration, name, mu, sigma FROM ratings JOIN players ON player = id "
                "ORDER BY ratings.iteration, id"
            ).fetchall()
        return [(iteration, name, Rating(mu, sigma)) for iteration, name, mu, sigma in rows]

    def weights(self, player: str) -> dict[str, np.ndarray]:
        """The player's weights, checked against their SHA-256."""
        with self._named_errors():
            row = self._db.execute("SELECT weights FROM players WHERE name = ?", (player,)).fetchone()
        if row is None or row[0] is None:
            known = [p.name for p in self.players() if p.weights]
            raise LeagueError(f"no weights of {player} in {self.path}; these have some: {', '.join(known)}")
        return weight_files.load(self.weights_directory, row[0], player)

    # Writing: all of it belongs to the transaction that `commit` ends

    def _begin(self) -> None:
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")

    def save_weights(self, weights: Mapping[str, np.ndarray]) -> str:
        """Write a copy of the arrays and return its SHA-256; of no use before a player has it."""
        return weight_files.save(self.weights_directory, weights)

    def add_player(self, player: Player) -> int:
        """Add a player and return its number; its rating is the prior."""
        with self._named_errors():
            self._begin()
            cursor = self._db.execute(
                "INSERT INTO players (name, kind, parent, version, iteration, agent_steps, weights, quality,"
                " prior_mu, prior_sigma) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (player.name, player.kind, player.parent, player.version, player.iteration,
                 player.agent_steps, player.weights, player.quality, *player.rating),
            )  # fmt: skip
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def add_results(self, iteration: int, kind: Literal["train", "rating"], outcomes: Outcomes) -> None:
        """Add counts to those of this iteration."""
        with self._named_errors():
            self._begin()
            rows = []
            for seats, of_teams in zip(outcomes.lineup.tolist(), outcomes.counts.tolist(), strict=True):
                lineup = self._lineup(tuple(seats))
                rows += [(iteration, kind, lineup, team, *counts) for team, counts in enumerate(of_teams)]
            self._db.executemany(
                "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " wins = wins + excluded.wins, draws = draws + excluded.draws,"
                " losses = losses + excluded.losses",
                rows,
            )

    def _lineup(self, seats: tuple[int, ...]) -> int:
        if seats not in self._lineup_of:
            lineup = self._db.execute("INSERT INTO lineups DEFAULT VALUES").lastrowid
            assert lineup is not None
            self._db.executemany(
                "INSERT INTO lineup_seats VALUES (?, ?, ?)", [(lineup, *seat) for seat in enumerate(seats)]
            )
            self._lineup_of[seats] = lineup
        return self._lineup_of[seats]

    def add_rating(self, iteration: int, player: str, rating: Rating) -> None:
        """Append to the history; a second rating of one player in one iteration replaces the first."""
        with self._named_errors():
            self._begin()
            self._db.execute(
                "INSERT INTO ratings SELECT id, ?, ?, ? FROM players WHERE name = ? AND true"
                " ON CONFLICT DO UPDATE SET mu = excluded.mu, sigma = excluded.sigma",
                (iteration, *rating, player),
            )

    def set_quality(self, quality: Sequence[tuple[str, float]]) -> None:
        """Set the qualities of some snapshots, given as (name, quality) pairs."""
        with self._named_errors():
            self._begin()
            rows = [(value, name) for name, value in quality]
            self._db.executemany("UPDATE players SET quality = ? WHERE name = ?", rows)

    def commit(self, iteration: int) -> None:
        """End the transaction: all that was written since the last commit becomes durable, or nothing."""
        with self._named_errors():
            self._begin()
            self._db.execute("UPDATE committed SET iteration = ?", (iteration,))
            self._db.execute("COMMIT")

    def rollback(self) -> None:
        """Drop all that was written since the last commit."""
        with self._named_errors():
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._lineup_of = self._read_lineups()

    def truncate(self, iteration: int) -> None:
        """Forget what is not committed and what was recorded after `iteration`; `commit` makes it so.

        Ratings go back to what they were; qualities have no history here, so the caller sets them.
        """
        self.rollback()
        with self._named_errors():
            self._begin()
            self._db.execute("DELETE FROM ratings WHERE iteration > ?", (iteration,))
            self._db.execute("DELETE FROM results WHERE iteration > ?", (iteration,))
            self._db.execute("DELETE FROM lineups WHERE id NOT IN (SELECT lineup FROM results)")
            self._db.execute("DELETE FROM players WHERE iteration > ?", (iteration,))
            self._lineup_of = self._read_lineups()

    def remove_unused_weights(self) -> None:
        """Remove the weight files of players that were forgotten."""
        with self._named_errors():
            rows = self._db.execute("SELECT weights FROM players WHERE weights NOTNULL").fetchall()
        weight_files.keep_only(self.weights_directory, {row[0] for row in rows})
