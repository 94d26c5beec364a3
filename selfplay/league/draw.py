"""From a choice of opponents to the lineups of every rollout. Q lineups, A seats, N past selves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from selfplay.league.lineups import mixed_rows, past_rows, spread_draws
from selfplay.league.opponents import Choice
from selfplay.matches import MAIN, Lineups


class Draw:
    """Draws lineups of one slot, and carries rounding on from table to table: shares are exact in sum."""

    def __init__(self, units: Sequence[int], opponents: int, rng: np.random.Generator) -> None:
        """units [A]: what a player holds (`selfplay.parts.units`); opponents: past selves of each rollout."""
        self._units = np.asarray(units)
        self.num_units = max(units) + 1
        self._opponents, self._rng = opponents, rng
        self._first_unit = 0  # that the learner takes in the next match with somebody else
        self._owed = 0.5  # of such a match; in [0, 1)

    def alone(self, num_rollouts: int, num_lineups: int) -> list[Lineups]:
        """The learner everywhere."""
        return [Lineups((MAIN,), np.zeros((num_lineups, len(self._units)), np.int32))] * num_rollouts

    def tables(
        self, choice: Choice, pool: Sequence[str], live: str | None, num_rollouts: int, num_lineups: int
    ) -> list[Lineups]:
        """Who plays in the next matches of every rollout; player 0, MAIN, is the slot's learner.

        pool [N]: names; live: of the main learner as it is now. In a match with others the learner holds
        one unit, going round the units, and they hold the rest. Each rollout has `opponents` past selves
        (different ones, unless one has more than its share of the probability) with equal numbers of
        matches.
        """
        drawn = spread_draws(choice.probability, num_rollouts, self._opponents, self._rng)
        return [self._table(choice, pool, live, past, num_lineups) for past in drawn]

    def _table(
        self, choice: Choice, pool: Sequence[str], live: str | None, past: np.ndarray, num_lineups: int
    ) -> Lineups:
        """past [K] indices into the pool -> one rollout's shuffled table [Q, A]."""
        due = self._owed + (1 - choice.self_play) * num_lineups
        num_other = min(int(due), num_lineups)
        self._owed = due - int(due)
        num_live = min(round(choice.live * num_lineups), num_other) if live else 0
        num_past = num_other - num_live
        past = past[:num_past]
        rows = mixed_rows(num_past, len(past), self._first_unit, self._units)
        different, index = np.unique(past, return_inverse=True)
        number = np.concatenate([[0], 1 + index]).astype(np.int32)  # of each player in rows
        table = np.zeros((num_lineups, len(self._units)), np.int32)
        table[:num_past] = number[rows]
        players = [MAIN, *(pool[i] for i in different)]
        if num_live and live:
            against = past_rows(num_live, 1, self._first_unit + num_past, self._units)
            table[num_past:num_other] = np.where(against == 0, 0, len(players))
            players.append(live)
        self._first_unit = (self._first_unit + num_other) % self.num_units
        return Lineups(tuple(players), self._rng.permutation(table))

    def state(self) -> list[Any]:
        return [self._first_unit, self._owed]

    def set_state(self, state: Sequence[Any]) -> None:
        self._first_unit, self._owed = state
