"""The league on disk: RUN/league/league.sqlite, one transaction an iteration, and the weights beside it.

Writes gather in an open transaction until `commit`, so that a killed process leaves the last committed
iteration. A rollback journal, unlike a write-ahead log, also works on network file systems and leaves one
file between transactions. Other processes may read (`readonly=True`) while one writes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from selfplay.league import weights as weight_files
from selfplay.league.errors import LeagueError
from selfplay.league.outcomes import Outcomes
from selfplay.league.payoffs import Cell, Meeting, Payoffs, PayoffTable
from selfplay.league.ratings import Rating
from selfplay.league.schema import SCHEMA, TABLES

Kind = Literal["train", "rating", "evaluation"]
"""What a match was for: learning, a rating against anchors, or a thin cell of the payoff table."""


@dataclass(frozen=True, slots=True)
class Player:
    """A row of the league's table."""

    name: str
    kind: Literal["learning", "snapshot", "bot"]
    rating: Rating
    role: str | None = None  # main, main_exploiter or league_exploiter; None for bots
    parent: str | None = None  # the past self before
    version: int | None = None  # of the published weights
    iteration: int = 0  # in which it joined
    retired: int | None = None  # iteration in which it left the pool
    agent_steps: int | None = None
    weights: str | None = None  # SHA-256 of the safetensors file
    quality: float | None = None  # of snapshots


@dataclass(frozen=True, slots=True)
class Match:
    """What a match began with."""

    kind: str  # train, rating or evaluation
    lineup: tuple[str, ...]  # [A] player of each seat
    seed: int


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
            self._db.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")
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
                "SELECT name, kind, mu, sigma, role, parent, version, iteration, retired, agent_steps,"
                " weights, quality FROM standings ORDER BY id"
            ).fetchall()
        return [Player(name, kind, Rating(mu, sigma), *rest) for name, kind, mu, sigma, *rest in rows]

    def ids(self) -> dict[str, int]:
        """The number of each player in the tables."""
        with self._named_errors():
            return dict(self._db.execute("SELECT name, id FROM players ORDER BY id"))

    def rating_history(self) -> list[tuple[int, str, Rating]]:
        """(iteration, player, rating) for every time that a rating moved."""
        with self._named_errors():
            rows = self._db.execute(
                "SELECT ratings.iteration, name, mu, sigma FROM ratings JOIN players ON player = id "
                "ORDER BY ratings.iteration, id"
            ).fetchall()
        return [(iteration, name, Rating(mu, sigma)) for iteration, name, mu, sigma in rows]

    def meetings(self) -> dict[int, list[Meeting]]:
        """Who met whom, by iteration, in order."""
        with self._named_errors():
            rows = self._db.execute(
                f"SELECT iteration, {', '.join(Meeting._fields)} FROM meetings"
            ).fetchall()
        found: dict[int, list[Meeting]] = {}
        for iteration, *meeting in rows:
            found.setdefault(iteration, []).append(Meeting(*meeting))
        return found

    def counts_since(self, iteration: int, player: int) -> dict[int, tuple[int, int, int]]:
        """Wins, draws, losses of a player after an iteration, by the opponent's number."""
        with self._named_errors():
            rows = self._db.execute(
                "SELECT opponent, sum(wins), sum(draws), sum(losses) FROM meetings"
                " WHERE iteration > ? AND player = ? GROUP BY opponent",
                (iteration, player),
            ).fetchall()
        return {opponent: (wins, draws, losses) for opponent, wins, draws, losses in rows}

    def cells(self) -> list[Cell]:
        """The payoffs as they are stored."""
        with self._named_errors():
            return list(map(Cell._make, self._db.execute(f"SELECT {', '.join(Cell._fields)} FROM payoffs")))

    def payoffs(self) -> Payoffs:
        """How all players fared against each other."""
        cells = self.cells()
        table = PayoffTable(1 + max((cell.team for cell in cells), default=0), decay=1.0)
        table.load(cells)
        return table.payoffs(self.ids())

    def matches(self, iteration: int) -> list[Match]:
        """Every match of an iteration that has a result."""
        with self._named_errors():
            rows = self._db.execute(
                "SELECT kind, lineup, seeds FROM matches WHERE iteration = ?", (iteration,)
            ).fetchall()
        name = {number: name for name, number in self.ids().items()}
        seats = {lineup: players for players, lineup in self._lineup_of.items()}
        return [
            Match(kind, tuple(name[player] for player in seats[lineup]), int(seed))
            for kind, lineup, seeds in rows
            for seed in np.frombuffer(seeds, "<u8")
        ]

    def config(self, player: str) -> str:
        """The configuration, as TOML, that says how to build a player's network."""
        with self._named_errors():
            row = self._db.execute(
                "SELECT toml FROM configs JOIN players ON config = configs.id WHERE name = ?", (player,)
            ).fetchone()
        if row is None:
            raise LeagueError(f"{self.path} keeps no configuration of {player}")
        return str(row[0])

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

    def add_player(self, player: Player, config: str | None = None) -> int:
        """Add a player and return its number; its rating is the prior. config: its network's, as TOML."""
        with self._named_errors():
            self._begin()
            number = None if config is None else self._config(config)
            cursor = self._db.execute(
                "INSERT INTO players (name, kind, role, parent, version, iteration, retired, agent_steps,"
                " weights, config, quality, prior_mu, prior_sigma)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (player.name, player.kind, player.role, player.parent, player.version, player.iteration,
                 player.retired, player.agent_steps, player.weights, number, player.quality, *player.rating),
            )  # fmt: skip
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _config(self, toml: str) -> int:
        self._db.execute("INSERT INTO configs (toml) VALUES (?) ON CONFLICT DO NOTHING", (toml,))
        return int(self._db.execute("SELECT id FROM configs WHERE toml = ?", (toml,)).fetchone()[0])

    def retire(self, player: str, iteration: int) -> None:
        """Let a snapshot leave the pool; its weights and all that is known of it stay."""
        with self._named_errors():
            self._begin()
            self._db.execute("UPDATE players SET retired = ? WHERE name = ?", (iteration, player))

    def add_results(self, iteration: int, kind: Kind, outcomes: Outcomes) -> None:
        """Add counts, and the matches' seeds, to those of this iteration."""
        with self._named_errors():
            self._begin()
            rows, seeds = [], []
            for k, seats in enumerate(outcomes.lineup.tolist()):
                lineup = self._lineup(tuple(seats))
                matches = int(outcomes.matches[k])
                seeds.append((iteration, kind, lineup, outcomes.seeds[k].astype("<u8").tobytes()))
                rows += [
                    (iteration, kind, lineup, team, matches, *counts, placement, returns)
                    for team, (counts, placement, returns) in enumerate(
                        zip(
                            outcomes.counts[k].tolist(),
                            outcomes.placement[k].tolist(),
                            outcomes.returns[k].tolist(),
                        )
                    )
                ]
            self._db.executemany(
                "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " matches = matches + excluded.matches, wins = wins + excluded.wins,"
                " draws = draws + excluded.draws, losses = losses + excluded.losses,"
                " placement = placement + excluded.placement, returns = returns + excluded.returns",
                rows,
            )
            self._db.executemany(
                "INSERT INTO matches VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " seeds = CAST(seeds || excluded.seeds AS BLOB)",
                seeds,
            )

    def add_meetings(self, iteration: int, met: Sequence[Meeting]) -> None:
        """Write down an iteration's meetings, once."""
        with self._named_errors():
            self._begin()
            places = ", ".join("?" * (1 + len(Meeting._fields)))
            self._db.executemany(f"INSERT INTO meetings VALUES ({places})", [(iteration, *m) for m in met])

    def set_payoffs(self, cells: Iterable[Cell]) -> None:
        """Set some cells of the payoff table."""
        with self._named_errors():
            self._begin()
            places = ", ".join("?" * len(Cell._fields))
            self._db.executemany(f"INSERT OR REPLACE INTO payoffs VALUES ({places})", list(cells))

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

        Ratings go back to what they were. Qualities have no history here, and what fades in the payoffs is
        made anew from the meetings: the caller sets both.
        """
        self.rollback()
        with self._named_errors():
            self._begin()
            for table in ("ratings", "results", "matches", "meetings"):
                self._db.execute(f"DELETE FROM {table} WHERE iteration > ?", (iteration,))
            self._db.execute("DELETE FROM payoffs")
            self._db.execute("DELETE FROM lineups WHERE id NOT IN (SELECT lineup FROM results)")
            self._db.execute("DELETE FROM players WHERE iteration > ?", (iteration,))
            self._db.execute("UPDATE players SET retired = NULL WHERE retired > ?", (iteration,))
            self._lineup_of = self._read_lineups()

    def remove_unused_weights(self) -> None:
        """Remove the weight files of players that were forgotten."""
        with self._named_errors():
            rows = self._db.execute("SELECT weights FROM players WHERE weights NOTNULL").fetchall()
        weight_files.keep_only(self.weights_directory, {row[0] for row in rows})
