"""What in a run's metrics deserves a warning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfplay.report.curves import Rows, mean
from selfplay.report.data import Finding

KL = 0.05
STALENESS = 1.0
"""Versions; OpenAI Five (arXiv:1912.06680) aims for 0 to 1, and lost much at about 8."""
CHECKED = (
    f"KL of an update (at most {KL})",
    f"staleness (at most {STALENESS:g})",
    "explained variance (above 0)",
    "losses that are not finite",
    "matches dropped",
)


def training(rows: Rows) -> tuple[Finding, ...]:
    """Findings in the metrics; where they change with training, in the last tenth of the iterations."""
    last = rows[-max(len(rows) // 10, 1) :]
    found = []
    kl = mean(last, "loss/kl")
    if kl is not None and kl > KL:
        found.append(
            Finding(
                "Updates are large",
                f"The KL divergence of an update averages {kl:.3f} nats at the end; above {KL} learning "
                "becomes unstable. A smaller ppo.lr or fewer epochs make it smaller.",
            )
        )
    staleness = mean(last, "data/staleness")
    if staleness is not None and staleness > STALENESS:
        found.append(
            Finding(
                "Data is stale",
                f"Samples are {staleness:.2g} versions old on average at the end; about "
                f"{STALENESS:g} is aimed for.",
            )
        )
    explained = mean(last, "loss/explained_variance")
    if explained is not None and explained <= 0:
        found.append(
            Finding(
                "Values are not learned",
                f"Explained variance averages {explained:.2f} at the end: the value estimate is no better "
                "than a constant.",
            )
        )
    broken = [row for row in rows if _not_finite(row)]
    if broken:
        found.append(
            Finding(
                "Losses that are not finite",
                f"In {len(broken)} iterations, first in {broken[0]['iteration']}: "
                f"{', '.join(_not_finite(broken[0]))}.",
            )
        )
    dropped = sum(row.get("match/dropped") or 0 for row in rows)
    if dropped:
        found.append(
            Finding("Matches were dropped", f"{dropped:g} have no result: the game's own code raised.")
        )
    return tuple(found)


def _not_finite(row: Mapping[str, Any]) -> list[str]:
    """Losses of a row that are null, as metrics.jsonl writes what is not finite."""
    return [
        name
        for name, value in row.items()
        if name.startswith(("loss/policy", "loss/value", "loss/grad_norm")) and value is None
    ]
