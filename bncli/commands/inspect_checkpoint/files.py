"""Many files in one call: patterns become paths, and one bad file does not spoil the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path

from bncli.errors import BncliError, FileError
from bncli.light import dataclass
from bncli.loaders import split_spec
from bncli.loaders.interface import look
from bncli.paths import RemotePath, as_path
from bncli.process.progress import progress
from bncli.report import Unread

TOGETHER = 16
"""Files elsewhere that are looked at together before the first of them is read."""


@dataclass(slots=True)
class Files:
    """The files of a call, one after the other; what is wrong with one is kept for the end.

    `number` is how many there are of which these are a part; 0 where they are all.
    """

    specs: list[str]
    number: int = 0
    read: list[str] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)

    @property
    def several(self) -> bool:
        """Whether the report has to tell files apart."""
        return max(self.number, len(self.specs)) > 1

    def each(self) -> Iterator[tuple[str, str]]:
        """Each file's path and the name behind it, while a bar counts their bytes."""
        split = [split_spec(spec) for spec in self.specs]
        sizes = [_size(path) for path, _ in split]
        with progress("checkpoints", sum(sizes)) as advance:
            for number, ((path, name), size) in enumerate(zip(split, sizes, strict=True)):
                if number % TOGETHER == 0:
                    look(path for path, _ in split[number : number + TOGETHER])
                yield str(path), name
                advance(size)

    @contextmanager
    def judging(self, path: str) -> Iterator[None]:
        """Note that the file was read, or why not. The only file's error goes on its way."""
        try:
            try:
                yield
            except MemoryError as error:
                raise FileError(path, "there is not enough memory to judge it.") from error
        except BncliError as error:
            if not self.several:
                raise
            own = isinstance(error, FileError) and error.path == as_path(path)
            problem = error.problem if isinstance(error, FileError) and own else str(error)
            self.unread.append(Unread(path, problem))
        else:
            self.read.append(path)


def _size(path: Path) -> int:
    """A file's bytes; 0 where that is not known."""
    if isinstance(path, RemotePath):
        return 0  # which would be a request for each before the first is read
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0
