"""Members of an archive that lies elsewhere: their local headers are read with their bytes.

A checkpoint has a thousand members, and looking for the bytes of each would be a request each.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from bncli.files.file_bytes import Checksum, FileBytes
from bncli.files.reading import current, open_again, read_at
from bncli.loaders.zip_archive import Member, ZipArchive
from bncli.paths import RemotePath, shifted

MOST_BETWEEN = 1 << 17
"""Bytes beside a member's own that are read along: a longer header than that has no room."""


def plain_members(archive: ZipArchive) -> Callable[[Member], FileBytes]:
    """A function that gives a member's bytes as `ZipArchive.plain` does.

    Of an archive elsewhere they have a place that is found, and checked, when they are read. It
    raises CorruptFileError then, or at once in a file of this system.
    """
    path = archive.path
    if not isinstance(path, RemotePath) or current().download:
        return archive.plain
    headers = sorted(member.header for member in archive.members.values())

    def plain(member: Member) -> FileBytes:
        following = bisect_right(headers, member.header)
        end = headers[following] if following < len(headers) else archive.directory
        room = min(max(end - member.least - member.size, 0), MOST_BETWEEN)
        place = shifted(path, member.header, room, lambda: _shift(archive, member))
        crc = archive.crc(member)
        checksum = None if crc is None else Checksum(member.name, member.least, member.size, crc)
        return FileBytes(place, member.least, member.size, checksum=checksum)

    return plain


def _shift(archive: ZipArchive, member: Member) -> int:
    """How many bytes a member's local header has beyond those that it must have."""
    with open_again(archive.path) as file:
        offset = archive.offset(
            member, lambda offset, count: bytes(read_at(file, archive.path, offset, count))
        )
    return offset - member.least
