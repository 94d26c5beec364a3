import base64
import json
import math
import re
import sqlite3
from dataclasses import replace

import numpy as np
import pytest

from selfplay import cli, config, recording
from selfplay.errors import UserError
from selfplay.league import bradley_terry
from selfplay.league.payoffs import Meeting, PayoffTable
from selfplay.league.ratings import RANDOM, Rating
from selfplay.league.store import Player, Store
from selfplay.recording import Decision, Recording
from selfplay.report import checks, curves, league_table, reader
from selfplay.report.data import Finding, Interval, PayoffCells
from selfplay.report.page import embedded, page, payoff_table, varints
from selfplay.run_directory import RunDirectory
from tests.report_samples import sample

PLAYERS = (
    Player("random", "bot", RANDOM),
    Player("bot:good", "bot", Rating(20.0, 0.0)),
    Player("main", "learning", Rating(9.0, 1.0), role="main"),
    Player("main_exploiter_0", "learning", Rating(0.0, 8.0), role="main_exploiter"),
    Player("main-000001", "snapshot", Rating(4.0, 8.0), "main", None, 1, 1, agent_steps=100),
    Player("main_exploiter_0-000002", "snapshot", Rating(0.0, 8.0), "main_exploiter", None, 2, 2),
    Player("main-000003", "snapshot", Rating(8.0, 8.0), "main", "main-000001", 3, 3, None, 300),
    Player("main_exploiter_0.1", "learning", Rating(0.0, 8.0), role="main_exploiter", iteration=2),
    Player("main_exploiter_0.1-000004", "snapshot", Rating(0.0, 8.0), "main_exploiter", None, 4, 4),
)
MET = (  # iteration, row, column, wins, draws, losses
    (1, "main-000001", "random", 30, 0, 10),
    (1, "main", "main-000001", 5, 1, 4),
    (3, "main-000003", "random", 36, 0, 4),
    (3, "main-000003", "bot:good", 10, 0, 30),
    (20, "main", "main-000003", 6, 0, 1),
)


def make_run(path, rows=20, met=MET, winners=True):
    """A run of so many iterations with PLAYERS, of whom MET met."""
    run = RunDirectory.create(path, config.load("connect_four"))
    metrics = [
        {"iteration": k, "agent_steps": 100 * k, "seconds": 3.0 * k, "loss/entropy": 1 / k, "loss/kl": 0.01}
        for k in range(1, rows + 1)
    ]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    run.close()
    with Store(run.league) as store:
        ids = {player.name: store.add_player(player) for player in PLAYERS}
        table = PayoffTable(2, decay=0.99)
        for iteration, row, column, *counts in met:
            wins, draws, losses = counts if winners else (0, 0, 0)
            own = Meeting(ids[row], ids[column], 0, wins, draws, losses, sum(counts), 2.0 * sum(counts))
            other = Meeting(ids[column], ids[row], 1, losses, draws, wins, sum(counts), -1.0 * sum(counts))
            store.add_meetings(iteration, [own, other])
            table.add([own, other])
        store.set_payoffs(table.changed())
        store.add_rating(3, "main-000003", Rating(9.0, 1.0))
        store.add_rating(3, "main", Rating(9.0, 1.0))
        store.commit(rows)
    return run.path


def report(capsys, *argv):
    code = cli.main(["report", *map(str, argv)])
    out, err = capsys.readouterr()
    return code, out, err


def held(html):
    """The data inside a page."""
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.S)[1])


# The command


def test_it_writes_a_page_into_the_run_and_says_where(tmp_path, capsys):
    path = make_run(tmp_path / "run")
    code, out, err = report(capsys, path)
    assert (code, out, err) == (0, f"{path / 'report.html'}\n", "")
    data = held((path / "report.html").read_text())
    assert data["title"] == "connect_four"
    assert [player["name"] for player in data["players"]] == [player.name for player in PLAYERS]
    other = tmp_path / "other.html"
    assert report(capsys, path, "--output", other) == (0, f"{other}\n", "")
    assert other.read_text() == (path / "report.html").read_text()


def test_mistakes_are_one_line_and_2(tmp_path, capsys):
    code, out, err = report(capsys, tmp_path / "nowhere")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "no run directory" in err

    empty = make_run(tmp_path / "empty", rows=0)
    code, out, err = report(capsys, empty)
    assert (code, err.count("\n")) == (2, 1)
    assert "metrics.jsonl holds no metrics yet" in err

    path = make_run(tmp_path / "run")
    code, _, err = report(capsys, path, "--output", tmp_path / "none" / "x.html")
    assert code == 2
    assert err == f"error: cannot write {tmp_path / 'none' / 'x.html'}: No such file or directory\n"

    database = path / "league" / "league.sqlite"
    whole = database.read_bytes()
    database.write_bytes(whole[:2000] + bytes(3000) + whole[5000:])
    code, _, err = report(capsys, path)
    assert (code, err.count("\n")) == (2, 1)
    assert "league.sqlite cannot be used" in err
    database.unlink()
    code, _, err = report(capsys, path)
    assert (code, err.count("\n")) == (2, 1)
    assert "there is no league here" in err
    assert not (path / "report.html").exists()


# The reader


def test_header_and_players(tmp_path):
    data = reader.read(make_run(tmp_path / "run"))
    facts = {fact.name: fact.value for fact in data.facts}
    assert facts["Strength"] == "9.0 ± 2.0"
    assert facts["Iterations"] == "20"
    assert facts["Decisions learned from"] == "2,000"
    assert facts["Time"] == "1 min 00 s"
    assert facts["Players"] == "9"
    rows = {player.name: player for player in data.players}
    assert {name: row.lineage for name, row in rows.items()} == {
        "random": "bots", "bot:good": "bots", "main": "main", "main-000001": "main", "main-000003": "main",
        "main_exploiter_0": "main_exploiter_0", "main_exploiter_0-000002": "main_exploiter_0",
        "main_exploiter_0.1": "main_exploiter_0", "main_exploiter_0.1-000004": "main_exploiter_0",
    }  # fmt: skip
    assert [name for name, row in rows.items() if row.is_reset] == ["main_exploiter_0.1-000004"]
    assert rows["main_exploiter_0-000002"].joined == 200  # the main learner's; its own are not known
    assert rows["main_exploiter_0"].retired == 2  # gave way to its next life
    assert rows["main_exploiter_0.1"].retired is None
    assert rows["main-000001"].rating is None  # never rated
    assert rows["bot:good"].rating == Interval(20.0, 20.0, 20.0)
    (point,) = data.ratings
    assert (data.players[point.player].name, point.iteration, point.agent_steps) == ("main-000003", 3, 300)
    assert (point.rating.low, point.rating.high) == pytest.approx((9 - 1.96, 9 + 1.96), abs=1e-3)


def test_payoffs_and_encounters(tmp_path):
    data = reader.read(make_run(tmp_path / "run"))
    place = {player.name: k for k, player in enumerate(data.players)}
    first, later, main = place["main-000001"], place["main-000003"], place["main"]
    assert data.payoffs.has_winners
    assert data.payoffs.counts[first, main].tolist() == [4, 1, 5]
    assert data.payoffs.matches[main, later] == 7
    assert data.payoffs.matches[first, later] == 0
    assert data.payoffs.returns[main, later] == 2.0
    assert np.isnan(data.payoffs.returns[first, later])
    met = {row.player: row for row in data.encounters}
    assert met.keys() == {"main", "main_exploiter_0", "main_exploiter_0.1"}
    assert (met["main"].matches[first], met["main"].matches[later], sum(met["main"].matches)) == (10, 7, 17)
    assert data.recent_from == 18  # the last tenth of 20
    assert met["main"].recent == tuple(7 * (k == later) for k in range(len(place)))


def test_games_without_winners_have_returns_alone(tmp_path):
    path = make_run(tmp_path / "run", winners=False)
    data = reader.read(path)
    assert not data.payoffs.has_winners
    assert all(player.strength is None for player in data.players)
    table = held(page(data))["payoffs"]
    returns = np.frombuffer(base64.b64decode(table["returns"]), "<f4")
    assert sorted(set(returns.tolist())) == [-1.0, 2.0]


def test_strengths_come_from_the_matches_of_players_that_do_not_learn(tmp_path):
    path = make_run(tmp_path / "run")
    data = reader.read(path)
    with Store(path / "league", readonly=True) as store:
        payoffs = store.payoffs()
    names = [player.name for player in PLAYERS if player.kind != "learning"]
    index = [payoffs.players.index(name) for name in names]
    fit = bradley_terry.fitted(
        names, payoffs.counts.sum(axis=2)[np.ix_(index, index)], {"random": 0.0, "bot:good": 20.0}
    )
    found = {player.name: player.strength for player in data.players}
    assert [name for name in found if found[name]] == ["main-000001", "main-000003"]
    for name in ("main-000001", "main-000003"):
        mine = fit.players.index(name)
        assert found[name].mu == pytest.approx(fit.mu[mine])
        assert (found[name].low, found[name].high) == pytest.approx(tuple(fit.interval[mine]))


def test_of_many_past_selves_an_even_part_is_shown(monkeypatch):
    monkeypatch.setattr(league_table, "MOST", 10)
    past = [Player(f"main-{k:06d}", "snapshot", RANDOM) for k in range(100)]
    others = [Player("main", "learning", RANDOM), Player("random", "bot", RANDOM)]
    shown = league_table.shown([*others, *past])
    assert [player.name for player in shown[:2]] == ["main", "random"]
    numbers = [int(player.name[-6:]) for player in shown[2:]]
    assert len(numbers) == 8
    assert numbers[-1] == 99
    assert set(np.diff(numbers)) <= {12, 13}
    few = [*others, *past[:8]]
    assert league_table.shown(few) == few


def test_the_newest_replays_that_can_be_read_are_taken(tmp_path, monkeypatch):
    path = make_run(tmp_path / "run")
    match = Recording(
        "connect_four", {}, 0, 1, ("a", "b"), (1.0, -1.0), ((Decision(0, 3, "4"),),), ("a", "b")
    )
    for k in range(4):
        recording.save(match, path / "replays" / f"match_{k}.json")
    (path / "replays" / "torn.json").write_text('{"format": 1, ')
    monkeypatch.setattr(reader, "MOST_REPLAYS", 3)
    data = reader.read(path)
    assert len(data.replays) == 3
    assert data.replays[0].recording.lineup == ("a", "b")
    assert [finding.title for finding in data.findings] == ["A replay cannot be read"]
    assert "torn.json is not a replay" in data.findings[0].text
    monkeypatch.setattr(reader, "REPLAY_BYTES", 10)
    assert reader.read(path).replays == ()


def test_durations_in_words():
    assert [reader.duration(s) for s in (9, 61, 3599.6, 4000)] == [
        "9 s", "1 min 01 s", "1 h 00 min", "1 h 06 min",
    ]  # fmt: skip


# Curves and checks


def rows(**columns):
    return [dict(zip(columns, values), iteration=k + 1) for k, values in enumerate(zip(*columns.values()))]


def test_curves_are_means_over_neighbours(monkeypatch):
    monkeypatch.setattr(curves, "POINTS", 3)
    many = [{"iteration": k, "loss/entropy": float(k), "loss/kl": None if k == 2 else 1.0} for k in range(7)]
    assert [[row["iteration"] for row in group] for group in curves.bins(many)] == [[0, 1], [2, 3, 4], [5, 6]]
    entropy, kl = curves.panels(many)
    assert entropy.series[0].value == (0.5, 3.0, 5.5)
    assert kl.series[0].value == (1.0, 1.0, 1.0)  # what is not known has no weight
    assert curves.bins([]) == []


def test_panels_hold_what_the_run_has():
    found = curves.panels(
        [
            {
                "loss/entropy": 1.0, "loss/entropy/speaker": 0.5, "main_exploiter_0/loss/entropy": 0.7,
                "data/staleness": 0.5, "data/staleness_max": 2, "main_exploiter_0/data/staleness_max": 1,
                "loss/kl": None, "league/win_rate/random": 0.9, "league/win_rate_pool": 0.6,
            }
        ]
    )  # fmt: skip
    assert {panel.title: [(s.name, *s.value) for s in panel.series] for panel in found} == {
        "Entropy": [("entropy", 1.0), ("speaker", 0.5), ("main_exploiter_0", 0.7)],
        "Staleness": [("staleness", 0.5), ("staleness_max", 2), ("main_exploiter_0 staleness_max", 1)],
        "Score": [("random", 0.9), ("past selves", 0.6)],
    }
    general = curves.panels([{"league/win_rate/random": 0.9, "league/return/random": 3.5}])
    assert [(panel.title, panel.series[0].value) for panel in general] == [("Return against others", (3.5,))]


def test_nothing_suspicious_in_a_sound_run():
    sound = {"loss/kl": 0.01, "data/staleness": 0.5, "loss/explained_variance": 0.4, "match/dropped": 0}
    assert checks.training([{"iteration": k, "loss/entropy": 1.0} | sound for k in range(1, 31)]) == ()
    assert checks.training([{"iteration": 1}]) == ()


@pytest.mark.parametrize(
    ("metric", "values", "title"),
    [
        ("loss/kl", [0.01] * 15 + [0.06] * 5, "Updates too large"),
        ("loss/entropy", [1.0] * 10 + [0.01] * 10, "Entropy gone"),
        ("data/staleness", [0.0] * 18 + [1.5, 1.5], "Stale data"),
        ("loss/explained_variance", [0.5] * 18 + [-0.35, 0.05], "Values worse than a constant"),
        ("loss/value", [0.5] * 10 + [None] + [0.5] * 9, "Losses that are not finite"),
        ("match/dropped", [0] * 5 + [3] + [0] * 14, "Matches dropped"),
    ],
)
def test_what_is_suspicious_is_found(metric, values, title):
    (finding,) = checks.training(rows(**{metric: values}))
    assert finding.title == title
    early = values[:2] if metric in ("loss/value", "match/dropped") else values[:10] + values[:2]
    assert checks.training(rows(**{metric: early})) == ()


def test_a_densitys_entropy_has_no_zero():
    values = [1.0] * 10 + [-1.0] * 10
    assert checks.training(rows(**{"loss/entropy": values})) == ()


def test_a_league_whose_players_never_met_is_not_suspicious(tmp_path):
    assert reader.read(make_run(tmp_path / "run", met=())).findings == ()


def test_the_league_is_looked_at(tmp_path):
    names = ("main-000001", "main-000003", "bot:good")
    circle = [(3, names[k], names[(k + 1) % 3], 60, 0, 20) for k in range(3)]
    early = (1, "main", "main-000003", 40, 0, 0), (1, "main", "main-000001", 30, 0, 10)
    late = (20, "main", "main-000001", 10, 0, 90), (20, "main", "main-000003", 5, 0, 30)
    path = make_run(tmp_path / "run", met=(*circle, MET[0], *early, *late))
    data = reader.read(path)
    found = [(finding.title, finding.text) for finding in data.findings]
    assert sorted(title for title, _ in found) == [
        "Beaten by a past self", "Beaten by a past self", "Cycle", "Forgetting", "Forgetting",
    ]  # fmt: skip
    texts = " ".join(text for _, text in found)
    assert texts.count("60:20") == 3
    assert "against main-000003 fell from 1.00 (40 matches) to 0.14 (35 matches)" in texts
    assert "10:90 against main-000001" in texts
    (lowest,) = (fact for fact in data.facts if fact.name == "Lowest score against a past self")
    assert lowest.value == "10.0%"
    assert lowest.note == "against main-000001, 95% 5.5% to 17.4%, 100 matches"


# The page


def leb128(data):
    """Numbers from bytes, one bit group after another."""
    numbers, value, shift = [], 0, 0
    for byte in data:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            numbers.append(value)
            value, shift = 0, 0
    return numbers


def test_varints_say_what_they_were_made_of():
    numbers = [0, 1, 127, 128, 129, 16383, 16384, 2**35 + 7, 5]
    assert leb128(varints(np.array(numbers))) == numbers
    assert varints(np.array([300])) == b"\xac\x02"  # as in the Protocol Buffers documentation
    assert varints(np.zeros(0, np.int64)) == b""


def test_cells_are_told_by_gaps():
    counts = np.zeros((2, 2, 3), np.int64)
    counts[0, 1], counts[1, 0] = (3, 0, 200), (200, 0, 3)
    met = PayoffCells(counts, counts.sum(axis=2), np.full((2, 2), np.nan), True)
    assert leb128(base64.b64decode(payoff_table(met)["cells"])) == [1, 3, 0, 200, 1, 200, 0, 3]
    none = replace(met, counts=0 * counts, matches=0 * met.matches)
    assert payoff_table(none)["cells"] == ""


def test_json_in_the_page_cannot_end_its_element():
    text = "</script><!--<script>\u2028&amp;"
    inside = embedded({"a": text})
    assert "<" not in inside
    assert "\u2028" not in inside
    assert json.loads(inside) == {"a": text}


def test_text_of_the_run_stays_text():
    html = page(sample(5, text="</script>{{style}}<b>"))
    assert html.count("</script>") == 2  # the data's and the program's own
    assert "<b>" not in html
    assert html.count("box-sizing") == 1  # the style, once
    assert held(html)["title"] == "</script>{{style}}<b>"


def test_the_page_needs_nothing_else():
    html = page(sample(5))
    assert set(re.findall(r"https?://[^\s\"'<)]*", html)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<link(?! rel=\"icon\" href=\"data:,\")|@import|url\(", html)


def test_500_players_make_less_than_5_megabytes():
    html = page(sample(500))
    assert len(html.encode()) < 5e6
    assert len(html.encode()) > 1e6  # all their payoffs are in it
    assert len(page(sample(500, has_winners=False)).encode()) < 5e6


def test_numbers_that_are_not_finite_do_not_break_the_page():
    data = sample(5)
    broken = replace(data.replays[0].recording, returns=(math.inf, math.nan))
    odd = replace(data, replays=(replace(data.replays[0], recording=broken),))
    assert held(page(odd))["replays"][0]["returns"] == [None, None]


def test_findings_reach_the_page():
    finding = Finding("It goes in circles", "rock beats scissors")
    data = held(page(replace(sample(5), findings=(finding,))))
    assert data["findings"] == [{"title": "It goes in circles", "text": "rock beats scissors"}]


def test_another_layout_of_the_tables_is_refused(tmp_path):
    path = make_run(tmp_path / "run")
    with sqlite3.connect(path / "league" / "league.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(UserError, match="table layout 99"):
        reader.read(path)
