"""The text of a baseline: JSON with one known finding a line, sorted, so that its history reads."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.errors import FileError
from bncli.gate.former import FormerEntry
from bncli.light import dataclass
from bncli.paths import is_remote

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bncli.report import Member

FORMAT_VERSION = 2
FORMER_VERSION = 1

MISSING = "there is no such baseline; create it with --update-baseline."


@dataclass(frozen=True, slots=True)
class Entry:
    """One known finding.

    `file` is relative to the baseline's folder. `place` is literal; `prefix` and `literal` are
    those of its file's `bncli.gate.places.Names`.
    `inputs` are what the finding is about where that is more than the file, as `Report.about`.
    `apart_from` names the codes that were told apart from `code` when this was written.
    """

    command: str
    file: str
    code: str
    place: str
    prefix: str = ""
    literal: bool = False
    inputs: tuple[tuple[str, str], ...] = ()
    extent: tuple[Member, ...] = ()
    apart_from: tuple[str, ...] = ()

    def line(self) -> str:
        """The entry as JSON; what is empty is left out."""
        pairs = ((key, getattr(self, key)) for key in self.__slots__)
        return json.dumps({key: value for key, value in pairs if value or key in REQUIRED})


REQUIRED = ("command", "file", "code", "place")


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a baseline knows: `former` by the rule of version 1, until it is rewritten."""

    entries: tuple[Entry, ...] = ()
    former: tuple[FormerEntry, ...] = ()

    def text(self) -> str:
        """The baseline as it is written."""
        lists = {"findings": (entry.line() for entry in self.entries)}
        if self.former:
            lists["version_1"] = (entry.line() for entry in self.former)
        said = "".join(f',\n  "{key}": {_list(lines)}' for key, lines in lists.items())
        return f'{{\n  "format_version": {FORMAT_VERSION}{said}\n}}\n'


def _list(lines: Iterable[str]) -> str:
    """A sorted list, a line for each item."""
    joined = ",\n".join(f"    {line}" for line in sorted(lines))
    return f"[\n{joined}\n  ]" if joined else "[]"


def read_baseline(path: str) -> Baseline:
    """What a baseline knows. Raises FileError if it is missing, not a file, or not a baseline."""
    if is_remote(path):
        raise FileError(path, "a baseline is a file of this machine; download it first.")
    try:
        mode = Path(path).stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise FileError(path, "the baseline is a pipe or a device; name a file.")
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileError(path, MISSING) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise FileError(path, f"the baseline cannot be read ({reason.lower()}).") from error
    try:
        return _parsed(json.loads(text, object_pairs_hook=_once), path)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        said = f" ({error})" if type(error) is ValueError else ""
        raise FileError(path, f"it is not a bncli baseline{said}; name another file.") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises ValueError where a key appears in it twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, _ in pairs if [k for k, _ in pairs].count(key) > 1)
        raise ValueError(f'"{twice}" appears in it twice')
    return found


def _parsed(document: Any, path: str) -> Baseline:
    """A baseline from JSON. Raises ValueError, TypeError or KeyError where it is not one."""
    version = document["format_version"]
    if type(version) is not int:
        raise ValueError('"format_version" is not a whole number')
    if version not in (FORMER_VERSION, FORMAT_VERSION):
        raise FileError(
            path,
            f"this baseline has format {version}, but this version of bncli reads only formats "
            f"{FORMER_VERSION} and {FORMAT_VERSION}; upgrade bncli, or create a new baseline in "
            "another file with --update-baseline.",
        )
    if version == FORMER_VERSION:
        return Baseline(former=tuple(map(_former, _items(document, "findings"))))
    unknown = set(document) - {"format_version", "findings", "version_1"}
    if unknown:
        raise ValueError(f'it has the unknown key "{min(unknown)}"')
    return Baseline(
        tuple(map(_entry, _items(document, "findings"))),
        tuple(map(_former, _items(document, "version_1"))) if "version_1" in document else (),
    )


def _items(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """A list of entries. Raises ValueError where it is something else."""
    if key not in document:
        raise ValueError(f'it has no "{key}"')
    items = document[key]
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError(f'"{key}" is not a list of entries')
    return items


def _former(item: dict[str, Any]) -> FormerEntry:
    """An entry of version 1, in which other keys had no meaning."""
    return FormerEntry(**{key: _text(item, key) for key in FormerEntry.__slots__})


def _entry(item: dict[str, Any]) -> Entry:
    """An entry from JSON. Raises ValueError where it is not one."""
    unknown = set(item) - set(Entry.__slots__)
    if unknown:
        raise ValueError(f'an entry has the unknown key "{min(unknown)}"')
    literal = item.get("literal", False)
    if not isinstance(literal, bool):
        raise ValueError('"literal" is neither true nor false')  # noqa: TRY004  # one kind for all
    return Entry(
        **{key: _text(item, key) for key in REQUIRED},
        prefix=_text({"prefix": "", **item}, "prefix"),
        literal=literal,
        inputs=tuple(_input(pair) for pair in _several(item, "inputs")),
        extent=tuple(map(_member, _several(item, "extent"))),
        apart_from=tuple(map(_code, _several(item, "apart_from"))),
    )


def _text(item: dict[str, Any], key: str) -> str:
    if key not in item:
        raise ValueError(f'an entry has no "{key}"')
    value = item[key]
    if not isinstance(value, str):
        raise ValueError(f'"{key}" of an entry is not text')  # noqa: TRY004
    return value


def _code(code: Any) -> str:
    if not isinstance(code, str):
        raise ValueError('"apart_from" of an entry holds something that is not a code')  # noqa: TRY004
    return code


def _several(item: dict[str, Any], key: str) -> list[Any]:
    several = item.get(key, [])
    if not isinstance(several, list):
        raise ValueError(f'"{key}" of an entry is not a list')  # noqa: TRY004
    return several


def _input(pair: Any) -> tuple[str, str]:
    if not isinstance(pair, list) or [type(part) for part in pair] != [str, str]:
        raise ValueError('"inputs" of an entry are not pairs of file and name')
    return pair[0], pair[1]


def _member(member: Any) -> Member:
    """A name, or a run of channels."""
    if isinstance(member, str):
        return member
    if (
        not isinstance(member, list)
        or [type(part) for part in member] != [str, int, int]
        or not 0 <= member[1] <= member[2]
    ):
        raise ValueError('"extent" of an entry holds neither names nor runs of channels')
    return member[0], member[1], member[2]
