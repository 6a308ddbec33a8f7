"""The files that a model names: they lie beside it or in folders below, and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.loaders.names import quoted
from bncli.paths import RemotePath
from bncli.urls import is_web

LONGEST_NAME, LONGEST_PART = 1024, 255
"""The bytes of a path, and of each folder in it, that file systems take."""


def beside(model: Path, name: str) -> Path:
    """The path of a file that a model names, which may be missing.

    Links are followed, as in a cache that keeps all files of a model in one folder. Raises
    CorruptFileError for a name that leads out of the model's folder, UnsupportedFileError for a
    link that does.
    """
    if not _stays(name):
        raise CorruptFileError(
            model,
            f"it names {quoted(name) or 'nothing'} as a file that belongs to it, but such files lie"
            " beside it or in folders below; download or save it again.",
        )
    if isinstance(model, RemotePath):
        if is_web(model.url):
            from urllib.parse import quote

            name = quote(name)  # a ? in it begins no query
        return model.with_name(name)
    path = Path(model).parent / name  # of bytes that are held in memory, the path alone
    check_link(model, path)
    return path


def is_missing(path: Path) -> bool:
    """Whether a file of a model is not there. Raises as `check_allowed`."""
    if path.exists():
        return False
    check_allowed(path)
    return True


def check_allowed(path: Path) -> None:
    """Raise FileError for a file elsewhere that may be there, but is not given out."""
    if isinstance(path, RemotePath):
        from bncli.files.remote import check_allowed as check

        check(path)


def check_link(model: Path, path: Path) -> None:
    """Raise UnsupportedFileError where a file of a model is a link that leads out of its folder."""
    if isinstance(model, RemotePath):
        return
    folder = Path(model).parent
    if not os.path.lexists(path):
        return
    real = Path(os.path.realpath(path))
    homes = Path(os.path.realpath(folder)), Path(os.path.realpath(model)).parent
    if not any(real.is_relative_to(home) for home in homes):
        raise UnsupportedFileError(
            model,
            f"its file {quoted(str(path.relative_to(folder)))} is a link to a place outside of its"
            " folder; put the file itself there.",
        )


def _stays(name: str) -> bool:
    """Whether it is a path downwards, of this system and of any other."""
    parts = name.split("/")
    try:
        longest = max(len(os.fsencode(part)) for part in parts)
    except ValueError:  # half of a character
        return False
    fits = longest <= LONGEST_PART and len(name) <= LONGEST_NAME
    return fits and not ({"", ".", ".."} & set(parts) or set(name) & set("\\:\0"))
