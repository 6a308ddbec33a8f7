"""An error of the user's code in one sentence: its file and line, its last line, what to do."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import TracebackType

import bncli
from bncli.loaders.names import quoted

LONGEST_MESSAGE = 300
"""Characters of an error's text that a sentence repeats."""

FEW_LINES = 3
"""Lines of an error's text that are repeated whole."""

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


_ARGUMENTS = re.compile(
    r"\bforward\(\) (?:got an unexpected keyword argument|missing \d+ required|takes \d+ pos)"
)
"""What Python says where the batch has other parts than the model takes."""
_NO_MEMORY = re.compile(r"can't allocate memory|CUDA out of memory")
_CHANNELS = re.compile(
    r"expected input\[.*?(?P<last>\d+)\] to have (?P<wanted>\d+) channels, but got \d+ channels"
)
_AXES = re.compile(r"expected (?P<wanted>[45])D input \(got (?P<got>\d)D input\)")
"""What PyTorch says where the input's axes are not those of the layer."""


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
    """The error's kind and its text, on one line and printable; of a long text the last line."""
    kind = type(error).__name__
    text = str(error.msg) if isinstance(error, SyntaxError) else _text(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return quoted(kind)
    line = lines[0] if lines[0].startswith("CUDA error") else lines[-1]
    passed_on = len(lines) > 1 and re.match(r"[A-Za-z_][\w.]*(Error|Exception|Warning)\b", line)
    if not passed_on and len(lines) <= FEW_LINES and line is lines[-1]:
        line = " ".join(lines)
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
    if isinstance(error, MemoryError) or _NO_MEMORY.search(text):
        return "Smaller batches take less memory (--batch-size for files)."
    if isinstance(error, TypeError) and _ARGUMENTS.search(text):
        return (
            "Name what the model takes of a batch with --input-key; given several times, names are "
            "keyword arguments and numbers positional ones."
        )
    if not isinstance(error, RuntimeError | ValueError):
        return ""
    for pattern in _DTYPES:
        if found := pattern.search(text):
            dtype = _WEIGHTS.get(found[1].lower(), "float32")
            return f"If it is the input that has the other dtype, add --dtype {dtype}."
    if (found := _CHANNELS.search(text)) and found["last"] == found["wanted"]:
        return "If it is the input that has its channels last, give it as (N, C, ...)."
    if (found := _AXES.search(text)) and int(found["got"]) == int(found["wanted"]) - 1:
        return "If the input is a single sample, give it a batch axis in front."
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


class BatchKeyError(KeyError):
    """The user's code asked a batch for a tensor that its file lacks."""

    def __str__(self) -> str:
        """The sentence, which KeyError would put into quotes."""
        return str(self.args[0])


class BatchIndexError(BatchKeyError, IndexError):
    """The user's code asked a batch that was saved as a tuple for a part that it lacks."""


def is_own(error: BaseException) -> bool:
    """Whether it was raised by bncli's own code, called from the user's, as a hook is."""
    if isinstance(error, BatchKeyError):
        return False
    called = [_is_bnclis(file) for file, _ in _frames(error.__traceback__)]
    return bool(called) and called[-1] and not all(called)


def _is_bnclis(file: str) -> bool:
    return file.startswith(str(Path(bncli.__file__).parent) + os.sep)


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
