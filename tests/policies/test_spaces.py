"""Spaces as trees of leaves, and previous actions as observations."""

import numpy as np
import pytest
from gymnasium import spaces

from policies.spaces import describe, leaves, previous_rows, previous_space

ACTION = spaces.Dict(
    {
        "kind": spaces.Discrete(3, start=-1),
        "pair": spaces.Tuple((spaces.MultiDiscrete([2, 4], start=[0, 5]), spaces.MultiBinary(3))),
        "aim": spaces.Box(np.float32([1, -2]), np.float32([3, 2])),
    }
)


def test_leaves_by_path():
    assert leaves(spaces.Discrete(2)) == {"": spaces.Discrete(2)}
    assert list(leaves(ACTION)) == ["aim", "kind", "pair/0", "pair/1"]
    assert list(leaves(ACTION, "@action")) == [
        "@action/aim",
        "@action/kind",
        "@action/pair/0",
        "@action/pair/1",
    ]
    assert list(leaves(spaces.Discrete(2), "@action")) == ["@action"]


def test_previous_spaces():
    found = leaves(previous_space(ACTION))
    assert found["kind"] == spaces.Discrete(4)
    assert found["pair/0"] == spaces.MultiDiscrete([3, 5])
    assert found["pair/1"] == spaces.MultiBinary(3)
    # Zeros, "none yet", belong to the space too.
    assert found["aim"] == spaces.Box(np.float32([0, -2]), np.float32([3, 2]))
    assert leaves(previous_space(spaces.Discrete(7))) == {"": spaces.Discrete(8)}


def test_previous_rows():
    action = {
        "kind": np.array([-1, 1]),
        "pair/0": np.array([[0, 5], [1, 8]]),
        "pair/1": np.array([[0, 1, 1], [1, 0, 0]], np.int8),
        "aim": np.array([[1.5, -2], [3, 0]], np.float32),
    }
    rows = previous_rows(ACTION, action)
    assert rows["kind"].tolist() == [1, 3]
    assert rows["pair/0"].tolist() == [[1, 1], [2, 4]]
    assert rows["pair/1"].tolist() == action["pair/1"].tolist()
    assert rows["aim"].tolist() == action["aim"].tolist()


def test_previous_rows_and_none_lie_in_their_space():
    ACTION.seed(3)
    kinds = leaves(previous_space(ACTION))
    for _ in range(30):
        sample = ACTION.sample()
        action = {
            "kind": sample["kind"],
            "pair/0": sample["pair"][0],
            "pair/1": sample["pair"][1],
            "aim": sample["aim"],
        }
        rows = previous_rows(ACTION, {path: np.asarray(leaf)[None] for path, leaf in action.items()})
        for path, row in rows.items():
            assert kinds[path].contains(row[0]), (path, row)
            assert row.dtype == kinds[path].dtype
            assert (row != 0).any() or path in ("pair/1", "aim")
    for kind in kinds.values():
        assert kind.contains(np.zeros(kind.shape, kind.dtype)[()])


def test_spaces_without_previous_actions_are_refused_in_one_line():
    with pytest.raises(ValueError, match="no previous action for Text; allowed: Discrete") as error:
        previous_space(spaces.Dict({"a": spaces.Text(4)}))
    assert "\n" not in str(error.value)


def test_descriptions_fit_one_line():
    low = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    assert describe("a/b", spaces.Box(low, low + 1)) == " 'a/b' Box[40, 3] of float32"
    assert describe("", spaces.Discrete(3)) == " Discrete"
    assert describe("x", spaces.Graph(spaces.Discrete(2), None)) == " 'x' Graph"
