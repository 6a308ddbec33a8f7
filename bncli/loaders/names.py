"""Names inside a file: found by their ends, missed with a helpful sentence, shown safely."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from bncli.errors import FileError, MissingTensorError, UnsupportedFileError
from bncli.given import is_given
from bncli.paths import RemotePath
from bncli.report import printable

if TYPE_CHECKING:
    from bncli.model import TensorRef

MOST_LISTED = 1000
"""How many names of a folder are looked at for one like a name that is missing."""

SHOWN = 8
"""How many names a sentence lists."""

MOST_NEAR = 5
"""How many parts a sentence names instead of one that is missing."""

MOST_TEXT = 1 << 26
"""How many bytes of memory the names of a file's tensors may take together."""

_ENDS = re.compile(r"[./]")


class Text:
    """Holds the names of a file to what they may take in memory.

    A full name repeats those of all that the tensor is in, so that a small file can ask for
    gigabytes of names.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = MOST_TEXT

    def take(self, name: str | bytes, times: int = 1) -> None:
        """Count a name that is kept so many times. Raises UnsupportedFileError beyond the bound."""
        self._left -= sys.getsizeof(name) * times
        if self._left < 0:
            raise UnsupportedFileError(
                self._path,
                f"the names of its tensors take more than {MOST_TEXT >> 20} MB, most of which"
                " they have in common; save it again with shorter names.",
            )


def find_name(path: Path, names: Collection[str], wanted: str, kind: str) -> str:
    """The one of `names` that is `wanted`, or the only one that ends in it after a "." or "/".

    With no `wanted`, the only one there is. `kind` ("tensor", "BatchNorm layer") is for the
    sentence. Raises MissingTensorError, which lists the near names.
    """
    if wanted in names:
        return wanted
    if not names:
        raise MissingTensorError(path, f"there is no {kind} in it.")
    if wanted and set(names) == {""}:
        raise MissingTensorError(
            path, f"it holds one {kind}, which has no name; leave out ::{quoted(wanted)}."
        )
    if not wanted:
        if len(names) == 1:
            return next(iter(names))
        how = "give one of them" if is_given(path) else f"name one as {quoted(path.name)}::NAME"
        raise MissingTensorError(
            path,
            f"it holds {len(names)} {kind}s; {how} ({_cited(names)}).",
        )
    fits = [name for name in names if name.endswith((f".{wanted}", f"/{wanted}"))]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise MissingTensorError(
            path,
            f"{len(fits)} {kind}s end in '{quoted(wanted)}'; give more of the name "
            f"({_cited(fits)}).",
        )
    if near := nearest(names, wanted):
        raise MissingTensorError(
            path,
            f"there is no {kind} '{quoted(wanted)}' in it; did you mean {_cited(near, ' or ')}?",
        )
    raise MissingTensorError(
        path, f"there is no {kind} '{quoted(wanted)}' in it; it has {_cited(names)}."
    )


def missing(path: Path) -> FileError:
    """The error for a file that is not there, with the names in its folder that are like its."""
    if isinstance(path, RemotePath):
        return FileError(path, "there is no such file.")
    if not os.path.isdir(path.parent):  # noqa: PTH112 (never raises)
        return FileError(path, f"there is no folder '{printable(str(path.parent))}'.")
    near = _alike(path)
    instead = f"; did you mean {listed(near, ' or ')}?" if near else "."
    return FileError(path, f"there is no such file{instead}")


def _alike(path: Path) -> list[str]:
    """Up to three names in the file's folder like its own, by what stands before the suffix."""
    import difflib

    try:
        with os.scandir(path.parent) as entries:
            names = [entry.name for entry in islice(entries, MOST_LISTED)]
    except OSError:
        return []
    stems: dict[str, list[str]] = {}
    for name in sorted(names):
        stems.setdefault(Path(name).stem.lower(), []).append(name)
    close = difflib.get_close_matches(path.stem.lower(), stems, 3, 0.7)
    same = path.suffix.lower()
    found = [name for stem in close for name in stems[stem]]
    return sorted(found, key=lambda name: Path(name).suffix.lower() != same)[:3]


def under(path: Path, tensors: Mapping[str, TensorRef], name: str) -> Mapping[str, TensorRef]:
    """The tensors whose names begin with the part that the user named, all for none.

    Raises MissingTensorError, with the names that are near, where there are none.
    """
    if not name:
        return tensors
    inside = {
        each: ref for each, ref in tensors.items() if each.startswith((f"{name}.", f"{name}/"))
    }
    if inside:
        return inside
    parts = dict.fromkeys(each[: end.start()] for each in tensors for end in _ENDS.finditer(each))
    alike = [each for each in parts if len(_ENDS.findall(each)) == len(_ENDS.findall(name))]
    near = nearest(alike, name) or [each for each in parts if not _ENDS.search(each)]
    instead = f"; did you mean {listed(near[:MOST_NEAR], ' or ')}?" if near else "."
    raise MissingTensorError(path, f"there is no part '{quoted(name)}' in it{instead}")


def nearest(names: Collection[str], wanted: str) -> list[str]:
    """Up to three names that look like `wanted`, in full or in their suffixes."""
    import difflib

    depth = wanted.count(".") + 1
    by_end: dict[str, list[str]] = {}
    for name in names:
        if len(name) <= 1000:  # longer ones are not typed by hand, and cost time to compare
            by_end.setdefault(name, []).append(name)
            by_end.setdefault(".".join(name.split(".")[-depth:]), []).append(name)
    close = difflib.get_close_matches(wanted[:1000], by_end, n=3)
    return list(dict.fromkeys(name for end in close for name in by_end[end]))[:3]


def _cited(names: Collection[str], joint: str = ", ") -> str:
    """The names as `listed`, each in quotes, where one could be read as a word."""
    return listed(names, joint, mark="'")


def listed(names: Collection[str], joint: str = ", ", mark: str = "") -> str:
    """The first names, each between two of `mark`, and how many more there are."""
    first = [quoted(name) for name, _ in zip(names, range(SHOWN), strict=False)]
    shown = [f"{mark}{name}{mark}" or '""' for name in first]
    more = len(names) - len(shown)
    return joint.join(shown) + (f" and {more} more" if more else "")


def quoted(name: str, longest: int = 80) -> str:
    """A name out of a file, fit for a sentence: on one line, printable, not longer than that."""
    shown = name if len(name) <= longest else f"{name[: longest - 3]}..."
    return printable(shown)
