"""The checksums of a ZIP archive after some bytes of its members have changed."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.files.edits import Edit
from bncli.files.reading import current
from bncli.loaders import torchscript
from bncli.loaders.interface import Source
from bncli.loaders.names import quoted
from bncli.loaders.nested import stored_member
from bncli.loaders.patches.crc import difference
from bncli.loaders.zip_archive import Member, ZipArchive

TORCHSCRIPT = (
    "it is a TorchScript archive, whose tensors cannot be replaced; recalibrate the checkpoint "
    "that it was made from, and script or trace the model again."
)
_SIGNATURE = b"PK\x07\x08"


def with_checksums(source: Source, edits: Sequence[Edit], *, nested: bool = False) -> list[Edit]:
    """The edits, and those of the checksums of the archive that `source` is, in order.

    No member is read but for the bytes that change. With `nested` the members are themselves
    archives, which have checksums, too. A checksum is written where the old one is: in the
    directory, in the header or behind the member; one that was never written stays 0. Where the old
    one is wrong, so is the new, as other bytes of the member are damaged all the same.

    Raises UnsupportedFileError for TorchScript, CorruptFileError where the archive contradicts
    itself.
    """
    archive = source.archive
    if archive is None:
        return sorted(edits)
    if torchscript.detect(source):
        raise UnsupportedFileError(source.path, TORCHSCRIPT)
    done: list[Edit] = []
    for member, stop, inside in _by_member(archive, sorted(edits)):
        start = archive.offset(member)
        if start + member.packed > stop or not (start <= inside[0].offset):
            raise archive.corrupt(f"its member {quoted(member.name)} overlaps another")
        new = inside
        if nested and (part := stored_member(source, archive, member)) is not None:
            new = with_checksums(part, inside)
        done += new
        if archive.has_checksum(member):
            old = [source.read(edit.offset, len(edit.data)) for edit in new]
            pieces = (
                (edit.offset - start, data, edit.data) for edit, data in zip(new, old, strict=True)
            )
            change = difference(pieces, member.size)
            for at in _places(source, archive, member, stop):
                crc = int.from_bytes(source.read(at, 4), "little") ^ change
                done.append(Edit(at, crc.to_bytes(4, "little")))
    return sorted(done)


def _by_member(
    archive: ZipArchive, edits: Sequence[Edit]
) -> Iterator[tuple[Member, int, list[Edit]]]:
    """Each member with edits, where the next one or the directory begins, and the edits."""
    members = sorted(archive.members.values(), key=lambda member: member.header)
    headers = [member.header for member in members]
    inside: dict[int, list[Edit]] = {}
    for edit in edits:
        inside.setdefault(bisect_right(headers, edit.offset) - 1, []).append(edit)
    for at, each in inside.items():
        stop = headers[at + 1] if at + 1 < len(headers) else archive.directory
        if at < 0 or each[-1].end > stop:
            raise archive.corrupt("a tensor lies outside its members")
        yield members[at], stop, each


def _places(source: Source, archive: ZipArchive, member: Member, stop: int) -> Iterator[int]:
    """Where the checksum of a member is written."""
    yield member.entry + 16
    local = member.header + 14
    crc = int.from_bytes(source.read(local, 4), "little")
    if crc or (not member.crc and not member.described):
        yield local
    if member.described:
        yield _descriptor(source, archive, member, stop)


def _descriptor(source: Source, archive: ZipArchive, member: Member, stop: int) -> int:
    """Where the checksum is in the descriptor behind a member, which has the sizes, too.

    It may begin with a signature; the sizes take 4 or 8 bytes.
    """
    start = archive.offset(member) + member.packed
    text = source.read(start, min(24, stop - start))
    for begin in (4, 0) if text.startswith(_SIGNATURE) else (0,):
        for sizes in ("<L2Q", "<3L"):
            if begin + struct.calcsize(sizes) > len(text):
                continue
            crc, *found = struct.unpack_from(sizes, text, begin)
            if found == [member.packed, member.size] and (
                crc == member.crc or not current().checksum
            ):
                return start + begin
    raise CorruptFileError(
        source.path,
        f"the checksum and the sizes behind its member {quoted(member.name)} are not those of its "
        "directory; the archive is damaged, so save it again.",
    )
