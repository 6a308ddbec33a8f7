"""What a task judges that is one of many: its shard of the checkpoints, or what of it is new."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.commands.inspect_checkpoint.files import Files
from bncli.commands.inspect_checkpoint.flags import Asked
from bncli.commands.inspect_checkpoint.parts import read_part
from bncli.commands.inspect_checkpoint.record import Entry, text_of
from bncli.errors import UsageError
from bncli.files.reading import current
from bncli.files.save import THERE, check_new
from bncli.loaders import split_spec
from bncli.loaders.file_marks import check_marks, marks_of
from bncli.loaders.parts import check_unchanged, held_inputs, input_of, made_part
from bncli.loaders.whole import Models, files_of
from bncli.paths import RemotePath

if TYPE_CHECKING:
    from bncli.arguments.shard import Shard
    from bncli.commands.inspect_checkpoint.judged_file import Judged
    from bncli.loaders.file_marks import Mark
    from bncli.model.part import Part

Look = Callable[[Files], "Iterator[tuple[Judged | None, list[str]]]"]
"""What judges each file, and gives what was seen of it (None if it is unread) and its files."""


def judged_shard(
    models: Sequence[str], shard: Shard, asked: Asked, look: Look, *, resume: bool
) -> tuple[Part, list[Entry]]:
    """A shard of the models, judged: the part, and its entries in the order of the call.

    With `resume`, models that the part at the target of -o holds are not read again; those that it
    could not read are. Raises FileError where that is a part of something else, or where a target
    exists and was not to be used.
    """
    target = _target(resume=resume)
    own = shard.of(sorted(models))
    part = made_part((shard.k, shard.n), sorted(models), own, asked.flags(), unread=True)
    held = {} if target is None else _held(target, part)
    noted = tuple(current().notes)
    rest = [spec for spec in own if spec not in held]
    entries = [*held.values(), *_judged(rest, models, look)]
    entries.sort(key=lambda entry: entry.at)
    if entries:  # what was said before any of them was read
        entries[0] = replace(entries[0], notes=tuple(dict.fromkeys([*noted, *entries[0].notes])))
    read = {entry.spec for entry in entries if entry.judged is not None}
    inputs = [each if each.path in read else replace(each, fingerprint="") for each in part.inputs]
    return replace(part, inputs=tuple(inputs)), entries


def fact(part: Part, entries: Sequence[Entry]) -> dict[str, Any]:
    """The fact `part` of a report; `entries` may be in any order."""
    place = {each.path: i for i, each in enumerate(part.inputs)}
    entries = sorted(entries, key=lambda entry: place[entry.spec])
    return {**part.plain(), "record": text_of(entries)}


def _judged(specs: list[str], models: Sequence[str], look: Look) -> Iterator[Entry]:
    """What is seen of these models.

    Raises FileError where a file of one that could be read is not what it was before.
    """
    place = {spec: at for at, spec in enumerate(models)}
    files, known = Files(specs, len(models)), Models()
    noted = set(current().notes)
    before = (_marks(spec, known) for spec in specs)  # each when it is about to be read
    for spec, marks, (judged, paths) in zip(specs, before, look(files), strict=True):
        notes = [note for note in current().notes if note not in noted]
        noted.update(notes)
        path = str(split_spec(spec)[0])
        parts = () if paths == [path] else tuple(map(input_of, paths))
        unread = None if judged is not None else files.unread[-1]
        if judged is not None:
            check_marks(marks)
        yield Entry(place[spec], spec, path, parts, judged, unread, tuple(notes))


def _marks(spec: str, models: Models) -> dict[Path, Mark | None]:
    """The files of a model as they are before it is read; those elsewhere are looked after."""
    path = split_spec(spec)[0]
    return {} if isinstance(path, RemotePath) else marks_of(files_of(path, models))


def _target(*, resume: bool) -> Path | None:
    """The part to go on with; None for none. Raises UsageError and FileError."""
    targets = list(current().reports.values())
    if not resume:
        for path in targets:
            check_new(Path(path), THERE)
        return None
    parts = [Path(path) for path in targets if path.lower().endswith(".json")]
    if not parts:
        raise UsageError("--resume completes a JSON report: add -o FILE.json.")
    return parts[0] if os.path.lexists(parts[0]) else None


def _held(path: Path, wanted: Part) -> dict[str, Entry]:
    """The entries of the part at `path` that need not be read again, by their model."""
    old, entries = read_part(path)
    current().may_renew(str(path))
    by_spec = {entry.spec: entry for entry in entries}
    unread = {spec for spec, entry in by_spec.items() if entry.judged is None}
    held = {spec: by_spec[spec] for spec in held_inputs(path, old, wanted, unread)}
    files = tuple(file for entry in held.values() for file in entry.files)
    check_unchanged([(path, replace(old, inputs=files))])
    return held
