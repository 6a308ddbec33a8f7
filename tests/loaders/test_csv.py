"""Tables of numbers, beside what NumPy reads in them."""

import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bncli.errors import BncliError, CorruptFileError, FileError, UnsupportedFileError
from bncli.files.reading import reading
from bncli.loaders import csv, open_file, open_tensor

from . import memory

TABLE = [[1, 2], [3, 4]]


@pytest.fixture
def written(tmp_path):
    """Write text or bytes into a file; its path."""

    def written(data, name="x.csv"):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return str(path)

    return written


def tables(least=1):
    return arrays.arrays(
        np.float32,
        st.tuples(st.integers(least, 6), st.integers(1, 5)),
        elements=st.floats(width=32, allow_nan=True),
    )


@given(tables(), st.sampled_from([",", ";", "\t", " ", ", "]), st.sampled_from(["\n", "\r\n"]))
def test_what_numpy_writes_comes_back_bit_for_bit(tmp_path_factory, x, delimiter, newline):
    text = io.StringIO()
    np.savetxt(text, x, fmt="%.9g", delimiter=delimiter, newline=newline)
    path = tmp_path_factory.mktemp("round") / "x.csv"
    path.write_bytes(text.getvalue().encode())
    back = open_tensor(str(path))
    assert (back.shape, back.dtype) == (x.shape, "float32")
    np.testing.assert_array_equal(back.read(), x)
    split = delimiter.strip() or None
    again = np.loadtxt(io.StringIO(text.getvalue()), np.float32, delimiter=split, ndmin=2)
    np.testing.assert_array_equal(back.read(), again)


def test_many_rows_are_read_in_pieces(written):
    x = np.random.default_rng(0).normal(size=(60_000, 5)).astype(np.float32)
    text = io.StringIO()
    np.savetxt(text, x, fmt="%.9g", delimiter=",")
    path = written(text.getvalue())
    assert len(text.getvalue()) > 3 << 20
    np.testing.assert_array_equal(open_tensor(path).read(), x)


@pytest.mark.parametrize(
    "text",
    [
        "1,2\n3,4",
        "1,2\n3,4\n",
        "1,2\r\n3,4\r\n",
        "1,2\r3,4\r",
        "\n1,2\n\n \n3,4\n\n",
        " 1 , 2 \n 3,\t4\n",
        "1;2\n3;4\n",
        "1\t2\n3\t4\n",
        "1 2\n3 4\n",
        "  1.0e0   2.\n  +3   4\n",
        "a,b\n1,2\n3,4\n",
        "a;b\n1;2\n3;4\n",
        '"a","b"\n1,2\n3,4\n',
        '"1","2"\n1,2\n3,4\n',
        "only one title\n1,2\n3,4\n",
        "# written by np.savetxt\n1,2\n3,4\n",
        "# two\n# lines\na,b\n1,2\n3,4\n",
        "größe,breite\n1,2\n3,4\n",
        b"\xef\xbb\xbf1,2\n3,4\n",
        "1,2\n3,4\n".encode("utf-16"),
        "a,b\r\n1,2\r\n3,4\r\n".encode("utf-16"),
    ],
)
@pytest.mark.parametrize("name", ["x.csv", "X.CSV", "x.tsv", "x.txt", "x"])
def test_the_spellings_of_a_table(written, text, name):
    file = open_file(written(text, name))
    assert file.container == "csv"
    assert file.tensors[""].read().tolist() == TABLE


def test_one_column_is_one_channel_and_one_row_one_sample(written):
    assert open_tensor(written("1\n2\n3\n")).read().tolist() == [[1], [2], [3]]
    assert open_tensor(written("1,2,3")).read().tolist() == [[1, 2, 3]]
    assert open_tensor(written("7")).shape == (1, 1)


def test_words_for_what_is_not_finite_are_read(written):
    text = "nan,inf\nNaN,-Infinity\n1e39,-1e-60\n"
    expected = np.array([[np.nan, np.inf], [np.nan, -np.inf], [np.inf, -0.0]], np.float32)
    np.testing.assert_array_equal(open_tensor(written(text)).read(), expected)


def test_a_wide_row_is_known_by_a_part_of_it(written):
    x = np.random.default_rng(0).normal(size=(2, 20_000)).astype(np.float32)
    text = io.StringIO()
    np.savetxt(text, x, fmt="%.9g", delimiter=",")
    np.testing.assert_array_equal(open_tensor(written(text.getvalue(), "x")).read(), x)
    names = ",".join(f"n{i}" for i in range(20_000)) + "\n"
    np.testing.assert_array_equal(open_tensor(written(names + text.getvalue())).read(), x)


INDEX = (
    "line 1, column 1 is empty; save the table without its index (index=False in pandas,"
    " row.names=FALSE in R); where a value is missing, write nan."
)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "1,2\n3\n",
            "line 2 has 1 cell and line 1 has 2; every row has a number for each channel.",
        ),
        ("a,b\n1,2\n\n3,4,5\n", "line 4 has 3 cells and line 2 has 2; every row has a number"),
        ("1,2\n3,x\n", "line 2, column 2 is 'x', not a number."),
        ("1,2\n3,\n", "line 2, column 2 is empty; write nan where a value is missing."),
        ("1,2,\n3,4,\n", "line 1, column 3 is empty; write nan where a value is missing."),
        ("1,2\n,4\n", "line 2, column 1 is empty; write nan where a value is missing."),
        ("1,NA\n", "line 1, column 2 is 'NA', not a number; write nan where a value is missing."),
        ("1,5;2,5\n", "line 1, column 1 is '1,5', not a number; write decimals with a point."),
        ("1\t2,5\n", "line 1, column 2 is '2,5', not a number; write decimals with a point."),
        ("$1,$2\n", "line 1, column 1 is '$1', not a number."),
        ("1_0,2\n", "line 1, column 1 is '1_0', not a number."),
        ("1,2\na,b\n", "line 2, column 1 is 'a', not a number."),
        ("a,b\nc,d\n1,2\n", "line 2, column 1 is 'c', not a number."),
        ("a,b\n", "there are no numbers in it; write a row for each sample."),
        ("# nothing\n", "there are no numbers in it; write a row for each sample."),
        (",0,1\n0,1.5,2.5\n", INDEX),
        (",a,b\n0,1.5,2.5\n", INDEX),
        ('"","V1"\n"1",0.5\n', INDEX),
        (b"1,2\n3,4\n" + b"5,6\n" * 20_000 + b"\xff\n", "it is not text in UTF-8 all through;"),
        ("1,2\n" * 20_000 + "3,\0\n", "line 20001, column 2 is '\\\\x00', not a number."),
        (
            "count,var,mean,channel,batch,more\n1,2,3,4,5,6\n",
            "it is a table of batches' statistics (batch, channel, mean, var, count), not a tensor",
        ),
        ("", "it is empty; download or copy it again."),
        ("<html></html>", "it is an HTML page, not a checkpoint;"),
        ("version https://git-lfs.github.com/spec/v1\n", "it is a git-lfs pointer"),
        (b"1,2\0\n", "its format is not known"),
    ],
)
def test_what_does_not_fit_is_said_with_its_place(written, text, sentence):
    path = written(text)
    with pytest.raises(FileError) as caught:
        open_file(path)
    assert str(caught.value).startswith(f"{path}: {sentence}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Not Found\n", "it is text that begins with 'Not Found'"),
        ("a,b\nc,d\n", "it is text"),
        ("7767517\n75 83\nInput data 0 1\n", "it is the graph of an ncnn model"),
        ("1,2\n3\n", "it is text"),
    ],
)
def test_other_text_is_no_table_without_the_name_of_one(written, text, word):
    with pytest.raises(UnsupportedFileError, match=re.escape(word)):
        open_file(written(text, "x"))
    with pytest.raises(FileError) as caught:
        open_file(written(text))
    assert word == "it is the graph of an ncnn model" or "it is text" not in str(caught.value)


def test_a_first_row_that_may_be_names_is_noted(written):
    def notes(text):
        path = written(text)
        with reading() as call:
            open_file(path)
            return [note.removeprefix(f"{path}: ") for note in call.notes]

    (note,) = notes("0,1\n0.5,1.5\n")
    assert note.startswith(
        "its first row, 0,1, is read as a sample; where it is the columns' names"
    )
    assert notes("0,1\n2,3\n") == []  # as np.arange counts
    assert notes("1,2\n0.5,1.5\n") == []
    assert notes("0,1\n") == []


def test_the_names_of_a_header(written, tmp_path):
    assert csv.header(tmp_path / written("a, 'b',\"c d\"\n1,2,3\n")) == ["a", "b", "c d"]
    assert csv.header(tmp_path / written("\n# x\na;b\n1;2\n")) == ["a", "b"]
    assert csv.header(tmp_path / written("1,2\n3,4\n")) == []
    assert csv.header(tmp_path / written("")) == []
    assert csv.header(tmp_path / written(b"\xff\xfe\0")) == []
    with pytest.raises(FileError, match="there is no such file"):
        csv.header(tmp_path / "missing.csv")


@given(st.binary(max_size=60) | st.text("01.,;-e\n\t ax#\"'", max_size=60).map(str.encode))
def test_any_bytes_are_values_or_one_sentence(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(data)
    sentence = ""
    try:
        ref = open_tensor(str(path))
    except BncliError as error:
        sentence = str(error)
    assert "\n" not in sentence
    assert sentence or (ref.numel > 0 and ref.read().shape == ref.shape)


def test_a_row_without_an_end_costs_little(written, monkeypatch):
    monkeypatch.setattr("bncli.loaders.typed.LONGEST", 1 << 22)
    path = written("1,2\n" + "3" * (1 << 23))
    before = memory.mark()
    with pytest.raises(CorruptFileError, match="a row of more than 4194304 characters"):
        open_file(path)
    assert memory.grown(before) < 40_000


def test_memory_is_that_of_the_values(written):
    rows = 400_000
    path = written("0.123456789,-1.23456789e-05\n" * rows)
    before = memory.mark()
    ref = open_tensor(path)
    assert ref.shape == (rows, 2)
    assert memory.grown(before) < 3 * 8 * 2 * rows // 1000 + 8_000
