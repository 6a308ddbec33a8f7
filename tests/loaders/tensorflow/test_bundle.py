"""Tensors of a checkpoint: their dtypes, bytes and checksums, and entries that ask for too much."""

import numpy as np
import pytest

from bncli.errors import CorruptFileError, TensorError, UnsupportedFileError
from bncli.files.reading import reading
from bncli.loaders import open_file
from tests.loaders.files import assert_same, variables

from .written import bundle, entry, header, table, varint


def put(folder, files):
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder / "model.index"


def index(folder, *entries, head=None):
    named = {f"t{number}".encode(): each for number, each in enumerate(entries)}
    return put(folder, {"model.index": table({b"": head or header()} | named),
                        "model.data-00000-of-00001": bytes(64)})  # fmt: skip


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("shards", [1, 3])
def test_every_dtype_comes_back_with_every_bit(tmp_path, byteorder, shards):
    path = put(tmp_path, bundle(variables(), byteorder=byteorder, shards=shards))
    assert_same(open_file(path).tensors, variables())


def test_tensors_come_in_the_order_of_their_bytes(tmp_path):
    path = put(tmp_path, bundle({"z": np.ones(2, "f4"), "a": np.ones(3, "f4")}))
    assert list(open_file(path).tensors) == ["z", "a"]


@pytest.mark.parametrize("count", [3, 5000])
def test_a_changed_byte_of_a_tensor_is_seen_when_it_is_read(tmp_path, count):
    values = np.arange(count, dtype="f4")
    files = bundle({"x": values})
    data = bytearray(files["model.data-00000-of-00001"])
    data[-1] ^= 1
    path = put(tmp_path, files | {"model.data-00000-of-00001": data})
    file = open_file(path)
    with pytest.raises(CorruptFileError, match="its tensor x does not match its checksum"):
        file.tensors["x"].read()
    with reading(checksum=False):
        assert open_file(path).tensors["x"].read()[0] == 0


def test_tensors_without_checksums_are_read(tmp_path):
    path = put(tmp_path, bundle({"x": np.arange(3, dtype="f4")}, checksums=False))
    assert open_file(path).tensors["x"].read()[2] == 2


@pytest.mark.parametrize(
    ("number", "said"), [(11, "qint8"), (29, "int4"), (20, "resource"), (99, "of number 99")]
)
def test_other_dtypes_are_listed_and_not_read(tmp_path, number, said):
    ref = open_file(index(tmp_path, entry(number, (3,), 0, 3))).tensors["t0"]
    with pytest.raises(TensorError, match=f"the dtype {said} is not read"):
        ref.read()


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        (entry(1, (1 << 31, 1 << 31), 0, 4), "has an impossible shape"),
        (entry(1, (1 << 40,), 0, 4), "of 1099511627776 elements cannot take 4 bytes"),
        (entry(1, (16,), 4, 64), "ends at byte 64 but should reach byte 68"),
        (entry(1, (2,), (1 << 64) - 4, 8), "should reach byte"),
        (entry(1, (2,), 0, (1 << 64) - 1), "should reach byte"),
        (entry(1, (2,), 0, 8, shard=1), "the index of the TensorFlow checkpoint is damaged"),
        (entry(1, (-2 & (1 << 64) - 1,), 0, 8), "the index of the TensorFlow checkpoint is dam"),
        (b"\x12\xff\xff\x03", "its protobuf messages are damaged"),
        (b"\x3b", "its protobuf messages are damaged"),
    ],
)
def test_entries_that_ask_for_too_much(tmp_path, asked, match):
    with pytest.raises(CorruptFileError, match=match):
        open_file(index(tmp_path, asked))


@pytest.mark.parametrize("shards", [0, 1 << 40])
def test_an_impossible_number_of_data_files(tmp_path, shards):
    with pytest.raises(CorruptFileError, match="the index of the TensorFlow checkpoint is dam"):
        open_file(index(tmp_path, head=header(shards)))


def test_many_axes_are_listed_and_not_read(tmp_path):
    ref = open_file(index(tmp_path, entry(1, (1,) * 70, 0, 4))).tensors["t0"]
    assert ref.unreadable == "it has 70 axes"


def test_unknown_fields_are_passed_over(tmp_path):
    asked = entry(1, (2,), 0, 8) + varint(100 << 3 | 2) + varint(3) + b"abc"
    assert open_file(index(tmp_path, asked)).tensors["t0"].shape == (2,)


def test_keys_that_repeat_each_other_are_bounded(tmp_path, monkeypatch):
    """The index stores what a key shares with the one before once."""
    monkeypatch.setattr("bncli.loaders.names.MOST_TEXT", 100_000)
    names = [b"x" * 4000 + b"%d" % at for at in range(100, 200)]
    entries = {b"": header()} | {name: entry(1, (0,)) for name in names}
    files = {"model.index": table(entries), "model.data-00000-of-00001": b""}
    assert len(files["model.index"]) < 60_000
    path = put(tmp_path, files)
    with pytest.raises(UnsupportedFileError, match="the names of its tensors take more than"):
        open_file(path)
