"""Made-up runs of any size, as the report's page takes them."""

from __future__ import annotations

import numpy as np

from selfplay import config
from selfplay.recording import Choice, Decision, Recording
from selfplay.report.data import (
    Encounters,
    Fact,
    Finding,
    Interval,
    Panel,
    PayoffCells,
    PlayerRow,
    RatingPoint,
    Replay,
    ReportData,
    Series,
)

STEPS = 100_000  # decisions an iteration
POINTS = 400


def sample(num_players: int, *, has_winners: bool = True, text: str = "made up") -> ReportData:
    """A league of so many, all of whom met; `text` stands wherever a run can bring text."""
    rng = np.random.default_rng(num_players)
    players = _players(num_players, text)
    strength = np.array([player.rating.mu if player.rating else 0.0 for player in players])
    iterations = tuple(range(1, POINTS + 1))
    met = rng.integers(0, 200, num_players)
    met[0] = 0  # main, itself
    findings = (Finding(text, f"Found in {text}."),) if num_players > 10 else ()
    return ReportData(
        title=text,
        facts=(Fact("Run", text, text), Fact("Strength", "20.3 ± 0.7", "95% 19.6 to 21.0")),
        findings=findings,
        checked=("cycles", text),
        agent_steps=tuple(STEPS * k for k in iterations),
        iterations=iterations,
        panels=_panels(rng, text),
        players=players,
        num_left_out=3,
        ratings=tuple(
            RatingPoint(k, p.iteration, p.agent_steps or 0, p.rating)
            for k, p in enumerate(players)
            if p.kind == "snapshot" and p.rating is not None
        ),
        encounters=(Encounters("main", tuple(met.tolist()), tuple((met // 10).tolist())),),
        recent_from=360,
        payoffs=_payoffs(rng, strength, has_winners),
        replays=(Replay("words", _match(text, ("no grid",) * 4)), Replay("grid", _match(text, _boards()))),
        config=config.dump(config.load("connect_four")) + f'note = "{text}"\n',
        versions=(Fact("python", "3.11.2"), Fact("selfplay", text)),
    )


def _players(num_players: int, text: str) -> tuple[PlayerRow, ...]:
    """main, random, a bot named `text`, and past selves of main and of an exploiter that begins anew."""
    zero = Interval(0.0, 0.0, 0.0)
    rows = [
        PlayerRow("main", "learning", "main", None, False, 0, 0, None, None, None, None),
        PlayerRow("random", "bot", "bots", None, False, 0, 0, None, None, zero, None),
        PlayerRow(text, "bot", "bots", None, False, 0, 0, None, None, Interval(15.0, 15.0, 15.0), None),
    ]
    parents: dict[str, str] = {}
    for k in range(num_players - len(rows)):
        lineage = "main_exploiter_0" if k % 4 == 3 else "main"
        name = f"{lineage}-{k:06d}"
        mu = 30 * (1 - 0.99 ** (k * 500 / num_players))
        iteration = 1 + k * (POINTS - 1) // num_players
        is_reset = lineage != "main" and k % 3 == 0
        parent = parents.get("main" if is_reset else lineage)
        fitted = Interval(mu + 1, mu, None if k == 0 else mu + 2)
        rating = Interval(mu, mu - 2, mu + 2)
        rows.append(
            PlayerRow(
                name,
                "snapshot",
                lineage,
                parent,
                is_reset,
                iteration,
                STEPS * iteration,
                STEPS * iteration,
                None,
                rating,
                fitted,
            )
        )
        parents[lineage] = name
    return tuple(rows)


def _payoffs(rng: np.random.Generator, strength: np.ndarray, has_winners: bool) -> PayoffCells:
    """All meet all 200 to 400 times, but main does not meet itself nor the last player."""
    size = len(strength)
    gap = strength[:, None] - strength
    matches = rng.integers(200, 400, (size, size))
    matches = np.maximum(matches, matches.T)
    matches[np.arange(size), np.arange(size)] = 0
    matches[0, -1] = matches[-1, 0] = 0
    wins = np.triu(rng.binomial(matches, 1 / (1 + np.exp(-gap / 5.9))))
    counts = np.zeros((size, size, 3), np.int64)
    counts[..., 0] = wins + np.tril(matches - wins.T, -1)
    counts[..., 2] = matches - counts[..., 0]
    returns = np.where(matches > 0, gap, np.nan)
    return PayoffCells(counts if has_winners else 0 * counts, matches, returns, has_winners)


def _panels(rng: np.random.Generator, text: str) -> tuple[Panel, ...]:
    def curve(low: float, high: float) -> tuple[float | None, ...]:
        values = np.linspace(low, high, POINTS) + 0.02 * rng.standard_normal(POINTS)
        return (None, *values[1:].tolist())

    return (
        *(
            Panel(title, "nats", (Series(text, curve(1, 0)),))
            for title in ("Entropy", "KL per update", "Staleness", "Explained variance", "Speed")
        ),
        Panel("Score", "win 1, draw ½", (Series("random", curve(0.5, 0.95)), Series(text, curve(0.1, 0.8)))),
    )


def _match(text: str, boards: tuple[str, ...]) -> Recording:
    top = (Choice(3, "4", 0.75), Choice(2, text, 0.25))
    steps = tuple((Decision(k % 2, 3, "4", 0.1 * k, 0.56, top if k % 2 else ()),) for k in range(3))
    return Recording("connect_four", {}, 0, 1, ("main-000001", text), (1.0, -1.0), steps, boards)


def _boards() -> tuple[str, ...]:
    bottom = (". . .", "X . .", "X O .", "X O X")
    return tuple("\n".join([". . .", ". . .", row, "1 2 3", "X to move"]) for row in bottom)
