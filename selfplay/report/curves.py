"""The training curves of a report: which metrics stand together, and few enough points to draw.

R rows of metrics.jsonl, X points of the curves.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from selfplay.report.data import Panel, Series

POINTS = 400
"""Of a curve at most: about two pixels each on a wide screen."""
ANCHOR = "league/win_rate/"
RETURN = "league/return/"
SCORE = "Score"
"""Title of the panel whose axis is from 0 to 1."""

Rows = Sequence[Mapping[str, Any]]

_PANELS = (  # title, what it says, metrics
    ("Entropy", "nats, of the policy over legal actions", ("loss/entropy",)),
    ("KL per update", "nats; above about 0.05 updates are too large", ("loss/kl",)),
    ("Explained variance", "of the value targets; 1 is perfect, 0 no better than a constant",
     ("loss/explained_variance",)),
    ("Staleness", "versions between acting and learning; 0 is on-policy",
     ("data/staleness", "data/staleness_max")),
    ("Speed", "decisions per second, learning included", ("speed/decisions_per_s",)),
    ("Match length", "decisions of all seats", ("match/length",)),
    ("Match return", "of a learning seat, mean over the matches", ("match/return",)),
)  # fmt: skip


def bins(rows: Rows) -> list[Rows]:
    """The rows in at most POINTS runs of neighbours, as even as they come."""
    edges = np.linspace(0, len(rows), min(len(rows), POINTS) + 1).round().astype(int).tolist()
    return [rows[low:high] for low, high in itertools.pairwise(edges)]


def panels(rows: Rows) -> tuple[Panel, ...]:
    """The panels whose metrics the run has; each point is the mean over a bin."""
    groups = bins(rows)
    names = sorted(set().union(*rows)) if rows else []
    found = []
    for title, note, metrics in _PANELS:
        own = {
            name: label if len(metrics) == 1 or name == metric else f"{label} {_short(metric)}"
            for metric in metrics
            for name in names
            if (label := _label(name, metric))
        }
        found.append(Panel(title, note, _series(groups, own)))
    found.append(_opponents(groups, names))
    return tuple(panel for panel in found if any(v is not None for s in panel.series for v in s.value))


def _label(name: str, metric: str) -> str | None:
    """What a metric is called beside others of its kind: of all, of a policy's part, of an exploiter."""
    if name == metric:
        return _short(metric)
    if name.startswith(f"{metric}/"):
        return name.removeprefix(f"{metric}/")
    return name.removesuffix(f"/{metric}") if name.endswith(f"/{metric}") else None


def _short(metric: str) -> str:
    return metric.partition("/")[2]


def _opponents(groups: Sequence[Rows], names: Sequence[str]) -> Panel:
    """The main learner against anchors and past selves; in returns where the game has no winners."""
    returns = _named(names, RETURN, "league/return_pool")
    if returns:
        note = "mean return of the main learner against anchors and past selves"
        return Panel("Return against others", note, _series(groups, returns))
    scores = _named(names, ANCHOR, "league/win_rate_pool")
    return Panel(SCORE, "win 1, draw ½, against anchors and past selves", _series(groups, scores))


def _named(names: Sequence[str], prefix: str, pool: str) -> dict[str, str]:
    """Labels of the metrics against each anchor and against past selves."""
    found = {name: name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    return found | ({pool: "past selves"} if pool in names else {})


def _series(groups: Sequence[Rows], names: Mapping[str, str]) -> tuple[Series, ...]:
    return tuple(Series(label, _curve(groups, name)) for name, label in names.items())


def _curve(groups: Sequence[Rows], name: str) -> tuple[float | None, ...]:
    return tuple(mean(group, name) for group in groups)


def mean(rows: Rows, name: str) -> float | None:
    """Of the rows that have a finite value of the metric; None where none has."""
    values = [float(row[name]) for row in rows if row.get(name) is not None]
    return math.fsum(values) / len(values) if values else None
