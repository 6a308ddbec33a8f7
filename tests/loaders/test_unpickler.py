"""The restricted unpickler against Python's own, and its limits."""

import contextlib
import pickle
import pickletools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bncli.errors import BncliError, CorruptFileError, UnsupportedFileError
from bncli.loaders import pickle_machine, pickle_records, unpickler
from bncli.loaders.pickle_records import Blob, Dict, Global, Persistent, Record
from bncli.loaders.unpickler import load

PATH = Path("file")


def plain(value, data):
    """A value of the unpickler as Python's own would give it."""
    if isinstance(value, Dict):
        return {plain(k, data): plain(v, data) for k, v in value.pairs}
    if isinstance(value, list):
        return [plain(v, data) for v in value]
    if isinstance(value, tuple):
        return tuple(plain(v, data) for v in value)
    if isinstance(value, Blob):
        return data[value.start : value.stop]
    if isinstance(value, Record):
        assert isinstance(value.cls, Global)
        kind = {"set": set, "frozenset": frozenset}[value.cls.name]
        items = value.elements or (value.args[0] if value.args else ())
        return kind(plain(list(items), data))
    return value


KEYS = st.one_of(st.integers(), st.text(max_size=5), st.booleans())
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(),
        st.integers(-(1 << 300), 1 << 300),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.tuples(inner, inner, inner, inner),
        st.dictionaries(KEYS, inner, max_size=4),
        st.sets(KEYS, max_size=3),
        st.frozensets(KEYS, max_size=3),
    ),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(VALUES, st.integers(2, 5))
def test_plain_values_are_what_pickle_gives(value, protocol):
    data = pickle.dumps(value, protocol)
    result = load(PATH, data)
    assert plain(result.value, data) == value
    assert result.end == len(data)
    assert plain(load(PATH, pickletools.optimize(data)).value, data) == value


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False),
                  st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=9)),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.tuples(inner, inner)),
    ),
    st.integers(0, 1),
)  # fmt: skip
def test_the_text_protocols(value, protocol):
    data = pickle.dumps(value, protocol)
    assert plain(load(PATH, data).value, data) == value


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_give_a_value_or_our_error(data):
    with contextlib.suppress(BncliError):
        load(PATH, data)
    with contextlib.suppress(BncliError):
        load(PATH, b"\x80\x04" + data + b".")


def test_every_opcode_of_python_is_known():
    codes = {ord(opcode.code) for opcode in pickletools.opcodes}
    assert set(unpickler._ACTIONS) == codes - {ord(".")}


def test_nothing_can_be_imported():
    """The modules have no way to reach another one by name."""
    modules = (unpickler, pickle_machine, pickle_records)
    text = "".join(Path(module.__file__).read_text("utf-8") for module in modules)
    for word in (
        "__import__",
        "importlib",
        "sys.modules",
        "getattr",
        "eval(",
        "exec(",
        "import pickle",
    ):
        assert word not in text


def test_long_values_stay_in_the_file():
    data = pickle.dumps(["x" * 100_000, b"y" * 100_000, 1 << 100_000])
    blobs = load(PATH, data).value
    assert all(isinstance(blob, Blob) for blob in blobs)
    assert data[blobs[0].start : blobs[0].stop] == b"x" * 100_000


def test_references_are_collected():
    result = load(PATH, b"\x80\x02K\x07QK\x08Q\x86.")
    assert [reference.pid for reference in result.persistents] == [7, 8]
    assert all(isinstance(item, Persistent) for item in result.value)


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        (b"", "it ends before its pickle does"),
        (b"\x80\x02", "it ends before its pickle does"),
        (b"\x80\x09N.", "9 is not a pickle protocol"),
        (b"\xffN.", "0xff is not a pickle opcode"),
        (b"0.", "it is not a valid pickle"),
        (b"h\x01.", "it is not a valid pickle"),
        (b"Ix\n.", "it is not a valid pickle"),
        (b"N(a.", "it is not a valid pickle"),
        (b"NNs.", "it is not a valid pickle"),
        (b"NNa.", "appends to something that is not a list"),
        (b"N(NNu.", "sets items of something that is not a dictionary"),
        (b"}(Nu.", "sets items of something that is not a dictionary"),
        (b"]Nb.", "gives a state to something that takes none"),
        (b"NN\x93.", "names a class by something that is not a name"),
        (b"cos\nsystem", "it ends before its pickle does"),
        (b"(" * 6000 + b".", "nested too deeply"),
    ],
)
def test_what_is_wrong_and_where(data, fact):
    with pytest.raises(CorruptFileError, match=rf"^file: .*{fact} \(at byte \d+ of the pickle\)"):
        load(PATH, data)


@pytest.mark.parametrize(
    ("limit", "data", "fact"),
    [
        ("MOST_OBJECTS", b"(" + b"]" * 20 + b"t.", "has more than 10 objects"),
        ("MOST_REMEMBERED", b"N" + b"\x94" * 20 + b".", "remembers more than 10 objects"),
        ("MOST_OPCODES", b"N0" * 20 + b"N.", "has more than 10 steps"),
    ],
)
def test_what_is_too_large_is_not_called_damaged(limit, data, fact, monkeypatch):
    monkeypatch.setattr(unpickler if limit == "MOST_OPCODES" else pickle_machine, limit, 10)
    with pytest.raises(UnsupportedFileError, match=fact) as caught:
        load(PATH, data)
    assert "damaged" not in str(caught.value)


def test_a_long_list_of_small_numbers_is_read():
    """The indices of a data set, say, which stay far below the limit."""
    assert len(load(PATH, pickle.dumps([7] * 3_000_000, 2)).value) == 3_000_000
