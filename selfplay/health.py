"""What is wrong with a run, looked for after each snapshot and told once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfplay.league import diagnosis
from selfplay.league.diagnosis import Finding
from selfplay.league.league import League

WATCHED = ("loss/entropy", "loss/kl")
"""Metrics whose history is kept, with those of parts (`loss/entropy/PART`)."""


class Health:
    """Keeps the history of what tells of a collapse, and what was told already."""

    def __init__(self, *, discrete: bool) -> None:
        """discrete: whether all actions are choices, so that their entropy has a zero."""
        self._discrete = discrete
        self._rows: list[dict[str, float | None]] = []
        self._told: set[tuple[str, tuple[str, ...]]] = set()

    def note(self, metrics: Mapping[str, Any]) -> None:
        """An iteration's metrics."""
        self._rows.append({name: x for name, x in metrics.items() if name.startswith(WATCHED)})

    def look(self, league: League) -> tuple[int, list[Finding]]:
        """How much is wrong now, and those of it that are new."""
        found = findings(league) + diagnosis.collapse(self._rows, discrete=self._discrete)
        new = [each for each in found if (each.kind, each.players) not in self._told]
        self._told |= {(each.kind, each.players) for each in new}
        return len(found), new


def findings(league: League) -> list[Finding]:
    """What the league's payoffs and weights tell."""
    frozen = league.payoffs([p.name for p in league.players() if p.kind != "learning"])
    past, early, recent = league.main_against_past()
    return [
        *diagnosis.cycles(frozen.players, frozen.counts.sum(axis=2)),
        *diagnosis.forgetting(past, early, recent),
        *diagnosis.beaten(past, recent),
        *diagnosis.copies_by_weights(league.distances_to_parents()),
    ]
