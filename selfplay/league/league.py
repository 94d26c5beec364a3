"""The league of a run: draws lineups, keeps past selves, counts results, rates players.

One iteration, in this order: `draw` the lineups of every slot, `record` the finished matches, perhaps
`add_snapshot` and `rate` it, `commit`. A checkpoint takes `state()` after `commit`; on resume `set_state`
makes the league what it was then and forgets what was recorded since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from selfplay.league import lineups, opponents, quality, ratings, roles
from selfplay.league.anchored import RANDOM_PLAYER, Anchored
from selfplay.league.diagnosis import weight_distance
from selfplay.league.draw import Draw
from selfplay.league.errors import LeagueError
from selfplay.league.opponents import Choice
from selfplay.league.outcomes import Outcomes, outcomes
from selfplay.league.payoffs import Meeting, Payoffs, PayoffTable, meetings, together, wins_over
from selfplay.league.pool import Pool, leaver
from selfplay.league.ratings import RANDOM, Rating
from selfplay.league.roles import Role, Slot
from selfplay.league.store import Kind, Player, Store
from selfplay.league.thin_cells import thinnest, uncertainty
from selfplay.league_config import LeagueConfig
from selfplay.matches import LIVE, MAIN, Lineups, MatchResults

CALIBRATION_GAMES = 2000
"""Matches that fix an anchor's rating; many, for every rating of every run rests on them."""


class League:
    """Players, their payoffs, qualities and ratings, and the generator that draws lineups."""

    def __init__(
        self,
        store: Store,
        config: LeagueConfig,
        teams: tuple[int, ...],
        seed: int | np.random.SeedSequence,
        *,
        units: tuple[int, ...] | None = None,
        winners: bool = True,
        network: str | None = None,
    ) -> None:
        """units [A]: what the main learner holds in a match with past selves (`selfplay.parts.units`);
        None: a team. winners: whether the better return wins a match; network: the run's configuration, as
        TOML.
        """
        self._store, self._config, self._teams = store, config, teams
        self._num_teams = max(teams) + 1
        self._winners = winners and self._num_teams > 1
        self._network = network
        self._rng = np.random.default_rng(seed)
        self._slots = {slot.name: slot for slot in roles.slots(config)}
        self._draws = {
            name: Draw(units or teams if name == MAIN else teams, config.opponents, self._rng)
            for name in self._slots
        }
        self._counted = -1  # iteration of what follows
        self._met: list[Meeting] = []
        self._recorded: list[Meeting] = []
        self._uncommitted = False
        self._anchored = Anchored(store, config.anchors, teams, winners=self._winners)
        self._join()
        self._load()

    @classmethod
    def open(
        cls,
        directory: Path,
        config: LeagueConfig,
        teams: tuple[int, ...],
        seed: int | np.random.SeedSequence,
        **options: Any,
    ) -> League:
        """Open, or begin, the league in `directory` at the last committed iteration. teams [A]."""
        return cls(Store(directory), config, teams, seed, **options)

    def _join(self) -> None:
        """Add the learning players and the anchors that the store does not know yet."""
        known = self._store.ids()
        for name in self._anchored.names:
            if name not in known:
                # A bot's prior stands for "unknown": nobody is rated against it before its calibration.
                rating = RANDOM if name == RANDOM_PLAYER else ratings.successor(RANDOM)
                self._store.add_player(Player(name, "bot", rating))
        for slot in self._slots.values():
            if not any(name == slot.name or name.startswith(f"{slot.name}.") for name in known):
                self._store.add_player(_beginner(slot.name, slot.role, 0))
        self._store.commit(self._store.iteration)

    def _load(self) -> None:
        """Take everything that the store keeps from it."""
        self._players = {player.name: player for player in self._store.players()}
        self._ids = self._store.ids()
        self._pool = Pool(list(self._players.values()))
        self._learner = {name: self._newest_life(name) for name in self._slots}
        self._frozen_at = {name: self._players[learner].iteration for name, learner in self._learner.items()}
        self._parent = {name: self._newest_of(learner) for name, learner in self._learner.items()}
        self._anchored.load(self._players)
        self._table = PayoffTable(self._num_teams, self._config.payoff_decay)
        self._table.load(self._store.cells())
        self._met = []
        self._among_past: np.ndarray | None = None  # scores of the pool, as they were when it changed last
        self._uncommitted = False

    def _newest_life(self, slot: str) -> str:
        return roles.lives(slot, self._learning())[-1]

    def _learning(self) -> list[str]:
        return [name for name, player in self._players.items() if player.kind == "learning"]

    def _newest_of(self, learner: str) -> str | None:
        """The newest snapshot of a learner."""
        stem = f"{learner}-"
        own = [name for name, p in self._players.items() if p.kind == "snapshot" and name.startswith(stem)]
        return own[-1] if own else None

    # Lineups

    def draw(
        self, num_rollouts: int, num_lineups: int, *, slot: str = MAIN, live: str | None = None
    ) -> list[Lineups]:
        """Who plays in the next matches of every rollout of a slot; player 0, MAIN, is its learner.

        The matchmaker of the slot's role says which share of them the learner plays against itself alone,
        which against `live`, the main learner as it is now, and which past selves have the rest.
        """
        draw = self._draws[slot]
        if draw.num_units == 1 or not (self._pool.members or live):
            return draw.alone(num_rollouts, num_lineups)
        choice = self._choice(slot)
        return draw.tables(choice, self._pool.names, live, num_rollouts, num_lineups)

    def _choice(self, slot: str) -> Choice:
        own, past = self._ids[self._learner[slot]], [self._ids[name] for name in self._pool.names]
        if self._among_past is None and opponents.uses_nash(self._config):
            self._among_past = self._table.recent_scores(past)
        scores = opponents.Scores(
            self._table.recent_score(own, past),
            float(self._table.recent_score(own, [self._ids[MAIN]])[0]),
            self._among_past,
        )
        return opponents.choose(self._config, self._slots[slot].role, scores, self._pool)

    def rating_lineups(self, name: str) -> Lineups:
        """Matches of a player against every anchor that has a rating; player 0 is `name`.

        `rating_games` against each, or as many as `rating_share` pays for.
        """
        player = self._players[name]
        before = 0 if player.parent is None else self._players[player.parent].agent_steps
        payable = self._config.rating_share * ((player.agent_steps or 0) - (before or 0))
        return self._versus(
            name, list(self.anchors), self._anchored.games(self._config.rating_games, payable)
        )

    def calibration_lineups(self) -> Lineups:
        """`CALIBRATION_GAMES` matches of random, player 0, against every anchor without a rating."""
        return self._versus(RANDOM_PLAYER, list(self.uncalibrated), CALIBRATION_GAMES)

    def thin_lineups(self, num_pairs: int, num_games: int) -> list[Lineups]:
        """Matches of the pairs of frozen players whose score is known least, one table for each pair."""
        names = [*self._pool.names, *self.anchors]
        if self._num_teams == 1 or len(names) < 2:
            return []
        uncertain = uncertainty(self._table.pair_counts([self._ids[name] for name in names]))
        if not self._winners:
            uncertain = 1.0 / (1 + self._table.meetings([self._ids[name] for name in names]))
        pairs = thinnest(uncertain, num_pairs)
        return [self._versus(names[j], [names[i]], num_games) for i, j in pairs]

    def _versus(self, name: str, opponents: list[str], num_games: int) -> Lineups:
        """No rows where there is nobody to play against."""
        opponents = opponents if self._num_teams > 1 else []
        num_rows = num_games * len(opponents)
        table = lineups.past_rows(num_rows, len(opponents), 0, np.asarray(self._teams))
        return Lineups((name, *opponents), table)

    # Past selves and learners

    def add_snapshot(
        self,
        weights: Mapping[str, np.ndarray],
        *,
        version: int,
        iteration: int,
        agent_steps: int,
        slot: str = MAIN,
    ) -> str:
        """Add a copy of a learner's current weights to the past selves and return its name."""
        learner = self._learner[slot]
        name = f"{learner}-{version:06d}"
        if name in self._players:
            raise LeagueError(f"the league already has {name}: a version becomes a past self once")
        player = Player(
            name,
            "snapshot",
            ratings.successor(self._players[learner].rating),
            role=self._slots[slot].role,
            parent=self._parent[slot],
            version=version,
            iteration=iteration,
            agent_steps=agent_steps,
            weights=self._store.save_weights(weights),
            quality=self._pool.joining_quality(),
        )
        self._add(player)
        self._pool.join(player)
        self._parent[slot], self._frozen_at[slot] = name, iteration
        while len(self._pool.members) > self._config.pool_size:
            self._retire(iteration)
        self._among_past = None
        return name

    def _add(self, player: Player) -> None:
        self._uncommitted = True
        self._ids[player.name] = self._store.add_player(player, self._network)
        self._players[player.name] = player

    def _retire(self, iteration: int) -> None:
        names = self._pool.names
        counts = self._table.recent_counts(self._ids[MAIN], [self._ids[name] for name in names])
        name = names[leaver(counts, [name in self._parent.values() for name in names])]
        self._pool.leave(name)
        self._players[name] = replace(self._players[name], retired=iteration)
        self._store.retire(name, iteration)

    def begin_anew(self, slot: str, iteration: int) -> str:
        """A fresh learner takes an exploiter's slot; the one before stays as it is. Gives its name."""
        name = f"{slot}.{1 + len(roles.lives(slot, self._learning()))}"
        self._add(_beginner(name, self._slots[slot].role, iteration))
        self._learner[slot], self._parent[slot], self._frozen_at[slot] = name, None, iteration
        return name

    def is_done(self, slot: str, iteration: int) -> bool:
        """Whether an exploiter is to be frozen after this iteration."""
        own = self._ids[self._learner[slot]]
        if self._slots[slot].role == "main_exploiter":
            after = [self._ids[MAIN]]
        else:
            after = [self._ids[name] for name in self._pool.names]
        scores = self._table.recent_score(own, after)
        return roles.is_done(self._config, iteration - self._frozen_at[slot], scores)

    def gives_way(self, slot: str) -> bool:
        """Whether the exploiter that was just frozen is to begin anew; draws."""
        return roles.begins_anew(self._config, self._slots[slot].role, float(self._rng.random()))

    @property
    def slots(self) -> tuple[Slot, ...]:
        return tuple(self._slots.values())

    def learner(self, slot: str) -> str:
        """The player that learns in a slot."""
        return self._learner[slot]

    def weights(self, name: str) -> dict[str, np.ndarray]:
        """A player's weights as fresh arrays, checked against their SHA-256."""
        return self._store.weights(name)

    @property
    def newest(self) -> str | None:
        """The newest past self of the main learner."""
        return self._parent[MAIN]

    def players(self) -> list[Player]:
        """All players in the order in which they joined, with their present qualities and ratings."""
        present = dict(zip(self._pool.names, self._pool.quality.tolist(), strict=True))
        return [
            replace(player, quality=present.get(name, player.quality))
            for name, player in self._players.items()
        ]

    def payoffs(self, names: Sequence[str] | None = None) -> Payoffs:
        """How these players, or all, fared against each other."""
        return self._table.payoffs({name: self._ids[name] for name in names or self._ids})

    def main_against_past(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """The pool's names, and the main learner's counts [N, 3] against each: before, and lately.

        Lately is since the last snapshot but one; before is all that was earlier.
        """
        names = self._pool.names
        mains = [player.iteration for player in self._pool.members if player.role == "main"]
        recent = self._store.counts_since(mains[-2] if len(mains) > 1 else -1, self._ids[MAIN])
        late = np.array([recent.get(self._ids[name], (0, 0, 0)) for name in names], np.int64).reshape(-1, 3)
        return names, self._table.counts(self._ids[MAIN], [self._ids[name] for name in names]) - late, late

    def distances_to_parents(self) -> list[tuple[str, str, float]]:
        """(snapshot, parent, how far apart their weights are) of the newest snapshot of each learner."""
        newest = [self._players[name] for name in self._parent.values() if name]
        return [
            (each.name, each.parent, weight_distance(self.weights(each.name), self.weights(each.parent)))
            for each in newest
            if each.parent
        ]

    # Results

    def record(self, results: Sequence[MatchResults], *, iteration: int, slot: str = MAIN) -> None:
        """Count a slot's finished training matches; qualities of past selves that the main learner beat fall.

        In the results MAIN is the slot's learner, and main@VERSION the main learner as it was then. Among
        several teams a win is counted in parts: one for each other team that was left behind.
        """
        if iteration != self._counted:
            self._counted, self._recorded = iteration, []
        learner = self._learner[slot]
        own = self._ids[learner]
        counted = self._count([_known(result, learner) for result in results], iteration, "train")
        self._recorded += self._meet(counted, own)
        if slot == MAIN:
            beaten = wins_over(counted, self._teams, own)
            wins = np.array([beaten.get(self._ids[name], 0.0) for name in self._pool.names])
            self._pool.quality = quality.after_wins(self._pool.quality, wins, lr=self._config.quality_lr)

    def record_evaluation(self, results: Sequence[MatchResults], *, iteration: int) -> None:
        """Count matches of frozen players, played for the payoff table alone."""
        self._meet(self._count(results, iteration, "evaluation"))

    def _count(self, results: Sequence[MatchResults], iteration: int, kind: Kind) -> Outcomes:
        counted: Outcomes = outcomes(results, self._ids, self._teams, winners=self._winners)
        self._uncommitted = True
        self._store.add_results(iteration, kind, counted)
        return counted

    def _meet(self, counted: Outcomes, learner: int | None = None) -> list[Meeting]:
        """Add who met whom to what the next commit makes durable."""
        met = meetings(counted, self._teams, learner)
        self._met += met
        return met

    # Ratings

    @property
    def anchors(self) -> dict[str, Rating]:
        """The fixed ratings of the anchors that have one; random's is 0. Without winners, all of them."""
        return self._anchored.fixed()

    @property
    def uncalibrated(self) -> tuple[str, ...]:
        """Anchors that must meet random before anyone is rated against them; none where nobody wins."""
        return self._anchored.uncalibrated()

    def calibrate(self, results: MatchResults, *, iteration: int = 0) -> None:
        """Fix the ratings of anchors from their matches against random, once for the run."""
        self._anchored.calibrate(results, iteration)
        self._meet(self._count([results], iteration, "rating"))

    def rate(self, name: str, results: MatchResults, iteration: int) -> Rating | None:
        """Rate a past self, or a learner, from matches against anchors, which do not move.

        A past self's rating gathers evidence from call to call. A learner changes between iterations: its
        rating starts anew from its last mean. The rating of a learner's newest past self is its own too,
        and through it the start of the next version. Without winners nobody is rated: None.
        """
        met = self._anchored.duels(name, results)
        self._meet(self._count([results], iteration, "rating"))
        slot = next((s for s, learner in self._learner.items() if name in (learner, self._parent[s])), None)
        if slot == MAIN:
            self._anchored.note(met, results)
        if not self._winners:
            return None
        rating = self._anchored.rated(name, met)
        for each in (name, *([self._learner[slot]] if slot else [])):
            self._anchored.set(each, rating, iteration)
        return rating

    def metrics(self) -> dict[str, float]:
        """Numbers of the iteration that was recorded last, and of the last rating."""
        numbers: dict[str, float] = {"league/pool_size": len(self._pool.members)}
        for slot, learner in self._learner.items():
            prefix = "league" if slot == MAIN else f"{slot}/league"
            numbers |= {f"{prefix}/{key}": value for key, value in self._against_past(learner).items()}
            if self._winners and slot != MAIN and self._parent[slot]:
                numbers[f"{prefix}/rating"] = self._players[learner].rating.mu
        for anchor, mean_score in self._anchored.scores.items():
            numbers[f"league/win_rate/{anchor}"] = mean_score
        for anchor, mean_return in self._anchored.returns.items():
            numbers[f"league/return/{anchor}"] = mean_return
        if self._anchored.matches:
            numbers["league/rating_games"] = self._anchored.matches
        if self._anchored.scores:
            numbers["league/rating"], numbers["league/rating_sigma"] = self._players[MAIN].rating
            numbers["league/rated_iteration"] = self._players[self.newest].iteration if self.newest else 0
        return numbers

    def _against_past(self, learner: str) -> dict[str, float]:
        """How a learner fared against others in the iteration that was recorded last."""
        own = [meeting for meeting in self._recorded if meeting.player == self._ids[learner]]
        matches = sum(meeting.matches for meeting in own)
        if not matches:
            return {}
        if not self._winners:
            return {"return_pool": sum(meeting.returns for meeting in own) / matches}
        won = sum(meeting.wins + meeting.draws / 2 for meeting in own)
        return {"win_rate_pool": won / matches}

    # Durability

    def commit(self, iteration: int) -> None:
        """Make the iteration durable, in one transaction."""
        self._store.set_quality(self._pool.moved())
        met = together(self._met)
        self._met = []
        self._store.add_meetings(iteration, met)
        self._table.add(met)
        self._store.set_payoffs(self._table.changed())
        self._store.commit(iteration)
        self._uncommitted = False

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON can hold it; the tables keep the rest."""
        assert not self._uncommitted, "commit the iteration before taking the league's state"
        return {
            "rng": self._rng.bit_generator.state,
            "quality": dict(zip(self._pool.names, self._pool.quality.tolist(), strict=True)),
            "rating": {name: list(player.rating) for name, player in self._players.items()},
            "anchored": self._anchored.state(),
            "draws": {name: draw.state() for name, draw in self._draws.items()},
            "slots": {name: [self._frozen_at[name], self._parent[name]] for name in self._slots},
            "counted": [self._counted, list(map(list, self._recorded))],
            "among_past": None
            if self._among_past is None
            else np.nan_to_num(self._among_past, nan=-1).tolist(),
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
        for met in self._store.meetings().values():
            self._table.add(met)
        self._store.set_payoffs(self._table.changed())
        self._store.commit(iteration)
        self._store.remove_unused_weights()
        self._rng.bit_generator.state = state["rng"]
        self._anchored.set_state(state["anchored"])
        for name, draw in self._draws.items():
            draw.set_state(state["draws"][name])
            self._frozen_at[name], self._parent[name] = state["slots"][name]
        self._counted, recorded = state["counted"]
        self._recorded = [Meeting(*each) for each in recorded]
        among = state["among_past"]
        self._among_past = None if among is None else np.where(np.array(among) < 0, np.nan, among)

    def _disagreements(self, state: dict[str, Any]) -> list[str]:
        """Players whom the tables and a checkpoint's state do not describe alike."""
        stored = {name: list(player.rating) for name, player in self._players.items()}
        wrong = {name for name, rating in state["rating"].items() if stored.get(name) != rating}
        return sorted(wrong | (set(self._pool.names) ^ state["quality"].keys()))

    def close(self) -> None:
        """Let go of the files; what was not committed is lost."""
        self._store.close()


def _beginner(name: str, role: Role, iteration: int) -> Player:
    return Player(name, "learning", ratings.successor(RANDOM), role=role, iteration=iteration)


def _known(results: MatchResults, learner: str) -> MatchResults:
    """The results with the league's names: the learner's own, and the main learner's at every version."""
    names = {MAIN: learner}
    players = tuple(names.get(name, name.partition(LIVE)[0]) for name in results.players)
    distinct = tuple(dict.fromkeys(players))
    if distinct == results.players:
        return results
    number = np.array([distinct.index(name) for name in players], np.int32)
    return replace(results, players=distinct, lineup=number[results.lineup])
