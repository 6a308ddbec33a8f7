"""The files of a baseline: kept relative to its folder, and compared by where they lead to."""

from __future__ import annotations

import os
from pathlib import Path

from bncli.given import may_be_name
from bncli.light import dataclass
from bncli.paths import is_remote

STANDARD_INPUT = ("", "-")
"""Paths that lead to no file."""


def is_elsewhere(path: str) -> bool:
    """Whether a path stays as it is: of no file, of one elsewhere, or the name of an object."""
    return path in STANDARD_INPUT or may_be_name(path) or is_remote(path)


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder that a baseline lies in; a link to one lies where the link leads to."""

    path: str

    @classmethod
    def of(cls, baseline: str) -> Folder:
        """The folder of a baseline's path."""
        leads = os.path.realpath(baseline) if os.path.islink(baseline) else baseline  # noqa: PTH114 (never raises)
        return cls(os.path.dirname(os.path.abspath(leads)))  # noqa: PTH100, PTH120 (as it is written)

    def kept(self, path: str) -> str:
        """A path, relative to the working folder, as the baseline writes it: with slashes.

        As it was named where that is inside the folder, so that a link may lead elsewhere one
        day. Outside of it the folders between are resolved: ".." goes through links as they lie.
        """
        if is_elsewhere(path):
            return path
        absolute = os.path.abspath(path)  # noqa: PTH100 (a name may be anything)
        try:
            relative = os.path.relpath(absolute, self.path)
            if Path(relative).parts[0] == os.pardir:
                folder, name = os.path.split(absolute)
                real = os.path.join(os.path.realpath(folder), name)  # noqa: PTH118
                relative = os.path.relpath(real, os.path.realpath(self.path))
        except ValueError:  # another drive of Windows
            relative = absolute
        return relative.replace(os.sep, "/")

    def reached(self, kept: str) -> str:
        """The file that a path of the baseline leads to."""
        if is_elsewhere(kept):
            return kept
        return reached(os.path.join(self.path, kept))  # noqa: PTH118


def reached(path: str) -> str:
    """The file that a path leads to, through all links; two paths to one file give the same."""
    if is_elsewhere(path):
        return path
    try:
        return os.path.normcase(os.path.realpath(path))
    except (OSError, ValueError):  # the current folder was deleted; a NUL in a name
        return path
