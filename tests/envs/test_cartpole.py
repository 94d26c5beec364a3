"""Cart-pole step by step against Gymnasium's CartPole-v1; its view, bot, ends and errors."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from envs.cartpole import MAX_STEPS, CartPole
from envs.conformance import check
from envs.vector import GameError


def _start(num_games: int, **kwargs) -> CartPole:
    env = CartPole(num_games, **kwargs)
    env.restart(np.arange(num_games), np.arange(num_games, dtype=np.uint64))
    return env


def _bot_action(env: CartPole, rng: np.random.Generator) -> np.ndarray:
    """[B, 1] of the linear bot in every match."""
    return env.bots["linear"]({"": env.groups[0].obs[""][:, 0]}, {}, rng)[""][:, None]


def _gymnasium_cart(physics: np.ndarray) -> gymnasium.Env:
    """CartPole-v1 with its time limit, begun at physics [4]."""
    cart = gymnasium.make("CartPole-v1")
    cart.reset(seed=0)
    cart.unwrapped.state = physics.copy()
    return cart


@pytest.mark.parametrize("player", ["linear", "random"])
def test_same_numbers_as_gymnasium_step_by_step(player):
    env = _start(12)
    carts = [_gymnasium_cart(physics) for physics in env.state()["physics"]]
    rng = np.random.default_rng(0)
    num_steps = 0
    while not env.over.all():
        live = np.flatnonzero(~env.over)
        action = _bot_action(env, rng) if player == "linear" else rng.integers(0, 2, (12, 1))
        env.step(({"": action},))
        for g in live:
            obs, reward, terminated, truncated, _ = carts[g].step(int(action[g, 0]))
            np.testing.assert_allclose(env.groups[0].obs[""][g, 0], obs, rtol=1e-5, atol=1e-7)
            np.testing.assert_allclose(
                env.state()["physics"][g], carts[g].unwrapped.state, rtol=1e-9, atol=1e-12
            )
            assert env.reward[g].tolist() == [reward]
            assert env.terminated[g].tolist() == [terminated]
            assert env.truncated[g].tolist() == [truncated and not terminated]
            assert env.over[g] == (terminated or truncated)
        num_steps += 1
    assert (num_steps == MAX_STEPS) == (player == "linear")
    assert env.truncated.all() == (player == "linear")


def test_one_push_by_hand():
    """At rest and upright, a push right: acceleration (10 + .05 * spin_rate) / 1.1, by hand."""
    env = _start(1)
    env.set_state(env.state() | {"physics": np.zeros((1, 4))})
    env.step(({"": np.array([[1]])},))
    swing = 10 / 1.1
    spin_rate = -swing / (0.5 * (4 / 3 - 0.1 / 1.1))  # -14.634
    acceleration = swing - 0.05 * spin_rate / 1.1  # 9.756
    np.testing.assert_allclose(
        env.groups[0].obs[""][0, 0], [0, 0.02 * acceleration, 0, 0.02 * spin_rate], rtol=1e-6
    )
    assert 0.02 * acceleration == pytest.approx(0.195122, abs=1e-6)
    assert 0.02 * spin_rate == pytest.approx(-0.292683, abs=1e-6)


def test_starts_are_uniform_and_come_from_the_seed():
    env = _start(4000)
    obs = env.groups[0].obs[""][:, 0]
    assert np.abs(obs).max() <= 0.05
    counts = [np.histogram(quantity, bins=10, range=(-0.05, 0.05))[0] for quantity in obs.T]
    assert np.min(counts) > 320  # of 400 expected, deviation 19
    assert np.max(counts) < 480
    assert np.abs(np.corrcoef(obs.T) - np.eye(4)).max() < 0.07
    again = CartPole(5)
    again.restart(np.array([3]), np.array([77], np.uint64))
    np.testing.assert_array_equal(again.groups[0].obs[""][3, 0], obs[77])


def test_masked_velocities_are_not_seen():
    env, full = _start(8, mask_velocity=True), _start(8)
    rng = np.random.default_rng(0)
    assert env.groups[0].observation_space.shape == (2,)
    assert env.bots == {}
    while not full.over.any():
        np.testing.assert_array_equal(env.groups[0].obs[""], full.groups[0].obs[""][..., [0, 2]])
        action = rng.integers(0, 2, (8, 1))
        env.step(({"": action},))
        full.step(({"": action},))
    np.testing.assert_array_equal(env.over, full.over)


@pytest.mark.parametrize("num_games", [1, 6])
def test_masked_cart_pole_conforms(num_games):
    check(lambda n: CartPole(n, mask_velocity=True), num_games=num_games)


def test_the_view_reached_is_shown_when_cut_off():
    """The 500th step of a standing pole truncates, and its obs is that of the moved cart."""
    env = _start(2)
    env.set_state(env.state() | {"num_steps": np.array([498, 3])})
    before = env.groups[0].obs[""].copy()
    for _ in range(2):
        env.step(({"": np.zeros((2, 1), np.int64)},))
    assert env.truncated.tolist() == [[True], [False]]
    assert env.over.tolist() == [True, False]
    assert env.reward.tolist() == [[1], [1]]
    np.testing.assert_allclose(env.groups[0].obs[""][:, 0], env.state()["physics"].astype(np.float32))
    assert (env.groups[0].obs[""] != before).all()


def test_the_linear_bot_reaches_the_most_there_is():
    env = _start(500)
    returns = np.zeros(500)
    while not env.over.all():
        env.step(({"": _bot_action(env, np.random.default_rng(0))},))
        returns += env.reward[:, 0]
    assert returns.min() == env.max_return


def test_mistakes_are_named():
    env = _start(3)
    before = env.state()
    for bad in (-1, 2):
        action = np.array([[0], [bad], [1]])
        with pytest.raises(GameError, match=rf"cartpole, match 1, seat 0: action {bad} is illegal"):
            env.step(({"": action},))
    with pytest.raises(GameError, match=r"cartpole: the action must be int64 \(3, 1\), not float64 \(3, 1\)"):
        env.step(({"": np.zeros((3, 1))},))
    for name, array in env.state().items():
        np.testing.assert_array_equal(array, before[name])
    with pytest.raises(ValueError, match="mask_velocity=1 must be one of False, True"):
        CartPole(2, mask_velocity=1)
    with pytest.raises(ValueError, match="num_games=0 must be an integer of at least 1"):
        CartPole(0)


def test_render():
    env = _start(1)
    env.set_state(env.state() | {"physics": np.array([[1.2, 0, -0.1, 0]])})
    pole, track, numbers = env.render(0).split("\n")
    assert pole == " " * 30 + "\\"
    assert track == "-" * 30 + "#" + "-" * 10
    assert numbers == "x +1.20  angle -5.7 degrees  step 0"
    assert env.action_names(0) == ["left", "right"]
