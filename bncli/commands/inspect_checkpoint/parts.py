"""Checkpoints cut into shards for many tasks: what a task judges, and the whole from its reports.

A part is the JSON report of a call with --shard. Its fact `part` says which shard it is, of which
files and with which flags, and holds what was seen of each file (`record`). The flags of the gate
(--select, --ignore, --baseline, --fail-on) decide about the report and the exit code of the call
that has them, and change nothing in the record: those of the call that merges the parts decide
about the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.errors import CorruptFileError, FileError, UnsupportedFileError, UsageError
from bncli.files.reading import open_to_read, remember_path
from bncli.loaders import split_spec
from bncli.loaders.names import quoted
from bncli.paths import as_path, is_remote
from bncli.renderers.json import FORMAT_VERSION, strict

if TYPE_CHECKING:
    from bncli.commands.inspect_checkpoint.record import Entry
    from bncli.model.part import Part

COMMAND = "inspect-checkpoint"
BEGINNING = (b'{"format_version"', b'{"charts"')
"""How a report of bncli begins without spaces, as it is written or with sorted keys."""
LARGEST, MOST_MARKS, WIDTH = 1 << 30, 1 << 16, 6
"""How many bytes a part may have, how many marks (`lean_json`), and in how many bytes one more: a
layer takes some 2100 bytes, with its row for scripts."""


def damaged(path: Path, fact: str) -> CorruptFileError:
    """The error for a part that is not what bncli writes."""
    return CorruptFileError(
        path, f"{fact}; the report is damaged or was changed, so make the part again."
    )


# ------------------------------------------------------------------ which inputs are parts


def reports_among(specs: Sequence[str]) -> list[Path]:
    """The specs as paths where they are JSON reports of bncli; none where they are checkpoints.

    Raises UsageError for both in one call.
    """
    split = [split_spec(spec) for spec in specs]
    reports = {
        spec: name for spec, (path, name) in zip(specs, split, strict=True) if is_report(path)
    }
    for spec, name in reports.items():
        if name:
            raise UsageError(
                f"{spec}: a part is merged with all of its layers; leave ::{name} out."
            )
    if reports and len(reports) < len(specs):
        first, other = next(iter(reports)), next(spec for spec in specs if spec not in reports)
        raise UsageError(
            f"{first} is a report of bncli and {other} is not; merge reports in a call of "
            "their own."
        )
    return [as_path(spec) for spec in reports]


def is_report(path: Path) -> bool:
    """Whether a file begins as a JSON report of bncli does."""
    if path.suffix.lower() != ".json":
        return False
    try:
        if not is_remote(path) and not path.is_file():  # which would be two more requests
            return False
        with open_to_read(path) as file:
            head = file.read(256)
    except (FileError, OSError, ValueError):
        return False
    return b"".join(head.split()).startswith(BEGINNING)


# ------------------------------------------------------------------ reading


def read_part(path: Path) -> tuple[Part, list[Entry]]:
    """A part and what was seen of its checkpoints, in order. Raises FileError for anything else."""
    from bncli.commands.inspect_checkpoint.record import entries_of
    from bncli.model.part import Part

    values = _fact(path)
    try:
        part = Part.of(values)
    except ValueError:
        raise damaged(path, "its fact part is not that of a part") from None
    try:
        entries = entries_of(values.get("record"))
    except ValueError as error:
        raise damaged(path, str(error)) from None
    specs = [entry.spec for entry in entries]
    if list(map(strict, specs)) != [each.path for each in part.inputs]:
        raise damaged(path, "its record is of other files than its fact part")
    # The fact has names as JSON can say them, the record as they are.
    named = (replace(each, path=spec) for each, spec in zip(part.inputs, specs, strict=True))
    return replace(part, inputs=tuple(named)), entries


def _fact(path: Path) -> dict[str, Any]:
    """The fact `part` of a report. Raises FileError for what is no report with one."""
    from bncli.loaders.interface import lean_json

    try:
        with open_to_read(path) as file:
            text = file.read(LARGEST + 1) or b""
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise FileError(path, f"it cannot be read ({reason}).") from error
    if len(text) > LARGEST:
        raise UnsupportedFileError(
            path,
            f"it is larger than {LARGEST >> 20} MiB, which no part may be; make parts of fewer "
            "files, with a larger N in --shard K/N.",
        )
    try:
        document = lean_json(text, MOST_MARKS, WIDTH)
    except ValueError:
        raise damaged(path, "it is cut short, or is not JSON") from None
    if not isinstance(document, dict):
        raise damaged(path, "it is not a report of bncli")
    version, command = document.get("format_version"), document.get("command")
    if type(version) is not int or version < 1:
        raise damaged(path, "its format_version is not a version")
    if version > FORMAT_VERSION:
        raise UnsupportedFileError(
            path,
            f"it has format_version {version:.6g}, and this bncli reads {FORMAT_VERSION}; use the "
            "bncli that made it, or a later one.",
        )
    if command != COMMAND:
        said = f"bncli {quoted(command, 40)}" if isinstance(command, str) else "no command"
        raise UnsupportedFileError(
            path, f"it is a report of {said}, not a part of bncli {COMMAND}; leave it out."
        )
    facts = document.get("facts")
    if not isinstance(facts, dict):
        raise damaged(path, "its facts are not an object")
    if facts.get("part") is None:
        raise UnsupportedFileError(
            path,
            "it is the report of a call without --shard, and only parts can be merged; leave it "
            "out.",
        )
    if not isinstance(facts["part"], dict):
        raise damaged(path, "its fact part is not an object")
    return facts["part"]


# ------------------------------------------------------------------ the whole


def merged(paths: Sequence[Path]) -> tuple[Part, list[Entry]]:
    """The whole that the parts at these paths are, its checkpoints in the order of the call.

    Raises FileError for what is no part, and as `check_parts` where they are not of one whole.
    """
    from bncli.loaders.parts import check_parts, check_unchanged

    read = [(path, *read_part(path)) for path in paths]
    if len(read) > 1:
        for path, part, _ in read:
            if part.n == 1:
                raise FileError(path, "it is the whole already, not a part; leave it out.")
    whole = check_parts(paths, [part for _, part, _ in read])
    others: list[tuple[Path | str, Part]] = []
    for path, part, entries in read:
        files = tuple(file for entry in entries for file in entry.files)
        others.append((path, replace(part, inputs=files)))
    check_unchanged(others)
    entries = [entry for _, _, each in read for entry in each]
    for entry in entries:
        remember_path(entry.path)  # no report may overwrite what it is of
    return whole, sorted(entries, key=lambda entry: (entry.at, entry.spec))
