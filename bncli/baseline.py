"""The findings that are known already: only new ones fail.

A baseline is a JSON file with one known finding a line, sorted, so that its history reads well.
An entry knows the command, the file, the rule and the place, and none of the numbers: training
on, wrapping the model, or another order of the layers does not make a finding new. An entry for
a file of this call is no excuse for another file of it; an entry for a file that is not in the
call is: the checkpoint may have been renamed.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.errors import FileError
from bncli.places import Place, place
from bncli.report import Suppressed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bncli.report import Finding, Report

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One known finding; `prefix` and `place` as in `bncli.places.Place`."""

    command: str
    file: str
    code: str
    prefix: str
    place: str


def read_baseline(path: str) -> tuple[Entry, ...]:
    """The entries of a baseline. Raises FileError where it is missing or is none."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileError(
            path, "there is no such baseline; write it with --update-baseline."
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise FileError(path, f"the baseline cannot be read ({reason.lower()}).") from error
    try:
        document = json.loads(text)
        version = document["format_version"]
        entries = tuple(_entry(item) for item in document["findings"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FileError(path, "it is no baseline of bncli; name another file.") from error
    if version != FORMAT_VERSION:
        raise FileError(
            path,
            f"it is a baseline of format {version}, and this bncli reads {FORMAT_VERSION}; delete "
            "it, and write it with --update-baseline.",
        )
    return entries


def _entry(item: Any) -> Entry:
    """An entry from JSON. Raises TypeError or KeyError where it is none."""
    entry = Entry(**{key: item[key] for key in Entry.__slots__})
    if not all(isinstance(value, str) for value in asdict(entry).values()):
        raise TypeError
    return entry


def known_removed(report: Report, entries: Iterable[Entry]) -> tuple[Report, int]:
    """The report without known findings, and how many entries of its files are gone.

    None is gone that the user chose not to hear of, or whose layer was not looked at.
    """
    old = [entry for entry in entries if entry.command == report.command]
    matched = _matched(report, old)
    known = [index for index in range(len(report.findings)) if index in matched]
    files = _files(report)
    unmatched = [old[index] for index in set(range(len(old))) - set(matched.values())]
    return replace(
        report,
        findings=tuple(f for index, f in enumerate(report.findings) if index not in matched),
        suppressed=(
            *report.suppressed,
            *(Suppressed(report.findings[index], "baseline") for index in known),
        ),
    ), 0 if report.partial else sum(entry.file in files for entry in unmatched)


def _matched(report: Report, old: list[Entry]) -> dict[int, int]:
    """The index of the entry for each finding that has one, the suppressed findings last.

    An entry stands for one finding: first by file and whole name, then behind a renamed prefix,
    and then, for entries of files that are not in this call, in another file.
    """
    suppressed = (item.finding for item in report.suppressed)
    found = [_described(finding, report) for finding in (*report.findings, *suppressed)]
    files = _files(report)
    free = set(range(len(old)))
    matched: dict[int, int] = {}
    for elsewhere in (False, True):
        for name in (_full, _short):
            waiting: dict[tuple[str, ...], list[int]] = {}
            for index in free:
                if not elsewhere or old[index].file not in files:
                    key = _key(old[index], name, elsewhere)
                    waiting.setdefault(key, []).append(index)
            for index, entry in enumerate(found):
                fits = waiting.get(_key(entry, name, elsewhere))
                if fits and index not in matched:
                    matched[index] = fits.pop()
                    free.remove(matched[index])
    return matched


def _full(entry: Entry) -> str:
    return Place(entry.prefix, entry.place).full


def _short(entry: Entry) -> str:
    return entry.place


def _key(entry: Entry, name: Callable[[Entry], str], elsewhere: bool) -> tuple[str, ...]:
    """What two entries have in common if they are one finding."""
    return ("" if elsewhere else entry.file, entry.code, name(entry))


def write_baseline(path: str, report: Report, old: Iterable[Entry]) -> list[Entry]:
    """Write the report's findings as known, and keep the `old` ones that it says nothing of.

    Those are of other commands and files, of findings that the user chose not to hear of, and of
    layers that were not looked at. A file that is not there any more has none. Gives all that it
    wrote. Raises FileError where the baseline cannot be written.
    """
    from bncli.save import replacing

    entries = [_described(finding, report) for finding in report.findings]
    own = [entry for entry in old if entry.command == report.command]
    matched = _matched(report, own)
    renewed = {entry for index, entry in matched.items() if index < len(report.findings)}
    silenced = set(matched.values()) - renewed
    files = _files(report)
    entries += [entry for entry in old if entry.command != report.command]
    entries += [
        entry
        for index, entry in enumerate(own)
        if index in silenced
        or (entry.file in files and report.partial and index not in renewed)
        or (entry.file not in files and os.path.exists(entry.file))  # noqa: PTH110 (never raises)
    ]
    every = sorted(entries)
    lines = ",\n".join(f"    {json.dumps(asdict(entry))}" for entry in every)
    findings = f"[\n{lines}\n  ]" if lines else "[]"
    text = f'{{\n  "format_version": {FORMAT_VERSION},\n  "findings": {findings}\n}}\n'
    with replacing(Path(path)) as stream:
        stream.write(text.encode())
    return every


def _described(finding: Finding, report: Report) -> Entry:
    """A finding as an entry."""
    where = place(finding, report)
    return Entry(
        report.command,
        _normal(report.file_of(finding)),
        finding.code,
        where.prefix,
        where.short,
    )


def _files(report: Report) -> set[str]:
    """The files of the call, read or not."""
    return {_normal(path) for path in (*report.read, *(item.path for item in report.unread))}


def _normal(path: str) -> str:
    """A path as it is compared: without ./ and with slashes."""
    return os.path.normpath(path).replace(os.sep, "/") if path else ""
