"""What in a run deserves a warning: in its metrics, and in its league. N players."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from selfplay.league import diagnosis
from selfplay.league.payoffs import Payoffs
from selfplay.league.store import Player
from selfplay.report.curves import Rows, mean
from selfplay.report.data import Finding

STALENESS = 1.0
"""Versions; OpenAI Five (arXiv:1912.06680) aims for 0 to 1, and lost much at about 8."""
EXPLAINED = -0.1
"""Explained variance; about 0 is sound where nothing can be foreseen, as in rock-paper-scissors."""
CHECKED = (
    "cycles between past selves",
    "forgetting of past selves",
    "past selves that beat the main learner",
    "entropy that is gone or fell at once",
    f"updates too large (KL above {diagnosis.LARGE_KL})",
    "past selves that are near-copies",
    f"staleness (above {STALENESS:g})",
    "values worse than a constant",
    "losses that are not finite",
    "matches dropped",
)


@dataclass(frozen=True, slots=True)
class Past:
    """How the main learner fared against the past selves of the pool: before, and lately."""

    names: tuple[str, ...]  # [N]
    early: np.ndarray  # [N, 3] wins, draws, losses
    recent: np.ndarray  # [N, 3]


def lately(players: Sequence[Player]) -> int:
    """The iteration after which the main learner's results are recent: of its last snapshot but one."""
    mains = [p.iteration for p in players if p.kind == "snapshot" and p.retired is None and p.role == "main"]
    return mains[-2] if len(mains) > 1 else -1


def league(
    players: Sequence[Player], payoffs: Payoffs, past: Past, distances: Iterable[tuple[str, str, float]]
) -> tuple[Finding, ...]:
    """Findings in the payoffs and weights; distances: of past selves' weights from their parents'."""
    frozen = [player.name for player in players if player.kind != "learning"]
    index = [payoffs.players.index(name) for name in frozen]
    counts = payoffs.counts.sum(axis=2)[np.ix_(index, index)]
    return _findings(
        [
            *diagnosis.cycles(frozen, counts),
            *diagnosis.forgetting(past.names, past.early, past.recent),
            *diagnosis.beaten(past.names, past.recent),
            *diagnosis.copies_by_weights(distances),
        ]
    )


def training(rows: Rows) -> tuple[Finding, ...]:
    """Findings in the metrics; staleness and values are those of the last tenth of the iterations."""
    last = rows[-max(len(rows) // 10, 1) :]
    found = list(_findings(diagnosis.collapse(rows, discrete=_is_discrete(rows))))
    staleness = mean(last, "data/staleness")
    if staleness is not None and staleness > STALENESS:
        text = f"Samples are {staleness:.2g} versions old at the end; at most about {STALENESS:g} is sound."
        found.append(Finding("Stale data", text))
    explained = mean(last, "loss/explained_variance")
    if explained is not None and explained < EXPLAINED:
        text = f"Explained variance is {explained:.2f} at the end: a constant would err less."
        found.append(Finding("Values worse than a constant", text))
    broken = [row for row in rows if _not_finite(row)]
    if broken:
        names = ", ".join(_not_finite(broken[0]))
        text = f"In {len(broken)} iterations, first in {broken[0]['iteration']}: {names}."
        found.append(Finding("Losses that are not finite", text))
    dropped = sum(row.get("match/dropped") or 0 for row in rows)
    if dropped:
        text = f"{dropped:g} have no result, as the game's own code raised."
        found.append(Finding("Matches dropped", text))
    return tuple(found)


def _findings(found: Iterable[diagnosis.Finding]) -> tuple[Finding, ...]:
    """As the page shows them: what stands before the first colon is the title."""
    parts = (finding.text.partition(": ") for finding in found)
    return tuple(Finding(title[:1].upper() + title[1:], text) for title, _, text in parts)


def _is_discrete(rows: Rows) -> bool:
    """Whether actions are choices: a density's entropy goes below 0, that of choices never."""
    return all(
        value is None or value >= 0
        for row in rows
        for name, value in row.items()
        if name.startswith("loss/entropy")
    )


def _not_finite(row: Mapping[str, Any]) -> list[str]:
    """Losses of a row that are null, as metrics.jsonl writes what is not finite."""
    losses = ("loss/policy", "loss/value", "loss/entropy", "loss/grad_norm")
    return [name for name, value in row.items() if value is None and name.startswith(losses)]
