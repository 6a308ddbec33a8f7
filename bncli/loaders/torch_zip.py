"""The ZIP archives that `torch.save` writes since PyTorch 1.6."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.loaders.interface import Source
from bncli.loaders.names import quoted
from bncli.loaders.zip_archive import STORED, Member, ZipArchive
from bncli.loaders.zip_elsewhere import plain_members
from bncli.model import TensorFile

if TYPE_CHECKING:  # other archives are asked about, too
    from bncli.loaders.pickle_records import Pickle
    from bncli.loaders.torch_places import Region
    from bncli.loaders.torch_tree import Contents
    from bncli.loaders.torch_values import Storage

LARGEST_PACKED_PICKLE = 1 << 26
SMALL_PACKED_PICKLE = 1 << 22
PICKLE_RATIO = 32
"""A compressed pickle is inflated into memory. One larger than LARGEST_PACKED_PICKLE is refused,
and so is one above SMALL_PACKED_PICKLE that is more than PICKLE_RATIO times its compressed bytes:
those of checkpoints are a quarter of that."""


def detect(source: Source) -> bool:
    """Whether the file is an archive with a data.pkl and without code."""
    return source.archive is not None and root_folder(source.archive, "data.pkl") is not None


def open_tensors(source: Source) -> TensorFile:
    """Every tensor in the archive, by its path through the saved object."""
    contents = read_archive(source)
    return contents.file(source.path, "torch-zip")


def root_folder(archive: ZipArchive, member: str) -> str | None:
    """The one folder at the top of the archive that has `member`; None where none has.

    Raises CorruptFileError where several have.
    """
    folders = [
        name.removesuffix(f"/{member}")
        for name in archive.members
        if name.endswith(f"/{member}") and name.count("/") == member.count("/") + 1
    ]
    if len(folders) > 1:
        raise CorruptFileError(
            archive.path,
            f"it has several objects side by side ({', '.join(map(quoted, folders[:3]))}), where"
            " torch.save writes one; save it again.",
        )
    return folders[0] if folders else None


def read_archive(source: Source) -> Contents:
    """The tensors of the archive's data.pkl, for this format and TorchScript's."""
    from bncli.loaders.torch_tree import collect

    archive = source.archive
    assert archive is not None
    folder = root_folder(archive, "data.pkl")
    assert folder is not None
    byteorder = byteorder_of(source, archive, folder)
    _check_found(archive, folder)
    plain = plain_members(archive)

    def place(storage: Storage) -> Region:
        member = archive.members.get(f"{folder}/data/{storage.key}")
        if member is None:
            raise CorruptFileError(
                source.path,
                f"the bytes of its storage {quoted(storage.key)} are missing; it is damaged, so"
                " download or save it again.",
            )
        archive.check_readable(member)
        if member.method != STORED:
            return replace(archive.packed(member), byteorder=byteorder)
        found = plain(member)
        return found if found.byteorder == byteorder else replace(found, byteorder=byteorder)

    with _uncollected():
        pickle = read_pickle(source, archive, archive.members[f"{folder}/data.pkl"])
        return collect(source.path, pickle, place)


@contextmanager
def _uncollected() -> Iterator[None]:
    """No search for garbage in what is only added to: it takes a fifth of the time otherwise."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def read_pickle(source: Source, archive: ZipArchive, member: Member) -> Pickle:
    """The pickle in a member of the archive.

    One that is not compressed stays in the file; it is held against its checksum up to
    LARGEST_PACKED_PICKLE bytes, for a larger one has arrays inside that need not be read.
    """
    from bncli.loaders.unpickler import load

    archive.check_readable(member)
    if member.method == STORED:
        plain = archive.plain(member)
        if plain.nbytes <= LARGEST_PACKED_PICKLE:
            source.check(plain)
        return load(source.path, source, plain.offset, plain.offset + plain.nbytes)
    limit = max(SMALL_PACKED_PICKLE, PICKLE_RATIO * member.packed)
    if member.size > min(LARGEST_PACKED_PICKLE, limit):
        raise UnsupportedFileError(
            source.path,
            f"its pickle is compressed and would take {member.size} bytes; save it again with"
            " torch.save, which does not compress.",
        )
    return load(source.path, bytes(archive.packed(member).read()))


def _check_found(archive: ZipArchive, folder: str) -> None:
    """Raise CorruptFileError where PyTorch would read other bytes than the directory says.

    It takes the first of two names that differ in the case of their letters, and reads nothing
    from a member that is marked as a folder: the values are then whatever was in memory.
    """
    names: dict[str, str] = {}
    for member in archive.members.values():
        if not member.name.startswith(f"{folder}/data"):
            continue
        other = names.setdefault(member.name.lower(), member.name)
        if other != member.name:
            raise archive.corrupt(
                f"PyTorch cannot tell its members {quoted(other)} and {quoted(member.name)} apart"
            )
        if member.folder and member.size:
            raise archive.corrupt(f"its member {quoted(member.name)} is marked as a folder")


def byteorder_of(source: Source, archive: ZipArchive, folder: str) -> Literal["little", "big"]:
    """What the archive's byteorder record says; files without one are little-endian."""
    member = archive.members.get(f"{folder}/byteorder")
    if member is None:
        return "little"
    archive.check_readable(member)
    if member.method == STORED:
        plain = archive.plain(member)
        if member.size <= 16:
            source.check(plain)
        text = source.read(plain.offset, min(member.size, 16))
    else:
        text = archive.packed(member).head(16)
    if text == b"big":
        return "big"
    if text == b"little":
        return "little"
    raise CorruptFileError(
        source.path, "its byteorder record is neither little nor big; download or save it again."
    )
