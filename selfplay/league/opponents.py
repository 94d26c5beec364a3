"""Whom a learner meets, by its role: shares of its matches, probabilities of N past selves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from selfplay.league import matchmaking
from selfplay.league.matchmaking import Field
from selfplay.league.pool import Pool
from selfplay.league.roles import Role
from selfplay.league_config import LeagueConfig


class Scores(NamedTuple):
    """How a learner fares now; 1/2 where it never met somebody."""

    against_past: np.ndarray  # [N]
    against_main: float
    among_past: np.ndarray | None  # [N, N] of row against column, NaN where unknown; None: nobody asks for it


class Choice(NamedTuple):
    """What a slot's matches are drawn from."""

    self_play: float  # share of matches in which the learner plays itself alone
    live: float  # share against the main learner as it is now
    probability: np.ndarray  # [N] of each past self, in the rest


def uses_nash(config: LeagueConfig) -> bool:
    """Whether somebody has to know how past selves fare against each other."""
    return config.matchmaker == "nash" or "nash" in config.mix


def choose(config: LeagueConfig, role: Role, scores: Scores, pool: Pool) -> Choice:
    """The shares and probabilities of a role.

    Exploiters as in AlphaStar, whatever the main learner's matchmaker is.
    """
    size = len(pool.members)
    unknown = np.full((size, size), np.nan)
    payoff = unknown if scores.among_past is None else scores.among_past
    field = Field(scores.against_past, pool.quality, payoff, pool.roles)
    if role == "main_exploiter":
        live, probability = matchmaking.main_exploiter(scores.against_main, field)
        return Choice(0.0, live, probability)
    if role == "league_exploiter":
        return Choice(0.0, 0.0, matchmaking.league_exploiter(field))
    if config.matchmaker == "alphastar":
        self_play, probability = matchmaking.main_agent(field)
        return Choice(self_play, 0.0, probability)
    chosen = config.mix if config.matchmaker == "mix" else config.matchmaker
    probability = matchmaking.probabilities(chosen, field, window=config.window, power=config.pfsp_power)
    return Choice(config.self_play, 0.0, probability)
