"""The user's code while it runs: where it prints, where it imports from, how its errors are told.

Standard output carries the report alone, so whatever the user's code prints goes to standard error.
Its folder is importable while it runs, and only then, so that a file of the user's never takes the
place of a module that bncli itself imports.
"""

from __future__ import annotations

import io
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, cast

import bncli
from bncli.errors import BncliError, ModelError
from bncli.loaders.names import quoted
from bncli.process import signals

LONGEST_MESSAGE = 300
"""Characters of an error's text that a sentence repeats."""

_FRAME = re.compile(r'^\s*File "(.+?)", line (\d+)', re.MULTILINE)
"""A place in a traceback that was passed on as text, as a worker of a DataLoader does."""

_DTYPES = [
    re.compile(pattern)
    for pattern in (
        r"Input type \(.*\) and (?:bias|weight) type \((?:\w+(?:::|\.))*(\w+?)(?:Tensor)?\)",
        r"must have the same dtype, but got \w+ and (\w+)",
        r"expected scalar type \w+ but found (\w+)",
        r"input dtype \(torch\.\w+\) does not match weight dtype \(torch\.(\w+)\)",
        r"mixed dtype \((CPU)\)",
        r"not implemented for ['\"](?:Long|Int|Short|Byte|Char|Bool)(['\"])",
    )
]
"""What PyTorch says where an input's dtype is not that of the weights, which some of it names."""
_WEIGHTS = {"half": "float16", "float16": "float16", "bfloat16": "bfloat16", "double": "float64"}
"""Dtypes of weights as errors call them; all others are taken as float32, the usual one."""


class _Surroundings:
    """What the user's code finds around it, kept from one of its runs to the next."""

    def __init__(self) -> None:
        self.folders: list[str] = []
        self.argv = [""]
        self.directory: str | None = None


_surroundings = _Surroundings()


def let_import_from(folder: str, program: str) -> None:
    """Make the modules in a folder importable for the user's code, called as `program`."""
    others = [each for each in _surroundings.folders if each != folder]
    _surroundings.folders = [folder, *others]
    _surroundings.argv = [program]


@contextmanager
def users_code(what: str) -> Iterator[None]:
    """Run the user's code: it prints on standard error, and its errors are told in one sentence.

    `what` says what runs, such as "the forward pass", for "seg.py:31: the forward pass raised
    ...". The folders of the user's files are importable meanwhile. Raises ModelError for whatever
    the code raises, `SystemExit` as well; KeyboardInterrupt, the end by a signal and bncli's own
    errors pass.
    """
    with ExitStack() as stack:
        stack.enter_context(_at_home())
        stack.enter_context(_printing_aside())
        try:
            yield
        except (KeyboardInterrupt, GeneratorExit, signals.Terminated, BncliError):
            raise
        except BaseException as error:
            if signals.received() == signals.INTERRUPT:  # of which a library made its own error
                raise KeyboardInterrupt from error
            if signals.received() is not None:
                raise signals.Terminated from error
            raise ModelError(told(error, what)) from error


@contextmanager
def _at_home() -> Iterator[None]:
    """The user's folders are importable and the command line is the user's program alone.

    A current folder that the code changes is its own: paths on bncli's command line stay.
    """
    path, argv, folders = sys.path, sys.argv, _surroundings.folders
    sys.path = [*folders, *path]
    sys.argv = list(_surroundings.argv)
    here = _directory()
    _go_to(_surroundings.directory)
    try:
        yield
    finally:
        kept = [each for each in sys.path if each in folders or each not in path]
        _surroundings.folders = list(dict.fromkeys(kept))
        sys.path, sys.argv = path, argv
        there = _directory()
        _surroundings.directory = there if there != here else None
        if there != here:
            _go_to(here)


def _directory() -> str | None:
    """The current folder; None where it was removed."""
    try:
        return os.getcwd()  # noqa: PTH109  # a text, which costs less
    except OSError:
        return None


def _go_to(directory: str | None) -> None:
    if directory is not None:
        with suppress(OSError):  # it was removed
            os.chdir(directory)


# ------------------------------------------------------------------ prints


@contextmanager
def _printing_aside() -> Iterator[None]:
    """Standard output is standard error meanwhile, for other programs and libraries in C as well.

    The streams are as before afterwards, whatever was done to them.
    """
    out, err = sys.stdout, sys.stderr
    number = _number_of(err)
    kept = None
    if number is not None and _number_of(sys.__stdout__) == 1:
        _flush(sys.__stdout__)
        kept = os.dup(1)
        os.dup2(number, 1)
    sys.stdout = aside = _aside(number, err)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err
        _flush(aside)
        if kept is not None:
            _flush(sys.__stdout__)
            os.dup2(kept, 1)
            os.close(kept)


def _flush(stream: IO[str] | None) -> None:
    with suppress(OSError, ValueError, AttributeError):  # closed, full, or not there
        stream.flush()  # type: ignore[union-attr]  # suppressed where it is None


def _number_of(stream: IO[str] | None) -> int | None:
    """The file descriptor behind a stream; None where it has none."""
    try:
        return stream.fileno() if stream is not None else None
    except (OSError, ValueError, AttributeError):
        return None


_open: dict[int, IO[str]] = {}


def _aside(number: int | None, err: IO[str] | None) -> IO[str]:
    """A stream to standard error that the user's code may close without harm.

    It stays the same, as a logger of the user's may keep it.
    """
    if number is None:
        return err if err is not None else cast("IO[str]", _Nowhere())
    stream = _open.get(number)
    if stream is None or stream.closed:
        stream = open(  # noqa: SIM115  # a descriptor, which stays open
            number, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False
        )
        _open[number] = stream
    return stream


class _Nowhere(io.TextIOBase):
    """A stream that takes everything, where there is no standard error."""

    def write(self, text: str) -> int:
        """Take a text."""
        return len(text)


# ------------------------------------------------------------------ errors


def told(error: BaseException, what: str) -> str:
    """One sentence: the user's file and line, what ran, and the error's last line."""
    place = place_of(error)
    said = last_line(error)
    if isinstance(error, SystemExit):
        sentence = f"{what} ended the process ({said})"
    else:
        sentence = f"{what} raised {said}"
    before = f"{place}: " if place else ""
    hint = hint_for(error)
    end = "" if sentence.endswith((".", "!", "?")) else "."
    return f"{before}{sentence}{end}{f' {hint}' if hint else ''}"


def last_line(error: BaseException) -> str:
    """The error's kind and the last line of its text, on one line and printable."""
    kind = type(error).__name__
    text = str(error.msg) if isinstance(error, SyntaxError) else _text(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return quoted(kind)
    line = lines[0] if lines[0].startswith("CUDA error") else lines[-1]
    passed_on = len(lines) > 1 and re.match(r"[A-Za-z_][\w.]*(Error|Exception|Warning)\b", line)
    return quoted(line if passed_on else f"{kind}: {line}", LONGEST_MESSAGE)


def _text(error: BaseException) -> str:
    """What an error says; "" where it cannot say it."""
    try:
        return str(error)
    except (Exception, SystemExit):  # noqa: BLE001  # its own code, which may do anything
        return ""


def hint_for(error: BaseException) -> str:
    """What to do about an error whose cause is known by its text; "" for any other."""
    text = _text(error)
    if isinstance(error, ImportError) and "attempted relative import" in text:
        return "Name a file that is part of a package as package.module:name."
    if isinstance(error, RuntimeError | ValueError):
        for pattern in _DTYPES:
            if found := pattern.search(text):
                dtype = _WEIGHTS.get(found[1].lower(), "float32")
                return f"If it is the input that has the other dtype, add --dtype {dtype}."
    return ""


def place_of(error: BaseException) -> str:
    """`FILE:LINE` of the deepest frame in the user's own code, "" where there is none.

    That is what neither Python nor an installed package nor bncli has; where only packages are on
    the way, it is the deepest frame outside of Python, PyTorch and bncli.
    """
    if isinstance(error, SyntaxError) and error.filename and os.path.isfile(error.filename):  # noqa: PTH113  # never raises
        return f"{shown(error.filename)}:{error.lineno}"
    frames = [*_frames(error.__traceback__), *_passed_on(error)]
    for wanted in (_OWN, _PACKAGE):
        for file, line in reversed(frames):
            if _standing(file) == wanted:
                return f"{shown(file)}:{line}"
    return ""


def _frames(trace: TracebackType | None) -> Iterator[tuple[str, int]]:
    for frame, line in traceback.walk_tb(trace):
        yield frame.f_code.co_filename, line


def _passed_on(error: BaseException) -> list[tuple[str, int]]:
    """The frames of a traceback that is in the error's text."""
    text = _text(error)
    if "Traceback (most recent call last)" not in text:
        return []
    return [(file, int(line)) for file, line in _FRAME.findall(text)]


_OWN, _PACKAGE, _LIBRARY = range(3)


@cache
def _standing(file: str) -> int:
    """Whose a file is: the user's own, an installed package's, or of Python, PyTorch and bncli."""
    if file.startswith("<"):
        return _LIBRARY
    for folder, standing in _folders():
        if file.startswith(folder + os.sep):
            return standing
    return _OWN


@cache
def _folders() -> tuple[tuple[str, int], ...]:
    """The folders that are not the user's, those inside of others first."""
    import site

    torch = sys.modules.get("torch")
    libraries = [
        str(Path(module.__file__).parent) for module in (bncli, torch) if module and module.__file__
    ]
    packages = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    packages += [*site.getsitepackages(), site.getusersitepackages()]
    python = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    return (
        *((folder, _LIBRARY) for folder in libraries),
        *((folder, _PACKAGE) for folder in packages),
        *((folder, _LIBRARY) for folder in python),
    )


def shown(path: str) -> str:
    """A file as the user would type it: from the current folder where it lies in that."""
    try:
        relative = os.path.relpath(path)
    except (OSError, ValueError):  # another drive, or no current folder any more
        relative = path
    return quoted(path if relative.startswith("..") else relative, LONGEST_MESSAGE)
