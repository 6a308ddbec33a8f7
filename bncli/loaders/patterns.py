"""Patterns of files, which a shell did not expand, and specs that mean the same."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bncli.errors import FileError
from bncli.given import is_given
from bncli.loaders import split_spec
from bncli.paths import RemotePath, as_path

MOST_SETS = 4
"""Brackets in a pattern that are read as themselves one by one; of more, all or none."""


def expanded(specs: Sequence[str], key: Callable[[str], Any] | None = None) -> list[str]:
    """The specs with each quoted pattern, `PATTERN` or `PATTERN::NAME`, as the files it means.

    `**` goes through folders of any depth. A file that is called so is meant by its name, and
    brackets in a pattern also mean themselves: 'run[1]*.pt' fits run[1]-a.pt and run1-a.pt. What
    several of them mean stands once, at its first place; the files of one pattern are ordered by
    `key`. Raises FileError where a pattern means no file.
    """
    every: list[str] = []
    for spec in specs:
        path, name = split_spec(spec)
        if isinstance(path, RemotePath):
            every += _elsewhere(path, name, key)
            continue
        if is_given(spec) or not glob.has_magic(str(path)) or os.path.lexists(path):
            every.append(spec)
            continue
        found = sorted(
            {
                file
                for pattern in _readings(str(path))
                for file in glob.glob(pattern, recursive=True)  # noqa: PTH207 (may be absolute)
                if not Path(file).is_dir()
            },
            key=key,
        )
        if not found:
            raise FileError(path, "no file fits this pattern.")
        every += [f"{file}::{name}" if name else file for file in found]
    return once(every)


def _elsewhere(path: RemotePath, name: str, key: Callable[[str], Any] | None) -> list[str]:
    """The specs that a URL means, which may be a pattern; its store says what fits."""
    if not path.magic or (set(path.magic) <= set("?[") and path.exists()):
        files = [str(path)]
    else:
        from bncli.files.remote import fitting

        files = sorted((str(as_path(url)) for url in fitting(path)), key=key)
    if not files:
        raise FileError(path, "no file fits this pattern.")
    return [f"{file}::{name}" if name else file for file in files]


def once(specs: Sequence[str]) -> list[str]:
    """The specs without those that mean the same as one before."""
    once: dict[tuple[str, str], str] = {}
    for spec in specs:
        once.setdefault(_normal(spec), spec)
    return list(once.values())


def _readings(pattern: str) -> Iterator[str]:
    """The pattern with its brackets as sets of characters, and as themselves, one by one."""
    parts = re.split(r"(\[!?[^]/][^]/]*\])", pattern)  # every other part is a set
    sets = parts[1::2]
    literal = [f"[[]{part[1:]}" for part in sets]
    each = itertools.product(*zip(sets, literal, strict=True))
    for chosen in each if len(sets) <= MOST_SETS else (sets, literal):
        parts[1::2] = chosen
        yield "".join(parts)


def _normal(spec: str) -> tuple[str, str]:
    """The file and the name that a spec means, however it is written."""
    path, name = split_spec(spec)
    return str(path) if isinstance(path, RemotePath) else os.path.normpath(path), name


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that puts layer10 behind layer9."""
    parts = re.split(r"([0-9]{1,18})", name)
    return [
        (1, 0, part) if index % 2 == 0 else (0, int(part), "") for index, part in enumerate(parts)
    ]
