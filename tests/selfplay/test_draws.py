"""Draws by match, seat and decision: uniform, independent of one another and of the rows beside them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from envs.bots import random_bot
from envs.registry import native_games
from selfplay.draws import GOLDEN, SALT, MatchDraws, RowDraws, ask_bot, generators, uniform

MASK = 2**64 - 1


def mix(bits):
    """splitmix64's finaliser in Python's integers."""
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB & MASK
    return bits ^ (bits >> 31)


def lattice(seeds=16, seats=4, numbers=64):
    """Draws of neighbouring matches, seats and decisions, as in use: [seeds * seats * numbers] rows."""
    seed, seat, number = (x.reshape(-1) for x in np.mgrid[:seeds, :seats, :numbers])
    return MatchDraws(seed, number).rows(np.arange(len(seed)), seat)


def test_numbers_are_those_of_the_formula():
    draws = MatchDraws(np.array([7, 2**64 - 1], np.uint64), np.array([0, 5])).rows(
        np.array([1, 0]), np.array([3, 1])
    )
    keys = [mix(mix(mix(s ^ int(SALT)) ^ seat) ^ n) for s, seat, n in ((2**64 - 1, 3, 5), (7, 1, 0))]
    assert draws.key.tolist() == keys
    wanted = [[(mix((key + (i + 1) * int(GOLDEN)) & MASK) >> 40) / 2**24 for i in range(5)] for key in keys]
    np.testing.assert_array_equal(draws.uniform(5), np.array(wanted, np.float32))


def test_the_mixing_is_splitmix64s():
    """First outputs from seed 1234567, as in Vigna's splitmix64.c."""
    bits = [mix((1234567 + (k + 1) * int(GOLDEN)) & MASK) for k in range(2)]
    assert bits == [6457827717110365317, 3203168211198807973]


def test_they_are_uniform_and_below_one():
    drawn = lattice().uniform(16)  # 65,536 numbers
    assert drawn.dtype == np.float32
    assert 0 <= drawn.min() < 1e-3
    assert 0.999 < drawn.max() < 1
    assert stats.kstest(drawn.reshape(-1), "uniform").pvalue > 1e-3
    pairs = np.histogram2d(drawn[:, :-1].reshape(-1), drawn[:, 1:].reshape(-1), bins=16, range=[[0, 1]] * 2)
    assert stats.chisquare(pairs[0].reshape(-1)).pvalue > 1e-3


@pytest.mark.parametrize("axis", ["match", "seat", "decision", "number"])
def test_neighbours_are_independent(axis):
    """Of 65,536 numbers, in the lattice where a weak hash would show."""
    drawn = lattice().uniform(16).reshape(16, 4, 64, 16).astype(np.float64)
    along = np.moveaxis(drawn, ["match", "seat", "decision", "number"].index(axis), 0)
    one, next_ = along[:-1].reshape(-1), along[1:].reshape(-1)
    assert abs(np.corrcoef(one, next_)[0, 1]) < 4 / np.sqrt(len(one))
    table = np.histogram2d(one, next_, bins=8, range=[[0, 1]] * 2)[0]
    assert stats.chisquare(table.reshape(-1)).pvalue > 1e-3


def test_the_tests_see_a_weak_hash(monkeypatch):
    """Without the finaliser neighbours lie on a lattice."""

    def weak(self, num):
        number = np.arange(num, dtype=np.uint64)
        return ((self.key[:, None] + number) * GOLDEN >> np.uint64(40)).astype(np.float32) / 2**24

    def rows(self, game, seat):
        return RowDraws(self.seed + seat.astype(np.uint64) + self.number)

    monkeypatch.setattr(MatchDraws, "rows", rows)
    monkeypatch.setattr(RowDraws, "uniform", weak)
    with pytest.raises(AssertionError):
        test_neighbours_are_independent("seat")


def test_no_two_decisions_share_a_key():
    assert len(set(lattice(64, 4, 256).key.tolist())) == 64 * 4 * 256


def test_each_row_has_a_generator_that_depends_on_its_key_alone():
    draws = lattice(4, 2, 8)
    first = [generator.random(3).tolist() for generator in draws.generators()]
    alone = [next(RowDraws(draws.key[k : k + 1]).generators()).random(3).tolist() for k in range(64)]
    assert first == alone
    assert len({tuple(row) for row in first}) == 64
    many = np.concatenate([generator.random(200) for generator in draws.generators()])
    assert stats.kstest(many, "uniform").pvalue > 1e-3
    after = [
        (generator.integers(5, dtype=np.int32), generator.random())[1] for generator in draws.generators()
    ]
    assert len(set(after)) == 64


def test_one_generator_for_all_rows_is_used_as_it_was():
    rng, same = np.random.default_rng(3), np.random.default_rng(3)
    np.testing.assert_array_equal(uniform(rng, 4, 2), same.random((4, 2), dtype=np.float32))
    assert [g.random() for g in generators(rng, 3)] == same.random(3).tolist()


BOTS = [(name, bot) for name, make in native_games().items() for bot in make(1).bots]


@pytest.mark.parametrize(("name", "bot"), [*BOTS, *((name, "random") for name in native_games())])
def test_a_bot_answers_each_row_as_if_it_were_alone(name, bot):
    env = native_games()[name](64)
    env.restart(np.arange(64), np.arange(64, dtype=np.uint64))
    for number, group in enumerate(env.groups):
        scripted = random_bot(group.action_space) if bot == "random" else env.bots[bot]
        ask = scripted[number] if isinstance(scripted, tuple) else scripted
        obs, mask = (
            {path: leaf[:, 0] for path, leaf in tree.items()} for tree in (group.obs, group.mask)
        )  # fmt: skip
        draws = MatchDraws(np.arange(64), np.full(64, 2)).rows(np.arange(64), np.zeros(64, int))
        together = ask_bot(ask, obs, mask, 64, draws)
        for k in (0, 17, 63):
            row_obs, row_mask = (
                {path: leaf[k : k + 1] for path, leaf in tree.items()} for tree in (obs, mask)
            )
            apart = ask_bot(ask, row_obs, row_mask, 1, RowDraws(draws.key[k : k + 1]))
            for path, leaf in together.items():
                np.testing.assert_array_equal(leaf[k : k + 1], apart[path])


def test_a_bot_that_says_nothing_is_asked_row_by_row():
    """One that draws more for some rows than for others."""
    sizes = []

    def careless(obs, mask, rng):
        sizes.append(len(obs[""]))
        rng.random(int(obs[""].sum()))
        return {"": rng.integers(0, 1000, len(obs[""]))}

    obs, draws = {"": np.arange(6)}, lattice(1, 1, 6)
    together = ask_bot(careless, obs, {}, 6, draws)[""]
    assert sizes == [1] * 6
    alone = ask_bot(careless, {"": np.array([4])}, {}, 1, RowDraws(draws.key[4:5]))[""]
    assert together[4] == alone[0]
    careless.by_row = True  # what it is not
    with pytest.raises((AssertionError, TypeError)):
        ask_bot(careless, obs, {}, 6, draws)


def test_the_random_bot_is_uniform_by_row():
    draws = lattice(16, 4, 64)
    bot = random_bot(native_games()["connect_four"](1).groups[0].action_space)
    legal = np.tile([True, False, True, True, False, True, True], (4096, 1))
    counts = np.bincount(ask_bot(bot, {"": legal}, {"": legal}, 4096, draws)[""], minlength=7)
    assert counts[[1, 4]].sum() == 0
    assert stats.chisquare(counts[legal[0]]).pvalue > 1e-3
