"""From what a report shows to its page: one HTML file with style, script and data inside.

The page never asks the network for anything, and its policy forbids it to. Text of the run reaches it as
JSON, in which no `<` is left, and becomes text nodes there: nothing that a run contains is read as markup.
"""

from __future__ import annotations

import base64
import html
import json
import math
import re
from dataclasses import asdict
from importlib import resources
from typing import Any

import numpy as np

from selfplay.report.data import Encounters, Interval, PayoffCells, Replay, ReportData

SCRIPTS = ("elements", "colours", "chart", "curves", "heat_map", "encounters", "family", "replays", "main")
DIGITS = 5
"""Significant digits of what is drawn."""


def page(data: ReportData) -> str:
    """The whole page."""
    folder = resources.files("selfplay.report") / "page"
    parts = {
        "title": html.escape(f"{data.title} – self-play report"),
        "style": (folder / "style.css").read_text(encoding="utf-8"),
        "data": embedded(_plain(data)),
        "script": "\n".join((folder / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS),
    }
    template = (folder / "page.html").read_text(encoding="utf-8")
    # In one pass, so that what stands in the data is never taken for a place to fill.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def embedded(value: Any) -> str:
    """JSON that may stand inside a script element: "</script>" or "<!--" in a text cannot end it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _plain(data: ReportData) -> dict[str, Any]:
    """As JSON holds it; players are told by their index."""
    index = {player.name: k for k, player in enumerate(data.players)}
    return {
        "title": data.title,
        "facts": [asdict(fact) for fact in data.facts],
        "findings": [asdict(finding) for finding in data.findings],
        "checked": data.checked,
        "steps": data.agent_steps,
        "iterations": data.iterations,
        "panels": [
            {
                "title": panel.title,
                "note": panel.note,
                "series": [{"name": s.name, "y": _rounded(s.value)} for s in panel.series],
            }
            for panel in data.panels
        ],
        "players": [
            asdict(player)
            | {
                "parent": index.get(player.parent or "", -1),
                "parentName": player.parent,
                "rating": _interval(player.rating),
                "strength": _interval(player.strength),
            }
            for player in data.players
        ],
        "numLeftOut": data.num_left_out,
        "ratings": [
            [point.player, point.iteration, point.agent_steps, *(_interval(point.rating) or ())]
            for point in data.ratings
        ],
        "encounters": [_encounters(met) for met in data.encounters],
        "recentFrom": data.recent_from,
        "payoffs": payoff_table(data.payoffs),
        "replays": [_replay(replay) for replay in data.replays],
        "config": data.config,
        "versions": [asdict(fact) for fact in data.versions],
    }


def _encounters(met: Encounters) -> dict[str, Any]:
    return {"player": met.player, "matches": met.matches, "recent": met.recent}


def _interval(interval: Interval | None) -> list[float | None] | None:
    return None if interval is None else _rounded((interval.mu, interval.low, interval.high))


def _rounded(values: tuple[float | None, ...]) -> list[float | None]:
    return [None if v is None or not math.isfinite(v) else float(f"{v:.{DIGITS}g}") for v in values]


def _replay(replay: Replay) -> dict[str, Any]:
    record = replay.recording
    return {
        "name": replay.name,
        "lineup": record.lineup,
        "returns": _rounded(record.returns),
        "boards": record.boards,
        "steps": [
            [
                asdict(decision)
                | {
                    "value": _rounded((decision.value,))[0],
                    "entropy": _rounded((decision.entropy,))[0],
                    "top": [[c.action, c.name, round(c.probability, 4)] for c in decision.top],
                }
                for decision in step
            ]
            for step in record.steps
        ],
    }


def payoff_table(payoffs: PayoffCells) -> dict[str, Any]:
    """Known cells in reading order: each as the gap from the one before and its wins, draws and losses.

    As varints in base64: a league of 500 that all met takes a bit more than a megabyte so. Of a game without
    winners each cell has the gap and its matches; the mean returns follow as float32.
    """
    known = np.flatnonzero(payoffs.matches)
    gap = np.diff(known, prepend=0)[:, None]
    if payoffs.has_winners:
        numbers = np.concatenate([gap, payoffs.counts.reshape(-1, 3)[known]], axis=1)
    else:
        numbers = np.concatenate([gap, payoffs.matches.reshape(-1, 1)[known]], axis=1)
    returns = payoffs.returns.ravel()[known].astype("<f4")
    return {
        "hasWinners": payoffs.has_winners,
        "cells": _base64(varints(numbers.ravel())),
        "returns": "" if payoffs.has_winners else _base64(returns.tobytes()),
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def varints(numbers: np.ndarray) -> bytes:
    """Numbers [M] >= 0 as LEB128: 7 bits a byte, the lowest first, the last byte below 128."""
    left = numbers.astype(np.uint64)
    length = np.ones(len(left), np.int64)
    for bits in range(7, 64, 7):
        length += left >> np.uint64(bits) > 0
    out = np.zeros(int(length.sum()), np.uint8)
    start = np.cumsum(length) - length
    for place in range(int(length.max(initial=0))):
        rows = length > place
        low = left[rows] >> np.uint64(7 * place) & np.uint64(127)
        more = (length[rows] > place + 1).astype(np.uint8) << 7
        out[start[rows] + place] = low.astype(np.uint8) | more
    return out.tobytes()
