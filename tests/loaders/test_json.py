"""Nested lists, beside what the standard library and NumPy read in them."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bncli.errors import BncliError, CorruptFileError
from bncli.loaders import open_file, open_tensor
from bncli.loaders.json import nested_lists

from . import memory

HERE = Path("--values")
AXIS = "an array has the same length everywhere along an axis."


def read(text, size=1 << 20):
    """The tensor of a text that comes in pieces."""
    data = text.encode()
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    (ref,) = nested_lists(HERE, chunks).tensors.values()
    return ref


shapes = arrays.array_shapes(min_dims=1, max_dims=5, min_side=1, max_side=4)


@given(
    arrays.arrays(np.float64, shapes, elements=st.floats()),
    st.sampled_from([None, 1, "\t"]),
    st.sampled_from([1, 7, 1 << 20]),
)
def test_what_json_writes_comes_back(x, indent, size):
    text = json.dumps(x.tolist(), indent=indent)
    with np.errstate(over="ignore"):
        expected = np.array(json.loads(text), np.float64).astype(np.float32)
    ref = read(text, size)
    assert (ref.shape, ref.dtype) == (x.shape, "float32")
    np.testing.assert_array_equal(ref.read(), expected)
    np.testing.assert_array_equal(ref.storage.exact().reshape(x.shape), x)


@given(arrays.arrays(np.float32, shapes, elements=st.floats(width=32)))
def test_what_python_prints_is_read_too(x):
    np.testing.assert_array_equal(read(repr(x.tolist())).read(), x)


def test_what_numpy_and_pytorch_print_between_their_parentheses():
    import torch

    x = np.array([[0, 1.5, -2], [1e10, np.nan, -np.inf]], np.float32)
    printed = [np.array2string(x, separator=", "), repr(x)[6:-16], str(torch.from_numpy(x))[7:-1]]
    assert "1." in printed[0]
    for text in printed:
        np.testing.assert_array_equal(read(text).read(), x)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("[]", (0,)),
        ("[ ]", (0,)),
        ("[[], []]", (2, 0)),
        ("[[[]]]", (1, 1, 0)),
        ("[1]", (1,)),
        ("\n[[1,2]\n,[3,4]]\n", (2, 2)),
        ("[[[1], [2]], [[3], [4]], [[5], [6]]]", (3, 2, 1)),
    ],
)
def test_the_shape_is_that_of_the_lists(text, shape):
    assert read(text).shape == shape
    assert read(text).read().shape == shape


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[1, 2], [3]]", f"[1] has length 1, and the lists before it 2; {AXIS}"),
        ("[[[1], [2]], [[3]]]", f"[1] has length 1, and the lists before it 2; {AXIS}"),
        ("[[[1], [2]], [[3], [4, 5]]]", f"[1][1] has length 2, and the lists before it 1; {AXIS}"),
        ("[[], [1]]", f"[1] has length 1, and the lists before it 0; {AXIS}"),
        ("[[1, 2], 3]", f"[1] is not a list, though there are lists beside it; {AXIS}"),
        ("[1, [2]]", f"[0] is not a list, though there are lists beside it; {AXIS}"),
        ("[[1], [[2]]]", f"[1] holds lists, unlike the lists before it; {AXIS}"),
        ("[[1], [2, [3]]]", f"[1] holds lists, unlike the lists before it; {AXIS}"),
        ("[[[1]], [2]]", f"[1] holds no lists, unlike the lists before it; {AXIS}"),
        ("[[[]], []]", f"[1] holds no lists, unlike the lists before it; {AXIS}"),
        ("[[1, 2], [3, 4]", "it ends before its last list is closed; write the missing ]."),
        ("[[1, 2], [3, ", "it ends before its last list is closed; write the missing ]."),
        ("[", "it ends before its last list is closed; write the missing ]."),
        ("[[1], [2]]]", "something follows its last list (])."),
        ("[1] 2", "something follows its last list (2)."),
        ("[1], [2]", "something follows its last list (,)."),
        ("[[1, 2],]", "a comma before [1] is missing or one too many."),
        ("[[1, 2] [3, 4]]", "a comma before [1] is missing or one too many."),
        ("[[1],, [2]]", "a comma before [1] is missing or one too many."),
        ("[, [2]]", "a comma before [0] is missing or one too many."),
        ("[1, 2,]", "[2] is empty; write nan where a value is missing."),
        ("[,]", "[0] is empty; write nan where a value is missing."),
        ("[[1 2]]", "[0][0] is '1 2', not a number; put commas between the numbers."),
        ("[[1, 2], [3, x]]", "[1][1] is 'x', not a number."),
        ("[[1, null]]", "[0][1] is 'null', not a number; write nan where a value is missing."),
        ("[true]", "[0] is 'true', not a number; write 1 or 0."),
        ('["1"]', "[0] is '\"1\"', not a number."),
        ('[{"a": 1}]', "[0] is '{\"a\": 1}', not a number."),
        ("[1_0]", "[0] is '1_0', not a number."),
        ("[" * 100_000, "it ends before its last list is closed; write the missing ]."),
        ("[" * 100_000 + "]" * 100_000, "it has more than 32 lists inside each other."),
        ("[" * 33 + "]" * 33, "it has more than 32 lists inside each other."),
    ],
)
@pytest.mark.parametrize("size", [1, 5, 1 << 20])
def test_what_does_not_fit_is_said_with_its_place(text, sentence, size):
    if size > 1 or len(text) < 1000:
        with pytest.raises(CorruptFileError) as caught:
            read(text, size)
        assert str(caught.value) == f"--values: {sentence}"


def test_as_many_lists_as_numpy_has_axes():
    text = "[" * 32 + "5" + "]" * 32
    assert read(text).shape == (1,) * 32


def outcome(text):
    """What comes of a text: a shape, or the sentence."""
    try:
        ref = read(text)
    except BncliError as error:
        return str(error)
    assert ref.read().shape == ref.shape
    return ref.shape


@given(st.text('[[[]]],,, 0123.-e\n"{}:anx', max_size=40))
def test_any_text_is_values_or_one_sentence(text):
    found = outcome(text)
    if isinstance(found, str):
        assert "\n" not in found
    try:
        strict = json.loads(text)
        expected = np.array(strict, np.float64)
    except (ValueError, TypeError):
        return
    if isinstance(strict, list) and not {'"', "{"} & set(text):  # what JSON reads is read alike
        assert found == expected.shape


@pytest.mark.parametrize("name", ["x.json", "x", "x.csv"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_is_known_by_its_bracket(name, encoding, tmp_path):
    path = tmp_path / name
    path.write_bytes(" [[1, 2],\r\n [3, 4]]".encode(encoding))
    file = open_file(path)
    assert file.container == "json"
    assert open_tensor(str(path)).read().tolist() == [[1, 2], [3, 4]]


def test_hostile_lists_cost_little_time_and_memory():
    before = memory.mark()
    with pytest.raises(CorruptFileError, match="more than 32 lists"):
        read("[" * (1 << 22) + "]")
    with pytest.raises(CorruptFileError, match="it ends before"):
        read("[" * (1 << 22))
    with pytest.raises(CorruptFileError, match="not a number"):
        read("[[" + "9" * (1 << 22) + "x]]")
    read("[" + ",".join(["[]"] * (1 << 17)) + "]")
    assert memory.grown(before) < 150_000


def test_a_number_of_many_digits_is_infinite():
    assert read("[[" + "9" * 10_000 + "]]").read().tolist() == [[np.inf]]
