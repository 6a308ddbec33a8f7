"""The stack, the memo and the position of a pickle that is read, and what they may cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.loaders.pickle_records import Blob, Buffer, Dict, Global, Persistent, Record

WINDOW = 1 << 18
"""Bytes of a file that are in memory at a time, while its pickle is read."""

# A tensor of a state_dict takes 32 opcodes, 7 objects and 8 numbers of the memo, so these limits
# leave room for some 100,000 tensors, and end what only repeats itself within seconds.
MOST_OBJECTS = 1_000_000
MOST_REMEMBERED = 1_500_000
FREE_OBJECTS, BYTES_AN_OBJECT = 100_000, 2
"""A pickle with so few bytes an object, read so far, may have no more than these objects."""
MOST_MARKS = 5_000
"""How many groups may be open at a time: each opens a list, and no program nests so deeply."""
MOST_WORDS = 24_000_000
"""The memory for all values together, in words of 8 bytes, by the estimates that follow."""
WORDS_A_VALUE = 5
WORDS_AN_OBJECT = 10
WORDS_A_PAIR = 15
WORDS_A_MEMO = 12
LONGEST_LINE = 4_096
LONGEST_TEXT = 1 << 16
LONGEST_INT = 1_024
"""Longer numbers and strings cannot be a name or a size; they stay in the file."""


class Machine:
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
            f"{fact} (at byte {self.at - self.start} of the pickle); it is damaged or was not"
            " written by PyTorch, so download or save it again.",
        )

    def too_large(self, fact: str) -> UnsupportedFileError:
        """The error for a pickle that may be as its program wrote it, but holds too much."""
        return UnsupportedFileError(
            self.path,
            f"its pickle {fact}, which is more than bncli reads; save only the weights, as"
            " model.state_dict() returns them.",
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
            cut = self.at + longest == self.stop
            fact = "it ends before its pickle does" if cut else "a line of its pickle does not end"
            raise self.corrupt(fact)
        self.at = self.base + end + 1
        return self.window[begin:end]

    def credible(self) -> int:
        """How many objects a pickle of this many bytes can have had a reason to make."""
        return FREE_OBJECTS + (self.at - self.start) // BYTES_AN_OBJECT

    def count(self) -> None:
        """One more object that takes memory."""
        self.objects += 1
        if self.objects > self.credible():
            raise self.corrupt("its pickle makes more objects than a checkpoint has")
        if self.objects > MOST_OBJECTS:
            raise self.too_large(f"has more than {MOST_OBJECTS} objects")
        self.spend(WORDS_AN_OBJECT)

    def new(self, value: object) -> None:
        """Push a new object."""
        self.count()
        self.stack.append(value)

    def push(self, value: object, words: int = 1) -> None:
        """Push a value that takes this many words, its place on the stack included."""
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
        if len(self.memo) >= self.credible():
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
            raise self.corrupt("its pickle appends to something that is not a list")

    def update(self, items: list[Any]) -> None:
        """Put items into the dictionary or record on top."""
        target = self.stack[-1]
        if not isinstance(target, Dict | Record) or len(items) % 2:
            raise self.corrupt("its pickle sets items of something that is not a dictionary")
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
            raise self.corrupt("it is not a valid pickle")
        del self.stack[-count:]
        self.new(items)
