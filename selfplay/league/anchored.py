"""Ratings of a league's players against anchors that never move, and how the anchors got theirs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from selfplay.league import ratings
from selfplay.league.errors import LeagueError
from selfplay.league.outcomes import Duel, duels
from selfplay.league.ratings import Rating
from selfplay.league.store import Player, Store
from selfplay.matches import MatchResults

RANDOM_PLAYER = "random"
"""The player that takes any legal action with equal probability; the origin of the ratings."""

LEAST_RATED = 16
"""Matches of a rating against each anchor, however long they are, unless `rating_games` are fewer."""


class Anchored:
    """Sets ratings in the league's table of players, and in its store."""

    def __init__(
        self, store: Store, anchors: Iterable[str], teams: tuple[int, ...], *, winners: bool
    ) -> None:
        self.names = tuple(dict.fromkeys((RANDOM_PLAYER, *anchors)))
        self._store, self._teams, self._winners = store, teams, winners
        self.scores: dict[str, float] = {}  # of the main lineage's last rating, by anchor
        self.returns: dict[str, float] = {}
        self.matches = 0  # of the same, against each anchor
        self.length = 0.0  # of those matches, mean number of decisions of all seats

    def load(self, players: dict[str, Player]) -> None:
        """The league's players, whose ratings are set from now on."""
        self._players = players
        rated = {name for _, name, _ in self._store.rating_history()}
        self._calibrated = {name for name in self.names if name == RANDOM_PLAYER or name in rated}

    def fixed(self) -> dict[str, Rating]:
        """The ratings of the anchors that have one; random's is 0. Without winners, all of them."""
        known = self._calibrated if self._winners else self.names
        return {name: self._players[name].rating for name in self.names if name in known}

    def games(self, most: int, decisions: float) -> int:
        """Matches of a rating against each anchor, at most so many, which so many decisions pay for.

        A match is expected to be as long as those of the last rating; before one there is no limit.
        """
        if not self.length:
            return most
        teams = max(self._teams) + 1  # each of them plays as many
        number = int(decisions / (self.length * len(self.fixed())))
        return min(most, max(LEAST_RATED + -LEAST_RATED % teams, number - number % teams))

    def uncalibrated(self) -> tuple[str, ...]:
        """Anchors that must meet random before anyone is rated against them; none where nobody wins."""
        if not self._winners:
            return ()
        return tuple(name for name in self.names if name not in self._calibrated)

    def calibrate(self, results: MatchResults, iteration: int) -> None:
        """Fix the ratings of anchors from their matches against random, once for the run."""
        fixed = {}
        for name in results.players:
            if name == RANDOM_PLAYER:
                continue
            if name not in self.uncalibrated():
                raise LeagueError(f"{name} is no anchor that waits for its rating; anchors never move")
            duel = duels(results, name, self._teams).get(RANDOM_PLAYER)
            if duel is None:
                raise LeagueError(f"{name} cannot be calibrated: it finished no match against random")
            fixed[name] = ratings.calibrated(duel.counts)
        for name, rating in fixed.items():
            self.set(name, rating, iteration)
            self._calibrated.add(name)

    def duels(self, name: str, results: MatchResults) -> dict[str, Duel]:
        """A player's matches by anchor; refuses players that are not rated, and others than anchors."""
        if name in self.names:
            raise LeagueError(f"{name} is an anchor: anchors never move")
        if name not in self._players:
            raise LeagueError(f"the league does not know {name}; it has {', '.join(self._players)}")
        met = duels(results, name, self._teams)
        strangers = [opponent for opponent in met if opponent not in self.fixed()]
        if strangers:
            raise LeagueError(f"{name} cannot be rated against {', '.join(strangers)}: no calibrated anchor")
        return met

    def rated(self, name: str, met: Mapping[str, Duel]) -> Rating:
        """What is known of a player after these matches; a learner's evidence starts anew."""
        rating = self._players[name].rating
        if self._players[name].kind == "learning":
            rating = ratings.successor(rating)
        fixed = self.fixed()
        return ratings.updated(rating, [(fixed[other], duel.counts) for other, duel in met.items()])

    def note(self, met: Mapping[str, Duel], results: MatchResults) -> None:
        """Keep how the main lineage fared in its rating, for the metrics and the next one."""
        self.matches = len(results.length) // max(len(met), 1)
        self.length = float(results.length.mean()) if len(results.length) else self.length
        self.scores = {other: duel.mean_score for other, duel in met.items()} if self._winners else {}
        self.returns = {} if self._winners else {other: duel.mean_return for other, duel in met.items()}

    def set(self, name: str, rating: Rating, iteration: int) -> None:
        self._store.add_rating(iteration, name, rating)
        self._players[name] = replace(self._players[name], rating=rating)

    def state(self) -> list[Any]:
        return [dict(self.scores), dict(self.returns), self.matches, self.length]

    def set_state(self, state: list[Any]) -> None:
        scores, returns, *rest = state
        self.scores, self.returns = dict(scores), dict(returns)
        self.matches, self.length = rest or (0, 0.0)  # checkpoints of before have none
