"""What can keep bncli from looking, and what a process says as it ends.

A verdict on the user's numbers is never an exception: it is a `bncli.report.Finding`.

    BncliError                      one sentence, exit code 2
    +-- UsageError                  a flag, or two flags together, make no sense
    +-- FileError                   a file cannot be read or written; names it
    |   +-- UnsupportedFileError    the file is complete, but of a kind bncli does not read
    |   +-- CorruptFileError        the file is cut short, inconsistent or hostile
    |   +-- MissingTensorError      the file has no tensor or layer of that name
    +-- TensorError                 a tensor has the wrong shape, dtype or size for what was asked
    +-- ModelError                  the user's model, data or metric cannot be run
    +-- MissingBackendError         the library to compare against is not installed
    +-- RankError                   the ranks of a distributed call cannot work together
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path

from bncli.paths import as_path


class ExitCode(IntEnum):
    """The process's exit codes; scripts rely on them."""

    OK = 0
    """Done, and no finding reaches `--fail-on`."""
    FINDING = 1
    """Done, and a finding reaches `--fail-on`."""
    ERROR = 2
    """Could not run: usage, unreadable file, wrong shape, missing backend."""
    NOTHING = 3
    """Nothing to check: no BatchNorm layer found, nothing was compared."""
    BUG = 4
    """A bug in bncli."""
    INTERRUPTED = 130
    """Interrupted from the keyboard (128 + SIGINT)."""
    CLOSED_PIPE = 141
    """The reader closed the pipe (128 + SIGPIPE)."""
    TERMINATED = 143
    """Terminated (128 + SIGTERM), or the terminal was closed; no half-written file stays."""


class BncliError(Exception):
    """The user's problem in one sentence: the fact, the place and the fix.

    `str(error)` is the whole sentence and has no line break in it.
    """

    exit_code = ExitCode.ERROR


class UsageError(BncliError):
    """A flag's value, or two flags together, make no sense."""


class FileError(BncliError):
    """A file cannot be read or written; `path` is in the sentence."""

    def __init__(self, path: Path | str, problem: str) -> None:
        self.path = as_path(path)
        self.problem = problem
        super().__init__(f"{path}: {problem}")


class MissingDataError(FileError):
    """A file that the model needs is missing; `name` is what the model calls it."""

    def __init__(self, path: Path | str, problem: str, name: str = "") -> None:
        super().__init__(path, problem)
        self.name = name


class UnsupportedFileError(FileError):
    """The file is complete, but of a kind that bncli does not read."""


class CorruptFileError(FileError):
    """The file is cut short, contradicts itself, or was made to do harm."""


class MissingTensorError(FileError):
    """The file has no tensor or layer of the wanted name, or several that fit."""


class TensorError(BncliError):
    """A tensor has the wrong shape, dtype or size for what was asked of it."""


class ModelError(BncliError):
    """The user's model, data or metric cannot be imported, raises, or gives what cannot be used.

    Where the user's code raised, that error is the `__cause__`, and its file and line are in the
    sentence.
    """


class MissingBackendError(BncliError):
    """The library to compare against is not installed."""


class RankError(BncliError):
    """The ranks of a distributed call do not find each other, differ, or lose their connection."""
