"""Python objects in the place of paths: each has a name, which stands where a path is typed.

`objects_given` surrounds every call of the Python interface, whatever it is given.

On the command line there are none, and every question here costs a look at an empty dictionary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from types import FunctionType

LONGEST = 60
"""Letters of what an object is called."""
_NAME = re.compile(r"<[\w. -]+>")


class Names(dict[str, object]):
    """The objects of a call by name; `names` has each name by the object's identity.

    `counts` says how many are called alike.
    """

    def __init__(self, known: dict[str, object]) -> None:
        super().__init__(known)
        self.names = {id(value): name for name, value in known.items()}
        self.counts: dict[str, int] = {}


_GIVEN: ContextVar[Names | None] = ContextVar("given", default=None)
_ENDS: ContextVar[ExitStack | None] = ContextVar("ends", default=None)
"""What is done when the call ends, however that is."""


@contextmanager
def objects_given(known: dict[str, object] | None = None) -> Iterator[dict[str, object]]:
    """A call of its own: objects that are named in it are forgotten when it ends.

    Gives the objects by their names. `known` are those of a call that has ended and is gone on
    with.
    """
    given = known if isinstance(known, Names) else Names(known or {})
    token = _GIVEN.set(given)
    with ExitStack() as ends:
        end = _ENDS.set(ends)
        try:
            yield given
        finally:
            _ENDS.reset(end)
            _GIVEN.reset(token)


def at_end(call: Callable[[], object]) -> None:
    """Do this when the current call ends, whatever happens in it: the last that is said, first."""
    ends = _ENDS.get()
    if ends is None:
        raise RuntimeError("`at_end` is for what runs within `objects_given`")
    ends.callback(call)


def name_of(value: object, word: str = "") -> str:
    """The name that stands for an object in this call, such as "<ndarray>" or "<ndarray 2>".

    `word` is what it is called, by default the name of a class or function, and of another object
    that of its class. Signs that mean anything in a path, in a pattern or to a terminal stay out of
    it. One object has one name.
    """
    known = _GIVEN.get()
    if known is None:
        raise RuntimeError("objects are named within `objects_given` alone")
    if id(value) in known.names:
        return known.names[id(value)]
    named = value if isinstance(value, type | FunctionType) else type(value)
    word = re.sub(r"[^\w. -]+", "_", word or named.__name__)[:LONGEST]
    name = f"<{word}>"
    while name in known:
        known.counts[word] = known.counts.get(word, 1) + 1
        name = f"<{word} {known.counts[word]}>"
    known[name] = value
    known.names[id(value)] = name
    return name


def called_from_python() -> bool:
    """Whether a call of the Python interface runs, in a process that is the user's own.

    Nothing is shown on its streams then, and they stay where they are.
    """
    return _GIVEN.get() is not None


def is_given(text: object) -> bool:
    """Whether a text is the name of an object of this call, with or without ::NAME behind it."""
    known = _GIVEN.get()
    return bool(known) and str(text).partition("::")[0] in known  # type: ignore[operator]  # a dict


def object_of(text: object) -> object:
    """The object that a name stands for; what follows a "::" is not looked at. Raises KeyError."""
    return (_GIVEN.get() or Names({}))[str(text).partition("::")[0]]


def may_be_name(text: object) -> bool:
    """Whether a text is made as the name of an object is, in this call or in another one."""
    return _NAME.fullmatch(str(text)) is not None


def whence(text: object) -> str:
    """What a name or a path leads to, in a sentence: "the module" or "the file"."""
    return "the module" if is_given(text) else "the file"
