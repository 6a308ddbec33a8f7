"""The list of arrays, in every version of its layout."""

import os
import struct

import numpy as np
import pytest

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.files.file_bytes import FileBytes
from bncli.loaders import open_file
from bncli.loaders.mxnet import arrays
from tests.loaders import memory
from tests.loaders.files import assert_same
from tests.loaders.mxnet_files import (
    FLAGS,
    V1,
    V2,
    V3,
    dense,
    listed,
    model,
    nothing,
    row_sparse,
    saved,
    shaped,
)


@pytest.fixture
def opened(tmp_path):
    def open_(data):
        path = tmp_path / "x.params"
        path.write_bytes(data)
        return open_file(path)

    return open_


ARRAYS = {name: np.arange(6).reshape(2, 3).astype(name) for name in FLAGS if name != "bfloat16"} | {
    "arg:vector": np.arange(5, dtype="f4"),
    "one": np.ones((1, 1, 1, 1), "f4"),
}


@pytest.mark.parametrize("version", [0, V1, V2, V3])
def test_every_version_and_dtype(version, opened):
    file = opened(saved(ARRAYS, version))
    assert list(file.tensors) == list(ARRAYS)
    assert_same(file.tensors, ARRAYS)
    assert all(isinstance(ref.storage, FileBytes) for ref in file.tensors.values())


def test_bfloat16_scalars_and_arrays_without_names(opened):
    raw = np.array([0x3F80, 0x4000], "u2")
    arrays = [dense(raw, dtype="bfloat16"), dense(np.array(2.5), V3), dense(np.ones(0, "f4"))]
    file = opened(listed(arrays, []))
    assert file.tensors["0"].read().tolist() == [1, 2]
    assert file.tensors["1"].read() == 2.5
    assert file.tensors["2"].shape == (0,)


def test_sparse_arrays_and_those_without_values_are_passed(opened):
    sparse = row_sparse((9, 2), [1, 4], np.ones((2, 2), "f4"))
    file = opened(listed([sparse, nothing(), dense(np.ones(2))], ["a", "b", "c"]))
    assert file.tensors["a"].unreadable == "it is sparse"
    assert file.tensors["a"].shape == (9, 2)
    assert file.skipped == {"b": "it has no values"}
    assert file.tensors["c"].read().tolist() == [1, 1]


ONE = dense(np.ones(2, "f4"))


def head(count, names=b"\0" * 8):
    return struct.pack("<3Q", 0x112, 0, count) + names


HOSTILE = {
    "cut": saved(ARRAYS)[:-1],
    "rest": saved(ARRAYS) + b"x",
    "count": head(1 << 60),
    "too few": head(5),
    "names": listed([ONE], ["a", "b"]),
    "twice": listed([ONE, ONE], ["a", "a"]),
    "axes": head(1, struct.pack("<I", 999) + bytes(4000)),
    "negative": head(1, struct.pack("<2I", V2, 0) + shaped((-1, -2)) + bytes(40)),
    "huge": head(1, struct.pack("<2I", V2, 0) + shaped((1 << 40, 1 << 40)) + bytes(40)),
    "large": head(1, struct.pack("<2I", V2, 0) + shaped((1 << 30,)) + bytes(40)),
    "kind": head(1, struct.pack("<2I", V2, 7) + bytes(40)),
    "name": listed([ONE], ["a"])[:-9] + struct.pack("<Q", 5000) + bytes(5000),
    "text": listed([ONE], ["a"])[:-1] + b"\xff",
    "nothing": head(0)[:-8],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_damaged_says_so(kind, opened):
    with pytest.raises(CorruptFileError, match="it is damaged or cut short, so download or save"):
        opened(HOSTILE[kind])


def test_a_dtype_that_is_not_known(opened):
    data = bytearray(saved({"a": np.ones(2, "f4")}))
    data[24 + 8 + 12 + 8] = 77
    with pytest.raises(UnsupportedFileError, match="one of its arrays has the dtype 77 of MXNet"):
        opened(bytes(data))


def test_large_arrays_stay_in_the_file(tmp_path):
    path = tmp_path / "x.params"
    nbytes = 3 << 30
    with path.open("wb") as file:
        file.write(head(1, struct.pack("<2I", V2, 0) + shaped((nbytes // 4,))))
        file.write(struct.pack("<2iI", 1, 0, 0))
        file.seek(nbytes, os.SEEK_CUR)
        file.write(struct.pack("<2Q", 1, 1) + b"a")
    before = memory.mark()
    assert open_file(path).tensors["a"].shape == (nbytes // 4,)
    assert memory.grown(before) < 20_000


def test_more_arrays_than_are_read_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.params"
    path.write_bytes(saved(model()))
    monkeypatch.setattr(arrays, "MOST_ARRAYS", 9)
    with pytest.raises(UnsupportedFileError, match="it holds 10 arrays, and at most 9 are read"):
        open_file(path)
