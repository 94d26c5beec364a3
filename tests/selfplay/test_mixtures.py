import numpy as np

from selfplay.exploitability import exploitability, uniform
from selfplay.game_tree import InformationStates
from selfplay.information_states import information_states
from selfplay.mixtures import mixed


def two_decisions():
    """One player that decides twice, of two actions each; the second time it knows what it did."""
    return InformationStates(
        name=["", "a", "b"],
        player=np.zeros(3, np.int64),
        parent=np.array([-1, 0, 0]),
        action=np.array([-1, 0, 1]),
        depth=np.array([0, 1, 1]),
        obs=np.zeros((3, 1), np.float32),
        legal=np.ones((3, 2), bool),
        reward=np.zeros(3, np.float32),
    )


def fixed(rows):
    return lambda states: np.array(rows, float)


def test_a_mixture_weighs_each_by_how_it_came_here():
    """The first comes to state 1 with 3/4, the second with 1/4: there the first counts three times."""
    one = fixed([[0.75, 0.25], [1.0, 0.0], [1.0, 0.0]])
    two = fixed([[0.25, 0.75], [0.0, 1.0], [0.0, 1.0]])
    expected = [[0.5, 0.5], [0.75, 0.25], [0.25, 0.75]]
    np.testing.assert_allclose(mixed([one, two])(two_decisions()), expected)
    # Averaging what they do, without how they came, would give 1/2 everywhere.


def test_where_nobody_comes_any_play_will_do():
    never = fixed([[1.0, 0.0], [0.5, 0.5], [0.3, 0.7]])
    np.testing.assert_allclose(mixed([never, never])(two_decisions()), never(None))


def test_a_mixture_of_one_with_itself_is_that_one():
    import pyspiel

    game = pyspiel.load_game("kuhn_poker")
    states = information_states(game)
    alone = exploitability(uniform, game, states).nash_conv
    assert abs(alone - 11 / 12) < 1e-9
    assert abs(exploitability(mixed([uniform, uniform]), game, states).nash_conv - alone) < 1e-12


def test_the_average_of_three_pure_strategies_is_the_equilibrium():
    import pyspiel

    game = pyspiel.load_game("matrix_rps")
    states = information_states(game)
    pure = [fixed(np.tile(np.eye(3)[k], (2, 1))) for k in range(3)]
    assert exploitability(pure[0], game, states).nash_conv == 2.0
    assert abs(exploitability(mixed(pure), game, states).nash_conv) < 1e-12
