"""The signalling game: what each seat sees when, what is worth what, and its perfect code."""

from __future__ import annotations

import numpy as np
import pytest

from envs.bots import random_bot
from envs.conformance import check
from envs.random_play import random_actions
from envs.signalling import Signalling
from envs.vector import GameError


def _start(num_games: int, **kwargs) -> Signalling:
    env = Signalling(num_games, **kwargs)
    env.restart(np.arange(num_games), np.arange(num_games, dtype=np.uint64))
    return env


def _act(env: Signalling, *, spoken=None, named=None) -> None:
    """One step in which every speaker sends spoken [L], or every listener does what named says."""
    speech = np.full((env.num_games, 1, *env.groups[0].action_space.shape), -1)
    name = np.full((env.num_games, 1), -1)
    if spoken is not None:
        speech[:] = spoken
    if named is not None:
        name[:, 0] = named
    env.step(({"": speech}, {"": name}))


def _mean_return(env: Signalling, bots, seed: int = 0) -> np.ndarray:
    """Mean return [2] of each seat where a bot for each group plays every match once."""
    rng = np.random.default_rng(seed)
    total = np.zeros((env.num_games, 2))
    while not env.over.all():
        actions = random_actions(env, rng)
        for group, leaves, bot in zip(env.groups, actions, bots, strict=True):
            acts = env.to_act[:, group.seats[0]]
            obs, mask = (
                {path: leaf[acts, 0] for path, leaf in tree.items()} for tree in (group.obs, group.mask)
            )
            if acts.any():
                leaves[""][acts, 0] = bot(obs, mask, rng)[""]
        env.step(actions)
        total += env.reward
    return total.mean(axis=0)


def test_a_match_without_delay():
    env = _start(2, targets=8, tokens=3, length=2)
    speaker, listener = env.groups
    assert (env.seat_names, env.teams, env.max_return) == (("speaker_0", "listener_0"), (0, 0), 1.0)
    assert env.to_act.tolist() == [[True, False]] * 2
    target = speaker.obs[""][:, 0].copy()
    _act(env, spoken=[2, 1])
    assert env.to_act.tolist() == [[False, True]] * 2
    assert listener.obs["heard"].tolist() == [[[2, 1]]] * 2
    assert listener.obs["age"].tolist() == [[0]] * 2
    assert listener.mask[""].shape == (2, 1, 8)
    assert not env.reward.any()
    _act(env, named=[target[0], (target[1] + 1) % 8])  # right, wrong
    assert env.reward.tolist() == [[1, 1], [0, 0]]
    assert env.over.all()
    assert env.terminated.all()
    assert not env.to_act.any()
    _act(env)
    assert not env.reward.any()


def test_with_a_delay_the_message_is_heard_once_and_noise_follows():
    env = _start(2000, targets=4, tokens=5, length=2, delay=3)
    target, listener = env.groups[0].obs[""][:, 0].copy(), env.groups[1]
    _act(env, spoken=[4, 0])
    heard = []
    for age in range(4):
        heard.append(listener.obs["heard"][:, 0].copy())
        assert (listener.obs["age"] == age).all()
        assert (listener.mask[""] == [age == 3] * 4 + [age < 3]).all()
        _act(env, named=target if age == 3 else 4)
    assert (heard[0] == [4, 0]).all()
    noise = np.concatenate(heard[1:], axis=1)  # [B, 6], each token uniform and of its own
    counts = np.array([np.bincount(column, minlength=5) for column in noise.T])
    assert counts.min() > 320  # of 400 expected, deviation 18
    assert np.abs(np.corrcoef(noise.T) - np.eye(6)).max() < 0.1
    assert (env.reward == 1).all()


def test_targets_are_uniform_and_come_from_the_seed():
    env = _start(6400)
    seen = env.groups[0].obs[""][:, 0]
    counts = np.bincount(seen, minlength=32)
    assert counts.min() > 145  # of 200 expected, deviation 14
    assert counts.max() < 255
    again = Signalling(5)
    again.restart(np.arange(5), np.arange(40, 45, dtype=np.uint64))
    assert (again.groups[0].obs[""][:, 0] == seen[40:45]).all()


@pytest.mark.parametrize("kwargs", [{}, {"targets": 64}, {"targets": 20, "tokens": 5, "length": 2}])
def test_the_perfect_code_reaches_the_most_there_is(kwargs):
    env = _start(2000, **kwargs)
    assert env.max_return == 1
    np.testing.assert_array_equal(_mean_return(env, env.bots["perfect"]), [1, 1])


def test_more_targets_than_messages():
    """Eight messages for ten targets: eight at most can be told apart."""
    env = _start(4000, targets=10, tokens=2, length=3)
    assert env.max_return == 0.8
    reached = _mean_return(env, env.bots["perfect"])
    np.testing.assert_allclose(reached, 0.8, atol=0.02)


@pytest.mark.parametrize("delay", [0, 2])
def test_random_play_names_one_in_so_many_targets(delay):
    env = _start(40_000, targets=10, delay=delay)
    bots = [random_bot(group.action_space) for group in env.groups]
    np.testing.assert_allclose(_mean_return(env, bots), 0.1, atol=0.005)  # deviation .0015


def test_with_a_delay_no_bot_without_memory_can_know_the_message():
    assert Signalling(2, delay=1).bots == {}


@pytest.mark.parametrize("kwargs", [{"delay": 2}, {"targets": 5, "tokens": 7, "length": 1, "delay": 1}])
@pytest.mark.parametrize("num_games", [1, 6])
def test_signalling_with_a_delay_conforms(kwargs, num_games):
    check(lambda n: Signalling(n, **kwargs), num_games=num_games)


def test_the_privileged_view_is_the_whole_match():
    env = _start(3, delay=2)
    assert env.privileged["message"].tolist() == [[0, 0, 0]] * 3
    assert env.privileged["clock"].tolist() == [0] * 3
    _act(env, spoken=[1, 2, 3])
    _act(env, named=32)
    assert env.privileged["message"].tolist() == [[1, 2, 3]] * 3
    assert env.privileged["clock"].tolist() == [2] * 3
    np.testing.assert_array_equal(env.privileged["target"], env.groups[0].obs[""][:, 0])


def test_mistakes_are_named_and_change_nothing():
    env = _start(3, delay=1)
    speech, name = np.zeros((3, 1, 3), np.int64), np.full((3, 1), -1)
    speech[1, 0] = [0, 5, 1]
    before = env.state()
    with pytest.raises(
        GameError, match=r"signalling, match 1, seat 0: action \[0, 5, 1\] is illegal; .* 0 to 3"
    ):
        env.step(({"": speech}, {"": name}))
    for key, array in env.state().items():
        np.testing.assert_array_equal(array, before[key])
    _act(env, spoken=[0, 0, 0])
    with pytest.raises(GameError, match=r"match 0, seat 1: action 3 is illegal; legal: only 32 \(wait\)"):
        _act(env, named=3)
    _act(env, named=32)
    for bad in (-1, 32, 33):
        with pytest.raises(GameError, match=f"match 2, seat 1: action {bad} is illegal; legal: 0 to 31"):
            _act(env, named=[3, 4, bad])
    with pytest.raises(GameError, match=r"the listener's action must be int64 \(3, 1\)"):
        env.step(({"": speech}, {"": name[:, 0]}))
    with pytest.raises(GameError, match=r"the speaker's action must be int64 \(3, 1, 3\)"):
        env.step(({"": speech[..., :2]}, {"": name}))


@pytest.mark.parametrize(
    "kwargs", [{"targets": 1}, {"tokens": 1}, {"length": 0}, {"length": 17}, {"delay": -1}]
)
def test_arguments_are_validated(kwargs):
    (name,) = kwargs
    with pytest.raises(ValueError, match=f"signalling: {name}=.* must be an integer"):
        Signalling(2, **kwargs)


def test_render():
    env = Signalling(1, targets=8, delay=1)
    assert env.render(0) == "not started"
    env.restart(np.arange(1), np.array([3], np.uint64))
    target = int(env.groups[0].obs[""][0, 0])
    assert env.render(0) == f"target   {target}\nspeaker to send"
    _act(env, spoken=[3, 0, 1])
    assert env.render(0) == f"target   {target}\nmessage  3 0 1\nlistener to wait"
    _act(env, named=8)
    noise = " ".join(map(str, env.groups[1].obs["heard"][0, 0]))
    assert env.render(0) == f"target   {target}\nmessage  3 0 1\nnoise    {noise}\nlistener to name"
    _act(env, named=target)
    assert env.render(0) == f"target   {target}\nmessage  3 0 1\nnamed    {target}: right"
