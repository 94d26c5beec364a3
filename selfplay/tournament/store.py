"""Results on disk: one SQLite file, a transaction for each piece; a match that is in it never changes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from selfplay.errors import UserError
from selfplay.tournament.playing import Game, Played
from selfplay.tournament.schedule import Pair

FILE = "results.sqlite"

SCHEMA = 1
"""Of the tables below and of what decides a match (seats, seeds); kept in the file's user_version."""

_TABLES = """
CREATE TABLE pairs (
    id INTEGER PRIMARY KEY,
    game TEXT NOT NULL,            -- id
    kwargs TEXT NOT NULL,          -- its arguments for the first and the second player, as JSON
    seed TEXT NOT NULL,
    first TEXT NOT NULL,           -- identities; first < second
    second TEXT NOT NULL,
    UNIQUE (game, kwargs, seed, first, second)
);
CREATE TABLE matches (
    pair INTEGER NOT NULL REFERENCES pairs (id),
    number INTEGER NOT NULL,
    score REAL NOT NULL,           -- of the first player
    first_return REAL NOT NULL,
    second_return REAL NOT NULL,
    length INTEGER NOT NULL,       -- decisions
    PRIMARY KEY (pair, number)
) WITHOUT ROWID;
"""


class Results:
    """The matches played so far, of all tournaments that are kept in one folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        with self._named_errors():
            self._db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            try:
                self._open()
            except BaseException:
                self._db.close()
                raise

    def _open(self) -> None:
        with self._transaction():
            (schema,) = self._db.execute("PRAGMA user_version").fetchone()
            (num_tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if schema == 0 and num_tables == 0:
                for statement in _TABLES.split(";\n")[:-1]:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {SCHEMA}")
            elif schema != SCHEMA:
                raise UserError(
                    f"{self.path} has table layout {schema}; this version of selfplay reads {SCHEMA}: "
                    "name another folder by --output"
                )

    def close(self) -> None:
        self._db.close()

    def played(self, game: Game, pair: Pair, below: int) -> Played:
        """The matches of a pair with numbers below `below`, by number."""
        with self._named_errors():
            rows = self._db.execute(
                "SELECT number, score, first_return, second_return, length FROM matches "
                "JOIN pairs ON pairs.id = pair WHERE game = ? AND kwargs = ? AND seed = ? "
                "AND first = ? AND second = ? AND number < ? ORDER BY number",
                (*_key(game, pair), below),
            ).fetchall()
        table = np.array(rows, np.float64).reshape(-1, 5)
        return Played(table[:, 0].astype(np.int64), table[:, 1], table[:, 2:4], table[:, 4].astype(np.int64))

    def add(self, game: Game, pair: Pair, played: Played) -> None:
        """Keep these matches, all or none; on return they are on disk."""
        columns = (played.number, played.score, *played.returns.T, played.length)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        key = _key(game, pair)
        with self._named_errors(), self._transaction():
            self._db.execute(
                "INSERT INTO pairs (game, kwargs, seed, first, second) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT DO NOTHING",
                key,
            )
            (id,) = self._db.execute(
                "SELECT id FROM pairs "
                "WHERE game = ? AND kwargs = ? AND seed = ? AND first = ? AND second = ?",
                key,
            ).fetchone()
            # Another process with the same folder may have been quicker, with the same result.
            self._db.executemany(
                "INSERT INTO matches VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (pair, number) DO NOTHING",
                ((id, *row) for row in rows),
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise UserError(
                f"{self.path} cannot be used: {error}; name another folder by --output"
            ) from error


def _key(game: Game, pair: Pair) -> tuple[str, ...]:
    """Of the table `pairs`; whether policies are greedy is part of their identities."""
    first, second = game.kwargs
    return game.id, f"[{first}, {second}]", str(game.seed), pair.first, pair.second
