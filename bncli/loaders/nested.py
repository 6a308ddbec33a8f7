"""PyTorch's files inside another ZIP archive, as Stable-Baselines3 and TorchServe pack them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from bncli.errors import FileError
from bncli.loaders import torch_zip
from bncli.loaders.interface import Loader, Source
from bncli.loaders.names import quoted
from bncli.loaders.registry import CHECKPOINTS, LOADERS, ZIP, loader_of
from bncli.loaders.zip_archive import STORED, Member, ZipArchive
from bncli.model import BatchNormModule, TensorFile, TensorRef

INNER = tuple(row for row in LOADERS if row.inside)
"""The formats that are read where they lie: their offsets count from the outer file's begin."""
SMALLEST = 22
"""The bytes of an empty archive."""
FOREIGN = (
    "model.weights.h5",
    "model.json",
)
"""Members of formats of their own, in which a file of torch.save would be a part of no meaning."""


def has_member(archive: ZipArchive, *ends: str) -> bool:
    """Whether a member is called so, in any folder of the archive."""
    return any(name == end or name.endswith(f"/{end}") for name in archive.members for end in ends)


def detect(source: Source) -> bool:
    """Whether the file is an archive in which a file of torch.save lies, uncompressed."""
    archive = source.archive
    if archive is None or has_member(archive, *FOREIGN):
        return False
    return next(_inner(source, archive), None) is not None


def open_tensors(source: Source) -> TensorFile:
    """The tensors of every such file, their names behind the file's name without its suffix.

    So q_net.weight in policy.pth is policy.q_net.weight. Members that are called like checkpoints
    and are of no such kind are skipped, and named. Raises FileError for a damaged one.
    """
    archive = source.archive
    assert archive is not None
    files = {name: _opened(name, loader, part) for name, loader, part in _inner(source, archive)}
    stems = Counter(map(_stem, files))
    tensors: dict[str, TensorRef] = {}
    modules: dict[str, BatchNormModule] = {}
    skipped: dict[str, str] = {}
    for name, file in files.items():
        prefix = _stem(name) if stems[_stem(name)] == 1 else name
        for key, ref in file.tensors.items():
            full = _joined(prefix, key)
            full = full if full not in tensors else _joined(name, key)
            tensors[full] = replace(ref, name=full)
        modules |= {_joined(prefix, key): module for key, module in file.modules.items()}
        skipped |= {_joined(prefix, key): why for key, why in file.skipped.items()}
    others = [name for name in archive.members if name.endswith(CHECKPOINTS) and name not in files]
    why = "it is compressed or in another format inside the archive; unzip it and name it"
    containers = sorted({file.container for file in files.values()})
    return TensorFile(
        source.path,
        f"{' and '.join(containers)} in zip",
        tensors,
        modules,
        skipped | dict.fromkeys(others, why),
    )


def _inner(source: Source, archive: ZipArchive) -> Iterator[tuple[str, Loader | None, Source]]:
    """The members that are archives of PyTorch, with their loaders, in the archive's order.

    The loader is None where the inner archive is damaged.
    """
    for member in archive.members.values():
        part = stored_archive(source, archive, member)
        if part is None:
            continue
        try:
            loader = loader_of(part, INNER)
        except FileError:
            yield member.name, None, part
        else:
            if loader is not None:
                yield member.name, loader, part


def stored_archive(source: Source, archive: ZipArchive, member: Member) -> Source | None:
    """The member as a file where it lies; None where it is compressed or begins as no archive."""
    if member.method != STORED or member.size < SMALLEST or archive.problem(member):
        return None
    start = archive.offset(member)
    if source.read(start, 4) != ZIP[0]:
        return None
    return source.inside(start, start + member.size)


def _opened(name: str, loader: Loader | None, part: Source) -> TensorFile:
    """The tensors of a member; what is wrong with it is said with its name."""
    try:
        return (loader or torch_zip).open_tensors(part)
    except FileError as error:
        problem = f"its member {quoted(name)}: {error.problem}"
        raise type(error)(part.path, problem) from error


def _joined(prefix: str, key: str) -> str:
    return f"{prefix}.{key}" if key else prefix


def _stem(name: str) -> str:
    """A member's name without its suffix, as a part of tensors' names."""
    suffix = next((end for end in CHECKPOINTS if name.endswith(end)), "")
    return name.removesuffix(suffix).replace("/", ".") or name
