"""NumPy arrays inside of what torch.save wrote."""

import pickle

import numpy as np
import pytest
import torch

from bncli.errors import CorruptFileError
from bncli.loaders import open_file, torch_places
from bncli.state_dict import batch_norm_layers

from .files import saved
from .pickles import call, dictionary, integer, name, text, torch_legacy, torch_zip, tup, zipped

ARRAYS = {
    "bn.weight": np.arange(3, dtype="f4"),
    "bn.bias": np.arange(3, dtype=">f4"),
    "bn.running_mean": np.linspace(0, 1, 3),
    "bn.running_var": np.linspace(1, 2, 3).astype("f2"),
    "bn.num_batches_tracked": np.array(7),
    "columns": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "empty": np.empty((0, 3)),
    "flags": np.array([True, False]),
    "complex": np.array([1 + 2j], "c8"),
    "bytes": np.arange(256, dtype="u1"),
    "long": np.random.default_rng(0).normal(size=(50, 400)),
    "tensor": torch.ones(2),
}


def assert_read(path):
    file = open_file(path)
    assert list(file.tensors) == list(ARRAYS)
    for key, ref in file.tensors.items():
        expected = np.asarray(ARRAYS[key])
        assert ref.shape == expected.shape
        np.testing.assert_array_equal(ref.read(), expected, strict=False)
        assert ref.dtype == expected.dtype.newbyteorder("=").name
    assert [layer.name for layer in batch_norm_layers(file)] == ["bn"]


@pytest.mark.parametrize("zipped_format", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_are_tensors(protocol, zipped_format, tmp_path):
    path = tmp_path / "x"
    torch.save(ARRAYS, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped_format)
    assert_read(path)


@pytest.mark.parametrize("protocol", [2, 4])
def test_arrays_in_a_compressed_archive(protocol, tmp_path):
    import io
    import zipfile

    path = tmp_path / "x"
    with zipfile.ZipFile(io.BytesIO(saved(ARRAYS, pickle_protocol=protocol))) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    path.write_bytes(zipped(members, zipfile.ZIP_DEFLATED))
    assert_read(path)


def test_arrays_of_no_numbers_are_no_tensors(tmp_path):
    path = tmp_path / "x"
    torch.save(
        {
            "o": np.array([None, 1]),
            "t": np.array(["a"]),
            "w": torch.ones(1),
            "inside": np.array([{"w": torch.ones(1)}, None]),
        },
        path,
    )
    file = open_file(path)
    assert list(file.tensors) == ["w", "inside.4.0.w"]
    assert list(file.skipped) == ["o", "t"]


def array(shape, raw, code="f4"):
    """The opcodes of an array whose bytes are whatever `raw` pushes."""
    kind = call(name("numpy", "dtype"), text(code), integer(0), integer(1))
    empty = call(name("numpy.core.multiarray", "_reconstruct"), name("numpy", "ndarray"))
    sizes = tup(*(integer(size) for size in shape))
    return empty + tup(integer(1), sizes, kind, b"\x89", raw) + b"b"


def test_the_strings_of_python_2(tmp_path):
    """Its bytes are text to the pickle, which is UTF-8 by chance or is not."""
    for value in (b"abcdefgh", "äöüß".encode(), b"\xff\xfe\xfd\xfcabcd"):
        path = tmp_path / "x"
        path.write_bytes(torch_legacy(dictionary(a=array((2,), b"U\x08" + value)), {}))
        assert open_file(path).tensors["a"].read().tobytes() == value


@pytest.mark.parametrize(
    ("shape", "raw"),
    [
        ((5,), b"C\x08" + bytes(8)),
        ((1,), b"C\x08" + bytes(8)),
        ((1 << 61,), b"C\x08" + bytes(8)),
        ((-2,), b"C\x08" + bytes(8)),
        ((200,), b"U\x08" + bytes(8)),
    ],
)
def test_the_wrong_number_of_bytes_is_refused(shape, raw, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(torch_zip(dictionary(a=array(shape, raw))))
    with pytest.raises(CorruptFileError):
        open_file(path)


@pytest.mark.parametrize(
    "raw", [text("12345"), call(name("_codecs", "encode"), text("a"), text("b"))]
)
def test_text_of_the_wrong_length_is_refused_when_it_is_read(raw, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(torch_zip(dictionary(a=array((1,), raw))))
    ref = open_file(path).tensors["a"]
    with pytest.raises(CorruptFileError, match="should have 4 bytes but has"):
        ref.read()


@pytest.mark.parametrize(
    ("shape", "raw", "why"),
    [
        ((2,), b"N", "not kept as NumPy keeps them"),
        ((0, 1 << 40), b"C\0", "its shape is not one"),
        ((1,) * 64, b"C\x04" + bytes(4), "it has 64 axes"),
    ],
)
def test_what_cannot_be_read_is_listed(shape, raw, why, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(torch_zip(dictionary(a=array(shape, raw))))
    ref = open_file(path).tensors["a"]
    assert (ref.shape, ref.dtype) == (shape, "float32")
    assert why in ref.unreadable


def test_one_array_over_and_over_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_places, "MOST_REPEATED", 1)
    monkeypatch.setattr(torch_places, "MOST_READ_AGAIN", 3)
    one = np.arange(100.0)
    path = tmp_path / "x"
    path.write_bytes(
        saved({f"k{n}": one for n in range(6)}, pickle_protocol=pickle.DEFAULT_PROTOCOL)
    )
    unreadable = [bool(ref.unreadable) for ref in open_file(path).tensors.values()]
    assert unreadable == [False] * 3 + [True] * 3
