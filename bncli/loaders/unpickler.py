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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bncli.loaders.pickle_machine import LONGEST_INT, WORDS_A_VALUE, Machine
from bncli.loaders.pickle_records import Buffer, Dict, Global, Pickle, Record
from bncli.loaders.usual_opcodes import follow_usual

MOST_OPCODES = 10_000_000
"""A tensor of a state_dict takes 32."""


def load(path: Path, data: Buffer, start: int = 0, stop: int | None = None) -> Pickle:
    """Read the pickle that begins at `start` and ends before `stop`.

    Raises CorruptFileError where it is not a pickle, is cut short or could only do harm, and
    UnsupportedFileError where it is larger than the limits; `path` is for the sentence.
    """
    size = len(data) if isinstance(data, bytes) else data.size
    machine = Machine(path, data, start, size if stop is None else stop)
    try:
        return _run(machine)
    except (IndexError, KeyError, ValueError, struct.error) as error:
        # An empty stack, a memo that was never written, digits that are none, bytes that are
        # missing: all say that the stream is damaged. UnicodeDecodeError is a ValueError.
        raise machine.corrupt("it is not a valid pickle") from error


def _run(m: Machine) -> Pickle:
    """Follow the opcodes to the end."""
    stop = m.stop
    left = min(stop - m.start, MOST_OPCODES)
    while left > 0:
        left -= follow_usual(m, left) + 1
        at = m.at
        if at >= stop:
            raise m.corrupt("it ends before its pickle does")
        if not 0 <= at - m.base < len(m.window):
            m.refill(1)
        opcode = m.window[at - m.base]
        m.at = at + 1
        if opcode == 0x2E:  # STOP
            value = m.stack.pop()
            return Pickle(value, tuple(m.persistents), m.start, m.at, m.data)
        action = _ACTIONS.get(opcode)
        if action is None:
            raise m.corrupt(f"{opcode:#04x} is not a pickle opcode")
        action(m)
    if m.stop - m.start > MOST_OPCODES:
        raise m.too_large(f"has more than {MOST_OPCODES} steps")
    raise m.corrupt("it ends before its pickle does")


def _proto(m: Machine) -> None:
    version = m.unsigned(1)
    if version > 5:
        raise m.corrupt(f"{version} is not a pickle protocol")


def _frame(m: Machine) -> None:
    if m.unsigned(8) > m.stop - m.at:
        raise m.corrupt("it ends before its pickle does")


def _int_line(m: Machine) -> None:
    text = m.line()
    if text in {b"00", b"01"}:
        m.push(text == b"01")
    else:
        _push_digits(m, text)


def _push_digits(m: Machine, text: bytes) -> None:
    m.push(_digits(text), WORDS_A_VALUE + len(text) // 8)


def _digits(text: bytes) -> int:
    if len(text) > LONGEST_INT:
        raise ValueError(text)
    return int(text.removesuffix(b"L"))


def _string_line(m: Machine) -> None:
    text = m.line()
    if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in {b"'", b'"'}:
        raise m.corrupt("it is not a valid pickle")
    # Escapes stay as they are: such strings are names of storages and parameters.
    m.old_text(text[1:-1])


def _unicode_line(m: Machine) -> None:
    m.push_text(m.line().decode("raw-unicode-escape"))


def _global_line(m: Machine) -> None:
    module = m.line().decode("utf-8")
    m.new(Global(module, m.line().decode("utf-8")))


def _stack_global(m: Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise m.corrupt("its pickle names a class by something that is not a name")
    m.new(Global(module, name))


def _extension(width: int) -> Callable[[Machine], None]:
    # A number in a registry of the program that wrote the file; what it meant is not known here.
    return lambda m: m.new(Global("copyreg", f"extension {m.unsigned(width)}"))


def _inst(m: Machine) -> None:
    module = m.line().decode("utf-8")
    cls = Global(module, m.line().decode("utf-8"))
    m.call(cls, tuple(m.group()))


def _obj(m: Machine) -> None:
    items = m.group()
    m.call(items[0], tuple(items[1:]))


def _reduce(m: Machine) -> None:
    args = m.stack.pop()
    m.call(m.stack.pop(), args)


def _newobj_ex(m: Machine) -> None:
    m.stack.pop()  # keyword arguments
    _reduce(m)


def _dict(m: Machine) -> None:
    items = m.group()
    m.new(Dict())
    m.update(items)


def _set(m: Machine, name: str, items: list[Any]) -> None:
    record = Record(Global("builtins", name), ())
    record.elements = items
    m.new(record)


def _append(m: Machine) -> None:
    m.extend([m.stack.pop()])


def _set_item(m: Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    m.update([key, value])


def _pop(m: Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.group()


def _pop_group(m: Machine) -> None:
    m.group()


def _no_buffer(m: Machine) -> None:
    raise m.corrupt("its pickle refers to a buffer that was kept elsewhere")


_ACTIONS: dict[int, Callable[[Machine], None]] = {
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
