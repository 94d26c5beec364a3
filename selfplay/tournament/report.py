"""The results as a table for a person, one JSON object, and CSV files."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from selfplay.tournament.standings import LEVEL, Interval, PairRow, PlayerRow, Standings

PLAYERS, PAIRS, REPORT = "players.csv", "pairs.csv", "tournament.json"

MOST_COLUMNS = 12
"""Players in the printed matrix of scores at most; pairs.csv has all."""


@dataclass(frozen=True, slots=True)
class Report:
    """All that a tournament says."""

    env: str
    env_kwargs: dict[str, Any] | None  # None where the players' differ
    seed: int
    greedy: bool
    games_per_pair: int
    standings: Standings
    folder: Path

    def as_dict(self) -> dict[str, Any]:
        """What --json prints."""
        players, pairs = self.standings.players, self.standings.pairs
        return {
            "env": self.env,
            "env_kwargs": self.env_kwargs,
            "seed": self.seed,
            "greedy": self.greedy,
            "games_per_pair": self.games_per_pair,
            "games": sum(pair.games for pair in pairs),
            "anchor": self.standings.anchor,
            "players": [asdict(row) for row in players],
            "pairs": [asdict(row) for row in pairs],
            "output": str(self.folder),
        }


def save(report: Report) -> None:
    """Write players.csv, pairs.csv and tournament.json, each whole or not at all."""
    text = json.dumps(report.as_dict(), indent=1, allow_nan=False)
    _replace(report.folder / REPORT, [text, "\n"])
    for name, rows in ((PLAYERS, report.standings.players), (PAIRS, report.standings.pairs)):
        _replace_csv(report.folder / name, [_flat(asdict(row)) for row in rows])


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """An interval as two columns, `ci95_low` and `ci95_high`; None as an empty cell."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key.endswith("ci95"):
            flat[f"{key}_low"], flat[f"{key}_high"] = value or (None, None)
        else:
            flat[key] = value
    return flat


def _replace_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    lines: list[str] = []
    writer = csv.DictWriter(_Lines(lines), rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    _replace(path, lines)


class _Lines:
    """A file's `write`, into a list."""

    def __init__(self, lines: list[str]) -> None:
        self.write = lines.append


def _replace(path: Path, parts: Iterable[str]) -> None:
    partial = path.with_name(f".partial-{path.name}")
    with partial.open("w", encoding="utf-8", newline="") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def text(report: Report) -> str:
    """The tables for a person."""
    players, pairs = report.standings.players, report.standings.pairs
    total = sum(pair.games for pair in pairs)
    lines = [
        f"{report.env}: {len(players)} players, {report.games_per_pair} matches for each pair, "
        f"{total} in all (seed {report.seed})",
        "",
        *(_rated(players) if report.standings.anchor is not None else _by_return(players)),
        "",
    ]
    if report.standings.anchor is not None:
        lines.append(f"rating and Elo above {report.standings.anchor}, whose own are 0; 95% intervals")
    lines.append(
        f"last column: chance of such a difference to the next player; ~ not significant (p >= {LEVEL})"
    )
    if len(players) <= MOST_COLUMNS:
        lines += ["", "mean score of the row's player against the column's", "", *_matrix(players, pairs)]
    return "\n".join([*lines, "", f"all of it: {report.folder}/{PLAYERS}, {PAIRS}, {REPORT}"])


def _rated(players: Sequence[PlayerRow]) -> list[str]:
    head = ["", "player", "rating", "95% interval", "Elo", "95% interval", "score", "matches", "p"]
    rows = [
        [
            str(place),
            row.label,
            f"{row.rating:.2f}",
            _interval(row.ci95, ".2f"),
            f"{row.elo:+.0f}",
            _interval(row.elo_ci95, "+.0f"),
            f"{row.score:.3f}",
            str(row.games),
            _p(row.p_next),
        ]
        for place, row in enumerate(players, start=1)
    ]
    return _aligned([head, *rows], left={1})


def _by_return(players: Sequence[PlayerRow]) -> list[str]:
    head = ["", "player", "mean return", "95% interval", "score", "matches", "p"]
    rows = [
        [
            str(place),
            row.label,
            f"{row.mean_return:.3f}",
            _interval(row.return_ci95, ".3f"),
            f"{row.score:.3f}",
            str(row.games),
            _p(row.p_next),
        ]
        for place, row in enumerate(players, start=1)
    ]
    return _aligned([head, *rows], left={1})


def _matrix(players: Sequence[PlayerRow], pairs: Sequence[PairRow]) -> list[str]:
    scores: dict[tuple[str, str], str] = {}
    for pair in pairs:
        mark = "" if pair.significant else "~"
        scores[pair.a, pair.b] = f"{mark}{pair.mean_score:.3f}"
        scores[pair.b, pair.a] = f"{mark}{1 - pair.mean_score:.3f}"
    head = ["", "", *(str(place) for place in range(1, len(players) + 1))]
    rows = [
        [str(place), row.name, *(scores.get((row.name, other.name), "-") for other in players)]
        for place, row in enumerate(players, start=1)
    ]
    return _aligned([head, *rows], left={1})


def _interval(bounds: Interval | None, form: str) -> str:
    """Two ends; one that no result bounds is left out."""
    if bounds is None:
        return ""
    low, high = ("" if end is None else f"{end:{form}}" for end in bounds)
    return f"{low} to {high}" if low and high else f"above {low}" if low else f"below {high}" if high else ""


def _p(value: float | None) -> str:
    if value is None:
        return ""
    mark = "~" if value >= LEVEL else ""
    return f"{mark}{value:.3f}" if value >= 0.0005 else "<0.001"


def _aligned(rows: Sequence[Sequence[str]], left: set[int]) -> list[str]:
    """Cells in columns, those of `left` to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if k in left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
