"""What a call looks at: all files that it is given, its shard of them, or parts of others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any

from bncli.arguments.checkpoints import as_models
from bncli.commands.inspect_checkpoint.files import Files
from bncli.commands.inspect_checkpoint.flags import Asked
from bncli.commands.inspect_checkpoint.judged_file import Judged, judge
from bncli.commands.inspect_checkpoint.layer_settings import LayerSettings
from bncli.errors import UsageError
from bncli.files.reading import current
from bncli.light import dataclass
from bncli.loaders import open_model
from bncli.loaders.patterns import expanded
from bncli.loaders.whole import Models
from bncli.paths import as_path

if TYPE_CHECKING:
    from pathlib import Path

    from bncli.arguments.shard import PartFlags, Shard
    from bncli.commands.inspect_checkpoint.record import Entry


@dataclass(frozen=True, slots=True)
class Looked:
    """What was seen of which files, with the flags that they were judged with.

    `shard` is which of all `models` they are, None for all of them; `part` is then the fact of that
    name, and `resumed` says that what it was before is in it.
    """

    files: Files
    seen: Judged
    asked: Asked
    shard: Shard | None = None
    models: Sequence[str] = ()
    part: Mapping[str, Any] = field(default_factory=dict)
    resumed: bool = False


def look(checkpoints: Sequence[str], scale: PartFlags, asked: Asked) -> Looked:
    """Judge what the command line names. Raises UsageError, and FileError as `judge` and `merged`.

    One file that cannot be read does not spoil several.
    """
    settings = LayerSettings.parsed([*asked.eps], [*asked.momentum])
    shard = None
    if scale.shard is not None:
        from bncli.arguments.shard import parse_shard

        shard = parse_shard(scale.shard)
    elif scale.resume:
        raise UsageError("--resume: it goes on with a part, so it needs --shard K/N, too.")
    specs = expanded(checkpoints)
    if any(".json" in spec.lower() for spec in specs):
        from bncli.commands.inspect_checkpoint.parts import reports_among

        if reports := reports_among(specs):
            if shard is not None:
                raise UsageError(f"--shard: {reports[0]} is a part already; leave out --shard.")
            return _of_parts(reports, asked)
    models = as_models(specs)
    if shard is not None:
        return _of_shard(models, shard, asked, settings, resume=scale.resume)
    files, seen = Files(models), Judged()
    for judged, _ in _each(files, asked, settings):
        if judged is not None:
            seen.add(judged)
    return Looked(files, seen, asked)


def _of_shard(
    models: Sequence[str], shard: Shard, asked: Asked, settings: LayerSettings, *, resume: bool
) -> Looked:
    """A shard of the models."""
    from bncli.commands.inspect_checkpoint.shard import fact, judged_shard

    part, entries = judged_shard(
        models,
        shard,
        asked,
        lambda files: _each(files, asked, settings),
        resume=resume,
    )
    files, seen = _gathered(entries, len(models))
    return Looked(files, seen, asked, shard, models, fact(part, entries), resumed=resume)


def _each(
    files: Files, asked: Asked, settings: LayerSettings
) -> Iterator[tuple[Judged | None, list[str]]]:
    """What is seen of each file, None where it is unread, and the files that its tensors lie in."""
    models = Models()
    for path, name in files.each():
        judged, parts = None, []
        with files.judging(path):
            file = open_model(as_path(path), models)
            judged = judge(file, name, [*asked.layer], settings, asked.expect_layers)
            parts = list(dict.fromkeys(str(ref.path) for ref in file.tensors.values()))
        yield judged, parts


def _of_parts(paths: Sequence[Path], asked: Asked) -> Looked:
    """The whole that parts are."""
    from bncli.commands.inspect_checkpoint.parts import damaged, merged

    whole, entries = merged(paths)
    try:
        asked = asked.for_parts(paths[0], whole.flags)
        LayerSettings.parsed([*asked.eps], [*asked.momentum])
    except ValueError:
        raise damaged(paths[0], "its flags are not those of this command") from None
    return Looked(*_gathered(entries, whole.number), asked)


def _gathered(entries: Iterable[Entry], number: int) -> tuple[Files, Judged]:
    """What was seen of some of so many checkpoints, as the call that reads them all sees it."""
    files, seen = Files([], number), Judged()
    for entry in entries:
        current().notes.update(dict.fromkeys(entry.notes))
        if entry.judged is not None:
            files.read.append(entry.path)
            seen.add(entry.judged)
        if entry.unread is not None:
            files.unread.append(entry.unread)
    return files, seen
