"""Datasets in chunks: put together from what is stored, within bounds."""

import zlib

import h5py
import numpy as np
import pytest

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.loaders import open_file
from bncli.loaders.hdf5 import chunks

VALUES = np.random.default_rng(0).standard_normal((23, 7)).astype(">f4")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.h5"


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (5, 3)},
        {"chunks": (23, 7), "compression": "gzip"},
        {"chunks": (4, 7), "compression": "gzip", "shuffle": True},
        {"chunks": (4, 2), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": (10, 10), "maxshape": (None, None), "fletcher32": True},
    ],
)
def test_chunks_are_put_together(path, libver, options):
    with h5py.File(path, "w", libver=libver) as file:
        file.create_dataset("a", data=VALUES, **options)
    assert np.array_equal(open_file(path).tensors["a"].read(), VALUES)


def test_a_chunk_that_was_never_written_has_the_fill_value(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (40,), "f4", chunks=(10,), fillvalue=3)[12:14] = 1
    assert open_file(path).tensors["a"].read().tolist() == [3.0] * 12 + [1.0] * 2 + [3.0] * 26


def test_a_chunk_that_was_stored_as_it_is_is_not_inflated(path):
    with h5py.File(path, "w") as file:
        made = file.create_dataset("a", (8,), "f4", chunks=(4,), compression="gzip")
        made.id.write_direct_chunk((0,), np.arange(4, dtype="f4").tobytes(), filter_mask=1)
        made.id.write_direct_chunk((4,), zlib.compress(np.ones(4, "f4").tobytes()))
    assert open_file(path).tensors["a"].read().tolist() == [0, 1, 2, 3, 1, 1, 1, 1]


@pytest.mark.parametrize("chunk", [b"xyz", zlib.compress(bytes(12)), zlib.compress(bytes(1 << 20))])
def test_a_chunk_that_is_not_as_it_says(path, chunk):
    with h5py.File(path, "w") as file:
        made = file.create_dataset("a", (8,), "f4", chunks=(4,), compression="gzip")
        made.id.write_direct_chunk((0,), chunk)
    with pytest.raises(CorruptFileError, match="a chunk of /a is not as it says"):
        open_file(path).tensors["a"].read()


def test_a_few_bytes_that_claim_terabytes_are_not_read(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (1 << 40,), "f4", chunks=(1 << 10,))[:10] = 1
        made = file.create_dataset(
            "b", (10,), "f4", maxshape=(None,), chunks=(1 << 28,), compression="gzip"
        )
        made.id.write_direct_chunk((0,), zlib.compress(bytes(40)))
    tensors = open_file(path).tensors
    assert "stored bytes cannot be its 4398046511104 bytes" in tensors["a"].unreadable
    assert "stored bytes cannot be" in tensors["b"].unreadable


def many_chunks(path, count):
    values = np.arange(count, dtype="f4")
    with h5py.File(path, "w") as file:
        made = file.create_dataset("a", (count,), "f4", chunks=(1,))
        for number in range(count):
            made.id.write_direct_chunk((number,), values[number].tobytes())
    return values


def test_the_index_of_chunks_is_walked_once(path, monkeypatch):
    values = many_chunks(path, 3000)
    monkeypatch.setattr(chunks, "MOST_ASKED", 0)  # what is asked for each chunk by its number
    assert np.array_equal(open_file(path).tensors["a"].read(), values)
    monkeypatch.setattr(chunks, "MOST_CHUNKS", 2999)
    with pytest.raises(UnsupportedFileError, match="/a is in 3,000 chunks"):
        open_file(path).tensors["a"].read()


def test_other_filters_are_named_and_never_loaded(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("lzf", data=VALUES, chunks=(4, 2), compression="lzf")
        file.create_dataset("offset", data=np.arange(9), chunks=(4,), scaleoffset=0)
    tensors = open_file(path).tensors
    assert tensors["lzf"].unreadable == "it is compressed by LZF, which is not read"
    assert tensors["offset"].unreadable == "it is compressed by scaleoffset, which is not read"
