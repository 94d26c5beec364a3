import numpy as np
import pytest

from selfplay.league.errors import LeagueError
from selfplay.league.outcomes import duels, outcomes
from selfplay.matches import MatchResults, score

IDS = {"main": 1, "main-000001": 5, "main-000002": 7, "random": 2}


def finished(players, lineup, returns):
    lineup = np.array(lineup, np.int32)
    return MatchResults(
        tuple(players),
        lineup,
        np.array(returns, np.float32),
        np.ones(len(lineup), np.int32),
        np.zeros(len(lineup), np.uint64),
    )


def counted(found):
    return {tuple(row): counts.tolist() for row, counts in zip(found.lineup.tolist(), found.counts)}


def test_counts_by_hand_across_rollouts_that_number_players_differently():
    first = finished(
        ["main", "main-000001"], [[0, 1], [0, 1], [1, 0], [0, 0]], [[1, -1], [0, 0], [1, -1], [-1, 1]]
    )
    second = finished(["main", "main-000002", "main-000001"], [[0, 2], [1, 0]], [[-1, 1], [0, 0]])
    assert counted(outcomes([first, second], IDS, (0, 1))) == {
        (1, 5): [[1, 1, 1], [1, 1, 1]],
        (5, 1): [[1, 0, 0], [0, 0, 1]],
        (1, 1): [[0, 0, 1], [1, 0, 0]],
        (7, 1): [[0, 1, 0], [0, 1, 0]],
    }


@pytest.mark.parametrize("teams", [(0, 1), (0, 1, 0, 1), (0, 1, 2), (1, 0, 0, 2, 1)])
def test_counts_agree_with_counting_match_by_match(teams):
    rng = np.random.default_rng(0)
    lineup = rng.integers(0, 3, (300, len(teams)))
    returns = rng.integers(-1, 2, (300, len(teams)))
    result = finished(["main-000002", "main", "random"], lineup, returns)
    expected: dict = {}
    scores = score(result.returns, teams)
    for seats, row in zip(lineup, scores):
        key = tuple([7, 1, 2][i] for i in seats)
        cells = expected.setdefault(key, [[0, 0, 0] for _ in range(max(teams) + 1)])
        for k in range(max(teams) + 1):
            cells[k][{1.0: 0, 0.5: 1, 0.0: 2}[float(row[teams.index(k)])]] += 1
    assert counted(outcomes([result], IDS, teams)) == expected


def test_no_matches_count_nothing():
    empty = finished(["main"], np.zeros((0, 2)), np.zeros((0, 2)))
    assert outcomes([], IDS, (0, 1)).counts.shape == (0, 2, 3)
    assert outcomes([empty], IDS, (0, 1)).lineup.shape == (0, 2)


def test_a_player_whom_nobody_knows_is_named():
    with pytest.raises(LeagueError, match="main-000009"):
        outcomes([finished(["main", "main-000009"], [[0, 1]], [[1, -1]])], IDS, (0, 1))


def test_duels_count_for_the_player_from_both_seats():
    result = finished(
        ["random", "main", "bot:x"],
        [[1, 0], [0, 1], [0, 1], [1, 2], [0, 2]],
        [[1, -1], [1, -1], [0, 0], [-1, 1], [1, -1]],
    )
    found = duels(result, "main", (0, 1))
    assert found["random"].counts == (1, 1, 1)
    assert found["random"].mean_score == 0.5
    assert found["bot:x"].counts == (0, 0, 1)
    assert set(found) == {"random", "bot:x"}
    assert duels(result, "nobody", (0, 1)) == {}


def test_three_equal_teams_are_equal():
    """Each team wins one match of three: scores of 1/3, yet as many pairs won as lost."""
    result = finished(["main", "random"], [[0, 1, 1]] * 3, [[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    duel = duels(result, "main", (0, 1, 2))["random"]
    assert duel.counts == (2, 2, 2)
    assert duel.mean_score == pytest.approx(1 / 3)


def test_a_match_that_cannot_rate_is_refused():
    mixed = finished(["main", "random"], [[0, 1, 1, 1]], [[1, 1, -1, -1]])
    with pytest.raises(LeagueError, match="several players"):
        duels(mixed, "main", (0, 0, 1, 1))
    alone = finished(["main", "random"], [[0, 0]], [[1, -1]])
    with pytest.raises(LeagueError, match="one team"):
        duels(alone, "main", (0, 1))
