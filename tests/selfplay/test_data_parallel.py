"""Several learners are one with all their lanes: the same steps, and equal to the bit."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from policies.moments import RunningMoments
from policies.policy import Policy, PolicySpec
from selfplay import data_parallel
from selfplay.config import PPOConfig
from selfplay.learner import Learner
from selfplay.learners import Learners
from tests.selfplay.test_learner import GAMES, fragments_of

ALL_ON = {
    "epochs": 2,
    "num_minibatches": 3,
    "normalize_value": True,
    "normalize_reward": True,
    "advantage": "vtrace",
    "magnet_coef": 0.1,
    "magnet_iterations": 2,
    "grad_clip_sigma": 3.0,
}


def played(collects):
    """A policy that normalises its inputs, and fragments of another's matches."""
    group = GAMES["brawl"](1).groups[0]
    torch.manual_seed(2)
    policy = Policy(
        group.observation_space, group.action_space, PolicySpec((11,), hidden_size=9, normalize="on")
    )
    return policy, fragments_of("brawl", collects=collects)[1]


class Table:
    """Where threads lay down what they bring."""

    def __init__(self, size):
        self.slots, self.barrier = [None] * size, threading.Barrier(size, timeout=20)


class Threads:
    """`Siblings` in threads of one process."""

    def __init__(self, table, rank):
        self.table, self.rank = table, rank

    def all(self, mine):
        self.table.slots[self.rank] = copy.deepcopy(mine)
        self.table.barrier.wait()
        found = copy.deepcopy(self.table.slots)
        self.table.barrier.wait()
        return found

    def add_(self, x):
        x.copy_(sum(self.all(x.clone())))


def together(size, work):
    """work(siblings) of every learner, at the same time."""
    table = Table(size)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(work, [Threads(table, rank) for rank in range(size)]))


def learner_of(policy, siblings=None, **changes):
    config = PPOConfig(**{"num_minibatches": 2, "lr": 3e-3} | changes)
    return Learner(copy.deepcopy(policy), config, seed=5, siblings=siblings)


def in_shares(policy, shares, updates, **changes):
    """Metrics of each update and the learner at the end, of every sibling; shares: each one's fragments."""

    def work(siblings):
        learner = learner_of(policy, siblings, **changes)
        return [learner.update(shares[siblings.rank]) for _ in range(updates)], learner

    return together(len(shares), work)


def at_once(policy, shares, updates, **changes):
    """The same of one learner that has all, and draws its minibatches as the siblings do theirs."""
    learner = learner_of(policy, **changes)
    sizes = [sum(each.num_lanes for each in own) for own in shares]
    starts = np.cumsum([0, *sizes[:-1]])

    def minibatches(num_lanes):
        assert list(num_lanes) == [sum(sizes)]
        orders = [
            torch.from_numpy(learner.generator.permutation(n)) + start
            for n, start in zip(sizes, starts.tolist())
        ]
        for parts in zip(*(order.tensor_split(learner.config.num_minibatches) for order in orders)):
            lanes = torch.cat(parts)
            yield lanes, len(lanes)

    learner._minibatches = minibatches
    whole = [each for own in shares for each in own]
    return [learner.update(whole) for _ in range(updates)], learner


def assert_equal_to_the_bit(learners):
    (arrays, meta), *others = [learner.state() for learner in learners]
    for other_arrays, other_meta in others:
        assert meta == other_meta
        assert arrays.keys() == other_arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, other_arrays[name], err_msg=name)


def assert_one_learner(policy, shares, updates=3, **changes):
    """Siblings are equal to the bit, and to one learner to rounding."""
    found = in_shares(policy, shares, updates, **changes)
    metrics, whole = at_once(policy, shares, updates, **changes)
    assert_equal_to_the_bit([learner for _, learner in found])
    arrays, _ = whole.state()
    for name, array in found[0][1].state()[0].items():
        np.testing.assert_allclose(array, arrays[name], rtol=2e-4, atol=2e-6, err_msg=name)
    for told, _ in found:
        for own, expected in zip(told, metrics, strict=True):
            assert own == pytest.approx(expected, rel=2e-4, abs=2e-6)


@pytest.mark.parametrize(
    "changes", [{}, ALL_ON, {"normalize_advantage": False}], ids=["default", "all on", "raw"]
)
@pytest.mark.parametrize("sizes", [(1, 1), (2, 1), (1, 1, 1)])
def test_shares_are_the_whole(sizes, changes):
    """Also with shares of different sizes."""
    policy, fragments = played(sum(sizes))
    ends = np.cumsum(sizes)
    assert_one_learner(policy, [fragments[end - size : end] for end, size in zip(ends, sizes)], **changes)


def test_a_sibling_without_fragments_takes_the_same_steps():
    policy, fragments = played(2)
    assert_one_learner(policy, [[], fragments], **ALL_ON)
    assert_one_learner(policy, [fragments[:1], [], fragments[1:]])


def test_minibatches_smaller_than_the_number_of_siblings():
    policy, (fragment,) = fragments_of("connect_four", games=1)
    few = fragment.map(lambda array, axis: array.take([0], axis=axis))
    assert_one_learner(policy, [[few], [fragment]], num_minibatches=2)


def test_parts_that_only_some_decided_in_and_parts_that_nobody_did():
    policy, (one, two) = fragments_of("brawl", collects=2)

    def work(siblings):
        learners = Learners(
            {name: learner_of(policy, siblings) for name in "abc"}, anneal_steps=None, siblings=siblings
        )
        update = learners.update([(one, None, None)] if siblings.rank else [(two, two, None)])
        return learners, update

    (left, told), (right, same) = together(2, work)
    size = one.is_first.size
    assert told.agent_steps == same.agent_steps == left.agent_steps == 3 * size
    told.metrics.pop("time/update"), same.metrics.pop("time/update")
    assert told.metrics == same.metrics
    assert {name.split("/")[-1] for name in told.metrics if name.startswith("loss/policy/")} == {"a", "b"}
    for part in "abc":
        assert_equal_to_the_bit([left.learners[part], right.learners[part]])
    untouched = learner_of(policy).weights()
    for part, moved in (("a", True), ("b", True), ("c", False)):
        weights = left.learners[part].weights()
        assert any((weights[name] != x).any() for name, x in untouched.items()) == moved


def own_advantages(monkeypatch):
    monkeypatch.setattr(
        data_parallel, "normalize", lambda advantage, siblings: data_parallel.losses.normalize(advantage)
    )


def own_inputs(monkeypatch):
    monkeypatch.setattr(data_parallel, "observe", lambda policy, obs, siblings: policy.observe(obs))


def own_targets(monkeypatch):
    monkeypatch.setattr(data_parallel, "update", lambda running, x, siblings: running.update(x))


def own_gradients(monkeypatch):
    monkeypatch.setattr(Threads, "add_", lambda self, x: x.mul_(len(self.all(0))))


@pytest.mark.parametrize("plant", [own_advantages, own_inputs, own_targets, own_gradients])
def test_learning_from_what_is_ones_own_alone_is_seen(monkeypatch, plant):
    policy, fragments = played(2)
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        assert_one_learner(policy, [fragments[:1], fragments[1:]], normalize_value=True)


def test_merged_moments_are_those_of_all_samples():
    rng = np.random.default_rng(0)
    samples = [torch.from_numpy(rng.normal(3, 2, (n, 2))) for n in (5, 0, 7)]
    parts = []
    for each in samples:
        running = RunningMoments((2,))
        running.update(each)
        parts.append(data_parallel.Moments(running.count, running.mean, running.m2))
    number, mean, m2 = data_parallel.merged(parts)
    whole = torch.cat(samples)
    assert number == 12
    torch.testing.assert_close(mean, whole.mean(0))
    torch.testing.assert_close(m2 / 12, whole.var(0, correction=0))
