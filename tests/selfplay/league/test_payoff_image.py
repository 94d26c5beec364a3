import numpy as np

from selfplay.league.payoff_image import EVEN, LOSS, SIZE, UNKNOWN, WIN, payoff_image
from selfplay.league.payoffs import Payoffs


def payoffs(counts, matches=None, returns=None):
    """One team; counts [N, N, 3]."""
    counts = np.asarray(counts, np.int64)
    names = tuple("abcdefgh"[: len(counts)])
    matches = counts.sum(axis=2) if matches is None else np.asarray(matches, np.int64)
    returns = np.zeros(matches.shape) if returns is None else np.asarray(returns, float)
    return Payoffs(names, counts[:, :, None], counts.astype(float), matches[..., None], returns[..., None])


def cells(image, num_players):
    """The colour in the middle of each square, [N, N] of tuples."""
    side = len(image) // num_players
    middle = np.arange(num_players) * side + side // 2
    return [[tuple(image[row, column].tolist()) for column in middle] for row in middle]


TABLE = payoffs(
    [
        [[0, 0, 0], [4, 0, 0], [1, 2, 1]],
        [[0, 0, 4], [0, 0, 0], [3, 0, 1]],
        [[1, 2, 1], [1, 0, 3], [0, 0, 0]],
    ]
)


def test_wins_are_blue_losses_red_even_white_and_unknown_grey():
    image = payoff_image(TABLE, "abc")
    assert image.dtype == np.uint8
    assert image.shape == (258, 258, 3)  # the least multiple of three players from 256
    half_blue = tuple(round((a + b) / 2) for a, b in zip(EVEN, WIN))  # a score of 3/4
    half_red = tuple(round((a + b) / 2) for a, b in zip(EVEN, LOSS))
    assert cells(image, 3) == [
        [UNKNOWN, WIN, EVEN],
        [LOSS, UNKNOWN, half_blue],
        [EVEN, half_red, UNKNOWN],
    ]


def test_players_come_in_the_order_given_and_others_are_left_out():
    image = payoff_image(TABLE, ["b", "a"])
    assert cells(image, 2) == [[UNKNOWN, LOSS], [WIN, UNKNOWN]]


def test_games_without_winners_show_returns_between_their_extremes():
    none = np.zeros((3, 3, 3))
    met = [[0, 2, 1], [2, 0, 4], [1, 4, 0]]
    total = [[0, 20.0, 2.0], [20.0, 0, 24.0], [2.0, 24.0, 0]]  # means 10, 2 and 6
    image = payoff_image(payoffs(none, met, total), "abc")
    assert cells(image, 3)[0] == [UNKNOWN, WIN, LOSS]
    assert cells(image, 3)[1][2] == EVEN


def test_an_empty_league_and_equal_returns_have_a_picture_too():
    assert payoff_image(payoffs(np.zeros((0, 0, 3))), "").shape == (0, 0, 3)
    unmet = payoff_image(payoffs(np.zeros((2, 2, 3))), "ab")
    assert cells(unmet, 2) == [[UNKNOWN] * 2] * 2
    level = payoff_image(payoffs(np.zeros((2, 2, 3)), [[0, 3], [3, 0]], [[0, 3.0], [3.0, 0]]), "ab")
    assert cells(level, 2) == [[UNKNOWN, EVEN], [EVEN, UNKNOWN]]


def test_many_players_have_a_pixel_each():
    many = Payoffs(
        tuple(map(str, range(SIZE + 1))),
        np.zeros((SIZE + 1, SIZE + 1, 1, 3), np.int64),
        np.zeros((SIZE + 1, SIZE + 1, 3)),
        np.zeros((SIZE + 1, SIZE + 1, 1), np.int64),
        np.zeros((SIZE + 1, SIZE + 1, 1)),
    )
    assert payoff_image(many, many.players).shape == (SIZE + 1, SIZE + 1, 3)
