"""When a quantity passes."""

import pytest

from bncli.model import Closeness


@pytest.mark.parametrize(
    ("mismatched", "total", "passed"), [(0, 3, True), (1, 3, False), (0, 0, False), (0, 1, True)]
)
def test_all_within_tolerance_and_at_least_one(mismatched, total, passed):
    numbers = [0.0, 0.0, (), 0.0, 0.0, mismatched, total, 0.0, 0.0, 0.0, 0.0]
    assert Closeness("mean", *numbers).passed is passed
