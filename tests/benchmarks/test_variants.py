"""Two settings in turn."""

from benchmarks import variants


def test_turns_are_compared_with_those_around_them():
    assert variants.ratios([10.0, 30.0, 10.0], [40.0, 10.0]) == [2.0, 0.5]
