"""The user's code while it runs: where it prints, where it imports from, how its errors are told.

Standard output carries the report alone, so whatever the user's code prints goes to standard error.
Its folder is importable while it runs, and only then, so that a file of the user's never takes the
place of a module that bncli itself imports.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, cast

from bncli.errors import BncliError, ModelError
from bncli.given import called_from_python
from bncli.live.told import is_own, told
from bncli.process import signals


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
    the code raises, `SystemExit` as well. KeyboardInterrupt, the end by a signal and bncli's own
    errors pass, and its bugs too in what the user's code calls, such as a hook.
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
            if is_own(error):
                raise
            raise ModelError(told(error, what)) from error


@contextmanager
def _at_home() -> Iterator[None]:
    """The user's folders are importable and the command line is the user's program alone.

    A current folder that the code changes is its own: paths on bncli's command line stay. In a
    process of the user's own, the folders are all that changes, as other threads see it too.
    """
    if called_from_python():
        added = [each for each in _surroundings.folders if each not in sys.path]
        sys.path[:0] = added
        try:
            yield
        finally:
            for each in added:
                with suppress(ValueError):  # the code has removed it
                    sys.path.remove(each)
        return
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

    The streams are as before afterwards, whatever was done to them. In a process of the user's own
    they are the user's.
    """
    if called_from_python():
        yield
        return
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
