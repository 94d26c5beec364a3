"""The report's page in a real browser: it fits, it draws without a complaint, it answers to keys."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from selfplay.evaluate import score_interval
from selfplay.report.page import page
from tests.browser.chromium import Chromium, executable
from tests.report_samples import sample

pytestmark = pytest.mark.skipif(
    executable() is None, reason="no Chromium here: apt-get install chromium, and these run"
)

HOSTILE = "</script><script>window.broken=1</script><img src=x onerror='window.broken=1'><!--<script>{{data}}"
WIDTHS = (390, 1600)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = Chromium(tmp_path_factory.mktemp("profile"))
    yield chromium
    chromium.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    data = {
        "small": sample(6),
        "middle": sample(80),
        "large": sample(500),
        "returns": sample(6, has_winners=False),
        "hostile": sample(12, text=HOSTILE),
        "empty": _empty(),
    }
    for name, report in data.items():
        (folder / f"{name}.html").write_text(page(report), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in data}


def _empty():
    """A run after its first iteration: nobody was rated, nobody met, nothing is on record."""
    data = sample(3)
    nobody = replace(
        data.payoffs, counts=0 * data.payoffs.counts, matches=0 * data.payoffs.matches, has_winners=False
    )
    players = tuple(replace(player, rating=None) for player in data.players)
    return replace(
        data, players=players, ratings=(), encounters=(), payoffs=nobody, replays=(), panels=(),
        agent_steps=(1,), iterations=(1,),
    )  # fmt: skip


def readout(browser: Chromium, section: str) -> str:
    return str(browser.run(f"document.querySelector('#{section} output').textContent"))


def focus(browser: Chromium, selector: str) -> None:
    browser.run(f"document.querySelector('{selector}').focus()")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["small", "large", "returns", "hostile", "empty"])
def test_it_is_drawn_without_a_complaint_and_fits_the_screen(browser, pages, name, width):
    browser.open(pages[name], width, dark=width < 600)
    assert browser.complaints == []
    assert browser.requests == [pages[name].as_uri()], "it asked for something beside itself"
    assert browser.run("document.documentElement.scrollWidth") == width
    sections = browser.run("[...document.querySelectorAll('section')].map((section) => section.id)")
    assert sections == [
        "know", "rating", "payoffs", "encounters", "training", "family", "replays", "config", "versions",
    ]  # fmt: skip


def test_what_a_complaint_and_a_wide_page_look_like(browser, pages, tmp_path):
    text = pages["small"].read_text(encoding="utf-8")
    wide, broken = tmp_path / "wide.html", tmp_path / "broken.html"
    wide.write_text(text.replace("<header", "<div style='width:2000px'>wide</div><header"), encoding="utf-8")
    throws = "setTimeout(() => { throw new Error('planted'); });"
    loads = "document.body.append(el('img', { src: 'https://example.invalid/x.png' }));"
    broken.write_text(text.replace("const report = ", f"{throws}{loads}const report = "), encoding="utf-8")
    browser.open(wide, 390)
    assert browser.run("document.documentElement.scrollWidth") > 390
    browser.open(broken, 390)
    browser.run("new Promise((resolve) => setTimeout(resolve, 50))")
    complaints = " ".join(browser.complaints)
    assert "planted" in complaints
    assert "Content Security Policy" in complaints


def test_text_of_a_run_is_never_markup(browser, pages):
    browser.open(pages["hostile"], 1600)
    assert browser.run("window.broken") is None
    assert browser.run("document.querySelector('h1').textContent") == HOSTILE
    assert browser.run("document.title") == f"{HOSTILE} – self-play report"
    assert HOSTILE in browser.run("document.querySelector('#config pre').textContent")
    assert browser.run("document.querySelectorAll('img').length") == 0


def test_the_heat_map_tells_what_is_known_of_a_pair(browser, pages):
    data = sample(6)
    browser.open(pages["small"], 1600)
    focus(browser, "#payoffs canvas")
    browser.press("ArrowDown", "ArrowDown", "ArrowDown")  # from the first: row 3, column 0
    wins, draws, losses = data.payoffs.counts[3, 0].tolist()
    games = wins + draws + losses
    mean = (wins + draws / 2) / games
    low, high = score_interval(mean, games)
    assert readout(browser, "payoffs") == (
        f"{data.players[3].name} against main: {wins} won, {draws} drawn, {losses} lost of {games}; "
        f"score {mean:.3f}, 95% {low:.3f} to {high:.3f}"
    )
    browser.press("ArrowUp", "ArrowUp", "ArrowUp", "End")
    assert readout(browser, "payoffs") == f"main against {data.players[5].name}: never met"


def test_the_heat_map_is_sorted_by_rating(browser, pages):
    data = sample(6)
    browser.open(pages["small"], 390)
    browser.run(
        "(() => { const s = document.querySelector('#payoffs select'); s.value = 'rating';"
        " s.dispatchEvent(new Event('change')); })()"
    )
    focus(browser, "#payoffs canvas")
    browser.press("ArrowRight")
    best = sorted(
        data.players,
        key=lambda p: -(p.strength or p.rating).mu if p.strength or p.rating else np.inf,
    )
    assert readout(browser, "payoffs").startswith(f"{best[0].name} against {best[1].name}: ")


def test_cells_have_the_colours_of_their_scores(browser, pages):
    browser.open(pages["middle"], 1600)
    shades = browser.run(
        """(() => {
          const report = JSON.parse(document.getElementById("data").textContent);
          const canvas = document.querySelector("#payoffs canvas");
          const side = canvas.width / report.players.length, pen = canvas.getContext("2d");
          const middle = (k) => (k + .5) * side;
          const at = (row, column) => [...pen.getImageData(middle(column), middle(row), 1, 1).data];
          return [at(79, 4), at(4, 79), at(50, 50), at(78, 77)];
        })()"""
    )
    strong, weak, itself, even = np.array(shades)[:, :3].astype(int)
    assert strong[2] > strong[0] + 80  # blue
    assert weak[0] > weak[2] + 80  # red
    assert even.min() > 215  # near 1/2: nearly white
    assert np.ptp(itself) < 12  # never met: grey
    assert itself.max() < 215


def test_a_tap_tells_of_the_cell_under_it(browser, pages):
    browser.open(pages["middle"], 390)
    box = browser.run(
        "(() => { const c = document.querySelector('#payoffs canvas'); c.scrollIntoView();"
        " const b = c.getBoundingClientRect(); return [b.x, b.y, b.width]; })()"
    )
    x, y = box[0] + (20.5 / 80) * box[2], box[1] + (50.5 / 80) * box[2]
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    row, column = (sample(80).players[k].name for k in (50, 20))
    assert readout(browser, "payoffs").startswith(f"{row} against {column}: ")


def test_games_without_winners_show_returns(browser, pages):
    data = sample(6, has_winners=False)
    browser.open(pages["returns"], 1600)
    focus(browser, "#payoffs canvas")
    browser.press("ArrowDown", "ArrowRight", "ArrowRight")
    matches = data.payoffs.matches[1, 2]
    assert readout(browser, "payoffs") == f"random against made up: mean return −15 over {matches} matches"
    assert "mean return of the row" in browser.run("document.querySelector('#payoffs p').textContent")


def test_a_replay_goes_by_keys(browser, pages):
    browser.open(pages["small"], 1600)
    browser.run(
        "(() => { const s = document.querySelector('#replays select'); s.selectedIndex = 1;"
        " s.dispatchEvent(new Event('change')); })()"
    )
    focus(browser, "#replays [data-replay]")
    cells = "[...document.querySelectorAll('#replays .cell')].map((cell) => cell.textContent).join('')"
    shown = "document.querySelector('#replays .decision').textContent"
    assert browser.run(cells) == "123"
    assert browser.run(shown) == "Seat 0, main-000001: 4value 0, entropy 0.56 nats"
    browser.press("ArrowRight")
    assert browser.run(cells) == "X123"
    assert browser.run(shown) == "Seat 1, made up: 4value 0.1, entropy 0.56 nats475%made up25%"
    widths = "[...document.querySelectorAll('#replays .bar i')].map((bar) => bar.style.width)"
    assert browser.run(widths) == ["75%", "25%"]
    browser.press("End")
    assert browser.run(cells) == "XOX123"
    assert "Seat 1, made up: return −1" in browser.run(shown)
    browser.press("ArrowLeft", "Home")
    assert browser.run(cells) == "123"
    browser.press(" ")
    assert browser.run("document.querySelector('#replays button[aria-label^=Play]').textContent") == "Pause"
    browser.press(" ")
    assert browser.run("document.querySelector('#replays button[aria-label^=Play]').textContent") == "Play"


def test_curves_encounters_and_family_answer_to_keys(browser, pages):
    data = sample(6)
    browser.open(pages["small"], 1600)
    focus(browser, "#rating .chart")
    browser.press("Home")
    assert readout(browser, "rating") == (
        "100k decisions: rated as it joined 0 (95% −2 to 2), "
        "from all matches (Bradley–Terry) 1 (95% 0 to no upper bound)"
    )
    focus(browser, "#encounters .chart")
    browser.press("Home", "ArrowRight")
    met, late = data.encounters[0].matches, data.encounters[0].recent
    assert readout(browser, "encounters").startswith(f"made up: {met[2]} of {sum(met)} matches (")
    assert f"lately {late[2]} of {sum(late)} (" in readout(browser, "encounters")
    focus(browser, "#family .family")
    browser.press("End")
    assert readout(browser, "family").startswith(f"{data.players[5].name}: past self, joined in iteration ")
    assert f"parent {data.players[4].name}" in readout(browser, "family")
