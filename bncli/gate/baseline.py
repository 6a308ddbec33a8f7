"""The findings that are known already: only new ones fail.

An entry knows the command, the file, the rule and the place, and no number that training changes.
It stands for one finding of that one file. Its extent may shrink, and what is beyond it is new.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bncli.gate.entries import Baseline, Entry, read_baseline
from bncli.gate.extent import covers, size
from bncli.gate.files import Folder, is_elsewhere, reached
from bncli.gate.former import former_files, formerly_known
from bncli.gate.places import Names, names_in, places, without_wrappers
from bncli.light import dataclass
from bncli.report import Suppressed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.gate.former import FormerEntry
    from bncli.report import Finding, Report

Look = tuple[str, str, tuple[tuple[str, str], ...]]
"""The command, the file and the inputs: what an entry must share with a finding to be about it."""


@dataclass(frozen=True, slots=True)
class Item:
    """A place of a finding, the `index`-th one, as entries are held against it."""

    index: int
    look: Look
    finding: Finding
    place: str
    names: Names


@dataclass(frozen=True, slots=True)
class Matched:
    """Which findings are known, by index, and which of them use an entry.

    The suppressed findings count behind the others.
    """

    known: frozenset[int]
    by_entry: dict[int, set[int]]
    by_former: dict[int, int]


def known_removed(report: Report, baseline: Baseline, path: str) -> tuple[Report, int]:
    """The report without what the baseline at `path` knows, and how much of it is gone.

    None is gone that the user chose not to hear of, or whose layer was not looked at.
    """
    folder = Folder.of(path)
    matched = _matched(report, baseline, folder)
    known = [index for index in range(len(report.findings)) if index in matched.known]
    judged = replace(
        report,
        findings=tuple(f for index, f in enumerate(report.findings) if index not in matched.known),
        suppressed=(
            *report.suppressed,
            *(Suppressed(report.findings[index], "baseline") for index in known),
        ),
    )
    if report.partial:
        return judged, 0
    looks, files = _looks(report), former_files(report)
    former_used = set(matched.by_former.values())
    gone = sum(
        index not in matched.by_entry and _look(entry, folder) in looks
        for index, entry in enumerate(baseline.entries)
    )
    gone += sum(
        index not in former_used and entry.file in files and entry.command == report.command
        for index, entry in enumerate(baseline.former)
    )
    return judged, gone


def update_baseline(path: str, report: Report) -> Baseline:
    """Write the report's findings as known, and keep what it says nothing of.

    That is of other commands and files, of findings that the user chose not to hear of, and of
    layers that were not looked at. A file that is not there any more has none. Gives all that it
    wrote. Two processes that do so wait for each other. Raises FileError where the baseline
    cannot be read or written.
    """
    from bncli.files.save import replacing
    from bncli.gate.lock import locked

    with locked(Path(path)):
        old = read_baseline(path) if os.path.exists(path) else Baseline()  # noqa: PTH110
        folder = Folder.of(path)
        matched = _matched(report, old, folder)
        heard = range(len(report.findings))
        entries = _described(report, folder)
        looks, judged = _looks(report), _judged(report)
        for index, entry in enumerate(old.entries):
            look = _look(entry, folder)
            if index in matched.by_entry:
                kept = matched.by_entry[index].isdisjoint(heard)
            elif look in looks:
                kept = report.partial and _bare(entry) not in judged.get(look[1], ())
            else:
                kept = entry.command != report.command or _is_there(look[1])
            if kept:
                entries.append(entry)
        written = Baseline(tuple(entries), _former_kept(report, old, matched))
        with replacing(Path(path)) as stream:
            stream.write(written.text().encode())
    return written


def _former_kept(report: Report, old: Baseline, matched: Matched) -> tuple[FormerEntry, ...]:
    """The entries of version 1 that this report does not renew."""
    renewed = {i for found, i in matched.by_former.items() if found < len(report.findings)}
    silenced = set(matched.by_former.values()) - renewed
    files = former_files(report)
    return tuple(
        entry
        for index, entry in enumerate(old.former)
        if entry.command != report.command
        or index in silenced
        or (entry.file in files and report.partial and index not in renewed)
        or (entry.file not in files and _is_there(entry.file))
    )


def _is_there(file: str) -> bool:
    """Whether an entry's file exists; nobody asks for one elsewhere, or for an object."""
    return is_elsewhere(file) or os.path.exists(file)  # noqa: PTH110 (never raises)


def _judged(report: Report) -> dict[str, set[str]]:
    """The names that were looked at, without wrappers, by the file."""
    return {
        reached(path): {names_in(report, path).bare(name) for name in names}
        for path, names in report.checked.items()
    }


# ------------------------------------------------------------------ what is known


def _matched(report: Report, baseline: Baseline, folder: Folder) -> Matched:
    """Which findings are known: those of which every place has an entry.

    An entry knows one finding, or several that are the same word for word. Names are compared
    literally first, and without wrappers only where no other layer has the entry's name today.
    """
    findings = (*report.findings, *(item.finding for item in report.suppressed))
    items = [
        item for index, finding in enumerate(findings) for item in _items(index, finding, report)
    ]
    items.sort(key=lambda item: -size(item.finding.extent))  # the large ones have less choice
    free = _by_place(baseline.entries, folder)
    used: dict[tuple[object, ...], int] = {}
    for literally in (True, False):
        for item in items:
            key = _word_for_word(item)
            entry = used.get(key)
            if entry is None:
                entry = _taken(item, free, baseline.entries, literally=literally)
            if entry is not None:
                used[key] = entry
    by_entry: dict[int, set[int]] = {}
    unknown = set()
    for item in items:
        entry = used.get(_word_for_word(item))
        if entry is None:
            unknown.add(item.index)
        else:
            by_entry.setdefault(entry, set()).add(item.index)
    rest = sorted(unknown)
    former = formerly_known(report, [findings[index] for index in rest], baseline.former)
    by_former = {rest[at]: entry for at, entry in former.items()}
    known = frozenset(range(len(findings))) - unknown | set(by_former)
    return Matched(known, by_entry, by_former)


def _items(index: int, finding: Finding, report: Report) -> list[Item]:
    """The places of a finding."""
    look = _look_of(finding, report)
    names = names_in(report, finding.path)
    return [Item(index, look, finding, place, names) for place in places(finding)]


def _word_for_word(item: Item) -> tuple[object, ...]:
    finding = item.finding
    return (item.look, finding.code, item.place, finding.message, finding.extent)


Free = dict[tuple[Look, str, str], list[int]]


def _by_place(entries: Sequence[Entry], folder: Folder) -> Free:
    """The indices of entries by look, code and place, with the wrappers and without."""
    free: Free = {}
    for index, entry in enumerate(entries):
        look = _look(entry, folder)
        for place in {entry.place, _bare(entry)}:
            free.setdefault((look, entry.code, place), []).append(index)
    return free


def _taken(item: Item, free: Free, entries: Sequence[Entry], *, literally: bool) -> int | None:
    """The entry that knows the item, which is free no more: that of the least extent."""
    from bncli.rulebook import formerly

    place = item.place if literally else item.names.bare(item.place)
    code = item.finding.code
    for known_as in (code, *formerly(code)):
        fits = [
            index
            for index in free.get((item.look, known_as, place), ())
            if code not in entries[index].apart_from
            and _is_place(item, entries[index], literally=literally)
            and covers(entries[index], item.finding.extent, item.names)
        ]
        if fits:
            taken = min(fits, key=lambda index: size(entries[index].extent))
            entry = entries[taken]
            for name in {entry.place, _bare(entry)}:
                free[item.look, known_as, name].remove(taken)
            return taken
    return None


def _is_place(item: Item, entry: Entry, *, literally: bool) -> bool:
    """Whether the entry's place is the item's."""
    if literally:
        return entry.place == item.place
    return (
        entry.place not in item.names.every
        and entry.literal == item.names.literal
        and _bare(entry) == item.names.bare(item.place)
    )


# ------------------------------------------------------------------ what is written


def _described(report: Report, folder: Folder) -> list[Entry]:
    """All findings as entries, one for each place; those that are one word for word have one."""
    from bncli.rulebook import taken_over

    every = (
        item
        for index, finding in enumerate(report.findings)
        for item in _items(index, finding, report)
    )
    entries = []
    for item in {_word_for_word(item): item for item in every}.values():
        finding, names = item.finding, item.names
        file, inputs = _about(finding, report)
        entries.append(
            Entry(
                command=report.command,
                file=folder.kept(file),
                code=finding.code,
                place=item.place,
                prefix=names.prefix,
                literal=names.literal,
                inputs=tuple((folder.kept(path), name) for path, name in inputs),
                extent=finding.extent,
                apart_from=taken_over(finding.code),
            )
        )
    return entries


def _about(finding: Finding, report: Report) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The file that a finding is about, and all inputs where they are more than that."""
    if finding.path or not report.about:
        return report.file_of(finding), ()
    file = report.about[0][0]
    return file, () if report.about == ((file, ""),) else report.about


def _bare(entry: Entry) -> str:
    """An entry's place without wrappers."""
    return without_wrappers(entry.place, entry.prefix, literal=entry.literal)


def _look(entry: Entry, folder: Folder) -> Look:
    """What an entry is about."""
    inputs = tuple((folder.reached(path), name) for path, name in entry.inputs)
    return (entry.command, folder.reached(entry.file), inputs)


def _look_of(finding: Finding, report: Report) -> Look:
    """What a finding is about."""
    file, inputs = _about(finding, report)
    return (report.command, reached(file), tuple((reached(path), name) for path, name in inputs))


def _looks(report: Report) -> set[Look]:
    """All that findings of this report could be about."""
    if report.about:
        file, inputs = report.about[0][0], report.about
        if inputs == ((file, ""),):
            inputs = ()
        resolved = tuple((reached(path), name) for path, name in inputs)
        return {(report.command, reached(file), resolved)}
    paths = {report.first_file, *report.read, *(item.path for item in report.unread)}
    paths |= {*report.checked, *report.names}  # a folder of shards is read as its files
    return {(report.command, reached(path), ()) for path in paths}
