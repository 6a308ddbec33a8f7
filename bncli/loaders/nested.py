"""Checkpoints inside a ZIP or a tar archive, as Stable-Baselines3, TorchServe and NeMo save."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from bncli.errors import FileError, MissingDataError, UnsupportedFileError
from bncli.loaders import tar_archive, torch_zip
from bncli.loaders.compression import FREE_HELD, HELD_RATIO, MOST_HELD, hold
from bncli.loaders.interface import Loader, Source
from bncli.loaders.names import Text, quoted
from bncli.loaders.probes import is_tar, is_torch_tar
from bncli.loaders.registry import CHECKPOINTS, LOADERS, loader_of
from bncli.loaders.zip_archive import DEFLATED, STORED, Member, ZipArchive
from bncli.model import TensorFile

INNER = tuple(row for row in LOADERS if row.inside)
"""The formats that are read where they lie: their offsets count from the outer file's begin."""
SMALLEST = 22
"""The bytes of an empty archive; no checkpoint has fewer."""
NOT_HERE = "it is not read inside an archive, or too large to unpack there; unpack and name it"
"""What is said of a member that is called like a checkpoint and was not read."""
FOREIGN = (
    "model.weights.h5",
    "model.json",
)
"""Members of formats of their own, in which a file of torch.save would mean nothing by itself."""


def has_member(archive: ZipArchive, *ends: str) -> bool:
    """Whether a member is called so, in any folder of the archive."""
    return any(name == end or name.endswith(f"/{end}") for name in archive.members for end in ends)


def detect(source: Source) -> bool:
    """Whether the file is an archive in which there seems to be a checkpoint."""
    archive = source.archive
    if archive is None:
        return is_tar(source) and not is_torch_tar(source) and any(_inner(source))
    if source.is_statistics or has_member(archive, *FOREIGN):
        return False
    return any(map(_is_packed, archive.members.values())) or any(_inner(source))


def open_tensors(source: Source) -> TensorFile:
    """The tensors of every such file, their names behind the file's name without its suffix.

    So q_net.weight in policy.pth is policy.q_net.weight. Members that are called like checkpoints
    and are of no such kind are skipped, and named. Raises FileError for a damaged one, and what
    `refused` raises where there is none.
    """
    if any(name.endswith(".distcp") for name in _names(source)):
        raise UnsupportedFileError(
            source.path,
            "it has a folder in it that torch.distributed.checkpoint wrote; unpack it and name that"
            " folder.",
        )
    files = {name: _opened(source, name, loader, part) for name, loader, part in _inner(source)}
    if not files:
        from bncli.loaders import refused

        refused.open_tensors(source)
    stems = Counter(map(_stem, files))
    text = Text(source.path)
    found = TensorFile(source.path, "", {})
    prefixes = []
    for name, file in files.items():
        stem = _stem(name)
        prefix = stem if stems[stem] == 1 else name
        for key in file.tensors:
            text.take(_full(prefix, key))
        if any(_full(prefix, key) in found.tensors for key in file.tensors):
            prefix = name
        text.take(prefix, len(file.modules) + len(file.skipped) + 2 * len(file.layers))
        prefixes.append(prefix)
        found = found.joined(file.under(prefix))
    skipped = dict(found.skipped)
    for name in _names(source):
        if name.endswith(CHECKPOINTS) and name not in files:
            skipped[name] = NOT_HERE
    *others, last = sorted({file.container for file in files.values()})
    containers = f"{', '.join(others)} and {last}" if others else last
    return replace(
        found,
        container=f"{containers} in {'tar' if source.archive is None else 'zip'}",
        skipped=skipped,
        members=tuple(prefixes),
        without_layers=next(iter(files.values())).without_layers if len(files) == 1 else "",
    )


def _names(source: Source) -> Iterable[str]:
    """The names of all members."""
    if source.archive is not None:
        return source.archive.members
    return (member.name for member in tar_archive.members(source))


def _inner(source: Source) -> Iterator[tuple[str, Loader, Source]]:
    """The members that are read, with their loaders, in the archive's order."""
    for name, part in _parts(source):
        loader = _loader(part)
        if loader is not None:
            yield name, loader, part


def _loader(part: Source) -> Loader | None:
    """The loader of a member; for a damaged archive, one that says what is wrong."""
    try:
        return loader_of(part, INNER)
    except FileError:
        return torch_zip


def _parts(source: Source) -> Iterator[tuple[str, Source]]:
    """The members as files: where they lie, or in memory where they are compressed."""
    archive = source.archive
    if archive is None:
        for name, start, stop in tar_archive.members(source):
            if stop - start >= SMALLEST:
                yield name, source.inside(start, stop)
        return
    left = MOST_HELD
    for member in archive.members.values():
        if member.method == STORED:
            stored = stored_member(source, archive, member)
            if stored is not None:
                yield member.name, stored
        elif _is_packed(member) and member.size <= left and not archive.problem(member):
            left -= member.size
            held = hold(source, archive.packed(member).chunks(), member.size)
            if held is not None:
                yield member.name, held


def stored_member(source: Source, archive: ZipArchive, member: Member) -> Source | None:
    """The member as a file where it lies; None where it is compressed or hardly a file."""
    if member.method != STORED or member.size < SMALLEST or archive.problem(member):
        return None
    start = archive.offset(member)
    return source.inside(start, start + member.size)


def _is_packed(member: Member) -> bool:
    """Whether a member is compressed, called like a checkpoint and small enough to be unpacked."""
    most = min(MOST_HELD, max(FREE_HELD, HELD_RATIO * member.packed))
    return member.method == DEFLATED and member.name.endswith(CHECKPOINTS) and member.size <= most


def _opened(source: Source, name: str, loader: Loader, part: Source) -> TensorFile:
    """The tensors of a member; what is wrong with it is said with its name."""
    try:
        return loader.open_tensors(part)
    except FileError as error:
        problem = f"its member {quoted(name)} cannot be read, as {error.problem}"
        if isinstance(error, MissingDataError):
            names = map(PurePosixPath, _names(source))
            if PurePosixPath(name).parent / error.name in names:
                problem = (
                    f"the tensors of its member {quoted(name)} are in {quoted(error.name)}, another"
                    f" of its members; unpack both and name {quoted(PurePosixPath(name).name)}."
                )
        raise type(error)(source.path, problem) from error


def _full(prefix: str, key: str) -> str:
    return f"{prefix}.{key}" if key else prefix


def _stem(name: str) -> str:
    """A member's name without its suffix, as a part of tensors' names."""
    suffix = next((end for end in CHECKPOINTS if name.endswith(end)), "")
    return name.removesuffix(suffix).replace("/", ".") or name
