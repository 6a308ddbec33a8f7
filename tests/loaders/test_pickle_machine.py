"""What the stack, the memo and the window of a pickle may hold, and what it costs."""

from pathlib import Path

import pytest

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.loaders import pickle_machine
from bncli.loaders.pickle_machine import Machine
from bncli.loaders.pickle_records import Blob, Dict, Global, Persistent, Record
from bncli.loaders.unpickler import load

PATH = Path("file")


class View:
    """A file that says which pieces of it were read."""

    def __init__(self, data):
        self.data, self.size, self.seen = data, len(data), []

    def read(self, offset, count):
        assert 0 <= offset <= offset + count <= self.size
        self.seen.append((offset, count))
        return self.data[offset : offset + count]


def machine(data, start=0, stop=None):
    return Machine(PATH, data, start, len(data) if stop is None else stop)


@pytest.mark.parametrize(
    "data",
    [
        b"}(" + b"N" * 1_000 + b"u.",
        b"}" + b"NNs" * 500 + b".",
        b"(" + b"N" * 1_000 + b"d.",
        b"(" + b")" * 4_000 + b"t.",
        b"(" + b"M\xff\xff" * 1_000 + b"t.",
        b"(" + b"J\xff\xff\xff\x7f" * 1_000 + b"t.",
        b"(" + b"I999\n" * 1_000 + b"t.",
        b"(" + b"L999L\n" * 1_000 + b"t.",
        b"(" + b"F1\n" * 1_000 + b"t.",
        b"(" + (b"G" + bytes(8)) * 1_000 + b"t.",
        b"(" + b"U\x02ab" * 1_000 + b"t.",
        b"(" + b"\x8c\x02ab" * 1_000 + b"t.",
        b"(" + b"S'ab'\n" * 1_000 + b"t.",
        b"(" + b"Vab\n" * 1_000 + b"t.",
        b"N" + b"\x94" * 500 + b".",
        b"]" * 500 + b".",
        b"X" + (9_000).to_bytes(4, "little") + b"a" * 9_000 + b".",
        b"}("
        + b"N" * 200
        + b"u\x940"
        + (b"ccopyreg\n_reconstructor\nca\nb\nNh\0\x87R0") * 20
        + b".",
    ],
)
def test_everything_that_is_kept_counts(data, monkeypatch):
    monkeypatch.setattr(pickle_machine, "MOST_WORDS", 4_000)
    with pytest.raises(
        UnsupportedFileError, match=r"holds too many values, .* save only the weights"
    ):
        load(PATH, data)


@pytest.mark.parametrize("window", [1, 4, 1 << 18])
def test_a_file_is_read_window_by_window(window, monkeypatch):
    monkeypatch.setattr(pickle_machine, "WINDOW", window)
    view = View(b"0123456789abcdef\nrest")
    m = Machine(PATH, view, 2, 19)
    assert m.take(3) == b"234"
    assert m.unsigned(1) == ord("5")
    blob = m.skip(2)
    assert (blob.start, blob.stop) == (6, 8)
    assert m.line() == b"89abcdef"
    assert m.take(2) == b"re"
    for action in (lambda: m.take(1), lambda: m.skip(1), lambda: m.take(-1), lambda: m.skip(-1)):
        with pytest.raises(CorruptFileError, match=r"it ends before its pickle does \(at byte 17"):
            action()
    assert all(offset + count <= 19 for offset, count in view.seen)
    if window == 1 << 18:
        assert view.seen == [(2, 17)]


def test_a_line_has_an_end_and_a_greatest_length():
    longest = pickle_machine.LONGEST_LINE
    assert machine(b"a" * (longest - 1) + b"\n").line() == b"a" * (longest - 1)
    with pytest.raises(CorruptFileError, match="a line of its pickle does not end"):
        machine(b"a" * longest + b"\n").line()
    with pytest.raises(CorruptFileError, match="it ends before its pickle does"):
        machine(b"aaa\n", stop=3).line()


@pytest.mark.parametrize("push", ["text", "old_string"])
def test_what_is_long_stays_where_it_is(push):
    longest = pickle_machine.LONGEST_TEXT
    m = machine(b"\xc3\xa9" * (longest + 1))
    getattr(m, push)(longest)
    getattr(m, push)(longest + 1)
    short, long = m.stack
    assert short == "\u00e9" * (longest // 2)
    assert isinstance(long, Blob)
    assert (long.start, long.stop) == (longest, 2 * longest + 1)


def test_numbers_are_signed_and_texts_of_python_2_may_be_bytes():
    m = machine(b"\xfe\xff" + b"\xe9\xff")
    m.number(2)
    m.old_string(2)
    assert m.stack == [-2, "\u00e9\u00ff"]
    m = machine(bytes(pickle_machine.LONGEST_INT + 1))
    m.number(pickle_machine.LONGEST_INT)
    m.number(1)
    assert m.stack == [0, 0]
    m = machine(bytes(pickle_machine.LONGEST_INT + 1))
    m.number(pickle_machine.LONGEST_INT + 1)
    assert isinstance(m.stack[0], Blob)


@pytest.mark.parametrize("size", [0, 1_000])
def test_only_so_many_objects_are_credible_for_so_many_bytes(size, monkeypatch):
    monkeypatch.setattr(pickle_machine, "FREE_OBJECTS", 10)
    m = machine(bytes(40 + size), start=40)
    m.take(size)
    for _ in range(10 + size // 2):
        m.new([])
    with pytest.raises(CorruptFileError, match="makes more objects than a checkpoint has"):
        m.new([])
    for key in range(10 + size // 2):
        m.remember(key)
    with pytest.raises(CorruptFileError, match="remembers more objects than a checkpoint has"):
        m.remember(0)


@pytest.mark.parametrize("key", [-1, 1 << 32])
def test_a_number_of_the_memo_is_one_of_32_bits(key):
    m = machine(b"")
    m.new([])
    m.remember((1 << 32) - 1)
    with pytest.raises(CorruptFileError, match="under an impossible number"):
        m.remember(key)


def test_groups_hold_what_came_since_their_mark(monkeypatch):
    monkeypatch.setattr(pickle_machine, "MOST_MARKS", 2)
    m = machine(b"")
    m.push(1)
    m.mark()
    m.push(2)
    m.mark()
    m.push(3)
    with pytest.raises(CorruptFileError, match="nested too deeply"):
        m.mark()
    assert (m.group(), m.group(), m.stack) == ([3], [2], [1])


@pytest.mark.parametrize("module", ["copyreg", "copy_reg"])
@pytest.mark.parametrize(
    ("name", "args"), [("_reconstructor", ()), ("__newobj__", (7,)), ("__newobj_ex__", ())]
)
def test_older_spellings_of_an_object_of_a_class(module, name, args):
    m = machine(b"")
    cls = Global("a", "B")
    m.call(Global(module, name), (cls, 7))
    m.call(Global(module, "other"), (cls, 7))
    made, called = m.stack
    assert (made.cls, made.args) == (cls, args)
    assert called.args == (cls, 7)
    with pytest.raises(CorruptFileError, match="without a tuple of arguments"):
        m.call(cls, [7])


def test_an_object_whose_class_derives_from_dict_has_its_items():
    m = machine(b"")
    items = Dict()
    items.pairs.append(("a", 1))
    m.call(
        Global("copyreg", "_reconstructor"), (Global("a", "B"), Global("builtins", "dict"), items)
    )
    assert m.stack[0].pairs == [("a", 1)]
    assert m.stack[0].pairs is not items.pairs


def test_what_is_put_into_objects():
    m = machine(b"")
    record = Record(Global("a", "B"), ())
    m.stack = [record]
    m.extend([1, 2])
    m.extend([3])
    m.update(["k", 4])
    m.update(["k", 5])
    for state in range(8):
        m.stack.append(state)
        m.build()
    assert (record.elements, record.pairs) == ([1, 2, 3], [("k", 4), ("k", 5)])
    assert record.states == tuple(range(8))
    m.stack.append(9)
    with pytest.raises(CorruptFileError, match="a state to something that takes none"):
        m.build()
    m.persistent("id")
    assert isinstance(m.stack[-1], Persistent)
    assert m.persistents == [m.stack[-1]]
    with pytest.raises(CorruptFileError, match="sets items of something"):
        m.update([1, 2])
    m.stack = [1, 2, 3]
    m.tuple_of(2)
    assert m.stack == [1, (2, 3)]
    with pytest.raises(CorruptFileError, match="not a valid pickle"):
        m.tuple_of(3)
