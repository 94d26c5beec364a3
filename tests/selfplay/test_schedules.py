"""Schedules against hand-worked numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.schedules import linear


@pytest.mark.parametrize(
    ("progress", "expected"),
    [(-0.5, 5e-4), (0.0, 5e-4), (0.25, 3.875e-4), (0.5, 2.75e-4), (1.0, 5e-5), (3.0, 5e-5)],
)
def test_linear_hand_worked(progress, expected):
    # From 5e-4 to 5e-5 is a fall of 4.5e-4; a quarter of it is 1.125e-4, half of it 2.25e-4.
    assert linear(5e-4, 5e-5, progress) == pytest.approx(expected, rel=1e-12)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_linear_is_exact_at_and_beyond_its_ends(first, final):
    assert linear(first, final, 0.0) == linear(first, final, -2.0) == first
    assert linear(first, final, 1.0) == linear(first, final, 7.0) == final


@given(st.floats(-1e6, 1e6), st.floats(-1, 2))
def test_linear_from_a_number_to_itself_is_constant(number, progress):
    assert linear(number, number, progress) == number
