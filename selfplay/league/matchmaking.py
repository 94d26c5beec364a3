"""Whom a learner meets: pure functions from payoffs to probabilities over the N past players.

A score is the mean of 1 for a win, .5 for a draw and 0 for a loss. Every result [N] is float64 and sums to
1; it is empty for N = 0. Drawing is the caller's, with its own generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from selfplay.league import nash, quality

ALPHASTAR = "alphastar"
"""The matchmaker that also says how often the learner meets itself."""

SELF_PLAY, VERIFICATION = 0.35, 0.15
"""AlphaStar's main agents: shares of self-play and of matches against who is forgotten; the rest is PFSP."""

SQUARED = 2.0
"""The power of PFSP (hard) that AlphaStar's main agents take (its pseudocode)."""

STRONG_EXPLOITER, FORGOTTEN = 0.3, 0.7
"""Scores below which an exploiter counts as strong and a past main as forgotten (AlphaStar's pseudocode)."""

ENOUGH_SIGNAL = 0.2
"""Score from which a main exploiter learns from the current main alone (AlphaStar, Methods)."""


@dataclass(frozen=True, slots=True)
class Field:
    """What a matchmaker sees of the N past players, in the order in which they joined."""

    score: np.ndarray  # [N] decayed mean score of the learner against each, .5 where unknown
    quality: np.ndarray  # [N] OpenAI Five's
    payoff: np.ndarray  # [N, N] score of row against column, .5 or NaN where unknown
    kind: Sequence[str]  # [N] role: main, main_exploiter or league_exploiter

    def __post_init__(self) -> None:
        num = len(self.score)
        assert len(self.quality) == len(self.kind) == num
        assert self.payoff.shape == (num, num)


def latest(num: int) -> np.ndarray:
    """All on the newest of `num` players."""
    return np.eye(1, num, num - 1)[0] if num else np.zeros(0)


def uniform(num: int, window: float = 0.0) -> np.ndarray:
    """Equal shares of the newest: versions from floor(window * num) on, at least the last one.

    window in [0, 1]: 0 is all of them, 1 the newest alone. Source: U(delta v, v) of Bansal et al. 2017,
    "Emergent complexity via multi-agent competition", arXiv:1710.03748.
    """
    first = min(math.floor(window * num + 1e-9), num - 1)  # .29 * 100 is below 29
    joined = np.arange(num) >= first
    return joined / max(joined.sum(), 1)


def pfsp_hard(score: np.ndarray, power: float) -> np.ndarray:
    """p_i proportional to (1 - x_i)^power: those who win most, where x [N] is the learner's score.

    Uniform where the learner beats everybody surely. Source of both PFSP rules: Vinyals et al. 2019,
    "Grandmaster level in StarCraft II using multi-agent reinforcement learning", Nature 575, Methods.
    """
    return _proportional((1 - np.asarray(score, np.float64)) ** power)


def pfsp_variance(score: np.ndarray) -> np.ndarray:
    """p_i proportional to x_i (1 - x_i): those of the learner's own strength; uniform where all are 0."""
    score = np.asarray(score, np.float64)
    return _proportional(score * (1 - score))


def _proportional(weight: np.ndarray) -> np.ndarray:
    """weight [N] >= 0 with the sum 1; equal shares where there is hardly any (AlphaStar's 1e-10)."""
    total = weight.sum()
    return weight / total if total >= 1e-10 else uniform(len(weight))


def main_agent(field: Field, power: float = SQUARED) -> tuple[float, np.ndarray]:
    """AlphaStar's main agent: its share of self-play, and [N] for the other matches.

    35% self-play, 50% PFSP (hard) over all, 15% over `verified(field)`, or self-play where nobody is.
    """
    num = len(field.score)
    if num == 0:
        return 1.0, np.zeros(0)
    everybody = pfsp_hard(field.score, power)
    candidates = verified(field)
    if not candidates.any():
        return SELF_PLAY + VERIFICATION, everybody
    rest = 1 - SELF_PLAY
    return SELF_PLAY, (
        (rest - VERIFICATION) * everybody + VERIFICATION * _among(candidates, pfsp_hard, field.score, power)
    ) / rest


def verified(field: Field) -> np.ndarray:
    """[N] bool: past players whom a main agent must learn to beat, or beat again.

    The past main exploiters, if the learner scores below .3 against one of them. Else the past mains from
    the first to the last one whom the learner beats more than the main before it, if it scores below .7
    against one of these. (Scores that only fall towards the newest main are what progress looks like, so
    that tail is no forgetting.) Source: `_verification_branch` of the pseudocode published with AlphaStar.
    """
    kind = np.asarray(field.kind, dtype=str)
    exploiters = kind == "main_exploiter"
    if np.any(field.score[exploiters] < STRONG_EXPLOITER):
        return exploiters
    mains = np.flatnonzero(kind == "main")
    rises = np.flatnonzero(np.diff(field.score[mains]) > 0)
    suspects = mains[: rises[-1] + 2] if len(rises) else mains[:0]
    forgotten = np.zeros(len(kind), bool)
    if np.any(field.score[suspects] < FORGOTTEN):
        forgotten[suspects] = True
    return forgotten


def league_exploiter(field: Field, power: float = SQUARED) -> np.ndarray:
    """AlphaStar's league exploiter: PFSP (hard) over all past players; [N]."""
    return pfsp_hard(field.score, power)


def main_exploiter(score_vs_current_main: float, field: Field) -> tuple[float, np.ndarray]:
    """AlphaStar's main exploiter: its share of matches with the current main, and [N] for the others.

    The current main; half of the time, while it scores below 20% there, PFSP (variance) over past mains
    instead. (The paper's sentence; its pseudocode leaves the main below 10%, and then wholly.) `field` is
    the exploiter's own. Without past mains the share is 1, and the probabilities, which nobody needs then,
    are uniform.
    """
    mains = np.asarray(field.kind, dtype=str) == "main"
    if not mains.any():
        return 1.0, uniform(len(mains))
    share = 1.0 if score_vs_current_main >= ENOUGH_SIGNAL else 0.5
    return share, _among(mains, pfsp_variance, field.score)


def _among(
    candidates: np.ndarray, rule: Callable[..., np.ndarray], score: np.ndarray, *options: float
) -> np.ndarray:
    """A rule's probabilities [N] among candidates [N] bool, 0 for the others."""
    probability = np.zeros(len(candidates))
    probability[candidates] = rule(score[candidates], *options)
    return probability


MATCHMAKERS: Mapping[str, Callable[[Field, float, float], np.ndarray]] = {
    "latest": lambda field, window, power: latest(len(field.score)),
    "uniform": lambda field, window, power: uniform(len(field.score), window),
    "quality": lambda field, window, power: quality.probabilities(field.quality),
    "pfsp_hard": lambda field, window, power: pfsp_hard(field.score, power),
    "pfsp_variance": lambda field, window, power: pfsp_variance(field.score),
    "nash": lambda field, window, power: nash.meta_strategy(field.payoff),
}
"""The matchmakers that a mix may hold, by name: (field, window, power) -> [N]."""

NAMES = (*MATCHMAKERS, ALPHASTAR)


def probabilities(
    matchmaker: str | Mapping[str, float], field: Field, *, window: float, power: float
) -> np.ndarray:
    """How often the learner meets each past player [N], in matches that are not self-play.

    matchmaker: one of NAMES, or the weights of a mix of MATCHMAKERS, of any positive sum. "alphastar" is
    `main_agent`'s second result; ask that function for its share of self-play.
    """
    if matchmaker == ALPHASTAR:
        return main_agent(field, power)[1]
    mix = {matchmaker: 1.0} if isinstance(matchmaker, str) else matchmaker
    total = sum(mix.values())
    assert total > 0, f"a mix without weights: {dict(mix)}"
    drawn = [weight / total * MATCHMAKERS[name](field, window, power) for name, weight in mix.items()]
    return np.sum(drawn, axis=0)
