"""What the pages say is so: their example game, their links, their commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest

from envs.conformance import check
from selfplay import cli, play
from selfplay.options import take_kwargs

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GAME_PAGE = ROOT / "docs" / "adding_a_game.md"


def blocks(page: Path, language: str) -> list[str]:
    """The page's fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def script(module: str, *argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """What the installed script of `module`:main does in folder `cwd`, which -P keeps from sys.path."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; from {module} import main; sys.exit(main())", *argv],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": paths},
        text=True,
        capture_output=True,
        timeout=120,
    )


# The example game.


def nim(source: str) -> types.ModuleType:
    """The page's game, or a changed one, as a module."""
    module = types.ModuleType("nim")
    exec(compile(source, "nim.py", "exec"), module.__dict__)
    return module


SOURCE = blocks(GAME_PAGE, "python")[0]

MISTAKES = {  # (what the game has, what a mistake makes of it): what the check must say
    ("self.over = np.ones", "self.over = np.zeros"): "a match is in play before the first restart",
    ("(num_games, 2), np.float32", "(num_games, 2)"): "reward is float64, not float32",
    ("MultiDiscrete([largest + 1]", "MultiDiscrete([largest]"): "obs '' is not in MultiDiscrete",
    ("self.reward[:] = 0", "self.reward = 0 * self.reward"): "reward is replaced by another array",
    ("        self.reward[:] = 0\n", ""): "step rewards a match that was over",
    ("        self.reward[games] = 0\n", ""): "restart does not clear reward",
    (" & ~won[:, None]", ""): "a seat whose episode has ended is to act",
    ("<= heaps[:, :, None]", "< heaps[:, :, None]"): "mask '' has no legal action",
    ("raise GameError(", "str("): "an illegal action is accepted",
    ("match {game}, ", ""): "the GameError does not say",
    ("seeds[:, None]", "np.random.randint(99, size=(len(games), 1)).astype(np.uint64)"): (
        "equal seeds and actions differ"
    ),
    ("seeds[:, None]", "(seeds + games.astype(np.uint64))[:, None]"): "a match depends on its slot",
    ("array.copy() for", "array for"): "changes as play goes on; it must be a copy",
    ('("heaps", ', "("): "set_state in the same env does not go on identically",
    (
        "self.terminated[games[won]]",
        "self.terminated[games[won], 0]",
    ): "over must mean that every seat",
    (", self.reward[games[won], 1 - seat[won]] = 1, -1", " = 1"): "zero_sum, but the rewards do not sum to 0",
}


def test_the_example_keeps_the_contract():
    module = nim(SOURCE)
    check(module.make)
    check(lambda num_games: module.make(num_games, largest=2))


def test_the_example_of_one_object_for_each_match_keeps_the_contract():
    module = nim(blocks(GAME_PAGE, "python")[1])
    check(module.make)


@pytest.mark.parametrize("change", MISTAKES, ids=lambda change: MISTAKES[change][:40])
def test_a_mistake_gives_the_message_that_the_page_promises(change):
    assert SOURCE.count(change[0]) == 1
    with pytest.raises((AssertionError, ValueError)) as caught:
        check(nim(SOURCE.replace(*change)).make)
    assert MISTAKES[change] in str(caught.value)
    assert MISTAKES[change] in GAME_PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder: their game, and a short run of it."""
    folder = tmp_path_factory.mktemp("game")
    (folder / "nim.py").write_text(SOURCE, encoding="utf-8")
    argv = ["--env.id", "python:nim:make", "--rollout.num-workers", "0", "--rollout.num-games", "64"]
    argv += ["--stop.iterations", "3", "--run-dir", "runs/nim", "--league.anchors", "bot:perfect"]
    trained = script("selfplay.cli", "train", "default", *argv, cwd=folder)
    assert trained.returncode == 0, trained.stderr
    return folder


def test_the_example_trains_from_its_own_folder(folder):
    rows = [json.loads(line) for line in (folder / "runs/nim/metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [1, 2, 3]


@pytest.fixture
def inside(folder, monkeypatch):
    """As a process that was started there: the command itself must find the game."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(folder))])
    yield
    sys.modules.pop("nim", None)


def test_the_example_is_played(inside, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["selfplay", "play", "runs/nim", "random", "--games", "20", "--json"])
    assert cli.main() == 0, capfd.readouterr().err
    assert json.loads(capfd.readouterr().out)["games"] == 20


def test_the_example_is_played_by_the_short_name(inside, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["play", "runs/nim", "random", "--games", "2", "--json"])
    assert play.main() == 0, capfd.readouterr().err


# Links and commands.


def local_links(page: Path) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    broken = []
    for link in local_links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def commands() -> list[tuple[str, ...]]:
    """Every `selfplay`, `play` and `python -m selfplay...` of the bash blocks, from its name on."""
    found: dict[tuple[str, ...], None] = {}
    for page in PAGES:
        for block in blocks(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if "-m" in words and words[words.index("-m") + 1 :][:1] == ["selfplay.train"]:
                    words = ["selfplay", "train", *words[words.index("-m") + 2 :]]
                if words[:1] in (["selfplay"], ["play"]):
                    found[tuple(words[1:] if words[0] == "selfplay" else words)] = None
    return list(found)


def test_there_are_commands_to_check():
    assert {"train", "play", "bench"} <= {command[0] for command in commands()}


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_options_in_commands_exist(command, capsys):
    """--help comes after every other option is known to exist, and before anything is done."""
    if command[0] == "play":
        play._parser().parse_args(take_kwargs(command[1:])[0])
    else:
        assert cli.main([*command, "--help"]) == 0, capsys.readouterr().err


def test_an_option_that_does_not_exist_is_seen(capsys):
    assert cli.main(["train", "connect_four", "--ppo.rate", "1", "--help"]) == 2
    assert "unknown option --ppo.rate" in capsys.readouterr().err
