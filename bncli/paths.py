"""The paths that a user names: on this system, or the URL of a file that a store or server has.

Nothing here opens or contacts anything. What a store is asked goes to `bncli.files.remote`, which
is imported when a question is first asked, and never for a path of this system.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from bncli.urls import cut_spec, is_web, path_begins, query_begins, scheme_of, shown_of, typed_of

if TYPE_CHECKING:
    _Path = Path
else:
    _Path = type(Path())  # the system's own kind, which alone has subclasses before Python 3.12

LOCAL = ("file://", "local://")


class Asked(Protocol):
    """What `bncli.files.remote` answers of a path."""

    def opened(self, path: RemotePath, shift: int) -> FileIO:
        """The file for reading, its byte `shift` taken for the first."""

    def exists(self, path: RemotePath) -> bool:
        """Whether it is there."""

    def is_dir(self, path: RemotePath) -> bool:
        """Whether it is a folder."""

    def stat(self, path: RemotePath) -> os.stat_result:
        """Its kind and size."""

    def names_in(self, path: RemotePath) -> list[str]:
        """The names in a folder."""


def _asked() -> Asked:
    """The rooms above, which know drivers."""
    return cast("Asked", import_module("bncli.files.remote"))


class RemotePath(_Path):
    """A file in a store, by its URL.

    `str` gives the URL without user name, password and query, as it may stand in a report;
    `url` is the whole of it. Names, suffixes and neighbours are those of the URL's path, and a
    neighbour keeps the query. Only what is defined here may be asked. What goes to the store
    raises FileError where that has no answer.
    """

    url: str
    shown: str

    def __str__(self) -> str:
        """The URL as people may see it."""
        return self.shown

    def __fspath__(self) -> str:
        """The same."""
        return self.shown

    def __repr__(self) -> str:
        """The same, with the kind of path."""
        return f"RemotePath({self.shown!r})"

    def __eq__(self, other: object) -> bool:
        """Whether it is the same URL."""
        return isinstance(other, RemotePath) and self.url == other.url

    def __hash__(self) -> int:
        """A number of the URL."""
        return hash(self.url)

    def __reduce__(self) -> Any:
        """Another process is told the whole URL."""
        return remote_path, (self.url,)

    def as_posix(self) -> str:
        """The URL as people may see it."""
        return self.shown

    @property
    def scheme(self) -> str:
        """What stands before ://, in small letters."""
        return self.url.partition("://")[0].lower()

    @property
    def _cut(self) -> tuple[str, str, str]:
        """The scheme with ://, the path with the host in front, and the query or fragment."""
        front = scheme_of(self.url)
        rest = self.url[len(front) :]
        ends = re.search("[?#]", rest) if is_web(front) else None
        at = ends.start() if ends else len(rest)
        return front, rest[:at], rest[at:]

    @property
    def magic(self) -> str:
        """The first signs of a pattern in the path, each once; a web server's ? is the query's."""
        path = self.url[path_begins(self.url) : query_begins(self.url)]
        return "".join(sign for sign in ("*[" if is_web(self.url) else "*?[") if sign in path)

    @property
    def name(self) -> str:
        """The last part of the path; "" for a web server's host alone."""
        front, path, _ = self._cut
        _, slash, name = path.rstrip("/").rpartition("/")
        return name if slash or not is_web(front) else ""

    @property
    def parts(self) -> tuple[str, ...]:
        """The scheme, the host or bucket, and each folder."""
        front, path, _ = self._cut
        return (front, *filter(None, path.split("/")))

    @property
    def parent(self) -> RemotePath:
        """The folder; of a host alone, itself."""
        front, path, query = self._cut
        path = path.rstrip("/").rpartition("/")[0]
        if not path.strip("/") and (is_web(front) or not self._cut[1].strip("/")):
            return self
        return remote_path(front + path + query)

    @property
    def parents(self) -> Sequence[RemotePath]:
        """The folders, from the innermost to the host."""
        found: list[RemotePath] = []
        last = self
        while (parent := last.parent) != last:
            found.append(parent)
            last = parent
        return tuple(found)

    def joinpath(self, *names: str | os.PathLike[str]) -> RemotePath:
        """The path below it."""
        front, path, query = self._cut
        for name in names:
            path = f"{path.rstrip('/')}/{os.fspath(name).lstrip('/')}" if path else os.fspath(name)
        return remote_path(front + path + query)

    def __truediv__(self, name: str | os.PathLike[str]) -> RemotePath:
        """The path below it."""
        return self.joinpath(name)

    def with_name(self, name: str) -> RemotePath:
        """A neighbour."""
        front, path, query = self._cut
        folder, slash, _ = path.rstrip("/").rpartition("/")
        return remote_path(front + folder + slash + name + query)

    def with_suffix(self, suffix: str) -> RemotePath:
        """The neighbour that differs in the suffix."""
        return self.with_name(self.name.removesuffix(self.suffix) + suffix)

    def is_relative_to(self, *other: Any) -> bool:
        """Whether it lies below a folder."""
        folder = other[0]
        return isinstance(folder, RemotePath) and (self == folder or folder in self.parents)

    def relative_to(self, *other: Any, **_: Any) -> Path:  # type: ignore[override]  # is no URL
        """The way to it from a folder above it. Raises ValueError from any other."""
        if not self.is_relative_to(*other):
            raise ValueError(f"{self} does not lie in {other[0]}")
        return Path(*self.parts[len(other[0].parts) :])

    def absolute(self) -> RemotePath:
        """Itself."""
        return self

    def resolve(self, strict: bool = False) -> RemotePath:  # noqa: ARG002 (pathlib's)
        """Itself."""
        return self

    def expanduser(self) -> RemotePath:
        """Itself."""
        return self

    def samefile(self, other_path: str | os.PathLike[str]) -> bool:
        """Whether another path is the same URL."""
        return self == as_path(other_path)

    def opened(self) -> FileIO:
        """The file for reading."""
        return _asked().opened(self, self.shift())

    @property
    def whole(self) -> RemotePath:
        """The file, whatever part of it is meant."""
        return self

    def shift(self) -> int:
        """How many bytes further on a place lies than is said of it."""
        return 0

    def range(self, offset: int, nbytes: int) -> tuple[int, int]:
        """What has to be read for the bytes at a place, from the first byte to behind the last."""
        return offset, offset + nbytes

    def exists(self, **_: bool) -> bool:
        """Whether the store has a file or folder there that it gives out."""
        return _asked().exists(self)

    def is_dir(self, **_: bool) -> bool:
        """Whether it is a folder of a store that has folders."""
        return _asked().is_dir(self)

    def is_file(self, **_: bool) -> bool:
        """Whether it is there and no folder."""
        return self.exists() and not self.is_dir()

    def stat(self, **_: bool) -> os.stat_result:
        """Its size, and whether it is a file or a folder; nothing else."""
        return _asked().stat(self)

    def iterdir(self) -> Iterator[RemotePath]:  # type: ignore[override]  # Self is this one
        """What is in the folder. Raises OSError where the store lists none."""
        return (self / name for name in _asked().names_in(self))


class ShiftedPath(RemotePath):
    """A file elsewhere, of which a part begins later than its place says: it is found on reading.

    `found` gives by how many bytes. `header` is where what is read for that begins, and `room` how
    many bytes there may be. Parts that begin at different places differ.
    """

    header: int
    room: int
    found: Callable[[], int]

    @property
    def whole(self) -> RemotePath:
        """The file, whatever part of it is meant."""
        return remote_path(self.url)

    def shift(self) -> int:
        """How many bytes further on a place lies than is said of it."""
        return self.found()

    def range(self, offset: int, nbytes: int) -> tuple[int, int]:
        """The bytes at the place, what is read to find it, and what may be between these two."""
        return self.header, offset + nbytes + self.room

    def __eq__(self, other: object) -> bool:
        """Whether it is the same part of the same file."""
        same = isinstance(other, ShiftedPath) and self.header == other.header
        return same and super().__eq__(other)

    def __hash__(self) -> int:
        """A number of the URL and the part."""
        return hash((self.url, self.header))

    def __reduce__(self) -> Any:
        """It stays in this process, as does the function that finds it."""
        raise TypeError("a part of a file elsewhere is not sent to another process")


def shifted(path: RemotePath, header: int, room: int, found: Callable[[], int]) -> ShiftedPath:
    """The path for a part of a file, see `ShiftedPath`."""
    made = ShiftedPath(path.url)
    made.url, made.shown = path.url, path.shown
    made.header, made.room, made.found = header, room, found
    return made


def is_remote(given: str | os.PathLike[str]) -> bool:
    """Whether a text or path means a file elsewhere; a file of this system may be called so."""
    if isinstance(given, RemotePath):
        return True
    text = os.fspath(given)
    if "://" not in text or not scheme_of(text):
        return False
    return not text.lower().startswith(LOCAL) and not os.path.lexists(text)


def as_path(given: str | os.PathLike[str]) -> Path:
    """The path that a text means: a `RemotePath` for a URL, but one of this system for file://."""
    if isinstance(given, Path):
        return given
    text = os.fspath(given)
    if is_remote(text):
        return remote_path(typed_of(text))
    return Path(without_scheme(text))


def without_scheme(text: str) -> str:
    """The path that file:// leads to; any other text as it is."""
    if not text.lower().startswith(LOCAL) or os.path.lexists(text):
        return text
    path = text.partition("://")[2]
    if path.startswith("localhost/"):
        path = path.removeprefix("localhost")
    if os.path.lexists(path):
        return path
    from urllib.request import url2pathname

    return url2pathname(path)


def remote_path(url: str) -> RemotePath:
    """The path of this URL, whose scheme may be in capitals."""
    scheme, mark, rest = url.partition("://")
    url = f"{scheme.lower()}{mark}{rest}"
    made = RemotePath(url)
    made.url = url
    made.shown = shown_of(url)
    return made


def as_shown(word: str) -> str:
    """A word of a command line with its URL, if it is one, as people may see it.

    From then on the shown text means that URL, so that no sentence has to mind what it repeats.
    """
    flag, mark, value = word.partition("=") if word.startswith("-") else ("", "", word)
    if not is_remote(value):
        return word
    url, _ = cut_spec(value)
    return f"{flag}{mark}{as_path(url)}{value[len(url) :]}"


def lexists(path: str | os.PathLike[str]) -> bool:
    """Whether there is something by that name. Of a path of this system it never raises."""
    return as_path(path).exists() if is_remote(path) else os.path.lexists(path)


def names_in(folder: Path) -> list[str]:
    """The names in a folder. Raises OSError where they cannot be listed."""
    if isinstance(folder, RemotePath):
        return _asked().names_in(folder)
    return os.listdir(folder)  # noqa: PTH208 (names, no paths)
