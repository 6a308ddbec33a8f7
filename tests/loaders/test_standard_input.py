import io
import json
import subprocess
import sys

import numpy as np
import pytest

from bncli.errors import CorruptFileError, FileError, UnsupportedFileError
from bncli.loaders import open_tensor
from bncli.loaders.standard_input import open_standard_input

from .pickles import npy as by_hand

X = np.array([[1, 2.5, -3e-2], [4, 0.1, 6]], np.float32)


def as_npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def piped(data, code="print(open_tensor('-').read().tolist())"):
    return subprocess.run(
        [sys.executable, "-c", f"from bncli.loaders import open_tensor, open_file; {code}"],
        input=data, capture_output=True, check=False,
    )  # fmt: skip


def test_standard_input_is_read_into_memory():
    array = np.arange(6, dtype=">f4").reshape(2, 3)
    done = piped(as_npy(array))
    assert done.stdout.decode().strip() == "[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]"
    assert piped(as_npy(np.zeros((0, 3)))).stdout.decode().strip() == "[]"


class Stream:
    closed = False

    def __init__(self, data):
        self.buffer = io.BytesIO(data)


@pytest.mark.parametrize(
    ("data", "container"),
    [
        (as_npy(X), "npy"),
        (json.dumps(X.tolist()).encode(), "json"),
        (b"\n  " + json.dumps(X.tolist(), indent=1).encode() + b"\n", "json"),
        (b"\xef\xbb\xbf" + json.dumps(X.tolist()).encode(), "json"),
        (b"1,2.5,-3e-2\n4,0.1,6\n", "csv"),
        (b"1 2.5 -3e-2\n4 0.1 6", "csv"),
        (b"a;b;c\r\n1;2.5;-3e-2\r\n4;0.1;6\r\n", "csv"),
        ("1,2.5,-3e-2\n4,0.1,6\n".encode("utf-16"), "csv"),
    ],
)
def test_what_is_piped_in_is_told_by_its_begin(data, container, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Stream(data))
    file = open_standard_input()
    assert file.container == container
    assert file.tensors[""].dtype == "float32"
    np.testing.assert_array_equal(file.tensors[""].read(), X)


def test_a_long_stream_is_read_to_its_end(monkeypatch):
    x = np.random.default_rng(0).normal(size=(30_000, 7)).astype(np.float32)
    text = io.StringIO()
    np.savetxt(text, x, delimiter=",", fmt="%.9g")
    assert len(text.getvalue()) > 1 << 21
    for data in (text.getvalue(), json.dumps(x.tolist())):
        monkeypatch.setattr(sys, "stdin", Stream(data.encode()))
        np.testing.assert_array_equal(open_tensor("-").read(), x)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "-: standard input is empty; pipe an .npy, a JSON array or CSV into it."),
        (
            b"PK\x03\x04aaaaaaaa",
            "-: standard input is neither .npy nor text; save other formats to a file and name",
        ),
        (b"\x80\x02}q\x00.", "-: standard input is neither .npy nor text"),
        (b"Not Found\n", "-: there are no numbers in it; write a row for each sample."),
        (b"1,2\n3,x\n", "-: line 2, column 2 is 'x', not a number."),
        (b"[[1, 2], [3]]", "-: [1] has length 1, and the lists before it 2"),
        (
            by_hand("{'descr': '<f8', 'fortran_order': False, 'shape': (900000000000,), }", b"x"),
            (
                "-: its header promises 7200000000000 bytes of elements, but 1 came; the program"
                " that writes to the pipe stopped early."
            ),
        ),
        (
            by_hand("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"x"),
            "-: it holds Python objects, which could only be restored by running the file's pickle",
        ),
    ],
)
def test_standard_input_that_is_no_array(data, sentence, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Stream(data))
    with pytest.raises((UnsupportedFileError, CorruptFileError)) as caught:
        open_standard_input()
    assert str(caught.value).startswith(sentence)


class Refusing(io.RawIOBase):
    def read(self, size=-1):
        raise OSError(5, "Input/output error")


def test_standard_input_that_is_missing_or_cannot_be_read(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(FileError, match="standard input is closed; pipe a tensor into it"):
        open_standard_input()
    stream = Stream(b"")
    stream.buffer = Refusing()
    monkeypatch.setattr(sys, "stdin", stream)
    with pytest.raises(FileError, match=r"standard input cannot be read \(Input/output error\)"):
        open_standard_input()
