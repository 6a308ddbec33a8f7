"""The bytes of a tensor in its file, and the other tensors that take some of them."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncli.dtypes import DTYPES
from bncli.files.file_bytes import FileBytes
from bncli.loaders.patches import views
from bncli.model import TensorRef

PATH = Path("net.pth")
STORAGE = 96
"""Bytes of the storage that the tensors here are views of."""


def view(shape, strides, *, at=0, dtype="float32", name="x", byteorder="little", path=PATH):
    """A tensor whose first element is at that byte of a file."""
    steps = ((size - 1) * step for size, step in zip(shape, strides, strict=True))
    nbytes = (1 + sum(steps)) * DTYPES[dtype].itemsize if 0 not in shape else 0
    return TensorRef(name, path, shape, dtype, strides, FileBytes(path, at, nbytes, byteorder))


def taken(ref):
    """The bytes of the file that a tensor takes, one by one, in C order of its elements."""
    size, found = DTYPES[ref.dtype].itemsize, []
    for index in np.ndindex(ref.shape):
        element = sum(i * step for i, step in zip(index, ref.strides, strict=True))
        found += range(
            ref.storage.offset + size * element, ref.storage.offset + size * (element + 1)
        )
    return found


@st.composite
def refs(draw, name="x"):
    """Any view of a small storage, also with an axis that repeats and with overlapping rows."""
    dtype = draw(st.sampled_from(["float32", "float16", "uint8", "int64"]))
    shape = tuple(draw(st.lists(st.integers(1, 3), max_size=3)))
    strides = tuple(draw(st.integers(0, 5)) for _ in shape)
    ref = view(shape, strides, dtype=dtype, name=name)
    room = STORAGE - ref.storage.nbytes
    if room < 0:
        return view((2,), (3,), dtype="float16", name=name)
    return view(shape, strides, at=draw(st.integers(0, room)), dtype=dtype, name=name)


@given(refs())
def test_a_view_repeats_exactly_where_a_byte_is_taken_twice(ref):
    bytes_ = taken(ref)
    assert views.repeats(ref) is (len(set(bytes_)) < len(bytes_))


@given(refs(), st.sampled_from(["little", "big"]))
def test_the_edits_are_the_bytes_of_the_elements(ref, byteorder):
    if views.repeats(ref):
        return
    ref = view(ref.shape, ref.strides, at=ref.storage.offset, dtype=ref.dtype, byteorder=byteorder)
    order = "<" if byteorder == "little" else ">"
    stored = np.arange(1, ref.numel + 1).astype(DTYPES[ref.dtype].stored).reshape(ref.shape)
    edits = views.edits_of_tensor(ref, ref.storage, stored)
    new = bytearray(STORAGE)
    for edit in edits:
        new[edit.offset : edit.end] = edit.data
    steps = tuple(step * stored.itemsize for step in ref.strides)
    dtype = stored.dtype.newbyteorder(order)
    assert np.array_equal(np.ndarray(ref.shape, dtype, new, ref.storage.offset, steps), stored)
    # Each edit is a whole run, in order, and nothing between them is touched.
    assert all(one.end < two.offset for one, two in pairwise(edits))
    assert sorted(taken(ref)) == [i for edit in edits for i in range(edit.offset, edit.end)]


def interlocked(ref):
    """Whether a step along an axis is shorter than what the axes with shorter steps reach over."""
    reach = 1
    for step, size in sorted(zip(ref.strides, ref.shape, strict=True)):
        if size > 1 and 0 < step < reach:
            return True
        reach += step * (size - 1)
    return False


@given(refs("target"), refs("other"))
def test_tensors_share_bytes_exactly_where_they_do(target, other):
    if views.repeats(target):
        return
    found = [*views.shared([target, other], [target])]
    common = set(taken(target)) & set(taken(other))
    if target.place == other.place or not common:
        # A view whose own axes interlock is taken for all of its span.
        assert not found or (interlocked(other) and target.place != other.place)
    else:
        assert found == [(target, other)]


@given(st.lists(refs(), min_size=1, max_size=8), st.integers(1, 4))
def test_each_tensor_that_meets_one_of_many_is_found(tensors, count):
    targets = [ref for ref in tensors[:count] if not views.repeats(ref)]
    places = {ref.place for ref in targets}
    found = [*views.shared(tensors, targets)]
    for one, two in found:
        assert one.place in places
        assert one.place != two.place
        assert set(taken(one)) & set(taken(two)) or interlocked(two)
    for ref in tensors:
        meets = [
            one for one in targets if one.place != ref.place and set(taken(one)) & set(taken(ref))
        ]
        if ref.place not in places:
            assert not meets or any(two is ref for _, two in found)
        else:
            assert not meets or any(two.place in places for _, two in found)


def test_another_file_shares_nothing():
    one, two = view((4,), (1,)), view((4,), (1,), name="y", path=Path("other.pth"))
    assert not [*views.shared([one, two], [one])]


def test_columns_of_one_matrix_do_not_meet():
    columns = [view((50,), (40,), at=4 * i, name=str(i)) for i in range(40)]
    assert not [*views.shared(columns, [columns[7], columns[8]])]
    whole = view((50, 40), (40, 1), name="whole")
    assert [*views.shared([*columns, whole], [columns[7]])] == [(columns[7], whole)]


def test_blocks_side_by_side_do_not_meet():
    left, right = view((6, 3), (5, 1), name="left"), view((6, 2), (5, 1), at=12, name="right")
    assert not [*views.shared([left, right], [left])]
    assert not [*views.shared([left, right], [right])]
    wider = view((6, 4), (5, 1), name="wider")
    assert [*views.shared([wider], [right])] == [(right, wider)]


def test_tensors_without_elements_take_nothing():
    empty = view((0,), (1,), at=4, name="empty")
    assert views.placed(empty) is None
    target = view((4,), (1,))
    assert not [*views.shared([target, empty], [target, empty])]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_dense_tensor_is_one_edit(dtype):
    ref = view((3, 4), (1, 3), at=10, dtype=dtype)  # as a transposed one
    (edit,) = views.edits_of_tensor(ref, ref.storage, np.arange(12.0, dtype=dtype).reshape(3, 4))
    assert edit.offset == 10
    assert np.frombuffer(edit.data, dtype).tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
