"""Pieces of a tensor: whether they are all of it, and what they make together."""

from pathlib import Path

import numpy as np
import pytest

from bncli.errors import CorruptFileError, FileError
from bncli.loaders import pieces
from bncli.loaders.pieces import Box, assembled, check_tiling
from bncli.model import TensorRef


@pytest.mark.parametrize(
    ("boxes", "problem"),
    [
        ([((0, 0), (2, 3)), ((2, 0), (2, 3))], ""),
        ([((0, 0), (2, 3)), ((1, 0), (2, 3))], "overlap"),
        ([((0, 0), (4, 2)), ((0, 1), (4, 1))], "overlap"),
        ([((0, 0), (2, 3))], "have 6 of its 12 elements"),
        ([((0, 0), (5, 3))], "reach outside of it"),
        ([((0,), (4,))], "have other axes than the tensor"),
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
    monkeypatch.setattr(pieces, "MOST_COMPARED", 2000)
    rows = [Box((at, 0), (1, 1000)) for at in range(1000)]
    assert check_tiling((1000, 1000), rows) == ""
    columns = [Box((0, at), (1000, 1)) for at in range(1000)]
    assert "too many" in check_tiling((1000, 1000), columns)


def ref(array, **changed):
    strides = tuple(step // array.itemsize for step in array.strides)
    given = {"storage": array.reshape(-1).copy, "unreadable": ""} | changed
    return TensorRef("w", Path("file"), array.shape, array.dtype.name, strides, **given)


ARRAY = np.arange(12, dtype="f4").reshape(4, 3)


def test_pieces_make_the_tensor():
    parts = [(Box((2, 1), (2, 2)), np.ascontiguousarray(ARRAY[2:, 1:])),
             (Box((0, 0), (2, 3)), ARRAY[:2]),
             (Box((2, 0), (2, 1)), np.ascontiguousarray(ARRAY[2:, :1]))]  # fmt: skip
    got = assembled(ref(ARRAY), ((box, ref(part)) for box, part in parts))
    np.testing.assert_array_equal(got.reshape(4, 3), ARRAY)


def test_a_piece_that_cannot_be_read_makes_the_tensor_damaged():
    part = ref(ARRAY, storage=None, unreadable="it is away")
    with pytest.raises(CorruptFileError, match="a piece of a tensor cannot be read"):
        assembled(ref(ARRAY), [(Box((0, 0), (4, 3)), part)])


def test_a_tensor_that_does_not_fit_into_memory():
    whole = TensorRef("w", Path("file"), (1 << 30, 1 << 30), "float32", (1 << 30, 1), None)
    with pytest.raises(FileError, match="not enough memory to read it"):
        assembled(whole, [])
