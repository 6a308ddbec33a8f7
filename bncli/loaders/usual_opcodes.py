"""The opcodes of which the pickle of a state_dict consists, followed in one loop.

What costs more than a step of `Machine` should, or is wrong, is left to it: it does the same, one
opcode at a time, and says what is wrong.
"""

from __future__ import annotations

from typing import Any

from bncli.loaders.pickle_machine import (
    BYTES_AN_OBJECT,
    FREE_OBJECTS,
    LONGEST_TEXT,
    MOST_MARKS,
    MOST_OBJECTS,
    MOST_REMEMBERED,
    MOST_WORDS,
    WORDS_A_MEMO,
    WORDS_A_VALUE,
    WORDS_AN_OBJECT,
    Machine,
)
from bncli.loaders.pickle_records import Global, Persistent, Record

REACH = 5
"""The most bytes of one of these opcodes, without the text behind it."""
CONSTANTS: dict[int, Any] = {0x4E: None, 0x88: True, 0x89: False, 0x29: ()}
KEYED = frozenset((0x68, 0x6A, 0x71, 0x72))
"""Those that take from the memo, and put into it."""
TUPLES = {0x85: 1, 0x86: 2, 0x87: 3}
OLD_OBJECTS = ("copyreg", "copy_reg")
"""Where the functions are by which older protocols spell objects."""


def follow_usual(m: Machine, most: int) -> int:
    """Follow opcodes as long as they are usual, at most so many; gives how many they were."""
    window, at, end = m.window, m.at - m.base, min(len(m.window), m.stop - m.base) - REACH
    stack, memo, objects, words = m.stack, m.memo, m.objects, m.words
    behind = m.base - m.start + FREE_OBJECTS * BYTES_AN_OBJECT
    most_words = MOST_WORDS - max(WORDS_AN_OBJECT, WORDS_A_MEMO)
    steps = 0
    while 0 <= at < end and steps < most and words < most_words:
        opcode, argument = window[at], window[at + 1]
        after = at + 1
        if opcode in KEYED:
            after, key = at + 2, argument
            if opcode in {0x72, 0x6A}:
                after, key = at + 5, int.from_bytes(window[at + 1 : at + 5], "little")
            if opcode < 0x71:  # BINGET, LONG_BINGET
                if key not in memo:
                    break
                stack.append(memo[key])
                words += 1
            else:  # BINPUT, LONG_BINPUT
                known = min(MOST_REMEMBERED, (after + behind) // BYTES_AN_OBJECT)
                if not stack or len(memo) >= known:
                    break
                memo[key] = stack[-1]
                words += WORDS_A_MEMO
        elif opcode in {0x4B, 0x4D}:  # BININT1, BININT2
            wide = opcode == 0x4D
            after = at + 2 + wide
            stack.append(argument | window[at + 2] << 8 if wide else argument)
            words += WORDS_A_VALUE if wide else 1
        elif opcode in CONSTANTS:
            stack.append(CONSTANTS[opcode])
            words += 1
        elif opcode == 0x58:  # BINUNICODE
            after = at + 5 + int.from_bytes(window[at + 1 : at + 5], "little")
            text = _text(window, at + 5, after) if after <= end else None
            if text is None or words + WORDS_A_VALUE + len(text) // 2 > MOST_WORDS:
                break
            words += WORDS_A_VALUE + len(text) // 2
            stack.append(text)
        elif opcode == 0x28:  # MARK
            if len(m.marks) >= MOST_MARKS:
                break
            m.marks.append(stack)
            stack = []
        else:  # what makes an object, if there may be another
            if objects >= min(MOST_OBJECTS, (after + behind) // BYTES_AN_OBJECT):
                break
            below = _below(m, opcode, stack)
            if below is None:
                break
            stack = below
            objects += 1
            words += WORDS_AN_OBJECT
        at = after
        steps += 1
    m.at, m.stack, m.objects, m.words = at + m.base, stack, objects, words
    return steps


def _text(window: bytes, begin: int, end: int) -> str | None:
    """The text between two places; None where it is long, or not UTF-8."""
    if end - begin > LONGEST_TEXT:
        return None
    try:
        return window[begin:end].decode()
    except UnicodeDecodeError:
        return None


def _below(m: Machine, opcode: int, stack: list[Any]) -> list[Any] | None:
    """The stack with the object that an opcode makes; None, nothing done, for an unusual one."""
    if opcode == 0x52 and len(stack) > 1:  # REDUCE
        cls, args = stack[-2:]
        if not isinstance(args, tuple) or (isinstance(cls, Global) and cls.module in OLD_OBJECTS):
            return None
        del stack[-1]
        stack[-1] = Record(cls, args)
    elif opcode in TUPLES and len(stack) >= (count := TUPLES[opcode]):
        made = tuple(stack[-count:])
        del stack[-count:]
        stack.append(made)
    elif opcode == 0x74 and m.marks:  # TUPLE
        made = tuple(stack)
        stack = m.marks.pop()
        stack.append(made)
    elif opcode == 0x51 and stack:  # BINPERSID
        reference = Persistent(stack[-1])
        stack[-1] = reference
        m.persistents.append(reference)
    else:
        return None
    return stack
