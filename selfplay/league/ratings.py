"""Ratings with uncertainty, on one scale for the whole run: measured against anchors that never move.

The scale is TrueSkill's (sigma 25/3, beta sigma/2, tau 0) with `random` fixed at 0, so that a gap d means a
win with probability 1 / (1 + exp(-d / SCALE)); d = 25/3 is 80%, as in OpenAI Five
(arXiv:1912.06680). Five's tau of 0 belongs to frozen players: nothing that is rated here drifts.

The model is openskill's Bradley-Terry (Weng and Lin 2011, JMLR 12, algorithm 1): the Thurstone-Mosteller one
has a normal link, in which the same gap is 92%. Its `gamma` is 1 instead of openskill's sigma / c, because
the latter shrinks sigma so slowly that after 64 matches it is 1.5 times that of the exact posterior.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from openskill.models import BradleyTerryFull

SIGMA = 25 / 3
"""Standard deviation of what is known about a player before its first match."""
BETA = SIGMA / 2
SCALE = BETA * math.sqrt(2)
"""Rating points for each nat of log-odds."""
_ANCHOR_SIGMA = 1e-6  # openskill divides by it


class Rating(NamedTuple):
    """A normal belief about a player's strength."""

    mu: float
    sigma: float


class Counts(NamedTuple):
    """How matches of one player against one other ended, for the first."""

    wins: int
    draws: int
    losses: int


RANDOM = Rating(0.0, 0.0)
"""The origin of the scale: the random player."""

_MODEL = BradleyTerryFull(mu=0.0, sigma=SIGMA, beta=BETA, tau=0.0, gamma=lambda *_: 1.0)
_RANKS = ([1.0, 2.0], [1.0, 1.0], [2.0, 1.0])  # of the player and the anchor: win, draw, loss


def successor(predecessor: Rating) -> Rating:
    """What is known about a new version before its first match: its predecessor's mean, full sigma."""
    return Rating(predecessor.mu, SIGMA)


def updated(player: Rating, matches: Sequence[tuple[Rating, Counts]]) -> Rating:
    """The player's rating after matches against anchors, given as (anchor's rating, counts) pairs.

    Only the player moves: the anchor's half of each update is discarded. Updates in a row depend on their
    order (all losses first ends far above all wins first), while matches of frozen players have none that
    means anything. So each kind of outcome is spread evenly over the batch: the result is a function of
    the counts, close to the exact posterior.
    """
    order = sorted(
        ((k + 0.5) / n, anchor.mu, outcome)
        for anchor, counts in matches
        for outcome, n in enumerate(counts)
        for k in range(n)
    )
    rated = _MODEL.rating(mu=player.mu, sigma=player.sigma)
    for _, anchor_mu, outcome in order:
        anchor = _MODEL.rating(mu=anchor_mu, sigma=_ANCHOR_SIGMA)
        rated = _MODEL.rate([[rated], [anchor]], ranks=list(_RANKS[outcome]))[0][0]
    return Rating(float(rated.mu), float(rated.sigma))


def calibrated(counts: Counts) -> Rating:
    """An anchor's fixed rating from its matches against random, by maximum likelihood.

        mu = SCALE * log((wins + draws/2 + 1/2) / (losses + draws/2 + 1/2))

    The half match on either side is Jeffreys' prior for a proportion; it keeps an anchor that always won
    finite. The zero sigma is a convention: an anchor defines the scale.
    """
    won = counts.wins + counts.draws / 2 + 0.5
    lost = counts.losses + counts.draws / 2 + 0.5
    return Rating(SCALE * math.log(won / lost), 0.0)
