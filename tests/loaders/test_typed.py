"""Numbers in text: what is one, how the text is decoded, and what dtypes they have."""

import math
from array import array
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncli.errors import CorruptFileError
from bncli.loaders import typed
from bncli.loaders.typed import Numbers, decoded, fault, first_fault, head_text, pieces

HERE = Path("x")


@given(st.floats())
def test_what_python_writes_is_a_number(value):
    for text in (repr(value), str(value).upper(), f" {value:+g}\t", f"{value:e}"):
        assert fault(text) == ""


@pytest.mark.parametrize("text", ["1.", ".5", "-0", "+3", "1e5", "NaN", "Infinity", "-inf", "007"])
def test_what_people_write_is_a_number(text):
    assert fault(text) == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; write nan where a value is missing."),
        (" \t", "is empty; write nan where a value is missing."),
        ("red", "is 'red', not a number."),
        ("1_000", "is '1_000', not a number."),
        ("0x10", "is '0x10', not a number."),
        ("1+2j", "is '1+2j', not a number."),
        ("$3", "is '$3', not a number."),
        ("None", "is 'None', not a number; write nan where a value is missing."),
        ("null", "is 'null', not a number; write nan where a value is missing."),
        ("N/A", "is 'N/A', not a number; write nan where a value is missing."),
        ("True", "is 'True', not a number; write 1 or 0."),
        ("-1,5", "is '-1,5', not a number; write decimals with a point."),
        ("1 2", "is '1 2', not a number; put commas between the numbers."),
        ("1 x", "is '1 x', not a number."),
        ("\x1b[2J", "is '\\\\x1b[2J', not a number."),
        ("9" * 50 + "z", f"is '{'9' * 37}...', not a number."),
    ],
)
def test_what_is_no_number_is_said_with_its_fix(text, said):
    assert fault(text) == said
    assert first_fault(["1", "2", text, "also not"]) == (2, said)


@pytest.mark.parametrize(
    "text", [f"{before}2.5{chr(behind)}" for before in ("", " ") for behind in range(33)]
)
def test_a_fault_is_found_exactly_where_float_raises(text):
    try:
        float(text)
    except ValueError:
        assert fault(text)
    else:
        assert fault(text) == ""


def test_decimals_are_rounded_once_to_either_dtype():
    numbers = Numbers(array("d", [0.1, 1e39, -1e39, 2.0**-150, math.nan]))
    assert numbers().dtype == np.float32
    expected = np.array([0.1, np.inf, -np.inf, 0, np.nan], np.float32)
    np.testing.assert_array_equal(numbers(), expected)
    assert numbers() is numbers()
    assert numbers.exact().dtype == np.float64
    np.testing.assert_array_equal(numbers.exact(), [0.1, 1e39, -1e39, 2.0**-150, np.nan])


def test_a_number_is_rounded_as_pytorch_rounds_it():
    import torch

    values = np.random.default_rng(0).normal(size=1000) * 1e3
    expected = torch.tensor(values.tolist()).numpy()
    np.testing.assert_array_equal(Numbers(array("d", values))(), expected)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom"])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_text_is_decoded_in_any_pieces(encoding, size):
    text = "é,1\r\n2,3\r4\n\U0001f40d"
    data = text.encode(encoding.removesuffix("-bom"))
    data = b"\xff\xfe" + data if encoding.endswith("-bom") else data
    if encoding.startswith("utf-16") and size == 1:
        size = 2  # the mark itself comes whole
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    if encoding == "utf-16-le-bom":
        assert chunks[0].startswith(b"\xff\xfe")
    assert "".join(decoded(HERE, chunks)) == "é,1\n2,3\n4\n\U0001f40d"


@pytest.mark.parametrize("data", [b"1,2\n\xff\n", b"1,2\n\xc3", b"\xff\xfe1"])
def test_what_is_not_text_is_one_sentence(data):
    with pytest.raises(CorruptFileError, match=r"^x: it is not text in UTF-8 all through"):
        list(decoded(HERE, [data]))


@given(st.text("ab]"), st.lists(st.integers(1, 5)))
def test_pieces_are_all_of_the_text_and_end_where_they_may(text, sizes):
    parts, at = [], 0
    for size in [*sizes, len(text)]:
        parts.append(text[at : at + size])
        at += size
    found = list(pieces(HERE, parts, "]"))
    assert "".join(found) == text
    assert all(piece.endswith("]") for piece in found[:-1])


def test_a_row_without_an_end_is_refused_before_it_fills_the_memory(monkeypatch):
    monkeypatch.setattr(typed, "LONGEST", 10)
    assert list(pieces(HERE, ["12345", "67890\n"], "\n")) == ["1234567890\n"]
    with pytest.raises(CorruptFileError, match=r"a row of more than 10 characters; save an array"):
        list(pieces(HERE, ["12345", "678901", "2\n"], "\n"))


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (b"1,2\n3", "1,2\n3"),
        (b"\xef\xbb\xbf1", "1"),
        ("1,2".encode("utf-16"), "1,2"),
        ("é".encode()[:1], ""),
        (b"1,\xc3", "1,"),  # a letter that goes on behind the head
        (b"1\0", ""),
        (b"\x93NUMPY", ""),
        (b"\x1b[2J", ""),
        (b"", ""),
    ],
)
def test_a_head_is_text_or_nothing(head, text):
    assert head_text(head) == text
