import io
import zipfile

import numpy as np
import pytest

from bncli.errors import CorruptFileError, TensorError
from bncli.files.file_bytes import FileBytes
from bncli.loaders import open_file, open_tensor
from bncli.loaders.deflated import Packed

from .files import assert_same, bits
from .pickles import npy, zipped

ARRAYS = {
    "a": np.arange(12.0).reshape(3, 4),
    "group/inner/b": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
    "scalar": np.float16(2.5),
    "empty": np.zeros((0, 2), np.int8),
    "c.d": np.array([True, False]),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_array_as_numpy_reads_it(save, tmp_path):
    path = tmp_path / "x.npz"
    save(path, **ARRAYS)
    file = open_file(path)
    assert file.container == "npz"
    with np.load(path) as expected:
        assert list(file.tensors) == list(expected)
        assert_same(file.tensors, dict(expected))


def test_stored_members_are_mapped_and_deflated_ones_wait(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    np.savez(path, a=np.arange(5))
    assert isinstance(open_tensor(str(path)).storage, FileBytes)
    np.savez_compressed(path, a=np.arange(5))
    ref = open_tensor(str(path))
    reads = []
    monkeypatch.setattr(Packed, "read", lambda self: reads.append(self) or bytearray())
    assert callable(ref.storage)
    assert not reads


def test_what_is_no_array_is_left_out(tmp_path):
    path = tmp_path / "x.npz"
    out = io.BytesIO()
    np.save(out, np.arange(3))
    members = {
        "readme.txt": b"hello",
        "bn/": b"",  # as zip -r adds it
        "bn/weight.npy": out.getvalue(),
        "__MACOSX/bn/._weight.npy": b"\0\5\x16\7",
    }
    path.write_bytes(zipped(members))
    file = open_file(path)
    assert (file.container, list(file.tensors)) == ("npz", ["bn/weight"])
    assert file.tensors["bn/weight"].read().tolist() == [0, 1, 2]


def test_an_archive_of_nothing_is_an_npz(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path)
    assert open_file(path).tensors == {}


def test_an_object_array_is_listed_and_does_not_spoil_the_file(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, good=np.arange(3), bad=np.array([{}, 1]))
    file = open_file(path)
    assert file.tensors["good"].read().tolist() == [0, 1, 2]
    with pytest.raises(TensorError, match=r"cannot be read .it holds Python objects"):
        file.tensors["bad"].read()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_listed_as_not_readable(method, tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(zipped({"a.npy": npy("")}, method))
    with pytest.raises(TensorError, match="it is compressed by method"):
        open_tensor(str(path)).read()


def test_a_member_that_lacks_elements(tmp_path):
    path = tmp_path / "x.npz"
    out = io.BytesIO()
    np.save(out, np.zeros(10))
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path.write_bytes(zipped({"a.npy": out.getvalue()[:-8]}, method))
        with pytest.raises(CorruptFileError, match="promises 80 bytes of elements, but 72 are"):
            open_file(path)


def test_damaged_compressed_bytes_are_found_when_they_are_read(tmp_path):
    path = tmp_path / "x.npz"
    array = np.random.default_rng(0).standard_normal(1000)
    np.savez_compressed(path, a=array)
    data = bytearray(path.read_bytes())
    data[4000] ^= 0x55
    path.write_bytes(data)
    ref = open_tensor(str(path))
    with pytest.raises(CorruptFileError, match=r"a\.npy does not decompress to the 8128 bytes"):
        ref.read()


def test_bytes_that_decompress_to_something_else_are_found_by_their_checksum(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, a=np.arange(100))
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 16] ^= 1  # the checksum in the directory
    path.write_bytes(data)
    with pytest.raises(CorruptFileError, match=r"a\.npy does not match its checksum"):
        open_tensor(str(path)).read()


def test_highly_compressible_arrays_are_no_bombs(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, a=np.zeros(4_000_000, np.float32))
    assert path.stat().st_size < 20_000
    assert bits(open_tensor(str(path)).stored()) == ((4_000_000,), bytes(16_000_000))


def test_an_archive_without_an_array_is_none(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(zipped({"a.npy/": b"", "b.txt": npy("")}))
    with pytest.raises(Exception, match="ZIP archive without a file that bncli reads"):
        open_file(path)
