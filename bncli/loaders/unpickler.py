"""A pickle read as data: every object comes back as an inert record, and nothing is ever run.

Python's own unpickler imports the classes that a pickle names and calls what it is told to call.
This one has no way to do either. A class is a `Global` (two strings), whatever would be called is
a `Record` of the callable's name and its arguments, and the caller looks for what it knows among
the records. Dictionaries keep their items in a list, because hashing a key that a hostile file
has made can take for ever.

The work and the memory are bounded by the length of the pickle and by limits: each opcode costs a
bounded amount, and everything that is kept counts as the memory that it takes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bncli.errors import CorruptFileError, UnsupportedFileError

WINDOW = 1 << 18
"""Bytes of a file that are in memory at a time, while its pickle is read."""


class FileView(Protocol):
    """A file that a pickle lies in: its size, and any piece of it."""

    size: int

    def read(self, offset: int, count: int) -> bytes:
        """Exactly `count` bytes from `offset`. Raises FileError where they are not there."""


Buffer = bytes | FileView

MOST_OPCODES = 10_000_000
MOST_OBJECTS = 1_000_000
MOST_REMEMBERED = 1_500_000
MOST_MARKS = 5_000
MOST_WORDS = 24_000_000
"""The memory for all values together, in words of 8 bytes, by the estimates that follow."""
WORDS_A_VALUE = 5
WORDS_AN_OBJECT = 10
WORDS_A_PAIR = 15
WORDS_A_MEMO = 12
LONGEST_LINE = 4_096
LONGEST_TEXT = 1 << 16
LONGEST_INT = 1_024
"""Longer numbers and strings are no name and no size of anything; they stay in the file."""


class Global:
    """The name of a class or a function; nothing of that name was looked for."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name


class Blob:
    """A long string, number or bytes object, left in the pickle: bytes `start` to `stop`."""

    __slots__ = ("start", "stop")

    def __init__(self, start: int, stop: int) -> None:
        self.start = start
        self.stop = stop


class Persistent:
    """A reference to something outside of the pickle, such as a tensor's storage."""

    __slots__ = ("pid",)

    def __init__(self, pid: object) -> None:
        self.pid = pid


class Dict:
    """A plain dictionary: its items as pairs, in the file's order, later ones winning."""

    __slots__ = ("pairs",)

    def __init__(self) -> None:
        self.pairs: list[tuple[object, object]] = []


class Record:
    """An object of any class, or the result of any call, as the pickle describes it.

    `cls` is what would have been called (mostly a `Global`) with `args`; `states` are the values
    given to it afterwards, `pairs` and `elements` the items put into it.
    """

    __slots__ = ("args", "cls", "elements", "pairs", "states")

    def __init__(self, cls: object, args: tuple[object, ...]) -> None:
        self.cls = cls
        self.args = args
        self.states: tuple[object, ...] = ()
        self.pairs: Sequence[tuple[object, object]] = ()  # lists from the first item on
        self.elements: Sequence[object] = ()


@dataclass(frozen=True, slots=True)
class Pickle:
    """What a pickle holds: its object, every reference to the outside, where it lies in what."""

    value: object
    persistents: tuple[Persistent, ...]
    start: int
    end: int
    data: Buffer

    @property
    def length(self) -> int:
        """The number of bytes."""
        return self.end - self.start


def load(path: Path, data: Buffer, start: int = 0, stop: int | None = None) -> Pickle:
    """Read the pickle that begins at `start` and ends before `stop`.

    Raises CorruptFileError where it is no pickle, is cut short or could only do harm, and
    UnsupportedFileError where it is larger than the limits; `path` is for the sentence.
    """
    size = len(data) if isinstance(data, bytes) else data.size
    machine = _Machine(path, data, start, size if stop is None else stop)
    try:
        return machine.run()
    except (IndexError, KeyError, ValueError, struct.error) as error:
        # An empty stack, a memo that was never written, digits that are none, bytes that are
        # missing: all say that the stream is damaged. UnicodeDecodeError is a ValueError.
        raise machine.corrupt("it is no valid pickle") from error


class _Machine:
    """The stack, the memo and the position."""

    def __init__(self, path: Path, data: Buffer, start: int, stop: int) -> None:
        self.path = path
        self.data = data
        self.start = start
        self.at = start
        self.stop = stop
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, object] = {}
        self.persistents: list[Persistent] = []
        self.objects = 0
        self.words = 0
        # The bytes at hand, all or some, and the place of the first of them.
        self.window, self.base = (data, 0) if isinstance(data, bytes) else (b"", start)

    def run(self) -> Pickle:
        """Follow the opcodes to the end."""
        stop = self.stop
        for _ in range(min(stop - self.start, MOST_OPCODES)):
            at = self.at
            if at >= stop:
                raise self.corrupt("it ends before its pickle does")
            if not 0 <= at - self.base < len(self.window):
                self.refill(1)
            opcode = self.window[at - self.base]
            self.at = at + 1
            if opcode == 0x2E:  # STOP
                value = self.stack.pop()
                return Pickle(value, tuple(self.persistents), self.start, self.at, self.data)
            action = _ACTIONS.get(opcode)
            if action is None:
                raise self.corrupt(f"{opcode:#04x} is no opcode of a pickle")
            action(self)
        if self.stop - self.start > MOST_OPCODES:
            raise self.too_large(f"has more than {MOST_OPCODES} steps")
        raise self.corrupt("it ends before its pickle does")

    def refill(self, count: int) -> None:
        """Have the next `count` bytes at hand; none beyond the end is asked for."""
        if isinstance(self.data, bytes):
            return
        self.window = self.data.read(self.at, min(max(count, WINDOW), self.stop - self.at))
        self.base = self.at

    def corrupt(self, fact: str) -> CorruptFileError:
        """The error for the place where the machine stands."""
        return CorruptFileError(
            self.path,
            f"{fact} (at byte {self.at - self.start} of the pickle); it is damaged or not as"
            " PyTorch writes it, so download or save it again.",
        )

    def too_large(self, fact: str) -> UnsupportedFileError:
        """The error for a pickle that may be as its program wrote it, but holds too much."""
        return UnsupportedFileError(
            self.path,
            f"its pickle {fact}, which is more than bncli reads; save the weights alone, as"
            " model.state_dict() gives them.",
        )

    def spend(self, words: int) -> None:
        """Count memory that is about to be taken."""
        self.words += words
        if self.words > MOST_WORDS:
            raise self.too_large("holds too many values")

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        begin = self.at
        if count < 0 or begin + count > self.stop:
            raise self.corrupt("it ends before its pickle does")
        if begin + count > self.base + len(self.window):
            self.refill(count)
        self.at = begin + count
        return self.window[begin - self.base : self.at - self.base]

    def skip(self, count: int) -> Blob:
        """The next `count` bytes, left where they are."""
        begin = self.at
        if count < 0 or begin + count > self.stop:
            raise self.corrupt("it ends before its pickle does")
        self.at = begin + count
        return Blob(begin, self.at)

    def unsigned(self, width: int) -> int:
        """The next little-endian number."""
        return int.from_bytes(self.take(width), "little")

    def line(self) -> bytes:
        """The next bytes up to a line break, which is skipped."""
        longest = min(LONGEST_LINE, self.stop - self.at)
        if self.at + longest > self.base + len(self.window):
            self.refill(longest)
        begin = self.at - self.base
        end = self.window.find(b"\n", begin, begin + longest)
        if end < 0:
            raise self.corrupt("a line of its pickle does not end")
        self.at = self.base + end + 1
        return self.window[begin:end]

    def count(self) -> None:
        """One more object that takes memory."""
        self.objects += 1
        if self.objects > 100_000 + (self.at - self.start) // 2:
            raise self.corrupt("its pickle makes more objects than a checkpoint has")
        if self.objects > MOST_OBJECTS:
            raise self.too_large(f"has more than {MOST_OBJECTS} objects")
        self.spend(WORDS_AN_OBJECT)

    def new(self, value: object) -> None:
        """Push a new object."""
        self.count()
        self.stack.append(value)

    def push(self, value: object, words: int = 1) -> None:
        """Push a value that takes so many words, its place on the stack among them."""
        self.spend(words)
        self.stack.append(value)

    def text(self, length: int) -> None:
        """Push the next `length` bytes as text."""
        if length > LONGEST_TEXT:
            self.new(self.skip(length))
        else:
            self.push_text(self.take(length).decode("utf-8", "surrogatepass"))

    def push_text(self, text: str) -> None:
        """Push a text, each letter of which may take four bytes."""
        self.push(text, WORDS_A_VALUE + len(text) // 2)

    def old_text(self, raw: bytes) -> None:
        """Push a string of Python 2, which may be text or bytes."""
        try:
            self.push_text(raw.decode("utf-8"))
        except UnicodeDecodeError:
            self.push_text(raw.decode("latin-1"))

    def old_string(self, length: int) -> None:
        """Push the next `length` bytes as a string of Python 2."""
        if length > LONGEST_TEXT:
            self.new(self.skip(length))
        else:
            self.old_text(self.take(length))

    def number(self, length: int) -> None:
        """Push the next `length` bytes as a number."""
        if length > LONGEST_INT:
            self.new(self.skip(length))
        else:
            number = int.from_bytes(self.take(length), "little", signed=True)
            self.push(number, WORDS_A_VALUE + length // 4)

    def mark(self) -> None:
        """Open a group."""
        if len(self.marks) >= MOST_MARKS:
            raise self.corrupt("its pickle is nested too deeply")
        self.marks.append(self.stack)
        self.stack = []

    def group(self) -> list[Any]:
        """Close the group, and give what it holds."""
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def remember(self, key: int) -> None:
        """Keep the object on top under a number."""
        if len(self.memo) >= 100_000 + (self.at - self.start) // 2:
            raise self.corrupt("its pickle remembers more objects than a checkpoint has")
        if len(self.memo) >= MOST_REMEMBERED:
            raise self.too_large(f"remembers more than {MOST_REMEMBERED} objects")
        self.spend(WORDS_A_MEMO)
        if not 0 <= key < 1 << 32:
            raise self.corrupt("its pickle remembers an object under an impossible number")
        self.memo[key] = self.stack[-1]

    def call(self, cls: object, args: object) -> None:
        """Push the record of a call, or of an object of class `cls`."""
        if not isinstance(args, tuple):
            raise self.corrupt("its pickle makes an object without a tuple of arguments")
        if (
            isinstance(cls, Global)
            and args
            and isinstance(args[0], Global | Persistent)
            and cls.module in {"copyreg", "copy_reg"}
            and cls.name in {"_reconstructor", "__newobj__", "__newobj_ex__"}
        ):
            # How the older protocols spell "an object of the class that comes first".
            record = Record(args[0], args[1:] if cls.name == "__newobj__" else ())
            if cls.name == "_reconstructor" and isinstance(args[-1], Dict):
                self.spend(len(args[-1].pairs))
                record.pairs = list(args[-1].pairs)  # an object whose class derives from dict
        else:
            record = Record(cls, args)
        self.new(record)

    def persistent(self, pid: object) -> None:
        """Push a reference to the outside."""
        reference = Persistent(pid)
        self.new(reference)
        self.persistents.append(reference)

    def extend(self, items: list[Any]) -> None:
        """Put elements into the list, set or record on top."""
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, Record):
            if not isinstance(target.elements, list):
                target.elements = []
            target.elements.extend(items)
        else:
            raise self.corrupt("its pickle appends to something that is no list")

    def update(self, items: list[Any]) -> None:
        """Put items into the dictionary or record on top."""
        target = self.stack[-1]
        if not isinstance(target, Dict | Record) or len(items) % 2:
            raise self.corrupt("its pickle sets items of something that is no dictionary")
        if not isinstance(target.pairs, list):
            target.pairs = []
        self.spend(WORDS_A_PAIR * (len(items) // 2))
        one_by_one = iter(items)
        target.pairs.extend(zip(one_by_one, one_by_one, strict=True))

    def build(self) -> None:
        """Give the record on top its state."""
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, Record) or len(target.states) >= 8:
            raise self.corrupt("its pickle gives a state to something that takes none")
        target.states += (state,)

    def tuple_of(self, count: int) -> None:
        """Push a tuple of the last `count` values."""
        items = tuple(self.stack[-count:])
        if len(items) < count:
            raise self.corrupt("it is no valid pickle")
        del self.stack[-count:]
        self.new(items)


def _proto(m: _Machine) -> None:
    version = m.unsigned(1)
    if version > 5:
        raise m.corrupt(f"{version} is no protocol of a pickle")


def _frame(m: _Machine) -> None:
    if m.unsigned(8) > m.stop - m.at:
        raise m.corrupt("it ends before its pickle does")


def _int_line(m: _Machine) -> None:
    text = m.line()
    if text in {b"00", b"01"}:
        m.push(text == b"01")
    else:
        _push_digits(m, text)


def _push_digits(m: _Machine, text: bytes) -> None:
    m.push(_digits(text), WORDS_A_VALUE + len(text) // 8)


def _digits(text: bytes) -> int:
    if len(text) > LONGEST_INT:
        raise ValueError(text)
    return int(text.removesuffix(b"L"))


def _string_line(m: _Machine) -> None:
    text = m.line()
    if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in {b"'", b'"'}:
        raise m.corrupt("it is no valid pickle")
    # Escapes stay as they are: such strings are names of storages and parameters.
    m.old_text(text[1:-1])


def _unicode_line(m: _Machine) -> None:
    m.push_text(m.line().decode("raw-unicode-escape"))


def _global_line(m: _Machine) -> None:
    module = m.line().decode("utf-8")
    m.new(Global(module, m.line().decode("utf-8")))


def _stack_global(m: _Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise m.corrupt("its pickle names a class by something that is no name")
    m.new(Global(module, name))


def _extension(width: int) -> Callable[[_Machine], None]:
    # A number in a registry of the program that wrote the file; what it meant is not known here.
    return lambda m: m.new(Global("copyreg", f"extension {m.unsigned(width)}"))


def _inst(m: _Machine) -> None:
    module = m.line().decode("utf-8")
    cls = Global(module, m.line().decode("utf-8"))
    m.call(cls, tuple(m.group()))


def _obj(m: _Machine) -> None:
    items = m.group()
    m.call(items[0], tuple(items[1:]))


def _reduce(m: _Machine) -> None:
    args = m.stack.pop()
    m.call(m.stack.pop(), args)


def _newobj_ex(m: _Machine) -> None:
    m.stack.pop()  # keyword arguments
    _reduce(m)


def _dict(m: _Machine) -> None:
    items = m.group()
    m.new(Dict())
    m.update(items)


def _set(m: _Machine, name: str, items: list[Any]) -> None:
    record = Record(Global("builtins", name), ())
    record.elements = items
    m.new(record)


def _append(m: _Machine) -> None:
    m.extend([m.stack.pop()])


def _set_item(m: _Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    m.update([key, value])


def _pop(m: _Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.group()


def _pop_group(m: _Machine) -> None:
    m.group()


def _no_buffer(m: _Machine) -> None:
    raise m.corrupt("its pickle refers to a buffer that was kept elsewhere")


_ACTIONS: dict[int, Callable[[_Machine], None]] = {
    ord(opcode): action
    for opcode, action in (
        ("\x80", _proto),
        ("\x95", _frame),
        # Constants and numbers.
        ("N", lambda m: m.push(None)),
        ("\x88", lambda m: m.push(True)),
        ("\x89", lambda m: m.push(False)),
        ("I", _int_line),
        ("L", lambda m: _push_digits(m, m.line())),
        ("J", lambda m: m.number(4)),
        ("K", lambda m: m.push(m.unsigned(1))),
        ("M", lambda m: m.push(m.unsigned(2), WORDS_A_VALUE)),
        ("\x8a", lambda m: m.number(m.unsigned(1))),
        ("\x8b", lambda m: m.number(m.unsigned(4))),
        ("F", lambda m: m.push(float(m.line()), WORDS_A_VALUE)),
        ("G", lambda m: m.push(struct.unpack(">d", m.take(8))[0], WORDS_A_VALUE)),
        # Text and bytes.
        ("S", _string_line),
        ("T", lambda m: m.old_string(m.unsigned(4))),
        ("U", lambda m: m.old_string(m.unsigned(1))),
        ("V", _unicode_line),
        ("X", lambda m: m.text(m.unsigned(4))),
        ("\x8c", lambda m: m.text(m.unsigned(1))),
        ("\x8d", lambda m: m.text(m.unsigned(8))),
        ("B", lambda m: m.new(m.skip(m.unsigned(4)))),
        ("C", lambda m: m.new(m.skip(m.unsigned(1)))),
        ("\x8e", lambda m: m.new(m.skip(m.unsigned(8)))),
        ("\x96", lambda m: m.new(m.skip(m.unsigned(8)))),
        ("\x97", _no_buffer),
        ("\x98", _no_buffer),
        # Tuples, lists, dictionaries, sets.
        (")", lambda m: m.push(())),
        ("\x85", lambda m: m.tuple_of(1)),
        ("\x86", lambda m: m.tuple_of(2)),
        ("\x87", lambda m: m.tuple_of(3)),
        ("t", lambda m: m.new(tuple(m.group()))),
        ("]", lambda m: m.new([])),
        ("l", lambda m: m.new(m.group())),
        ("a", _append),
        ("e", lambda m: m.extend(m.group())),
        ("}", lambda m: m.new(Dict())),
        ("d", _dict),
        ("s", _set_item),
        ("u", lambda m: m.update(m.group())),
        ("\x8f", lambda m: _set(m, "set", [])),
        ("\x90", lambda m: m.extend(m.group())),
        ("\x91", lambda m: _set(m, "frozenset", m.group())),
        # The stack and the memo.
        ("(", lambda m: m.mark()),
        ("0", _pop),
        ("1", _pop_group),
        ("2", lambda m: m.push(m.stack[-1])),
        ("p", lambda m: m.remember(_digits(m.line()))),
        ("q", lambda m: m.remember(m.unsigned(1))),
        ("r", lambda m: m.remember(m.unsigned(4))),
        ("\x94", lambda m: m.remember(len(m.memo))),
        ("g", lambda m: m.push(m.memo[_digits(m.line())])),
        ("h", lambda m: m.push(m.memo[m.unsigned(1)])),
        ("j", lambda m: m.push(m.memo[m.unsigned(4)])),
        # Classes, objects, references to the outside.
        ("c", _global_line),
        ("\x93", _stack_global),
        ("\x82", _extension(1)),
        ("\x83", _extension(2)),
        ("\x84", _extension(4)),
        ("i", _inst),
        ("o", _obj),
        ("\x81", _reduce),  # NEWOBJ: a class and its arguments, as REDUCE has them
        ("\x92", _newobj_ex),
        ("R", _reduce),
        ("b", lambda m: m.build()),
        ("P", lambda m: m.persistent(m.line().decode("utf-8"))),
        ("Q", lambda m: m.persistent(m.stack.pop())),
    )
}
