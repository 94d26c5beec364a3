"""What is said of each game, and that a game which hangs or crashes is one line among the others."""

from __future__ import annotations

import pytest

from envs import catalogue
from envs.catalogue import Entry
from envs.registry import native_games

pytest.importorskip("pyspiel")

NOT_OURS = {
    "mean-field game": 4,
    "neither an observation tensor nor an information state tensor": 8,
    "promises a tensor and gives none": 1,
    "needs parameters": 3,  # games from files, and poker in ACPC's words
    "restart touches a match not asked for": 1,  # add_noise draws a result's noise where it is first met
}
"""Why games of OpenSpiel cannot be played here, and of how many that is so."""


def test_a_game_is_described():
    entry = catalogue.examine("openspiel:kuhn_poker")
    assert entry[:3] == ("openspiel:kuhn_poker", True, 2)
    assert entry.kind.startswith("in turn, zero-sum, sees Box 7, does Discrete 2, ")
    assert catalogue.examine("openspiel:tiny_hanabi").kind.startswith("in turn, one team, ")
    assert catalogue.examine("openspiel:matrix_pd").kind.startswith("at once, general-sum, ")
    mixed = catalogue.examine("python:tests.envs.mixed_game:MixedGame").kind
    assert "does Box 2 + Discrete 3 + Discrete 4 / MultiDiscrete 3×2 + MultiBinary 2" in mixed


def test_what_does_not_work_says_why():
    assert catalogue.examine("openspiel:mfg_garnet") == Entry(
        "openspiel:mfg_garnet", False, None, "",
        "game 'openspiel:mfg_garnet' is a mean-field game: it has a population, not seats",
    )  # fmt: skip
    broken = catalogue.examine("python:tests.envs.stuck_games:ForgetsTheTurn")
    assert not broken.supported
    assert "nobody is to act" in broken.why


def test_games_that_hang_or_crash_are_lines_like_others():
    (hung,) = catalogue.catalogue(["python:tests.envs.stuck_games:Sleeps"], jobs=1, seconds=8)
    assert (hung.supported, hung.why) == (False, "not examined in 8 s")
    (crashed,) = catalogue.catalogue(["python:tests.envs.stuck_games:Crashes"], jobs=1, seconds=120)
    assert not crashed.supported
    assert crashed.why.startswith("its process ended with -6: ")


def test_patterns_choose():
    assert catalogue.matching(["kuhn*"]) == ["kuhn_poker"]
    assert len(catalogue.matching(["openspiel:*"])) > 120
    assert catalogue.matching(["openspiel:leduc_poker(players=3)"]) == ["openspiel:leduc_poker(players=3)"]
    assert catalogue.matching(["no_such*"]) == []


def test_tables():
    entries = [
        Entry("chess", True, 2, "in turn, zero-sum", ""),
        Entry("openspiel:x", False, None, "", "game 'openspiel:x' is a|b"),
    ]
    assert catalogue.text(entries).splitlines() == [
        "game         fits  seats  what it is, or why it does not fit",
        "chess        yes   2      in turn, zero-sum",
        "openspiel:x  no           is a|b",
        "",
        "fit: native 1 of 1, openspiel 0 of 1",
    ]
    page = catalogue.page(entries)
    assert "| `chess` | yes | 2 | in turn, zero-sum |" in page
    assert "| `openspiel:x` | no |  | is a\\|b |" in page


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_game_works_or_says_why():
    entries = [*catalogue.catalogue([*native_games(), "openspiel:*"])]
    refused = [entry for entry in entries if not entry.supported]
    for reason, count in NOT_OURS.items():
        assert sum(reason in entry.why for entry in refused) == count, reason
    assert len(refused) == sum(NOT_OURS.values()), refused
