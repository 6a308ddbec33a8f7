import pytest

from bncli.loaders import torch_chunks
from bncli.loaders.torch_chunks import Box, check_tiling


@pytest.mark.parametrize(
    ("boxes", "problem"),
    [
        ([((0, 0), (2, 3)), ((2, 0), (2, 3))], ""),
        ([((0, 0), (2, 3)), ((1, 0), (2, 3))], "overlap"),
        ([((0, 0), (4, 2)), ((0, 1), (4, 1))], "overlap"),
        ([((0, 0), (2, 3))], "have 6 of its 12 elements"),
        ([((0, 0), (5, 3))], "reach outside of it"),
        ([((0,), (4,))], "have other axes than itself"),
        ([], "have 0 of its 12 elements"),
    ],
)
def test_pieces_that_are_a_tensor_and_those_that_are_not(boxes, problem):
    assert check_tiling((4, 3), [Box(*box) for box in boxes]) == problem


def test_numbers_and_tensors_without_elements():
    assert check_tiling((), [Box((), ())]) == ""
    assert check_tiling((), [Box((), ()), Box((), ())]) == "overlap"
    assert check_tiling((0, 3), []) == ""
    assert check_tiling((0, 3), [Box((0, 0), (0, 3))]) == ""


def test_pieces_side_by_side_cost_little_and_columns_are_bounded(monkeypatch):
    monkeypatch.setattr(torch_chunks, "MOST_COMPARED", 2000)
    rows = [Box((at, 0), (1, 1000)) for at in range(1000)]
    assert check_tiling((1000, 1000), rows) == ""
    columns = [Box((0, at), (1000, 1)) for at in range(1000)]
    assert "too many" in check_tiling((1000, 1000), columns)
