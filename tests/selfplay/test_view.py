import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from selfplay import view
from selfplay.config import StopConfig

RUN = Path("runs/connect_four-1")
STOP = StopConfig(agent_steps=1000, seconds=100.0)
FULL = {
    "iteration": 12,
    "agent_steps": 250,
    "seconds": 20.0,
    "time/sample": 1.0,
    "time/learn": 2.0,
    "time/league": 0.5,
    "time/publish": 0.5,
    "speed/decisions_per_s": 52_345.6,
    "loss/entropy": 1.786,
    "loss/kl": 0.01234,
    "data/staleness": 0.0,
    "league/pool_size": 7,
    "league/win_rate_pool": 0.56,
    "league/win_rate/random": 0.98,
    "league/win_rate/bot:one_ply": 0.71,
    "league/rating": 27.3,
    "league/rating_sigma": 0.81,
}


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def rendered(metrics, width, stop=STOP, run=RUN):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(view.panel(metrics, run, stop))
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_the_panel_shows_everything(width):
    text = rendered(FULL, width)
    for shown in (
        "12", "250", "52.3k", "sample 25% learn 50% league 12%", "1.79", "0.0123", "staleness", "27.3 ± 0.81",
        "56%", "bot:one_ply", "71%", "random", "98%", "25%", "0:20 elapsed", "1:00 left", str(RUN),
    ):  # fmt: skip
        assert shown in text
    assert {len(row) for row in text.splitlines()} == {width}


@pytest.mark.parametrize("width", [40, 80])
def test_long_names_do_not_break_the_panel(width):
    metrics = FULL | {f"league/win_rate/bot:{'long_' * 20}": 0.5}
    text = rendered(metrics, width, run=Path("runs/" + "long-" * 40))
    assert {len(row) for row in text.splitlines()} == {width}
    assert "50%" in text


def test_what_is_not_known_yet_is_a_dash():
    text = rendered({}, 80)
    assert text.count("–") >= 10
    assert "None" not in text
    assert "nan" not in rendered(dict.fromkeys(FULL, math.nan), 80)
    assert "None" not in rendered(dict.fromkeys(FULL), 80)


def test_brackets_are_text_and_not_markup():
    assert "bot:[bold]x" in rendered({"league/win_rate/bot:[bold]x": 0.5}, 120)


def test_a_run_without_an_end_has_no_bar():
    text = rendered(FULL, 80, stop=StopConfig())
    assert "until it is stopped" in text
    assert "left" not in text


@pytest.mark.parametrize(
    ("stop", "metrics", "expected"),
    [
        (StopConfig(), FULL, (0.0, None)),
        (StopConfig(agent_steps=1000), FULL, (0.25, 60.0)),
        (StopConfig(agent_steps=1000, seconds=40.0), FULL, (0.5, 20.0)),
        (StopConfig(iterations=16), FULL, (0.75, 20.0 / 3)),
        (StopConfig(iterations=6), FULL, (1.0, 0.0)),
        (StopConfig(agent_steps=1000), {}, (0.0, None)),
        (StopConfig(agent_steps=1000), {"agent_steps": 500}, (0.5, None)),
    ],
)
def test_progress_is_that_of_the_nearest_end(stop, metrics, expected):
    done, left = view.progress(metrics, stop)
    assert done == pytest.approx(expected[0])
    assert left == (expected[1] if expected[1] is None else pytest.approx(expected[1]))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (812, "812"), (9999, "9999"), (45_210, "45.2k"), (6e6, "6M"), (2.5e9, "2.5G"), (None, "–")],
)
def test_counts_are_short(value, text):
    assert view._count(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (65.9, "1:05"), (3600, "1:00:00"), (90_061, "25:01:01"), (None, "–")]
)
def test_durations(seconds, text):
    assert view._duration(seconds) == text


def test_plain_lines_come_at_most_every_few_seconds_and_at_the_end():
    stream, clock = io.StringIO(), Clock()
    lines = view.LineView(STOP, stream, clock)
    for iteration in range(1, 12):
        lines.update(FULL | {"iteration": iteration})
        clock.now += 1.0
    lines.message("snapshot main-20")
    lines.close()
    lines.close()
    shown = stream.getvalue().splitlines()
    assert [row.split("  ")[0] for row in shown] == [
        "iteration 1", "iteration 6", "iteration 11", "snapshot main-20"
    ]  # fmt: skip


def test_the_last_iteration_is_always_shown():
    stream, clock = io.StringIO(), Clock()
    lines = view.LineView(STOP, stream, clock)
    lines.update(FULL | {"iteration": 1})
    lines.update(FULL | {"iteration": 2})
    lines.close()
    assert (
        stream.getvalue().splitlines()[-1].startswith("iteration 2  250 steps  52.3k/s  pool 56%  random 98%")
    )


def test_a_pipe_gets_lines_and_a_terminal_the_panel(monkeypatch):
    assert isinstance(view.choose(RUN, STOP, io.StringIO()), view.LineView)
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setenv("TERM", "xterm")
    shown = view.choose(RUN, STOP, terminal)
    assert isinstance(shown, view.PanelView)
    shown.update(FULL)
    shown.message("snapshot [main-20]")
    shown.close()
    assert "snapshot [main-20]" in terminal.getvalue()
    assert "27.3 ± 0.81" in terminal.getvalue()
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(view.choose(RUN, STOP, terminal), view.LineView)
