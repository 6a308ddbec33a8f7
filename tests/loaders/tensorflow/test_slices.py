"""The keys of parts, as TensorFlow 2.21 writes them, and what parts make together."""

import numpy as np
import pytest

from bncli.errors import CorruptFileError
from bncli.loaders import open_file
from bncli.loaders.pieces import Box
from bncli.loaders.tensorflow.slices import WHOLE, Extent, box_of, part_key

from .written import bundle, entry, header, masked, slice_proto, table

WRITTEN = {
    # By a partitioner over three shards, in one checkpoint each.
    ("part/bf", (0, 2)): b"\x00part/bf\x00\x01\x01\x01\x80\x82",
    ("part/bf", (4, 1)): b"\x00part/bf\x00\x01\x01\x01\x84\x81",
    ("part/w", (3, 2), (0, 5)): b"\x00part/w\x00\x01\x01\x02\x83\x82\x80\x85",
    ("part/long", (0, 100), (0, 2)): b"\x00part/long\x00\x01\x01\x02\x80\xc0d\x80\x82",
    ("part/long", (200, 100), (0, 2)): b"\x00part/long\x00\x01\x01\x02\xc0\xc8\xc0d\x80\x82",
}


@pytest.mark.parametrize(("part", "key"), WRITTEN.items())
def test_keys_are_those_that_tensorflow_writes(part, key):
    name, *extents = part
    assert part_key(name.encode(), [Extent(*each) for each in extents]) == key


@pytest.mark.parametrize(
    ("number", "encoded"),
    [
        (0, b"\x80"), (63, b"\xbf"), (64, b"\xc0\x40"), (-1, b"\x7f"), (-64, b"\x40"),
        (-65, b"\x3f\xbf"), (8191, b"\xdf\xff"), (8192, b"\xe0\x20\x00"),
        ((1 << 62) - 1, b"\xff\xbf" + b"\xff" * 7), (1 << 62, b"\xff\xc0\x40" + bytes(7)),
    ],
)  # fmt: skip
def test_numbers_sort_by_their_bytes(number, encoded):
    assert part_key(b"", [Extent(number, WHOLE)]) == b"\0\0\1\1\1" + encoded + b"\x7f"


def test_names_keep_their_end():
    assert part_key(b"a\0b\xff", []) == b"\0a\0\xffb\xff\0\0\1\0"


@pytest.mark.parametrize(
    ("extents", "box"),
    [
        ([(0, 2), (0, WHOLE)], Box((0, 0), (2, 3))),
        ([(4, 1), (1, 2)], Box((4, 1), (1, 2))),
        ([(4, 2), (0, 3)], None),
        ([(-1, 2), (0, 3)], None),
        ([(0, 1 << 62), (0, 3)], None),
        ([(3, -2), (0, 3)], None),
        ([(0, 2)], None),
    ],
)
def test_where_a_part_belongs(extents, box):
    assert box_of([Extent(*each) for each in extents], (5, 3)) == box


ARRAY = np.arange(15, dtype="f4").reshape(5, 3)
ROWS = [((0, 2), None), ((2, 2), None), ((4, 1), None)]


def parted(tmp_path, extents, arrays, shape=(5, 3), **changed):
    """A checkpoint of one tensor in parts."""
    data, entries = b"", {b"": header()}
    protos = [slice_proto(*each) for each in extents]
    entries[b"w"] = entry(1, shape, slices=protos)
    for each, array in zip(extents, arrays, strict=True):
        key = part_key(b"w", [Extent(*(part or (0, WHOLE))) for part in each])
        stored = array.tobytes()
        options = {"dtype": 1, "shape": array.shape, "offset": len(data)} | changed
        entries[key] = entry(size=len(stored), crc=masked(stored), **options)
        data += stored
    (tmp_path / "m.index").write_bytes(table(entries))
    (tmp_path / "m.data-00000-of-00001").write_bytes(data)
    return tmp_path / "m.index"


def test_parts_make_the_tensor(tmp_path):
    path = parted(tmp_path, ROWS, [ARRAY[:2], ARRAY[2:4], ARRAY[4:]])
    (ref,) = open_file(path).tensors.values()
    assert (ref.name, ref.shape, ref.dtype) == ("w", (5, 3), "float32")
    np.testing.assert_array_equal(ref.read(), ARRAY)


def test_parts_in_any_order_and_along_both_axes(tmp_path):
    extents = [((2, 3), (1, 2)), ((0, 2), None), ((2, 3), (0, 1))]
    path = parted(tmp_path, extents, [ARRAY[2:, 1:], ARRAY[:2], ARRAY[2:, :1]])
    np.testing.assert_array_equal(open_file(path).tensors["w"].read(), ARRAY)


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ((ROWS[:2], [ARRAY[:2], ARRAY[2:4]]), "have 12 of its 15 elements"),
        (([*ROWS, ROWS[0]], [ARRAY[:2], ARRAY[2:4], ARRAY[4:], ARRAY[:2]]), "overlap"),
        (([((0, 3), None), ((0, 2), None)], [ARRAY[:3], ARRAY[:2]]), "overlap"),
        ((ROWS, [ARRAY[:2], ARRAY[2:4], ARRAY[3:]]), "do not fit together"),
        (([((0, 9), None)], [ARRAY]), "do not fit together"),
    ],
)
def test_parts_that_do_not_fit(tmp_path, parts, problem):
    with pytest.raises(CorruptFileError, match=f"the parts of its tensor w {problem}"):
        open_file(parted(tmp_path, *parts))


def test_parts_whose_bytes_are_the_same_are_refused(tmp_path):
    """Each is there, but so a small file could hold a tensor of any size."""
    arrays = [ARRAY[:2], ARRAY[2:4], ARRAY[4:]]
    path = parted(tmp_path, ROWS, arrays, offset=0)
    with pytest.raises(CorruptFileError, match="of its tensor w lie over each other in the data"):
        open_file(path)


def test_a_part_of_another_dtype_or_without_an_entry(tmp_path):
    path = parted(tmp_path, ROWS, [ARRAY[:2], ARRAY[2:4], ARRAY[4:]], dtype=3)
    with pytest.raises(CorruptFileError, match="do not fit together"):
        open_file(path)
    path.write_bytes(table({b"": header(), b"w": entry(1, (5, 3), slices=[slice_proto((0, 5))])}))
    with pytest.raises(CorruptFileError, match="do not fit together"):
        open_file(path)


def test_the_keys_of_parts_are_no_tensors(tmp_path):
    path = parted(tmp_path, ROWS, [ARRAY[:2], ARRAY[2:4], ARRAY[4:]])
    assert list(open_file(path).tensors) == ["w"]
    assert list(bundle({"x": ARRAY})) == ["model.index", "model.data-00000-of-00001"]
