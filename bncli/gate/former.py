"""What a baseline of version 1 knows, and SARIF's fingerprints of it, by their own rule.

A place is the subject without numbers and all wrappers, and without the prefix of the layers that
were looked at, which is less strict than `bncli.gate.places`. An entry knows the command, the file,
the rule and the place. An entry for a file of this call does not excuse another file of it; an
entry for a file that is not in the call is: the checkpoint may have been renamed. Nothing new is
written by it but fingerprints beside the new ones, and it stays until the entries are rewritten,
so that no gate turns red by an upgrade.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

from bncli.gate.places import common_prefix, unwrapped
from bncli.light import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.report import Finding, Report

FOR_ALL = frozenset({"BN604"})
"""Rules of which one finding spoke for many layers of a file, and named the first alone."""


CHANNELS = re.compile(r"\bchannels? \d+(?:, \d+)*(?: and \d+(?: more)?)?")
NUMBER = re.compile(r"(?<!\S)\d+(?!\S)")


@dataclass(frozen=True, slots=True, order=True)
class FormerEntry:
    """One known finding; `prefix` is what all places of its file begin with, before `place`."""

    command: str
    file: str
    code: str
    prefix: str
    place: str

    @property
    def full(self) -> str:
        """The full name of the place, only without wrappers and numbers that training changes."""
        return f"{self.prefix}.{self.place}" if self.prefix else self.place

    def line(self) -> str:
        """The entry as JSON."""
        return json.dumps(asdict(self))


def formerly_known(
    report: Report, findings: Sequence[Finding], old: Sequence[FormerEntry]
) -> dict[int, int]:
    """The index of the entry for each of these findings that has one.

    An entry stands for one finding: first by file and full name, then behind a renamed prefix,
    and then, for entries of files that are not in this call, in another file. What a newer rule
    took over from an older one is known by entries of that: at the same place or, where one of the
    two is about the whole file, by any of the file.
    """
    found = [_described(finding, report) for finding in findings]
    files = former_files(report)
    usable = [index for index, entry in enumerate(old) if entry.command == report.command]
    free = set(usable)
    matched: dict[int, int] = {}
    for elsewhere in (False, True):
        for name in ("full", "place"):
            waiting: dict[tuple[str, ...], list[int]] = {}
            for index in sorted(free, reverse=True):
                if not elsewhere or old[index].file not in files:
                    key = _key(old[index], name, elsewhere)
                    waiting.setdefault(key, []).append(index)
            for index, entry in enumerate(found):
                fits = waiting.get(_key(entry, name, elsewhere))
                if fits and index not in matched:
                    matched[index] = fits.pop()
                    free.remove(matched[index])
    used = {entry: findings[index].subject for index, entry in matched.items()}
    for index, finding in enumerate(findings):
        if index not in matched:
            mine = [
                (i, old[i])
                for i in usable
                if used.get(i, finding.subject) == finding.subject or old[i].code in FOR_ALL
            ]
            heirs = _inherited(finding, found[index], report, mine, files)
            if heirs:
                matched[index] = heirs[0]
                used |= dict.fromkeys(heirs, finding.subject)
    return matched


def _inherited(
    finding: Finding,
    entry: FormerEntry,
    report: Report,
    old: Sequence[tuple[int, FormerEntry]],
    files: set[str],
) -> list[int]:
    """The entries of older rules that knew all that this finding says; [] where they did not.

    They may know other findings of the same place. What one finding said of many layers of its
    own file is known in each of them.
    """
    from bncli.rulebook import former_codes

    own = {finding.code} & FOR_ALL
    whole = finding.subject not in report.names.get(finding.path, ())
    heirs: list[int] = []
    for codes in [own] if own else former_codes(finding):
        fitting = (
            index
            for index, other in old
            if other.code in codes
            and (other.file == entry.file or other.file not in files)
            and (
                whole
                or other.place == entry.place
                or (other.code in FOR_ALL and other.file == entry.file)
            )
        )
        heir = next(fitting, None)
        if heir is None:
            return []
        heirs.append(heir)
    return heirs


def _key(entry: FormerEntry, name: Literal["full", "place"], elsewhere: bool) -> tuple[str, ...]:
    """What two entries have in common if they are one finding."""
    return ("" if elsewhere else entry.file, entry.code, getattr(entry, name))


def _described(finding: Finding, report: Report) -> FormerEntry:
    """A finding as an entry of version 1."""
    where = former_place(finding, report)
    return FormerEntry(report.command, _normal(report.file_of(finding)), finding.code, *where)


def former_place(finding: Finding, report: Report) -> tuple[str, str]:
    """What the places that the report judged begin with, and the finding's own behind that."""
    subject = unwrapped(NUMBER.sub("N", CHANNELS.sub("channels", finding.subject)))
    prefix = common_prefix(tuple(report.checked.get(finding.path, ())))
    if prefix and subject.startswith(f"{prefix}."):
        return prefix, subject.removeprefix(f"{prefix}.")
    return "", subject


def former_fingerprint(finding: Finding, report: Report) -> str:
    """Sixteen hexadecimal digits that stay while the same rule speaks of the same place.

    Neither the numbers in it nor wrappers and common prefixes of the names change it.
    """
    parts = (report.command, finding.code, former_place(finding, report)[1])
    return hashlib.sha256("\n".join(parts).encode(errors="backslashreplace")).hexdigest()[:16]


def former_files(report: Report) -> set[str]:
    """The files of the call, read or not, as version 1 wrote them."""
    return {_normal(path) for path in (*report.read, *(item.path for item in report.unread))}


def _normal(path: str) -> str:
    """A path as it is compared: without ./ and with slashes."""
    return os.path.normpath(path).replace(os.sep, "/") if path else ""
