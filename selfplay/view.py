"""What a person sees of a run while it goes on: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from selfplay.config import StopConfig

UNKNOWN = "–"
PLAIN_SECONDS = 5.0
WIN_RATE = "league/win_rate/"

Metrics = Mapping[str, Any]


class View(Protocol):
    """Shows the metrics of each iteration, and messages in between."""

    def update(self, metrics: Metrics) -> None: ...

    def message(self, text: str) -> None: ...

    def close(self) -> None: ...


def choose(run_dir: Path, stop: StopConfig, stream: TextIO | None = None) -> View:
    """A live panel if `stream` (stdout) is a terminal that can be redrawn, else plain lines."""
    stream = stream or sys.stdout
    console = Console(file=stream)
    if stream.isatty() and not console.is_dumb_terminal:
        return PanelView(run_dir, stop, console)
    return LineView(stop, stream)


class PanelView:
    """A panel that is redrawn in place; messages scroll by above it."""

    def __init__(self, run_dir: Path, stop: StopConfig, console: Console) -> None:
        self._run_dir = run_dir
        self._stop = stop
        self._live = Live(self._drawn({}), console=console, refresh_per_second=4)
        self._live.start()

    def update(self, metrics: Metrics) -> None:
        self._live.update(self._drawn(metrics))

    def _drawn(self, metrics: Metrics) -> Padding:
        # The last column stays free: there the terminal's echo of ^C would break the line.
        return Padding(panel(metrics, self._run_dir, self._stop), (0, 1, 0, 0))

    def message(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self._live.stop()


class LineView:
    """One short line every few seconds, and one at the end."""

    def __init__(self, stop: StopConfig, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stop = stop
        self._stream = stream
        self._clock = clock
        self._shown_at = -PLAIN_SECONDS + clock()
        self._pending: Metrics | None = None
        self._closed = False

    def update(self, metrics: Metrics) -> None:
        self._pending = metrics
        if self._clock() - self._shown_at >= PLAIN_SECONDS:
            self._show()

    def message(self, text: str) -> None:
        self._show()
        self._print(text)

    def _print(self, text: str) -> None:
        if self._closed:
            return
        try:
            print(text, file=self._stream, flush=True)
        except BrokenPipeError:  # whoever watched is gone; the run goes on
            self._closed = True

    def close(self) -> None:
        self._show()

    def _show(self) -> None:
        if self._pending is not None:
            self._print(line(self._pending, self._stop))
            self._pending = None
            self._shown_at = self._clock()


def progress(metrics: Metrics, stop: StopConfig) -> tuple[float, float | None]:
    """Share of the run that is done, 0 to 1, and the seconds left (None while unknown).

    Of several stop conditions the one that is nearest counts.
    """
    done = 0.0
    for name in ("agent_steps", "seconds", "iterations"):
        end = getattr(stop, name)
        value = metrics.get(name.replace("iterations", "iteration"))
        if end is not None and _is_number(value):
            done = max(done, min(1.0, value / end))
    seconds = metrics.get("seconds")
    known = done > 0 and _is_number(seconds)
    return done, seconds * (1 - done) / done if known and seconds is not None else None


def line(metrics: Metrics, stop: StopConfig) -> str:
    """An iteration as one short line."""
    done, left = progress(metrics, stop)
    parts = [
        f"iteration {_count(metrics.get('iteration'))}",
        f"{_count(metrics.get('agent_steps'))} steps",
        f"{_count(metrics.get('speed/decisions_per_s'))}/s",
        *_strength_in_words(metrics),
        f"entropy {_number(metrics.get('loss/entropy'))}",
        f"kl {_number(metrics.get('loss/kl'))}",
    ]
    if _has_end(stop):
        parts.append(f"{done:.0%}, {_duration(left)} left")
    return "  ".join(parts)


def _strength_in_words(metrics: Metrics) -> list[str]:
    """How strong it is; in a game without opponents, what it earns."""
    if not _is_number(metrics.get("league/rating")):
        return [f"return {_number(metrics.get('match/return'))}"]
    return [
        f"pool {_percent(metrics.get('league/win_rate_pool'))}",
        *(f"{name} {_percent(metrics[WIN_RATE + name])}" for name in _anchors(metrics)),
        f"rating{_rated(metrics)} {_rating(metrics)}",
    ]


def panel(metrics: Metrics, run_dir: Path, stop: StopConfig) -> Panel:
    """An iteration as a panel."""
    left, right = Table.grid(padding=(0, 2)), Table.grid(padding=(0, 2))
    for label, value in _learning(metrics):
        left.add_row(Text(label, style="dim"), Text(value))
    for label, value in _strength(metrics):
        right.add_row(Text(label, style="dim", no_wrap=True, overflow="ellipsis"), Text(value, no_wrap=True))
    columns = Table.grid(expand=True, padding=(0, 1))
    columns.add_column(ratio=3)
    columns.add_column(ratio=2)
    columns.add_row(left, right)
    return Panel(
        Group(_bar(metrics, stop), "", columns),
        title="selfplay",
        title_align="left",
        subtitle=Text(str(run_dir), style="dim", overflow="ellipsis"),
        subtitle_align="left",
        padding=(0, 1),
    )


def _bar(metrics: Metrics, stop: StopConfig) -> Table:
    """Where the run stands between its start and its end."""
    done, left = progress(metrics, stop)
    row = Table.grid(expand=True, padding=(0, 2))
    row.add_column(ratio=1)
    row.add_column(no_wrap=True)
    elapsed = f"{_duration(metrics.get('seconds'))} elapsed"
    if not _has_end(stop):
        row.add_row(Text("until it is stopped"), elapsed)
        return row
    row.add_row(
        ProgressBar(total=1.0, completed=done, pulse=False), f"{done:4.0%}  {elapsed}  {_duration(left)} left"
    )
    return row


def _learning(metrics: Metrics) -> list[tuple[str, str]]:
    value_of = metrics.get
    return [
        ("iteration", _count(value_of("iteration"))),
        ("agent steps", _count(value_of("agent_steps"))),
        ("decisions/s", _count(value_of("speed/decisions_per_s"))),
        ("time", _shares(metrics)),
        ("entropy", _number(value_of("loss/entropy"))),
        ("KL", _number(value_of("loss/kl"))),
        ("staleness", _number(value_of("data/staleness"))),
    ]


def _strength(metrics: Metrics) -> list[tuple[str, str]]:
    return [
        ("return", _number(metrics.get("match/return"))),
        (f"rating{_rated(metrics)}", _rating(metrics)),
        ("pool size", _count(metrics.get("league/pool_size"))),
        ("wins: pool", _percent(metrics.get("league/win_rate_pool"))),
        *((f"wins: {name}", _percent(metrics[WIN_RATE + name])) for name in _anchors(metrics)),
    ]


def _anchors(metrics: Metrics) -> list[str]:
    return [name.removeprefix(WIN_RATE) for name in metrics if name.startswith(WIN_RATE)]


def _shares(metrics: Metrics) -> str:
    """How an iteration's time is spent."""
    names = ("sample", "learn", "league")
    times = [metrics.get(f"time/{name}") for name in names]
    total = sum(value for name, value in metrics.items() if name.startswith("time/") and _is_number(value))
    if not total:
        return UNKNOWN
    return " ".join(f"{name} {_percent(None if t is None else t / total)}" for name, t in zip(names, times))


def _rated(metrics: Metrics) -> str:
    """Of which iteration, where that is not this one."""
    when = metrics.get("league/rated_iteration")
    return f" at {when:,}" if when is not None and when != metrics.get("iteration") else ""


def _rating(metrics: Metrics) -> str:
    rating, sigma = metrics.get("league/rating"), metrics.get("league/rating_sigma")
    return f"{_number(rating)} ± {_number(sigma)}" if _is_number(rating) else UNKNOWN


def _has_end(stop: StopConfig) -> bool:
    return (stop.agent_steps, stop.seconds, stop.iterations) != (None, None, None)


def _is_number(value: Any) -> bool:
    return value is not None and value == value


def _number(value: Any) -> str:
    if not _is_number(value):
        return UNKNOWN
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _percent(value: Any) -> str:
    return f"{value:.0%}" if _is_number(value) else UNKNOWN


def _count(value: Any) -> str:
    """Four figures at most: 812, 45.2k, 6M."""
    if not _is_number(value):
        return UNKNOWN
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= scale:
            return f"{value / (1e3 if unit == 'k' else scale):.3g}{unit}"
    return f"{value:.0f}"


def _duration(seconds: Any) -> str:
    """1:05 for a minute and five seconds, 3:00:00 for three hours."""
    if not _is_number(seconds):
        return UNKNOWN
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
