"""Who learns in a run: the main learner, and exploiters that look for what it does wrong.

Source: AlphaStar (Vinyals et al. 2019, Nature 575), its supplementary pseudocode.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from selfplay.league_config import LeagueConfig
from selfplay.matches import MAIN

Role = Literal["main", "main_exploiter", "league_exploiter"]


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a learner, with its own rollouts. Exploiters that begin anew follow each other in one."""

    name: str
    role: Role


def slots(config: LeagueConfig) -> tuple[Slot, ...]:
    """All places, the main learner's first."""
    return (
        Slot(MAIN, "main"),
        *(Slot(f"main_exploiter_{k}", "main_exploiter") for k in range(config.main_exploiters)),
        *(Slot(f"league_exploiter_{k}", "league_exploiter") for k in range(config.league_exploiters)),
    )


def lives(slot: str, learners: Iterable[str]) -> list[str]:
    """Those of these learners that held a slot one after the other: SLOT, SLOT.2, SLOT.3, ..."""
    return [name for name in learners if name.partition(".")[0] == slot]


def is_done(config: LeagueConfig, iterations: int, scores: np.ndarray) -> bool:
    """Whether an exploiter is to be frozen: it beats all whom it is after, or its time is up.

    iterations: since it began or was frozen last; scores [N] against those it is after. As in the
    pseudocode, the time is twice what it must have learned for at least.
    """
    if iterations >= config.exploiter_iterations:
        return True
    beats_all = len(scores) > 0 and float(scores.min()) > config.exploiter_win_rate
    return beats_all and 2 * iterations >= config.exploiter_iterations


def begins_anew(config: LeagueConfig, role: Role, uniform: float) -> bool:
    """Whether an exploiter that was just frozen gives way to a fresh one; uniform in [0, 1).

    Main exploiters always do, league exploiters with probability `exploiter_reset`.
    """
    return role == "main_exploiter" or (role == "league_exploiter" and uniform < config.exploiter_reset)
