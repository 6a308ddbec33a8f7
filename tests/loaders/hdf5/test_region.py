"""What the HDF5 library may read of a file, and how often."""

import io
import resource

import h5py
import numpy as np
import pytest

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.loaders import open_file
from bncli.loaders.hdf5 import region
from bncli.loaders.hdf5.region import Region, Window
from tests.loaders import memory
from tests.loaders.keras_files import keras_3, vectors


def test_a_window_gives_the_bytes_of_its_region(tmp_path):
    data = bytes(range(256)) * 200
    path = tmp_path / "x"
    path.write_bytes(data)
    place = Region(path, 100, len(data) - 50)
    with place.reader() as read:
        window = Window(place, read)
        assert window.seek(0, io.SEEK_END) == place.size
        for at, count in ((0, 8), (region.BLOCK - 3, 10), (5000, 40000), (place.size - 4, 4)):
            window.seek(at)
            assert window.read(count) == data[100 + at :][:count]
        window.seek(place.size - 2)
        assert window.read(5) == data[-52:-50] + bytes(3)


def test_a_library_that_reads_on_and_on_is_stopped(tmp_path, monkeypatch):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        for number in range(100):
            file[f"{number}/x"] = np.ones(2)
    assert len(open_file(path).tensors) == 100
    monkeypatch.setattr(region, "FREE_READS", 40)
    monkeypatch.setattr(region, "BYTES_A_READ", 1 << 30)
    with pytest.raises(CorruptFileError, match="leads in circles"):
        open_file(path)


def test_a_heap_with_an_object_of_no_size_is_refused(tmp_path):
    """The HDF5 library would not come back."""
    path = tmp_path / "x.h5"
    data = bytearray(keras_3({"a": list(vectors().values())}, {"a": "bn"}))
    heap = data.index(b"GCOL")
    end = heap + int.from_bytes(data[heap + 8 : heap + 16], "little")
    text = data.index(b"bn\0", heap)
    free = text + 8
    assert data[free : free + 2] == b"\0\0", "the free place follows the only text"
    data[free + 8 : free + 16] = bytes(8)
    assert free < end
    path.write_bytes(data)
    with pytest.raises(CorruptFileError, match="its HDF5 structure contradicts itself"):
        open_file(path)


@pytest.mark.skipif(not memory.CLEAR.exists(), reason="Linux alone tells and bounds memory so")
def test_a_text_that_says_it_has_gigabytes_takes_none(tmp_path):
    """The library clears as much memory as a text says before it looks for it."""
    path = tmp_path / "x.h5"
    text = '{"class_name": "Sequential"}'
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = text
        file.create_group("layers/bn/vars")
    data = bytearray(path.read_bytes())
    length = len(text).to_bytes(4, "little")
    begin = data.index(b"model_config\0")
    at = data.index(length, begin)
    assert b"GCOL" in data[int.from_bytes(data[at + 4 : at + 12], "little") :][:4]
    data[at : at + 4] = (1 << 31).to_bytes(4, "little")
    path.write_bytes(data)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    before = memory.mark()
    with pytest.raises(CorruptFileError, match="contradicts itself"):
        open_file(path)
    assert memory.grown(before) < 150_000
    assert resource.getrlimit(resource.RLIMIT_AS) == limits


def test_offsets_of_other_widths_are_refused(tmp_path):
    path = tmp_path / "x.h5"
    made = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    made.set_sizes(4, 4)
    with h5py.File(h5py.h5f.create(str(path).encode(), fcpl=made)) as file:
        file["a"] = np.ones(2)
    with pytest.raises(UnsupportedFileError, match="do not take 8 bytes"):
        open_file(path)
