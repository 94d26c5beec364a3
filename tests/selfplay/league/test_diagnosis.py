import itertools
import math

import numpy as np
import pytest
from scipy import stats

from selfplay.evaluate import score_interval
from selfplay.league import diagnosis
from selfplay.league.diagnosis import (
    PastScore,
    beaten,
    collapse,
    copies_by_weights,
    cycles,
    drop_p_value,
    forgetting,
    lowest_score,
    weight_distance,
)


def table(number, **results):
    """counts [N, N, 3] from results by letters: ab=(wins, draws, losses) of a against b."""
    counts = np.zeros((number, number, 3), np.int64)
    for (one, other), record in results.items():
        i, j = ord(one) - ord("a"), ord(other) - ord("a")
        counts[i, j], counts[j, i] = record, record[::-1]
    return counts


def played(share, games, rng, draws=0.0):
    """Every pair plays; share [N, N] of the decisive matches that the row wins -> counts [N, N, 3]."""
    counts = np.zeros((*share.shape, 3), np.int64)
    for i, j in itertools.combinations(range(len(share)), 2):
        even = rng.binomial(games, draws)
        won = rng.binomial(games - even, share[i, j])
        counts[i, j] = won, even, games - even - won
        counts[j, i] = counts[i, j][::-1]
    return counts


def ladder(number, step=0.3):
    """Shares of players `step` nats apart."""
    nats = step * np.arange(number)
    return 1 / (1 + np.exp(nats - nats[:, None]))


def names(number):
    return [f"p{k}" for k in range(number)]


# Cycles


def test_rock_paper_scissors_is_a_cycle_with_its_p_value():
    (found,) = cycles("abc", table(3, ab=(9, 0, 1), bc=(10, 2, 0), ca=(14, 0, 2)))
    assert found.kind == "cycle"
    assert found.players == ("a", "b", "c")
    # The weakest edge is 9 of 10: (10 + 1) / 2^10 by hand; two directed triples were looked at.
    assert found.p_value == pytest.approx(2 * 11 / 1024)
    assert "a beats b 9:1, b beats c 10:0 with 2 drawn, c beats a 14:2" in found.text


def test_the_other_direction_is_found_too():
    (found,) = cycles("abc", table(3, ba=(40, 0, 1), cb=(40, 0, 1), ac=(40, 0, 1)))
    assert found.players == ("a", "c", "b")


@pytest.mark.parametrize("weakest", [(5, 0, 0), (8, 0, 2), (30, 0, 20), (0, 90, 0), (2, 90, 0)])
def test_a_cycle_with_an_edge_that_may_be_chance_is_none(weakest):
    assert cycles("abc", table(3, ab=weakest, bc=(50, 0, 1), ca=(50, 0, 1))) == []


def test_a_transitive_table_has_none():
    assert cycles("abcd", table(4, **{x + y: (50, 0, 1) for x, y in itertools.combinations("abcd", 2)})) == []


def test_without_matches_all_round_there_is_nothing_to_see():
    assert cycles("abcd", table(4, ab=(50, 0, 1), bc=(50, 0, 1), cd=(50, 0, 1), da=(50, 0, 1))) == []
    assert cycles("", np.zeros((0, 0, 3), int)) == []


def test_matches_against_oneself_do_not_count():
    counts = table(3, ab=(9, 0, 1), bc=(10, 0, 0), ca=(14, 0, 2))
    expected = cycles("abc", counts)
    counts[0, 0] = 1000, 0, 1000
    assert cycles("abc", counts) == expected != []


def test_cycles_against_the_slow_definition():
    rng = np.random.default_rng(0)
    counts = played(rng.uniform(0.05, 0.95, (12, 12)), 100, rng, draws=0.1)
    expected = {}
    for i, j, k in itertools.permutations(range(12), 3):
        if i != min(i, j, k):
            continue
        edges = [counts[e] for e in ((i, j), (j, k), (k, i))]
        p_value = max(stats.binomtest(int(w), int(w + v), alternative="greater").pvalue for w, _, v in edges)
        if p_value * min(12 * 11, 2 * math.comb(12, 3)) <= 0.05:
            expected[i, j, k] = min((w + d / 2) / 100 for w, d, _ in edges)
    found = cycles(names(12), counts, most=1000)
    assert len(expected) > 10
    assert {tuple(int(p[1:]) for p in f.players) for f in found} == expected.keys()
    strengths = [expected[tuple(int(p[1:]) for p in f.players)] for f in found]
    assert strengths == sorted(strengths, reverse=True)
    assert cycles(names(12), counts, most=3) == found[:3]


def test_noise_on_transitive_players_is_seldom_a_cycle():
    """Players so close that many measured triples are cyclic: false alarms in one call of 20 at most."""
    rng = np.random.default_rng(1)
    alarms = [bool(cycles(names(8), played(ladder(8, 0.02), 50, rng))) for _ in range(200)]
    assert np.mean(alarms) <= 0.05
    equal = [bool(cycles(names(3), played(np.full((3, 3), 0.5), 200, rng))) for _ in range(400)]
    assert np.mean(equal) <= 0.05


def test_without_the_correction_noise_would_be_cycles(monkeypatch):
    monkeypatch.setattr(diagnosis, "ALPHA", 0.05 * 56)  # undoes the correction for 8 players
    with pytest.raises(AssertionError):
        test_noise_on_transitive_players_is_seldom_a_cycle()


def test_true_cycles_among_many_are_found():
    rng = np.random.default_rng(2)
    number = 60
    share = ladder(number, 0.1)
    for i, j in ((10, 30), (30, 50), (50, 10)):
        share[i, j], share[j, i] = 0.8, 0.2
    found = cycles(names(number), played(share, 300, rng), most=10_000)
    assert ("p10", "p30", "p50") in {finding.players for finding in found}


# Forgetting


def test_a_fall_is_reported_with_fishers_p_value():
    early, recent = np.array([[45, 0, 5], [25, 0, 25]]), np.array([[30, 0, 20], [25, 0, 25]])
    (found,) = forgetting(("v3", "v7"), early, recent)
    assert found.players == ("v3",)
    exact = stats.fisher_exact([[30, 20], [45, 5]], alternative="less").pvalue
    assert found.p_value == pytest.approx(2 * exact)
    assert "fell from 0.90 (50 matches) to 0.60 (50 matches)" in found.text


def test_a_permutation_test_by_hand():
    """Two early wins, a draw and a loss now: of the 6 ways to choose which two are recent, one is so low."""
    assert drop_p_value(np.array([2, 0, 0]), np.array([0, 1, 1])) == pytest.approx(1 / 6)
    # At most 1.5 points: all but the two wins together.
    assert drop_p_value(np.array([1, 0, 1]), np.array([1, 1, 0])) == pytest.approx(5 / 6)
    assert drop_p_value(np.array([9, 0, 0]), np.array([7, 0, 0])) == pytest.approx(1.0)


def test_the_permutation_test_against_all_arrangements():
    early, recent = [3, 2, 1], [1, 2, 3]
    scores = [1, 1, 1, 0.5, 0.5, 0, 1, 0.5, 0.5, 0, 0, 0]
    low = [sum(choice) <= 2.0 for choice in itertools.combinations(scores, 6)]
    assert drop_p_value(np.array(early), np.array(recent)) == pytest.approx(np.mean(low))


def test_many_matches_use_the_normal_law(monkeypatch):
    early, recent = np.array([300, 100, 200]), np.array([170, 80, 150])
    exact = drop_p_value(early, recent)
    monkeypatch.setattr(diagnosis, "_EXACT_TABLES", 0)
    assert drop_p_value(early, recent) == pytest.approx(exact, rel=0.02)
    assert drop_p_value(np.array([9, 0, 0]), np.array([7, 0, 0])) == 1.0


def test_rises_small_falls_and_missing_matches_are_no_forgetting():
    early = np.array([[5, 0, 45], [50_000, 0, 50_000], [50, 0, 0], [0, 0, 0], [3, 0, 0]])
    recent = np.array([[45, 0, 5], [46_000, 0, 54_000], [0, 0, 0], [0, 0, 50], [2, 0, 1]])
    assert forgetting(names(5), early, recent) == []


def test_false_alarms_of_forgetting_are_rare():
    rng = np.random.default_rng(3)
    chances = rng.dirichlet([4, 2, 3], 20)
    alarms = 0
    for _ in range(300):
        early, recent = (np.array([rng.multinomial(30, p) for p in chances]) for _ in range(2))
        alarms += bool(forgetting(names(20), early, recent))
    assert alarms / 300 <= 0.05


def test_forgetting_is_found_among_many_and_sorted():
    rng = np.random.default_rng(4)
    chances = np.full((20, 3), [0.7, 0.1, 0.2])
    early = np.array([rng.multinomial(80, p) for p in chances])
    chances[5], chances[9] = [0.1, 0.1, 0.8], [0.3, 0.1, 0.6]
    recent = np.array([rng.multinomial(80, p) for p in chances])
    assert [f.players for f in forgetting(names(20), early, recent)] == [("p5",), ("p9",)]


def test_taking_rises_for_falls_is_noticed(monkeypatch):
    monkeypatch.setattr(diagnosis, "drop_p_value", lambda early, recent: drop_p_value(recent, early))
    with pytest.raises((AssertionError, ValueError)):
        test_a_fall_is_reported_with_fishers_p_value()


def test_who_beats_the_player():
    counts = np.array([[1, 5, 9], [9, 0, 1], [0, 0, 0], [4, 0, 6], [0, 3, 12]])
    found = beaten(names(5), counts)
    assert [f.players for f in found] == [("p4",), ("p0",)]
    assert [f.p_value for f in found] == pytest.approx([4 / 2**12, 4 * 11 / 2**10])
    assert "0:12 with 3 drawn against p4" in found[0].text


def test_false_alarms_of_being_beaten_are_rare():
    rng = np.random.default_rng(5)
    alarms = [bool(beaten(names(20), rng.multinomial(40, [0.4, 0.2, 0.4], 20))) for _ in range(400)]
    assert np.mean(alarms) <= 0.05


def test_the_lowest_score_against_the_past():
    counts = np.array([[8, 0, 2], [3, 2, 5], [0, 0, 0]])
    assert lowest_score(("v1", "v2", "v3"), counts) == PastScore("v2", 0.4, score_interval(0.4, 10), 10)
    assert lowest_score(("v3",), counts[2:]) is None


# Collapse


def rows_of(entropy, kl=None):
    kl = [0.01] * len(entropy) if kl is None else kl
    return [{"loss/entropy": e, "loss/kl": k} for e, k in zip(entropy, kl, strict=True)]


def falling(number, start=2.0, end=0.4, noise=0.03, seed=0):
    """A healthy run: falls fast at first, then levels out."""
    rng = np.random.default_rng(seed)
    level = end + (start - end) * np.exp(-np.arange(number) / 20)
    return level * np.exp(rng.normal(0, noise, number))


@pytest.mark.parametrize("seed", range(20))
def test_a_healthy_run_has_no_finding_at_any_time(seed):
    rows = rows_of(falling(400, seed=seed))
    for number in range(0, 401, 10):
        assert collapse(rows[:number], discrete=True) == []


def test_entropy_that_is_gone():
    entropy = np.concatenate([np.full(10, 2.0), np.linspace(2.0, 0.03, 20), np.full(10, 0.03)])
    (found,) = collapse(rows_of(entropy), discrete=True)
    assert "1.5% of 2" in found.text
    assert collapse(rows_of(entropy), discrete=False) == []
    entropy[-10:] = 0.05
    assert collapse(rows_of(entropy), discrete=True) == []


def test_entropy_that_falls_at_once():
    entropy = falling(300)
    entropy[-10:] *= 0.4
    (found,) = collapse(rows_of(entropy), discrete=True)
    assert "fell at once" in found.text
    assert found.p_value == pytest.approx(1 / 29)
    assert collapse(rows_of(entropy)[-150:], discrete=True) == []  # too short to know what is usual
    entropy[-10:] *= 1.5  # a fall to 0.6, not to a half
    assert collapse(rows_of(entropy), discrete=True) == []
    entropy[-10:] /= 1.5
    entropy[-1] *= 2.6  # one row as before
    assert collapse(rows_of(entropy), discrete=True) == []


def test_a_run_that_always_jumps_may_jump():
    entropy = np.where(np.arange(300) // 10 % 2 == 0, 1.0, 0.4)
    assert collapse(rows_of(entropy), discrete=True) == []


def test_kl_that_stays_large():
    kl = [0.01] * 30 + [0.2] * 6
    (found,) = collapse(rows_of(falling(36), kl), discrete=True)
    assert "in each of the last 6 iterations" in found.text
    assert "median 0.200" in found.text
    assert collapse(rows_of(falling(36), kl), discrete=False) == [found]
    assert collapse(rows_of(falling(36), kl[2:] + [0.01] * 2), discrete=True) == []  # over
    assert collapse(rows_of(falling(34), kl[:-2]), discrete=True) == []  # four rows only
    assert len(collapse(rows_of(np.full(5, 1.0), [0.2] * 5), discrete=True)) == 1  # from the start


def test_missing_values_and_several_learners():
    rows = [{"loss/kl": None, "loss/kl/speaker": 0.3, "loss/kl/listener": 0.01}] * 8
    rows[2] = {"loss/kl/speaker": None}
    (found,) = collapse(rows, discrete=True)
    assert "loss/kl/speaker was above 0.05 nats in each of the last 7" in found.text
    assert collapse([], discrete=True) == []
    assert collapse([{"seconds": 1.0}], discrete=True) == []


# Near-copies


def test_the_distance_of_weights_by_hand():
    one = {"w": np.array([3.0, 4.0], np.float32), "b": np.zeros(2, np.float32), "steps": np.array(7)}
    other = {"w": np.array([3.0, 4.5], np.float32), "b": np.zeros(2, np.float32), "steps": np.array(9)}
    length = math.hypot(3, 4.5)
    assert weight_distance(one, one) == 0.0
    assert weight_distance(one, other) == pytest.approx(math.sqrt(2 * (0.5 / length) ** 2 / 4))
    assert weight_distance(one, other) == weight_distance(other, one)
    assert weight_distance(one, {"w": one["w"]}) == math.inf
    assert weight_distance(one, {**one, "b": np.zeros(3)}) == math.inf


def test_a_normalisers_count_does_not_hide_a_difference():
    rng = np.random.default_rng(6)
    one = {"w": rng.normal(size=1000), "count": np.array(1e9)}
    other = {"w": rng.normal(size=1000), "count": np.array(1e9)}
    assert weight_distance(one, other) > 1.0
    assert weight_distance(one, {**one, "count": np.array(2e9)}) < 0.05


def test_near_copies_by_weights():
    distances = [("v1", "v0", 0.3), ("v2", "v1", 0.004), ("v3", "v2", 0.0099), ("v4", "v3", math.inf)]
    (found,) = copies_by_weights(distances)
    assert found.players == ("v2", "v3")
    assert "2 of 4 snapshots" in found.text
    assert "nearest v2 to v1 (0.40%)" in found.text
    assert copies_by_weights(distances[:1]) == []
    assert copies_by_weights([]) == []
