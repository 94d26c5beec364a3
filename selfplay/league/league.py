"""The league of a run: draws lineups, keeps past selves, counts results, rates players.

One iteration, in this order: `draw` the lineups, `record` the finished matches, perhaps `add_snapshot` and
`rate` it, `commit`. A checkpoint takes `state()` after `commit`; on resume `set_state` makes the league
what it was then and forgets what was recorded since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from selfplay.league import lineups, quality, ratings
from selfplay.league.errors import LeagueError
from selfplay.league.outcomes import Outcomes, duels, outcomes
from selfplay.league.ratings import RANDOM, Rating
from selfplay.league.store import Player, Store
from selfplay.matches import MAIN, Lineups, MatchResults

RANDOM_PLAYER = "random"
"""The player that takes any legal action with equal probability; the origin of the ratings."""


CALIBRATION_GAMES = 2000
"""Matches that fix an anchor's rating; many, for every rating of every run rests on them."""


class LeagueConfig(Protocol):
    """The settings that the league reads."""

    @property
    def self_play(self) -> float: ...  # share of matches that MAIN plays against itself alone
    @property
    def opponents(self) -> int: ...  # past selves drawn for each rollout and iteration
    @property
    def quality_lr(self) -> float: ...
    @property
    def rating_games(self) -> int: ...  # matches of a rated player against each anchor
    @property
    def anchors(self) -> Sequence[str]: ...  # bots; random always belongs


class League:
    """Players, their qualities and ratings, and the generator that draws lineups."""

    def __init__(
        self, store: Store, config: LeagueConfig, teams: tuple[int, ...], seed: int | np.random.SeedSequence
    ) -> None:
        self._store = store
        self._config = config
        self._teams = teams
        self._num_teams = max(teams) + 1
        self._rng = np.random.default_rng(seed)
        self._first_team = 0  # that MAIN takes in the next match against a past self
        self._owed = 0.5  # of such a match, from rounding their number; in [0, 1)
        self._counted = -1  # iteration of the two counters below
        self._past_matches = 0
        self._past_score = 0.0
        self._anchor_scores: dict[str, float] = {}  # of the lineage's last rating
        self._uncommitted = False
        self._anchor_names = tuple(dict.fromkeys((RANDOM_PLAYER, *config.anchors)))
        self._join()
        self._load()

    @classmethod
    def open(
        cls, directory: Path, config: LeagueConfig, teams: tuple[int, ...], seed: int | np.random.SeedSequence
    ) -> League:
        """Open, or begin, the league in `directory` at the last committed iteration. teams [A]."""
        return cls(Store(directory), config, teams, seed)

    def _join(self) -> None:
        """Add the learning player and the anchors that the store does not know yet."""
        known = self._store.ids()
        for name in (MAIN, *self._anchor_names):
            if name not in known:
                # A bot's prior stands for "unknown": nobody is rated against it before its calibration.
                rating = RANDOM if name == RANDOM_PLAYER else ratings.successor(RANDOM)
                self._store.add_player(Player(name, "learning" if name == MAIN else "bot", rating))
        self._store.commit(self._store.iteration)

    def _load(self) -> None:
        """Take everything that the store keeps from it."""
        self._players = {player.name: player for player in self._store.players()}
        self._ids = self._store.ids()
        self._pool = [player.name for player in self._players.values() if player.kind == "snapshot"]
        self._quality = np.array([self._players[name].quality for name in self._pool], np.float64)  # [N]
        self._saved_quality = self._quality.copy()
        rated = {name for _, name, _ in self._store.rating_history()}
        self._calibrated = {name for name in self._anchor_names if name == RANDOM_PLAYER or name in rated}
        self._uncommitted = False

    # Lineups

    def draw(self, num_rollouts: int, num_lineups: int) -> list[Lineups]:
        """Who plays in the next matches of every rollout; player 0 is MAIN.

        A share `self_play` of the rows is MAIN against itself. In the others MAIN holds one team, going
        round the teams, and one past self all the others; each rollout has `opponents` past selves, drawn
        by quality (different ones, unless one has more than its share of the probability), with equal
        numbers of matches. Rounding is carried on to the next table, so that the shares are exact in sum.
        """
        if not self._pool or self._num_teams == 1:
            alone = Lineups((MAIN,), np.zeros((num_lineups, len(self._teams)), np.int32))
            return [alone] * num_rollouts
        drawn = lineups.spread_draws(
            quality.probabilities(self._quality), num_rollouts, self._config.opponents, self._rng
        )
        return [self._table(past, num_lineups) for past in drawn]

    def _table(self, past: np.ndarray, num_lineups: int) -> Lineups:
        """past [K] indices into the pool -> one rollout's shuffled table [num_lineups, A]."""
        due = self._owed + (1 - self._config.self_play) * num_lineups
        num_past = min(int(due), num_lineups)
        self._owed = due - int(due)
        past = past[:num_past]
        rows = lineups.past_rows(num_past, len(past), self._first_team, np.asarray(self._teams))
        self._first_team = (self._first_team + num_past) % self._num_teams
        different, index = np.unique(past, return_inverse=True)
        player = np.concatenate([[0], 1 + index]).astype(np.int32)  # of each number in rows
        table = np.zeros((num_lineups, len(self._teams)), np.int32)
        table[:num_past] = player[rows]
        return Lineups((MAIN, *(self._pool[i] for i in different)), self._rng.permutation(table))

    def rating_lineups(self, name: str) -> Lineups:
        """`rating_games` matches of a player against every anchor that has a rating; player 0 is `name`."""
        return self._versus(name, list(self.anchors), self._config.rating_games)

    def calibration_lineups(self) -> Lineups:
        """`CALIBRATION_GAMES` matches of random, player 0, against every anchor without a rating."""
        return self._versus(RANDOM_PLAYER, list(self.uncalibrated), CALIBRATION_GAMES)

    def _versus(self, name: str, opponents: list[str], num_games: int) -> Lineups:
        """No rows where there is nobody to play against."""
        opponents = opponents if self._num_teams > 1 else []
        num_rows = num_games * len(opponents)
        table = lineups.past_rows(num_rows, len(opponents), 0, np.asarray(self._teams))
        return Lineups((name, *opponents), table)

    # Past selves

    def add_snapshot(
        self, weights: Mapping[str, np.ndarray], *, version: int, iteration: int, agent_steps: int
    ) -> str:
        """Add a copy of the current weights to the past selves and return its name."""
        name = f"{MAIN}-{version:06d}"
        if name in self._players:
            raise LeagueError(f"the league already has {name}: a version becomes a past self once")
        joining = quality.joining(self._quality)
        player = Player(
            name,
            "snapshot",
            ratings.successor(self._players[MAIN].rating),
            parent=self.newest,
            version=version,
            iteration=iteration,
            agent_steps=agent_steps,
            weights=self._store.save_weights(weights),
            quality=joining,
        )
        self._uncommitted = True
        self._ids[name] = self._store.add_player(player)
        self._players[name] = player
        self._pool.append(name)
        self._quality = np.append(self._quality, joining)
        self._saved_quality = np.append(self._saved_quality, joining)
        return name

    def weights(self, name: str) -> dict[str, np.ndarray]:
        """A player's weights as fresh arrays, checked against their SHA-256."""
        return self._store.weights(name)

    @property
    def newest(self) -> str | None:
        """The newest past self."""
        return self._pool[-1] if self._pool else None

    def players(self) -> list[Player]:
        """All players in the order in which they joined, with their present qualities and ratings."""
        present = dict(zip(self._pool, self._quality.tolist(), strict=True))
        return [replace(player, quality=present.get(name)) for name, player in self._players.items()]

    # Results

    def record(self, results: Sequence[MatchResults], *, iteration: int) -> None:
        """Count finished training matches and lower the quality of past selves that MAIN beat."""
        if iteration != self._counted:
            self._counted, self._past_matches, self._past_score = iteration, 0, 0.0
        counted = outcomes(results, self._ids, self._teams)
        self._uncommitted = True
        self._store.add_results(iteration, "train", counted)
        wins = self._wins_over_past(counted)
        self._quality = quality.after_wins(self._quality, wins, lr=self._config.quality_lr)

    def _wins_over_past(self, counted: Outcomes) -> np.ndarray:
        """MAIN's wins over every past self [N]; its scores are added to this iteration's."""
        place = {self._ids[name]: i for i, name in enumerate(self._pool)}
        wins = np.zeros(len(self._pool))
        for seats, counts in zip(counted.lineup.tolist(), counted.counts, strict=True):
            mine = {team for team, player in zip(self._teams, seats) if player == self._ids[MAIN]}
            past = {player for player in seats if player in place}
            if not mine or not past:
                continue
            assert len(mine) == 1, "against a past self MAIN holds one team"
            won, drawn, lost = counts[mine.pop()].tolist()
            for player in past:
                wins[place[player]] += won
            self._past_matches += won + drawn + lost
            self._past_score += won + drawn / 2
        return wins

    # Ratings

    @property
    def anchors(self) -> dict[str, Rating]:
        """The fixed ratings of the anchors that have one; random's is 0."""
        return {name: self._players[name].rating for name in self._anchor_names if name in self._calibrated}

    @property
    def uncalibrated(self) -> tuple[str, ...]:
        """Anchors that must meet random before anyone is rated against them; none in a one-team game."""
        if self._num_teams == 1:
            return ()
        return tuple(name for name in self._anchor_names if name not in self._calibrated)

    def calibrate(self, results: MatchResults, *, iteration: int = 0) -> None:
        """Fix the ratings of anchors from their matches against random, once for the run."""
        fixed = {}
        for name in results.players:
            if name == RANDOM_PLAYER:
                continue
            if name not in self.uncalibrated:
                raise LeagueError(f"{name} is no anchor that waits for its rating; anchors never move")
            duel = duels(results, name, self._teams).get(RANDOM_PLAYER)
            if duel is None:
                raise LeagueError(f"{name} cannot be calibrated: it finished no match against random")
            fixed[name] = ratings.calibrated(duel.counts)
        self._add_counts(results, iteration)
        for name, rating in fixed.items():
            self._set_rating(name, rating, iteration)
            self._calibrated.add(name)

    def rate(self, name: str, results: MatchResults, iteration: int) -> Rating:
        """Rate a past self, or MAIN, from matches against anchors, which do not move.

        A past self's rating gathers evidence from call to call. MAIN changes between iterations: its
        rating starts anew from its last mean. The newest past self's rating is MAIN's too, and through it
        the start of the next version.
        """
        if name in self._anchor_names:
            raise LeagueError(f"{name} is an anchor: anchors never move")
        if name not in self._players:
            raise LeagueError(f"the league does not know {name}; it has {', '.join(self._players)}")
        met = duels(results, name, self._teams)
        strangers = [opponent for opponent in met if opponent not in self._calibrated]
        if strangers:
            raise LeagueError(f"{name} cannot be rated against {', '.join(strangers)}: no calibrated anchor")
        rating = self._players[name].rating
        if name == MAIN:
            rating = ratings.successor(rating)
        rating = ratings.updated(rating, [(self.anchors[other], duel.counts) for other, duel in met.items()])
        self._add_counts(results, iteration)
        self._set_rating(name, rating, iteration)
        if name in (MAIN, self.newest):
            self._set_rating(MAIN, rating, iteration)
            self._anchor_scores = {other: duel.mean_score for other, duel in met.items()}
        return rating

    def _add_counts(self, results: MatchResults, iteration: int) -> None:
        self._uncommitted = True
        self._store.add_results(iteration, "rating", outcomes([results], self._ids, self._teams))

    def _set_rating(self, name: str, rating: Rating, iteration: int) -> None:
        self._store.add_rating(iteration, name, rating)
        self._players[name] = replace(self._players[name], rating=rating)

    def metrics(self) -> dict[str, float]:
        """Numbers of the iteration that was recorded last, and of the last rating."""
        numbers: dict[str, float] = {"league/pool_size": len(self._pool)}
        if self._past_matches:
            numbers["league/win_rate_pool"] = self._past_score / self._past_matches
        for anchor, mean_score in self._anchor_scores.items():
            numbers[f"league/win_rate/{anchor}"] = mean_score
        if self._anchor_scores:
            numbers["league/rating"], numbers["league/rating_sigma"] = self._players[MAIN].rating
        return numbers

    # Durability

    def commit(self, iteration: int) -> None:
        """Make the iteration durable, in one transaction."""
        moved = np.flatnonzero(self._quality != self._saved_quality)
        self._store.set_quality([(self._pool[i], float(self._quality[i])) for i in moved])
        self._store.commit(iteration)
        self._saved_quality = self._quality.copy()
        self._uncommitted = False

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON can hold it; the tables keep the rest."""
        assert not self._uncommitted, "commit the iteration before taking the league's state"
        return {
            "rng": self._rng.bit_generator.state,
            "quality": dict(zip(self._pool, self._quality.tolist(), strict=True)),
            "rating": {name: list(player.rating) for name, player in self._players.items()},
            "anchor_scores": dict(self._anchor_scores),
            "first_team": self._first_team,
            "owed": self._owed,
            "counted": [self._counted, self._past_matches, self._past_score],
        }

    def set_state(self, state: dict[str, Any], iteration: int) -> None:
        """Go back to `state`, taken after `commit(iteration)`, and forget what was recorded since."""
        self._store.truncate(iteration)
        self._store.set_quality(list(state["quality"].items()))
        self._load()
        wrong = self._disagreements(state)
        if wrong:
            self._store.rollback()
            self._load()
            raise LeagueError(
                f"{self._store.path} does not belong to the checkpoint: they disagree about "
                f"{', '.join(wrong)}; restore both from the same copy of the run directory"
            )
        self._store.commit(iteration)
        self._store.remove_unused_weights()
        self._rng.bit_generator.state = state["rng"]
        self._anchor_scores = dict(state["anchor_scores"])
        self._first_team = state["first_team"]
        self._owed = state["owed"]
        self._counted, self._past_matches, self._past_score = state["counted"]

    def _disagreements(self, state: dict[str, Any]) -> list[str]:
        """Players whom the tables and a checkpoint's state do not describe alike."""
        stored = {name: list(player.rating) for name, player in self._players.items()}
        wrong = {name for name, rating in state["rating"].items() if stored.get(name) != rating}
        return sorted(wrong | (set(self._pool) ^ state["quality"].keys()))

    def close(self) -> None:
        """Let go of the files; what was not committed is lost."""
        self._store.close()
