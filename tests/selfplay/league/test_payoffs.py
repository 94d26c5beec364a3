import numpy as np
import pytest

from selfplay.league.outcomes import outcomes
from selfplay.league.payoffs import START, Meeting, PayoffTable, meetings
from selfplay.matches import MatchResults

TWO = (0, 1)
IDS = {"a": 1, "b": 2, "c": 3}


def played(players, lineup, returns, seeds=None):
    lineup = np.array(lineup, np.int32)
    seeds = np.arange(len(lineup)) if seeds is None else seeds
    return MatchResults(
        tuple(players), lineup, np.array(returns, np.float32), np.ones(len(lineup), np.int32),
        np.array(seeds, np.uint64),
    )  # fmt: skip


def met(results, teams=TWO, **options):
    return meetings(outcomes([results], IDS, teams, **options), teams)


def test_each_of_two_meets_the_other_from_its_own_seat():
    result = played(
        "ab", [[0, 1], [0, 1], [0, 1], [1, 0]], [[1, -1], [0, 0], [1, -1], [2, -2]]
    )  # a: won twice and drew once as team 0, lost once as team 1
    assert met(result) == [
        Meeting(1, 2, 0, 2, 1, 0, 3, 2.0),
        Meeting(1, 2, 1, 0, 0, 1, 1, -2.0),
        Meeting(2, 1, 0, 1, 0, 0, 1, 2.0),
        Meeting(2, 1, 1, 0, 1, 2, 3, -2.0),
    ]


def test_nobody_meets_itself():
    assert met(played("a", [[0, 0]], [[1, -1]])) == []


def test_three_teams_are_three_pairs():
    """Places 1, 2, 3 of c, a, b: the middle one won against one and lost against the other."""
    found = {(m.player, m.opponent): m[3:6] for m in met(played("abc", [[0, 1, 2]], [[1, 0, 5]]), (0, 1, 2))}
    assert found == {
        (1, 2): (1, 0, 0), (1, 3): (0, 0, 1), (2, 1): (0, 0, 1),
        (2, 3): (0, 0, 1), (3, 1): (1, 0, 0), (3, 2): (1, 0, 0),
    }  # fmt: skip


def test_a_team_of_two_players_counts_for_each():
    found = met(played("abc", [[0, 1, 2, 2]], [[1, 1, -1, -1]]), (0, 0, 1, 1))
    assert {(m.player, m.opponent, m.wins, m.losses) for m in found} == {
        (1, 3, 1, 0), (2, 3, 1, 0), (3, 1, 0, 1), (3, 2, 0, 1),
    }  # fmt: skip


def test_without_winners_returns_alone_are_kept():
    (first, second) = met(played("ab", [[0, 1]], [[3.0, 3.0]]), winners=False)
    assert first == Meeting(1, 2, 0, 0, 0, 0, 1, 3.0)
    assert second == Meeting(2, 1, 1, 0, 0, 0, 1, 3.0)


def test_places_of_teams_that_tie_are_shared():
    counted = outcomes([played("abc", [[0, 1, 2]] * 2, [[1, 1, 0], [0, 5, 5]])], IDS, (0, 1, 2))
    assert counted.placement.tolist() == [[1.5 + 3, 1.5 + 1.5, 3 + 1.5]]
    assert counted.seeds[0].tolist() == [0, 1]


def slowly(decay, history):
    """One match after another, each kind of outcome spread evenly over those of an iteration."""
    wins = draws = losses = 0.0
    for counts in history:
        number = sum(counts)
        share = [c / number for c in counts]
        for _ in range(number):
            wins, draws, losses = (x * decay + y for x, y in zip((wins, draws, losses), share))
    return [wins, draws, losses]


@pytest.mark.parametrize("decay", [0.9, 0.99, 1.0])
def test_old_matches_fade(decay):
    history = [(3, 1, 0), (0, 0, 40), (1, 1, 1)]
    table = PayoffTable(2, decay)
    for counts in history:
        table.add([Meeting(1, 2, 0, *counts, sum(counts), 0.0)])
    assert table.recent_counts(1, [2])[0].tolist() == pytest.approx(slowly(decay, history))
    assert table.counts(1, [2]).tolist() == [[4, 2, 41]]
    assert table.recent_score(1, [3]).tolist() == [0.5]


def test_a_table_that_is_stored_and_loaded_is_the_same():
    table = PayoffTable(2, 0.95)
    rng = np.random.default_rng(0)
    for _ in range(30):
        player, opponent = rng.choice(np.arange(1, 2 * START), 2, replace=False).tolist()
        counts = rng.integers(0, 5, 3).tolist()
        table.add(
            [Meeting(player, opponent, int(rng.integers(2)), *counts, sum(counts), float(rng.normal()))]
        )
    again = PayoffTable(2, 0.95)
    again.load(list(table.changed()))
    assert list(table.changed()) == []
    names = {str(k): k for k in range(1, 2 * START)}
    ours, theirs = table.payoffs(names), again.payoffs(names)
    for name in ("counts", "decayed", "matches", "returns"):
        assert getattr(ours, name).any()
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_scores_of_those_who_never_met_are_unknown():
    table = PayoffTable(2, 0.99)
    table.add([Meeting(1, 2, 0, 3, 0, 1, 4, 0.0), Meeting(2, 1, 1, 1, 0, 3, 4, 0.0)])
    score = table.payoffs(IDS).score()
    assert score[0, 1] == 0.75
    assert score[1, 0] == 0.25
    assert np.isnan(score[0, 2])
    assert np.isnan(score[0, 0])
