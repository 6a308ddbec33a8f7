"""A tensor that has a place in a file: read whole and by blocks, against NumPy's own views."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bncli.errors import CorruptFileError, TensorError
from bncli.files.file_bytes import Checksum, FileBytes
from bncli.model import BatchNormModule, StoredFront, StoredLayer, TensorFile, TensorRef

FLAT = np.arange(60, dtype=np.float32)


def view_of(path, shape, strides, offset=0, byteorder="little"):
    """A tensor in a file of 60 numbers, and the same view of them."""
    order = "<" if byteorder == "little" else ">"
    path.write_bytes(FLAT.astype(f"{order}f4").tobytes())
    where = FileBytes(path, 4 * offset, FLAT.nbytes - 4 * offset, byteorder)
    expected = np.lib.stride_tricks.as_strided(
        FLAT[offset:], shape, [4 * step for step in strides], writeable=False
    )
    return TensorRef("x", path, shape, "float32", strides, where), expected


def unpacked(ref):
    """The same tensor, whose values a function gives."""
    return replace(ref, storage=lambda: FLAT[ref.storage.offset // 4 :], origin=(7, 0))


VIEWS = [
    ((3, 4, 5), (20, 5, 1), 0),
    ((5, 4, 3), (1, 5, 20), 0),
    ((3, 4), (10, 2), 7),
    ((4, 3), (0, 1), 5),
    ((1, 6), (999, 3), 2),
    ((2, 0, 3), (3, 3, 1), 0),
    ((), (), 9),
]


@pytest.mark.parametrize(("shape", "strides", "offset"), VIEWS, ids=str)
@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_the_values_are_those_of_the_view(tmp_path, shape, strides, offset, byteorder):
    ref, expected = view_of(tmp_path / "x", shape, strides, offset, byteorder)
    assert np.array_equal(ref.read(), expected)
    assert ref.read().dtype == np.dtype("=f4")
    assert np.array_equal(ref.stored(), expected)
    assert (ref.ndim, ref.numel) == (expected.ndim, expected.size)
    if byteorder == "little":
        assert np.array_equal(unpacked(ref).read(), expected)


@pytest.mark.parametrize("block", [(), (slice(1, 3),), (slice(0, 2), slice(1, 1)),
                                   (slice(2, 3), slice(1, 4), slice(0, 5))], ids=str)  # fmt: skip
def test_a_block_is_that_of_the_view(tmp_path, block):
    ref, expected = view_of(tmp_path / "x", (3, 4, 5), (20, 5, 1))
    for each in (ref, unpacked(ref)):
        with ExitStack() as stack:
            read = each.block_reader(stack)
            assert np.array_equal(read(block), expected[block])
            assert np.array_equal(read(()), expected)
        assert np.array_equal(each.stored(block), expected[block])


@pytest.mark.parametrize(("shape", "strides", "offset"), VIEWS, ids=str)
@pytest.mark.parametrize("steps", [(1, 1, 1), (2, 1, 3), (3, 2, 1)])
@pytest.mark.parametrize("start", [0, 1])
def test_a_part_is_a_tensor_of_its_own(tmp_path, shape, strides, offset, steps, start):
    ref, expected = view_of(tmp_path / "x", shape, strides, offset)
    block = tuple(slice(start, None, step) for step in steps[: len(shape)])
    for each in (ref, unpacked(ref)):
        part = each.part(block)
        assert part.shape == expected[block].shape
        assert np.array_equal(part.read(), expected[block])
        assert each.part(()).place == each.place
        if part.numel and start and len(shape) > 1:
            assert part.place != each.place


def test_a_part_is_not_held_against_the_checksum_of_much_more(tmp_path):
    values = np.arange(1 << 19, dtype=np.float32)
    path = tmp_path / "x"
    path.write_bytes(values.tobytes())
    wrong = Checksum("x", 0, values.nbytes, 1)
    place = FileBytes(path, 0, values.nbytes, checksum=wrong)
    ref = TensorRef("x", path, values.shape, "float32", (1,), place)
    assert np.array_equal(ref.part((slice(5, None, 9999),)).read(), values[5::9999])
    for whole in (ref, ref.part((slice(1, None),))):
        with pytest.raises(CorruptFileError, match="does not match its checksum"):
            whole.read()
    small = replace(ref, storage=replace(place, checksum=Checksum("x", 0, 4000, 1)))
    with pytest.raises(CorruptFileError, match="does not match its checksum"):
        small.part((slice(5, 9),)).read()


def test_a_part_of_what_has_no_values_has_none():
    ref = TensorRef("x", Path("net.pt"), (9, 2), "float32", (2, 1), None, "it is sparse")
    assert ref.part((slice(0, None, 2),)).shape == (5, 2)
    assert ref.part((slice(0, None, 2),)).storage is None


def test_what_has_no_values_says_why():
    ref = TensorRef("x", Path("net.pt"), (2,), "float32", (1,), None, "it is sparse")
    with pytest.raises(TensorError, match=r"^net\.pt::x: its values cannot be read \(it is sparse"):
        ref.read()
    assert ref.place is None


def test_a_label_is_what_a_user_would_type():
    ref = TensorRef("a\nb", Path("net.pt"), (), "float32", (), None)
    assert "\n" not in ref.label
    assert ref.label.startswith("net.pt::a")
    assert replace(ref, name="").label == "net.pt"


def test_one_place_is_the_same_bytes_read_alike(tmp_path):
    """Strides count, and not the shape alone: a matrix and its transpose are two tensors."""
    ref, _ = view_of(tmp_path / "x", (4, 4), (4, 1))
    same = replace(ref, name="another name")
    assert ref.place == same.place is not None
    assert hash(ref.place) == hash(same.place)
    others = [
        replace(ref, strides=(1, 4)),
        replace(ref, shape=(2, 8), strides=(8, 1)),
        replace(ref, dtype="int32"),
        replace(ref, path=tmp_path / "y"),
        replace(ref, storage=replace(ref.storage, offset=4)),
    ]
    assert len({other.place for other in others} | {ref.place}) == 6
    lone = replace(ref, shape=(1, 4), strides=(4, 1))
    assert lone.place == replace(lone, strides=(77, 1)).place
    assert replace(ref, shape=(0, 4)).place is None
    assert unpacked(ref).place == unpacked(same).place != ref.place
    assert replace(unpacked(ref), origin=None).place is None
    assert replace(unpacked(ref), origin=(7, 4)).place != unpacked(ref).place


def test_a_file_under_a_prefix_has_it_before_every_name():
    def ref(name):
        return TensorRef(name, Path("x"), (1,), "float32", (1,), None, "it is empty")

    front = StoredFront("conv", "conv.weight", "conv.bias", 0)
    layer = StoredLayer({"running_mean": "mean"}, front)
    module = BatchNormModule("BatchNorm")
    refs = {name: ref(name) for name in ("", "mean", "conv.weight", "conv.bias")}
    file = TensorFile(Path("x"), "c", refs, {"bn": module}, {"s": "why"}, {"bn": layer}, "clause")
    assert file.under("") == file
    inside = file.under("a")
    assert list(inside.tensors) == ["a", "a.mean", "a.conv.weight", "a.conv.bias"]
    assert all(each.name == name for name, each in inside.tensors.items())
    front = StoredFront("a.conv", "a.conv.weight", "a.conv.bias", 0)
    assert inside.layers == {"a.bn": StoredLayer({"running_mean": "a.mean"}, front)}
    assert (inside.modules, inside.skipped) == ({"a.bn": module}, {"a.s": "why"})
    both = file.joined(inside)
    assert list(both.tensors) == [*file.tensors, *inside.tensors]
    assert list(both.layers) == ["bn", "a.bn"]
    assert both.without_layers == "clause"


def test_the_files_of_an_archive_have_what_is_theirs():
    """The longest of the names before a tensor's tells its file; what is none's is the first's."""
    names = ("a.x", "a.b.y", "a.b.c.z", "other")
    file = TensorFile(Path("x"), "x", dict.fromkeys(names), members=("a", "a.b"))
    assert [list(part.tensors) for part in file.apart()] == [["a.x", "other"], ["a.b.y", "a.b.c.z"]]
    assert [part.members for part in file.apart()] == [(), ()]
    alone = TensorFile(Path("x"), "x", dict.fromkeys(names), members=("a",))
    assert alone.apart() == [alone]
