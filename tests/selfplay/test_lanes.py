"""Lanes by hand: columns, cursors and what happens where matches end. Two games of one seat, T = 3."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.lanes import COMPLETE, FREE, PARTIAL, Lanes

ROWS = 2


def make(length=3, rows=ROWS):
    return Lanes(
        np.array([0]),
        rows,
        length,
        state_shape=(1, 2, 1),
        obs={"": np.zeros((rows, 1), np.float32)},
        mask={"": np.zeros((rows, 2), bool)},
        action={"": np.zeros(rows, np.int64)},
    )


def decide(lanes, *decisions, version=0):
    """decisions: (row, number, is_first); the number is obs, value, 10 * logp and 100 * state at once."""
    rows, number, first = (np.array(column) for column in zip(*decisions, strict=True))
    number = number.astype(np.float32)
    stored = np.full((1, 2, len(lanes.held), 1), np.nan, np.float32)
    stored[:, :, rows, 0] = 100 * number
    opened = lanes.open(rows.astype(np.int64), first.astype(bool), stored, version)
    legal = np.ones((len(rows), 2), bool)
    lanes.record(opened, {"": number[:, None]}, {"": legal}, {"": rows % 2}, number / 10, number)


def settle(lanes, reward=(0, 0), terminated=(0, 0), truncated=(0, 0), final=(0, 0)):
    lanes.settle(
        np.array(reward, np.float32)[:, None], np.array(terminated, bool)[:, None],
        np.array(truncated, bool)[:, None], np.array(final, np.float32),
    )  # fmt: skip


def test_a_lane_by_hand():
    lanes = make()
    decide(lanes, (0, 1, True), (1, 11, True))
    settle(lanes, (5, 0.5))
    settle(lanes, (7, 0.25))  # nobody acts, both are paid: it belongs to the decisions before
    decide(lanes, (0, 2, False))
    settle(lanes, (1, 0.125), truncated=(1, 0), final=(99, 98))
    decide(lanes, (0, 3, True), version=4)  # the next match takes on the column that was left
    settle(lanes, (2, 0), terminated=(1, 0), final=(97, 96))
    assert lanes.complete < 2
    decide(lanes, (1, 12, False))
    settle(lanes)
    decide(lanes, (1, 13, False))
    settle(lanes, (0, 8), truncated=(0, 1), final=(50, 60))
    assert lanes.complete == 2
    f = lanes.take(2)
    assert f.obs[""][:, :, 0].T.tolist() == [[1, 2, 3], [11, 12, 13]]
    assert f.value.T.tolist() == [[1, 2, 3], [11, 12, 13]]
    assert np.allclose(f.logp.T, [[0.1, 0.2, 0.3], [1.1, 1.2, 1.3]])
    assert f.action[""].T.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert f.reward.T.tolist() == [[12, 1, 2], [0.875, 0, 8]]
    assert f.is_first.T.tolist() == [[True, False, True], [True, False, False]]
    assert f.truncated.T.tolist() == [[False, True, False], [False, False, True]]
    assert f.terminated.T.tolist() == [[False, False, True], [False, False, False]]
    assert f.next_value.T.tolist() == [[2, 99, 0], [12, 13, 60]]
    assert f.version.T.tolist() == [[0, 0, 4], [0, 0, 0]]
    assert f.initial_state.tolist() == [[[[0], [0]], [[0], [0]]]]  # both lanes open with a match


def test_a_column_opens_with_the_state_of_its_own_row():
    # Rows 0 and 2 go on in their columns, rows 1 and 3 open new ones in mid-match.
    lanes = make(rows=4)
    for number in (1, 2, 3):
        decide(lanes, (1, 10 + number, number == 1), (3, 30 + number, number == 1))
        settle(lanes, reward=(0,) * 4, terminated=(0,) * 4, truncated=(0,) * 4, final=(0,) * 4)
    for number in (1, 2):
        decide(lanes, (0, number, number == 1), (2, 20 + number, number == 1))
    decide(lanes, (0, 3, False), (1, 14, False), (2, 23, False), (3, 34, False))
    columns = lanes.held[[1, 3]]
    assert lanes.initial_state[columns, 0, :, 0].tolist() == [[1400, 1400], [3400, 3400]]


def test_the_next_decision_closes_a_full_column():
    lanes = make()
    for number in (1, 2, 3):
        decide(lanes, (0, number, number == 1))
        settle(lanes, (number, 0))
    assert lanes.complete < 1  # the third decision's outcome is not known yet
    settle(lanes, (0.5, 0))
    decide(lanes, (0, 4, False))
    assert lanes.complete == 1
    f = lanes.take(1)
    assert f.reward.T.tolist() == [[1, 2, 3.5]]
    assert f.next_value.T.tolist() == [[2, 3, 4]]
    settle(lanes)
    for number in (5, 6):
        decide(lanes, (0, number, False))
        settle(lanes)
    settle(lanes, terminated=(1, 0))
    f = lanes.take(1)
    assert f.value.T.tolist() == [[4, 5, 6]]
    assert f.initial_state.ravel().tolist() == [400, 400]  # what entered decision 4
    assert f.next_value.T.tolist() == [[5, 6, 0]]


def test_termination_wins_over_truncation():
    lanes = make(length=1)
    decide(lanes, (0, 1, True))
    settle(lanes, terminated=(1, 0), truncated=(1, 0), final=(9, 9))
    f = lanes.take(1)
    assert (f.terminated.item(), f.truncated.item(), f.next_value.item()) == (True, False, 0)


def test_leaves_of_another_shape_are_refused():
    lanes = make()
    decided = {"": np.zeros((1, 1), np.float32)}, {"": np.ones((1, 2), bool)}, {"": np.zeros(1, np.int64)}
    number = np.zeros(1, np.float32)
    opened = lanes.open(np.array([0]), np.array([True]), np.zeros((1, 2, ROWS, 1), np.float32), 0)
    lanes.record(opened, *decided, number, number)
    for k, leaves in enumerate(decided):
        wide = {"": np.zeros((1, 3), leaves[""].dtype)}
        with pytest.raises(AssertionError):
            lanes.record(opened, *decided[:k], wide, *decided[k + 1 :], number, number)
    with pytest.raises(AssertionError):
        lanes.record(opened, *decided, number, number[:0])


def test_what_was_taken_is_a_copy():
    lanes = make(length=1)
    decide(lanes, (0, 1, True))
    settle(lanes, terminated=(1, 0))
    f = lanes.take(1)
    for number in range(2, 9):
        decide(lanes, (0, number, True), (1, number, True))
        settle(lanes, terminated=(1, 1))
        while lanes.complete >= 1:
            lanes.take(1)
    assert f.value.item() == f.obs[""].item() == 1


def test_clear_forgets_everything():
    lanes = make()
    decide(lanes, (0, 1, True), (1, 2, True))
    settle(lanes, terminated=(1, 0))
    lanes.clear()
    decide(lanes, (0, 3, True), (1, 4, True))
    settle(lanes, (1, 1))
    for number in (5, 6):
        decide(lanes, (1, number, False))
        settle(lanes)
    settle(lanes, terminated=(0, 1))
    assert lanes.take(1).value.T.tolist() == [[4, 5, 6]]


@settings(max_examples=60)
@given(st.data(), st.integers(1, 5), st.integers(1, 4))
def test_columns_are_never_lost_nor_used_twice(data, length, rows):
    """Whatever acts and ends: every column is in one place, and their number suffices for all sizes."""
    size = data.draw(st.integers(1, rows))
    lanes = make(length, rows)
    playing = np.zeros(rows, bool)
    flags = st.lists(st.booleans(), min_size=rows, max_size=rows)
    number, taken = 0, []
    for _ in range(data.draw(st.integers(1, 30))):
        acting = np.flatnonzero(data.draw(flags))
        if len(acting):
            decide(lanes, *((row, number + row, not playing[row]) for row in acting))
            playing[acting] = True
        ends = np.array(data.draw(flags)) & playing
        settle(lanes, np.zeros(rows), ends, np.zeros(rows), np.zeros(rows))
        playing &= ~ends
        number += rows
        while lanes.complete >= size:
            taken.append(lanes.take(size))
        held = lanes.held[lanes.held >= 0].tolist()
        waiting = [
            lanes.queue[kind, (lanes.head[kind] + k) % lanes.columns]
            for kind in (FREE, PARTIAL, COMPLETE)
            for k in range(lanes.count[kind])
        ]
        assert sorted([*held, *waiting]) == list(range(lanes.columns))
        assert len(held) + lanes.count[PARTIAL] <= rows
    values = [v for f in taken for v in f.value.ravel().tolist()]
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("fill", [0, 1, 2])
def test_state_and_set_state(fill):
    lanes, other = make(), make()
    for number in range(fill):
        decide(lanes, (0, number, number == 0), (1, 10 + number, number == 0))
        settle(lanes, (1, 1))
    decide(other, (0, 77, True), (1, 78, True))
    state = lanes.state()
    other.set_state(state)
    for both in (lanes, other):
        for number in range(fill, 3):
            decide(both, (0, number, number == 0), (1, 10 + number, number == 0))
            settle(both, (1, 1))
        settle(both, terminated=(1, 1))
    one, two = lanes.take(2), other.take(2)
    assert one.value.T.tolist() == two.value.T.tolist() == [[0, 1, 2], [10, 11, 12]]
    assert one.reward.tolist() == two.reward.tolist()


def test_columns_that_nobody_takes_are_missed_loudly():
    lanes = make(length=1)

    def play_on():
        for number in range(20):
            decide(lanes, (0, 2 * number, True), (1, 2 * number + 1, True))
            settle(lanes, terminated=(1, 1))

    with pytest.raises(AssertionError, match="taken more slowly"):
        play_on()
    assert lanes.take(2).value.tolist() == [[0, 1]]


def test_a_dropped_match_leaves_only_what_lies_in_complete_lanes():
    lanes = make()
    decide(lanes, (0, 1, True))
    settle(lanes, terminated=(1, 0))
    decide(lanes, (0, 2, True), (1, 11, True))  # row 0 in the column of the match before
    for number in (12, 13, 14):  # row 1 goes on in a second column, its state 1400
        settle(lanes)
        decide(lanes, (1, number, False))
    settle(lanes)
    lanes.drop(np.array([0, 1]))
    assert (lanes.held == -1).all()
    assert lanes.count.tolist() == [lanes.columns - 2, 1, 1]  # the second column is free again
    for number in (21, 22):
        decide(lanes, (0, number, number == 21), (1, number + 10, number == 21))
        settle(lanes, terminated=(number == 22, 0))
    decide(lanes, (1, 33, False))
    settle(lanes, terminated=(0, 1))
    f = lanes.take(2)
    assert f.obs[""][:, :, 0].T.tolist() == [[11, 12, 13], [1, 21, 22]]
    assert f.is_first.T.tolist() == [[True, False, False], [True, True, False]]
    last = lanes.queue[COMPLETE, lanes.head[COMPLETE]]
    assert lanes.obs[""][:, last, 0].tolist() == [31, 32, 33]
    assert not lanes.initial_state[last].any()
