"""Whether a known finding still covers what is found: its extent may shrink, and not grow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.gate.places import Names, without_wrappers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bncli.gate.entries import Entry
    from bncli.report import Member


def size(extent: Iterable[Member]) -> int:
    """How many names and channels an extent has."""
    return sum(1 if isinstance(member, str) else member[2] - member[1] + 1 for member in extent)


def covers(entry: Entry, extent: Iterable[Member], names: Names) -> bool:
    """Whether every member of `extent` is one of the entry's, with `names` those of the file today.

    Names may gain or lose the file's wrapper, as places may.
    """
    literal = {member for member in entry.extent if isinstance(member, str)}
    alike = entry.literal == names.literal
    bare = {
        without_wrappers(member, entry.prefix, literal=entry.literal)
        for member in literal
        if alike and member not in names.every
    }
    known: dict[str, list[tuple[int, int]]] = {}
    for member in sorted(member for member in entry.extent if not isinstance(member, str)):
        what, first, last = member
        runs = known.setdefault(what, [])
        if runs and first <= runs[-1][1] + 1:  # runs written by hand may touch
            runs[-1] = (runs[-1][0], max(last, runs[-1][1]))
        else:
            runs.append((first, last))
    return all(
        member in literal or names.bare(member) in bare
        if isinstance(member, str)
        else _has(known.get(member[0], []), member[1], member[2])
        for member in extent
    )


def _has(runs: list[tuple[int, int]], first: int, last: int) -> bool:
    """Whether one of the runs, which do not touch, holds all from `first` to `last`."""
    return any(low <= first and last <= high for low, high in runs)
