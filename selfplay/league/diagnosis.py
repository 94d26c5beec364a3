"""Bad news from a run's own figures: cycles, forgetting, collapse, near-copies. N players, D rows of metrics.

Each function is pure and returns findings, none when all is well. What rests on matches comes with an exact
or conservative p-value, corrected for the number of comparisons looked at, and is reported at ALPHA; the
rules on metrics and weights are thresholds, stated with them. A call is one look: who looks again and again
at growing data sees more false alarms than ALPHA says.

Counts are wins, draws, losses; a draw is half a win.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import betainc, gammaln, ndtr

from selfplay.evaluate import score_interval

ALPHA = 0.05
"""Probability of a false finding in one call, at most."""
LEAST_DROP = 0.05
"""Score against a past self whose loss is worth a finding, however sure."""
WINDOW = 10
"""Rows of metrics over which medians are taken."""
ENTROPY_SHARE = 0.02
"""Of the entropy of a run's first rows; less is collapse."""
LEAST_WINDOWS = 20
"""Windows of entropy before one fall can be called the greatest: p = 1/19 by chance."""
LARGE_KL = 0.05
"""Nats between updates above which they are too large."""
KL_ROWS = 5
"""Rows in a row with a large KL divergence that make a finding."""
COPY_DISTANCE = 0.01
"""Relative distance of weights below which two players are near-copies."""

_EXACT_TABLES = 1_000_000  # of wins and draws; above it, counts are large enough for the normal law


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong."""

    kind: Literal["cycle", "forgetting", "beaten", "collapse", "near-copies"]
    text: str  # one line, with the figures
    players: tuple[str, ...] = ()  # whom it concerns
    p_value: float | None = None  # corrected; None for rules that are thresholds


@dataclass(frozen=True, slots=True)
class PastScore:
    """A player's score against one past self."""

    player: str  # the past self
    score: float
    interval: tuple[float, float]  # 95%, Wilson
    games: int


# Cycles


def cycles(players: Sequence[str], counts: np.ndarray, *, most: int = 5) -> list[Finding]:
    """A beats B beats C beats A, each edge significant: the `most` strongest, by their weakest edge's score.

    counts: [N, N, 3] of row against column, of players that do not change. Edge i -> j: its decisive
    matches would fall so far to i's side with probability P(X >= wins), X ~ Bin(wins + losses, 1/2), if i did
    not win more often than j. A cycle's p-value is that of its weakest edge, times the number looked at: the
    directed edges, 2 for each pair that met, or the directed triples, 2 for each that met all round,
    whichever is less (either bounds the chance of one false cycle, as a false cycle has a false edge).
    """
    wins, losses = counts[..., 0].astype(np.float64), counts[..., 2].astype(np.float64)
    games = counts.sum(axis=2).astype(np.float64)
    np.fill_diagonal(games, 0.0)
    met = (games > 0).astype(np.float64)
    looked_at = min(met.sum(), np.einsum("ij,ji->", met @ met, met) / 3)
    if looked_at == 0:
        return []
    p_value = np.where((wins > 0) & (games > 0), betainc(np.maximum(wins, 1.0), losses + 1.0, 0.5), 1.0)
    score = (wins + (games - wins - losses) / 2) / np.maximum(games, 1.0)
    found = []
    for strength, i, j, k in _triangles(np.where(p_value * looked_at <= ALPHA, score, 0.0), most):
        edges = (i, j), (j, k), (k, i)
        worst = max(p_value[i, j], p_value[j, k], p_value[k, i]) * looked_at
        chain = (f"{players[a]} beats {players[b]} {_record(counts[a, b])}" for a, b in edges)
        text = f"cycle: {', '.join(chain)}; the weakest edge scores {strength:.2f}, p = {worst:.1g}"
        found.append(Finding("cycle", text, (players[i], players[j], players[k]), float(worst)))
    return found


def _triangles(score: np.ndarray, most: int) -> list[tuple[float, int, int, int]]:
    """Cycles of three along positive entries [N, N], the largest smallest entry first, each once."""
    found: list[tuple[float, int, int, int]] = []
    for i in range(len(score) - 2):
        after = i + 1 + np.flatnonzero(score[i, i + 1 :])
        before = i + 1 + np.flatnonzero(score[i + 1 :, i])
        ends = np.minimum(score[i, after][:, None], score[before, i])
        weakest = np.minimum(score[np.ix_(after, before)], ends)
        kth = max(weakest.size - most, 0)
        best = np.argpartition(weakest, kth, axis=None)[kth:] if weakest.size else np.zeros(0, int)
        rows, columns = np.unravel_index(best, weakest.shape)
        found += [
            (float(weakest[r, c]), i, int(after[r]), int(before[c]))
            for r, c in zip(rows, columns)
            if weakest[r, c] > 0
        ]
    return sorted(found, key=lambda cycle: -cycle[0])[:most]


def _record(counts: np.ndarray) -> str:
    wins, draws, losses = (int(n) for n in counts)
    return f"{wins}:{losses}" + (f" with {draws} drawn" if draws else "")


# Forgetting


def forgetting(players: Sequence[str], early: np.ndarray, recent: np.ndarray) -> list[Finding]:
    """Past selves against which a player's score fell, the surest first.

    early, recent: [N, 3] its results against each of the past selves before and now. One-sided exact
    permutation test of `drop_p_value`, times the number of past selves met both times; the fall must also
    be LEAST_DROP at least.
    """
    early, recent = np.asarray(early), np.asarray(recent)
    both = np.flatnonzero((early.sum(axis=1) > 0) & (recent.sum(axis=1) > 0)).tolist()
    found = []
    for k in both:
        before, now = _score(early[k]), _score(recent[k])
        if before - now < LEAST_DROP:
            continue
        p_value = min(drop_p_value(early[k], recent[k]) * len(both), 1.0)
        if p_value <= ALPHA:
            text = (
                f"forgetting: the score against {players[k]} fell from {before:.2f} "
                f"({early[k].sum()} matches) to {now:.2f} ({recent[k].sum()} matches), p = {p_value:.1g}"
            )
            found.append(Finding("forgetting", text, (players[k],), p_value))
    return sorted(found, key=lambda finding: finding.p_value or 0.0)


def drop_p_value(early: np.ndarray, recent: np.ndarray) -> float:
    """Probability of so low a recent score if all matches, early and recent, were alike.

        P(w, d) = C(W, w) C(D, d) C(L, n - w - d) / C(N, n),  summed over w + d/2 <= the recent score

    early, recent: [3] counts; W, D, L those of both, N all matches, n the recent ones. Exact: Fisher's test
    where nothing is drawn. Where the tables are too many, the normal law of the same mean and variance.
    """
    whole = np.asarray(early, np.int64) + recent
    number, total = int(np.sum(recent)), int(whole.sum())
    points = int(2 * recent[0] + recent[1])
    if (whole[0] + 1) * (whole[1] + 1) > _EXACT_TABLES:
        score = np.array([1.0, 0.5, 0.0])
        mean = float(score @ whole) / total
        variance = float((score - mean) ** 2 @ whole) / total * (total - number) / (total - 1) * number
        if variance == 0.0:
            return 1.0
        return float(ndtr((points / 2 + 0.25 - mean * number) / math.sqrt(variance)))
    wins, draws = np.arange(whole[0] + 1)[:, None], np.arange(whole[1] + 1)
    losses = number - wins - draws
    counted = (losses >= 0) & (losses <= whole[2]) & (2 * wins + draws <= points)
    logs = _log_choose(whole[0], wins) + _log_choose(whole[1], draws)
    logs = logs + _log_choose(whole[2], np.clip(losses, 0, whole[2])) - _log_choose(total, np.array(number))
    return min(float(np.exp(logs[counted]).sum()), 1.0)


def _log_choose(number: int, chosen: np.ndarray) -> np.ndarray:
    return gammaln(number + 1.0) - gammaln(chosen + 1.0) - gammaln(number - chosen + 1.0)


def beaten(players: Sequence[str], counts: np.ndarray) -> list[Finding]:
    """Past selves that a player loses to more often than it beats them, the surest first.

    counts: [N, 3] its results against each. Exact one-sided sign test on the decisive matches, times N met.
    """
    counts = np.asarray(counts)
    wins, losses = counts[:, 0].astype(np.float64), counts[:, 2].astype(np.float64)
    number = max(int((counts.sum(axis=1) > 0).sum()), 1)  # nobody met: p-values of 1 stay 1
    raw = np.where(losses > 0, betainc(np.maximum(losses, 1.0), wins + 1.0, 0.5), 1.0)
    found = [
        Finding(
            "beaten",
            f"beaten by a past self: {_record(counts[k])} against {players[k]}, p = {raw[k] * number:.1g}",
            (players[k],),
            float(raw[k] * number),
        )
        for k in np.argsort(raw, kind="stable").tolist()
        if raw[k] * number <= ALPHA
    ]
    return found


def lowest_score(players: Sequence[str], counts: np.ndarray) -> PastScore | None:
    """The past self that a player scores least against; None where it met none.

    counts: [N, 3]. The interval is of that pair alone: the lowest of many is partly bad luck.
    """
    met = [k for k in range(len(players)) if np.sum(counts[k]) > 0]
    if not met:
        return None
    lowest = min(met, key=lambda k: _score(counts[k]))
    games, score = int(np.sum(counts[lowest])), _score(counts[lowest])
    return PastScore(players[lowest], score, score_interval(score, games), games)


def _score(counts: np.ndarray) -> float:
    return float(counts[0] + counts[1] / 2) / float(np.sum(counts))


# Collapse


def collapse(rows: Sequence[Mapping[str, float | None]], *, discrete: bool) -> list[Finding]:
    """Entropy that is gone and updates that are too large, from the rows of metrics.jsonl, oldest first.

    discrete: whether actions are; else entropy is a density's, has no zero, and is not judged. Three rules,
    for the policy and, where several learn, for each of them:

    - gone: the median entropy of the last WINDOW rows is below ENTROPY_SHARE of that of the first WINDOW,
      when play was near what the legal actions allow.
    - fell at once: it is below half of that of the WINDOW rows before, each of the last below each of those,
      and this is the greatest fall between consecutive windows, of LEAST_WINDOWS at least. Of n falls without
      a trend the last is the greatest with probability 1/n; that a start's are greater makes it rarer.
    - KL: loss/kl above LARGE_KL in each of the last KL_ROWS rows.
    """
    found = []
    for name, values in _series(rows, "loss/entropy") if discrete else ():
        found += _entropy_findings(name, values)
    for name, values in _series(rows, "loss/kl"):
        large = len(values) - max((k + 1 for k, v in enumerate(values) if v <= LARGE_KL), default=0)
        if large >= KL_ROWS:
            text = (
                f"updates too large: {name} was above {LARGE_KL} nats in each of the last {large} "
                f"iterations, median {np.median(values[-large:]):.3f}"
            )
            found.append(Finding("collapse", text))
    return found


def _series(rows: Sequence[Mapping[str, float | None]], metric: str) -> list[tuple[str, np.ndarray]]:
    """The metric, or those of its parts (metric/PART) if it has any, without missing values: [at most D]."""
    parts = dict.fromkeys(name for row in rows for name in row if name.startswith(metric + "/"))
    names = parts or (metric,)
    kept = {name: [row[name] for row in rows if row.get(name) is not None] for name in names}
    return [(name, np.array(values, np.float64)) for name, values in kept.items()]


def _entropy_findings(name: str, values: np.ndarray) -> list[Finding]:
    """values [D] nats, oldest first."""
    whole = len(values) // WINDOW
    if whole < 2:
        return []
    windows = values[len(values) - whole * WINDOW :].reshape(whole, WINDOW)
    medians = np.median(windows, axis=1)
    start, before, latest = float(np.median(values[:WINDOW])), float(medians[-2]), float(medians[-1])
    if latest < ENTROPY_SHARE * start:
        text = f"entropy gone: {name} is {latest:.2g} nats, {latest / start:.1%} of {start:.2g} at the start"
        return [Finding("collapse", text)]
    if whole < LEAST_WINDOWS or windows[-1].max() >= windows[-2].min() or latest >= before / 2:
        return []
    falls = medians[:-1] / np.maximum(medians[1:], 1e-12)
    if falls[-1] > falls[:-1].max():
        text = f"entropy fell at once: {name} from {before:.2g} to {latest:.2g} nats in {WINDOW} rows"
        return [Finding("collapse", text, p_value=1 / len(falls))]
    return []


# Near-copies


def weight_distance(weights: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    """How far apart two players' weights are; 0 equal, about 1.4 unrelated, infinite for different shapes.

        sqrt(sum_a size_a r_a^2 / sum_a size_a),  r_a = |w_a - o_a| / max(|w_a|, |o_a|)

    over the floating-point arrays a, Euclidean. Each array is relative to itself: a normaliser's counts are
    large and would hide the rest.
    """
    if {name: array.shape for name, array in weights.items()} != {n: a.shape for n, a in other.items()}:
        return math.inf
    total = size = 0.0
    for name, array in other.items():
        if np.issubdtype(array.dtype, np.floating):
            own, its = weights[name].astype(np.float64), array.astype(np.float64)
            length = max(float(np.linalg.norm(own)), float(np.linalg.norm(its)))
            relative = float(np.linalg.norm(own - its)) / length if length else 0.0
            total += array.size * relative**2
            size += array.size
    return math.sqrt(total / size) if size else 0.0


def copies_by_weights(distances: Iterable[tuple[str, str, float]]) -> list[Finding]:
    """Snapshots whose weights are within COPY_DISTANCE of their parent's, as one finding.

    distances: (snapshot, parent, `weight_distance` of the two). A place in the pool that they take adds
    nothing to meet.
    """
    every = list(distances)
    close = [(name, parent, distance) for name, parent, distance in every if distance < COPY_DISTANCE]
    if not close:
        return []
    name, parent, distance = min(close, key=lambda entry: entry[2])
    text = (
        f"near-copies: {len(close)} of {len(every)} snapshots have weights within {COPY_DISTANCE:.0%} of "
        f"their parent's, nearest {name} to {parent} ({distance:.2%})"
    )
    return [Finding("near-copies", text, tuple(name for name, _, _ in close))]
