import numpy as np
import pytest

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.files.file_bytes import FileBytes
from bncli.loaders import open_file, open_tensor

from .files import bits
from .pickles import npy as by_hand

DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]
SHAPES = [(), (0,), (1,), (7,), (3, 4), (2, 0, 5), (2, 3, 4), (1, 1, 1, 1, 1)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("fortran", [False, True])
def test_every_dtype_order_and_shape_as_numpy_reads_it(dtype, order, fortran, tmp_path):
    path = tmp_path / "x.npy"
    random = np.random.default_rng(1)
    for shape in SHAPES:
        array = (random.standard_normal(shape) * 50).astype(np.dtype(dtype).newbyteorder(order))
        np.save(path, np.asfortranarray(array) if fortran and array.ndim else array)
        ref = open_tensor(str(path))
        expected = np.load(path)
        assert ref.shape == expected.shape
        assert bits(ref.stored()) == bits(expected)
        assert ref.read().dtype == expected.dtype.newbyteorder("=")
        assert ref.read().tobytes() == expected.astype(expected.dtype.newbyteorder("=")).tobytes()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_the_three_versions_of_the_header(version, tmp_path):
    path = tmp_path / "x"
    array = np.arange(12.0).reshape(3, 4)
    with path.open("wb") as file:
        np.lib.format.write_array(file, array, version=version)
    assert np.array_equal(open_tensor(str(path)).read(), array)


def test_the_elements_stay_in_the_file(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(10))
    ref = open_tensor(str(path))
    assert isinstance(ref.storage, FileBytes)
    stored = ref.stored()
    assert not stored.flags.writeable
    assert not stored.flags.owndata


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 2L), }\n",  # Python 2
        '{"shape": (2,2), "fortran_order": False, "descr": "<f4"}',  # other writers
        "{'descr':'<f4','fortran_order':False,'shape':(2,2)}      \n",
        "  {'fortran_order': False,\n 'descr': '=f4',\n 'shape': (2, 2,)}",
    ],
)
def test_headers_of_other_writers(header, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(by_hand(header, np.arange(4, dtype="<f4").tobytes()))
    assert open_tensor(str(path)).read().tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "{}",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 4}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (4,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4,), 'shape': (4,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4,), 'more': 1}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4,)} + {}",
    ],
)
def test_a_header_that_is_none(header, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(by_hand(header, bytes(16)))
    with pytest.raises(CorruptFileError, match=r"header cannot be read; it is damaged"):
        open_file(path)


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (np.array([{}, 1]), "Python objects"),
        (np.array(["a"]), "text"),
        (np.array([b"a"]), "text"),
        (np.zeros(2, [("a", "f4"), ("b", "i4")]), "records of several fields"),
        (np.zeros(2, "M8[s]"), "dates"),
        (np.zeros(2, "m8[s]"), "time spans"),
        (np.zeros(2, "V2"), "raw bytes of no known dtype"),
        (np.zeros(2, np.longdouble), "floats wider than float64"),
        (np.zeros(2, np.clongdouble), "complex numbers wider than complex128"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arrays_that_are_no_plain_numbers_are_refused(array, what, tmp_path):
    path = tmp_path / "x"
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=True)
    with pytest.raises(UnsupportedFileError, match=f"it holds {what}.*; save a numeric"):
        open_file(path)


def test_a_file_that_lacks_elements_says_how_many(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.zeros(100))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        CorruptFileError, match=r"promises 800 bytes of elements, but 799 are there"
    ):
        open_file(path)
