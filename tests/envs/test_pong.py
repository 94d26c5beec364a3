"""Pong by hand: flight, walls, paddles, ends, views of both seats and pictures; its bot and errors."""

from __future__ import annotations

import numpy as np
import pytest

from envs.bots import random_bot
from envs.conformance import check
from envs.pong import HALF_PADDLE, MAX_SLOPE, MAX_SPEED, PADDLE_SPEED, SERVE_SPEED, SPEED_GAIN, Pong
from envs.vector import GameError


def _start(num_games: int, **kwargs) -> Pong:
    env = Pong(num_games, **kwargs)
    env.restart(np.arange(num_games), np.arange(num_games, dtype=np.uint64))
    return env


def _place(env: Pong, ball, paddle=(0.0, 0.0)) -> None:
    """Put ball (x, y and their changes) and paddles there in every match."""
    state = env.state()
    state["ball"][:], state["paddle"][:] = ball, paddle
    env.set_state(state)


def _act(env: Pong, left=(0.0, 0.0), right=(0.0, 0.0)) -> None:
    """One step with (move, swing) of each seat."""
    env.step(({"": np.broadcast_to(np.array([left, right], np.float32), (env.num_games, 2, 2)).copy()},))


def _duel(left, right, **kwargs) -> np.ndarray:
    """Returns [B, 2] of two bots."""
    env = _start(1500, **kwargs)
    rng = np.random.default_rng(0)
    returns = np.zeros((1500, 2))
    while not env.over.all():
        obs = env.groups[0].obs
        actions = [
            bot({path: leaf[:, seat] for path, leaf in obs.items()}, {}, rng)[""]
            for seat, bot in enumerate((left, right))
        ]
        env.step(({"": np.stack(actions, axis=1)},))
        returns += env.reward
    return returns


def test_the_ball_flies_and_bounces_off_the_wall():
    env = _start(1)
    _place(env, [0.5, 0.93, 0.1, 0.1])
    _act(env)
    np.testing.assert_allclose(env.state()["ball"][0], [0.6, 0.97, 0.1, -0.1])  # 1.03 back to 0.97
    _place(env, [0.5, -0.95, -0.1, -0.08])
    _act(env)
    np.testing.assert_allclose(env.state()["ball"][0], [0.4, -0.97, -0.1, 0.08])


def test_a_hit_returns_the_ball_faster_at_the_slope_of_the_swing():
    env = _start(1)
    _place(env, [0.95, 0.3, 0.1, 0.0], paddle=(0.0, 0.3 - HALF_PADDLE))
    _act(env, left=(0, -1), right=(0.1, 0.5))  # the swing of the other does not matter
    speed = 0.1 * SPEED_GAIN
    np.testing.assert_allclose(env.state()["ball"][0], [1, 0.3, -speed, 0.5 * MAX_SLOPE * speed])
    assert not env.over[0]
    assert not env.reward.any()
    assert env.state()["hits"].tolist() == [1]
    _place(env, [-0.9, 0.0, -0.19, 0.0])
    _act(env, left=(0, -1))
    np.testing.assert_allclose(env.state()["ball"][0], [-1, 0, MAX_SPEED, -MAX_SLOPE * MAX_SPEED])


@pytest.mark.parametrize("seat", [0, 1])
def test_a_miss_loses_the_match(seat):
    env = _start(2)
    side = 1 - 2 * seat
    _place(env, [-0.95 * side, 0.5, -0.1 * side, 0.0])  # the paddles reach up to 0.2
    _act(env)
    assert env.over.all()
    assert env.terminated.all()
    assert not env.truncated.any()
    assert not env.to_act.any()
    assert env.reward.tolist() == [[-side, side]] * 2
    _act(env)
    assert not env.reward.any()


def test_paddles_move_at_their_speed_within_the_court():
    env = _start(1)
    _place(env, [0, 0, SERVE_SPEED, 0])
    _act(env, left=(1, 0), right=(-0.5, 0))
    np.testing.assert_allclose(env.state()["paddle"][0], [PADDLE_SPEED, -0.5 * PADDLE_SPEED])
    _place(env, [0, 0, SERVE_SPEED, 0], paddle=(0.79, -0.79))
    _act(env, left=(1, 0), right=(-1, 0))
    np.testing.assert_allclose(env.state()["paddle"][0], [1 - HALF_PADDLE, HALF_PADDLE - 1])


def test_a_match_is_cut_off_at_the_view_reached():
    env = _start(3, max_steps=4)
    for step in range(4):
        assert not env.over.any()
        before = env.groups[0].obs[""].copy()
        _act(env, left=(0.5, 0))
        assert env.truncated.all() == (step == 3)
    assert env.over.all()
    assert not env.terminated.any()
    assert not env.reward.any()
    ball = before[:, 0, 0] + before[:, 0, 2] * MAX_SPEED
    np.testing.assert_allclose(env.groups[0].obs[""][:, 0, 0], ball, rtol=1e-5)


def test_each_seat_sees_itself_on_the_left():
    env = _start(1)
    _place(env, [0.5, -0.25, 0.1, 0.12], paddle=(0.3, -0.4))
    left, right = env.groups[0].obs[""][0]
    np.testing.assert_allclose(left, [0.5, -0.25, 0.5, 0.5, 0.3, -0.4], rtol=1e-6)
    np.testing.assert_allclose(right, [-0.5, -0.25, -0.5, 0.5, -0.4, 0.3], rtol=1e-6)
    np.testing.assert_array_equal(env.privileged[""][0], left)


def test_mirrored_play_is_the_same_for_the_other_seat():
    env, mirror = _start(64), _start(64)
    state = env.state()
    flipped = state | {"ball": state["ball"] * [-1, 1, -1, 1]}
    mirror.set_state(flipped)
    rng = np.random.default_rng(0)
    while not env.over.all():
        np.testing.assert_array_equal(env.groups[0].obs[""], mirror.groups[0].obs[""][:, ::-1])
        action = rng.uniform(-1, 1, (64, 2, 2)).astype(np.float32)
        env.step(({"": action},))
        mirror.step(({"": action[:, ::-1].copy()},))
        np.testing.assert_array_equal(env.reward, mirror.reward[:, ::-1])
    assert mirror.over.all()


def test_the_picture_by_hand():
    env = _start(1, observation="both")
    # Pixels are 1/8 high; paddle 0 covers heights .25 to .65, the ball is midway between four pixels.
    _place(env, [0.25, 0.5, 0.1, 0.1], paddle=(0.45, -0.8))
    own, other, ball = env.groups[0].obs["image"][0, 0]
    expected = np.zeros((16, 16))
    expected[2:6, 0] = 255 * np.array([0.2, 1, 1, 1])
    np.testing.assert_allclose(own, expected, atol=1)
    expected[:] = 0
    expected[12:16, 15] = 255 * np.array([0.2, 1, 1, 1])
    np.testing.assert_allclose(other, expected, atol=1)
    expected[:] = 0
    expected[3:5, 9:11] = 255 / 4
    np.testing.assert_allclose(ball, expected, atol=1)
    mirrored = env.groups[0].obs["image"][0, 1]
    np.testing.assert_array_equal(mirrored, env.groups[0].obs["image"][0, 0][[1, 0, 2]][:, :, ::-1])


def test_pictures_say_where_everything_is():
    """Heights as read from the light of the picture, in which nothing is left of the step before."""
    env = _start(300, observation="both", max_steps=60)
    rng = np.random.default_rng(0)
    height = 1 - (2 * np.arange(16) + 1) / 16
    for _ in range(40):
        image, vector = env.groups[0].obs["image"], env.groups[0].obs["vector"]
        assert image.shape == (300, 2, 3, 16, 16)
        light = image.sum(axis=4, dtype=float)
        seen = (light @ height) / light.sum(axis=3)  # [B, 2, 3]
        np.testing.assert_allclose(seen[..., 0], vector[..., 4], atol=0.02)
        np.testing.assert_allclose(seen[..., 1], vector[..., 5], atol=0.02)
        np.testing.assert_allclose(seen[..., 2], np.clip(vector[..., 1], -15 / 16, 15 / 16), atol=0.02)
        env.step(({"": rng.uniform(-1, 1, (300, 2, 2)).astype(np.float32)},))
        over = np.flatnonzero(env.over)
        env.restart(over, rng.integers(2**63, size=len(over), dtype=np.uint64))


@pytest.mark.parametrize("kwargs", [{"observation": "image"}, {"observation": "both", "max_steps": 20}])
@pytest.mark.parametrize("num_games", [1, 6])
def test_pong_of_every_view_conforms(kwargs, num_games):
    check(lambda n: Pong(n, **kwargs), num_games=num_games, num_steps=40)


@pytest.mark.parametrize("observation", ["vector", "image", "both"])
def test_the_tracker_is_far_better_than_random(observation):
    env = Pong(1)
    rand, tracker = random_bot(env.groups[0].action_space), Pong(1, observation=observation).bots["tracker"]
    assert _duel(tracker, rand, observation=observation)[:, 0].mean() > 0.6
    assert _duel(rand, tracker, observation=observation)[:, 0].mean() < -0.6


def test_serves_are_fair_and_come_from_the_seed():
    env = _start(4000)
    ball = env.state()["ball"]
    assert abs((ball[:, 2] > 0).mean() - 0.5) < 0.03
    assert set(np.abs(ball[:, 2])) == {SERVE_SPEED}
    slope = ball[:, 3] / SERVE_SPEED
    for drawn, most in ((ball[:, 1], 0.5), (slope, MAX_SLOPE)):
        counts = np.histogram(drawn, bins=10, range=(-most, most))[0]
        assert counts.sum() == 4000
        assert counts.min() > 320  # of 400 expected, deviation 19
    again = Pong(3)
    again.restart(np.array([2]), np.array([99], np.uint64))
    np.testing.assert_array_equal(again.state()["ball"][2], ball[99])


@pytest.mark.parametrize("bad", [1.01, -1.5, np.nan, np.inf])
def test_an_action_out_of_bounds_is_named_and_changes_nothing(bad):
    env = _start(4)
    before = env.state()
    action = np.ones((4, 2, 2), np.float32)
    action[2, 1, 1] = bad
    with pytest.raises(GameError, match=r"pong, match 2, seat 1: action \[1.0, .*\] is illegal; .* -1 to 1"):
        env.step(({"": action},))
    for name, array in env.state().items():
        np.testing.assert_array_equal(array, before[name])
    with pytest.raises(GameError, match=r"pong: the action must be float32 \(4, 2, 2\), not float64"):
        env.step(({"": action.astype(np.float64)},))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"observation": "pixels"}, "observation='pixels' must be one of 'vector', 'image', 'both'"),
        ({"max_steps": 0}, "max_steps=0 must be an integer of at least 1"),
    ],
)
def test_arguments_are_validated(kwargs, message):
    with pytest.raises(ValueError, match=f"pong: {message}"):
        Pong(2, **kwargs)


def test_render():
    env = _start(1)
    _place(env, [0.0, 0.0, 0.1, 0.0], paddle=(0.0, 0.8))
    wall, *court, below, hits = env.render(0).split("\n")
    assert wall == below == "-" * 31
    assert court[5] == "|" + " " * 14 + "o" + " " * 15
    assert [row[30] for row in court] == ["|", "|", *" " * 9]
    assert hits == "hits 0"
