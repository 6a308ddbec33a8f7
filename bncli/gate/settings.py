"""The settings of a project: `[tool.bncli]` in the nearest pyproject.toml, upward from here.

The keys are those flags that say what counts; a flag on the command line overrides.
"""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bncli.errors import FileError, UsageError
from bncli.files.reading import read_bytes
from bncli.report import FailOn

FILE = "pyproject.toml"
SPOKEN_OF = re.compile(rb"bn[-_. ]?cli", re.IGNORECASE)
"""What a file holds, in whatever encoding, that may have settings of bncli."""


def load_settings(folder: Path | None = None) -> dict[str, Any]:
    """The settings by the name of the flag's parameter, such as `fail_on`; {} where none are.

    Starts in `folder` (the current one) and takes the first pyproject.toml that has a
    `[tool.bncli]`. Raises UsageError for an unknown key or a value that makes no sense, and
    FileError for a file that cannot be read, or mentions bncli and is not TOML in UTF-8.
    """
    try:
        start = (folder or Path.cwd()).absolute()
    except OSError:  # the current folder was deleted
        return {}
    for parent in (start, *start.parents):
        path = parent / FILE
        table = _table(path) if os.path.isfile(path) else None  # noqa: PTH113 (never raises)
        if table is not None:
            return _checked(path, table)
    return {}


def _table(path: Path) -> dict[str, Any] | None:
    """The `[tool.bncli]` of a file, None where it has none."""
    try:
        data = read_bytes(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise FileError(path, f"the settings cannot be read ({reason}).") from error
    if not SPOKEN_OF.search(data.replace(b"\0", b"")):  # as UTF-16 and UTF-32 write it, too
        return None  # most projects' file: not worth a parser
    if data.startswith(codecs.BOM_UTF8):
        raise FileError(path, "it begins with a byte order mark; save it as UTF-8 without one.")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise FileError(
            path, f"it is not UTF-8 (byte {error.start}), as TOML must be; save it as UTF-8."
        ) from error
    if "\0" in text:
        raise FileError(
            path, "it is UTF-16 or holds NUL bytes; TOML must be UTF-8, so save it as UTF-8."
        )
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise FileError(path, f"it is not valid TOML: {reason}.") from error
    _refuse_misspelt(path, document)
    tool = document.get("tool")
    table = tool.get("bncli") if isinstance(tool, dict) else None
    if table is None:
        return None
    if not isinstance(table, dict):
        raise UsageError(f"{path}: tool.bncli is not a table; write [tool.bncli].")
    return table


def _refuse_misspelt(path: Path, document: dict[str, Any]) -> None:
    """Raise UsageError for a table that is called nearly [tool.bncli]: it would be overlooked."""
    found = [(key, key) for key in document]
    found += [
        (name, f"{key}.{name}")
        for key, tables in document.items()
        if _plain(key) in {"tool", "tools"} and isinstance(tables, dict)
        for name in tables
    ]
    for name, whole in found:
        if _plain(name) == "bncli" and whole != "tool.bncli":
            raise UsageError(f"{path}: [{whole}] is not read; write [tool.bncli].")


def _plain(key: str) -> str:
    """A key without what people vary."""
    return re.sub(r"[-_.\s]", "", key).casefold()


def _checked(path: Path, table: dict[str, Any]) -> dict[str, Any]:
    """The table's values as the flags would have them. Raises UsageError."""
    settings = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in READERS:
            raise UsageError(f"{path}: [tool.bncli] has no key {key}; {_near(name)}")
        if name in settings:
            dashed = name.replace("_", "-")
            raise UsageError(
                f"{path}: [tool.bncli] has {dashed} and {name}, which mean the same; keep {dashed}."
            )
        settings[name] = READERS[name](value, path, f"{path}: [tool.bncli] {key}")
    return settings


def _near(name: str) -> str:
    """The keys that look like this one, or all of them."""
    import difflib

    keys = [key.replace("_", "-") for key in READERS]
    near = difflib.get_close_matches(name.replace("_", "-"), keys, n=2)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"its keys are {', '.join(keys)}."


def _fail_on(value: Any, path: Path, label: str) -> FailOn:  # noqa: ARG001  # readers are alike
    try:
        return FailOn(value)
    except ValueError:
        choices = ", ".join(choice.value for choice in FailOn)
        raise UsageError(f"{label}: {value!r} is not one of {choices}.") from None


def _patterns(value: Any, path: Path, label: str) -> list[str]:  # noqa: ARG001
    from bncli.gate.selection import parse_patterns

    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UsageError(f'{label}: it takes a list of codes, such as ["BN001", "BN9"].')
    parse_patterns(texts, label)
    return texts


def _baseline(value: Any, path: Path, label: str) -> str:
    """The baseline's path, relative to the folder of the settings."""
    if not isinstance(value, str) or not value:
        raise UsageError(f'{label}: it takes a path, such as "bncli-baseline.json".')
    there = path.parent / value
    try:
        return str(there.relative_to(Path.cwd()))
    except ValueError:
        return str(there)


def _expect_layers(value: Any, path: Path, label: str) -> int:  # noqa: ARG001
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{label}: {value!r} is not a number of layers.")
    return value


READERS: dict[str, Callable[[Any, Path, str], Any]] = {
    "fail_on": _fail_on,
    "select": _patterns,
    "ignore": _patterns,
    "baseline": _baseline,
    "expect_layers": _expect_layers,
}
"""Every key by the name of its flag's parameter, and what reads its value."""
