"""The directory of a ZIP file, checked before it is believed.

Written here because a checkpoint needs so little of the format (members that are stored as they
are or deflated) and so much of the checking: every member has its own place inside the file, no
two share a name or a byte, and none is larger than its compressed bytes can give.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.files.file_bytes import Checksum, FileBytes, unlike_checksum
from bncli.files.reading import current
from bncli.light import dataclass, filler
from bncli.loaders.deflated import Packed
from bncli.loaders.names import quoted
from bncli.report import printable

STORED = 0
DEFLATED = 8

DEFLATE_RATIO = 1032
"""DEFLATE cannot give more bytes than this for one."""
BOMB_SIZE = 1 << 28
BOMB_RATIO = 100
"""A member larger than BOMB_SIZE may not be more than BOMB_RATIO times its compressed bytes."""
AT_ONCE = 1 << 16
"""A member of no more compressed bytes is inflated in one go."""

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_IN_64 = 0xFFFFFFFF

Read = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class Member:
    """One file in the archive.

    `header` is the place of its local header, `entry` that of its entry in the directory.
    `described` says that its checksum and sizes are behind it, too, where the local header may have
    none. `folder` says that it is marked as a folder, from which PyTorch reads nothing.
    """

    name: str
    raw_name: bytes
    method: int
    encrypted: bool
    crc: int
    packed: int
    size: int
    header: int
    entry: int
    described: bool
    folder: bool

    @property
    def least(self) -> int:
        """Where its bytes begin if nothing more stands in its local header than must."""
        return self.header + _LOCAL.size + len(self.raw_name)


_member = filler(Member)


class ZipArchive:
    """The members of a ZIP file by name, in the order of its directory.

    The archive is all of the file, or its bytes from `start` to `stop`: a member of another one.
    `directory` is where its directory begins.
    Raises CorruptFileError where the directory is missing or contradicts itself or the file.
    """

    def __init__(self, path: Path, stop: int, read: Read, start: int = 0) -> None:
        self.path = path
        self._read = read
        self._start = start
        end, self.directory, length, count = self._find_directory(stop)
        if self.directory + length > end or count * _ENTRY.size > length:
            raise self.corrupt("its directory reaches outside the file")
        self.members: dict[str, Member] = {}
        table = read(self.directory, length)
        at = 0
        for _ in range(count):
            member, at = self._entry(table, at)
            if member.name in self.members:
                raise self.corrupt(f"it holds {_shown(member)} twice")
            self.members[member.name] = member
        self._check_places()
        self._summed = self._with_checksums()

    def _with_checksums(self) -> frozenset[str]:
        """The members that have a checksum.

        PyTorch can be told to write none, which are then 0: for all members, or (`skip_data`) for
        the storages.
        """
        checked: set[str] = set()
        for storages in (True, False):
            group = [
                member
                for member in self.members.values()
                if ("/data/" in member.name) is storages and member.size
            ]
            if any(member.crc for member in group):
                checked.update(member.name for member in group)
            elif group and current().checksum:
                current().notes[
                    f"{printable(str(self.path))}: it was saved without checksums, so damage to its"
                    " values cannot be detected."
                ] = None
        return frozenset(checked)

    def crc(self, member: Member) -> int | None:
        """The checksum to hold the member's bytes against, if there is one."""
        return member.crc if current().checksum and self.has_checksum(member) else None

    def has_checksum(self, member: Member) -> bool:
        """Whether the writer gave the member a checksum."""
        return member.name in self._summed

    def plain(self, member: Member) -> FileBytes:
        """The bytes of a member that is not compressed."""
        offset, crc = self.offset(member), self.crc(member)
        checksum = None if crc is None else Checksum(member.name, offset, member.size, crc)
        return FileBytes(self.path, offset, member.size, checksum=checksum)

    def offset(self, member: Member, read: Read | None = None) -> int:
        """Where the member's bytes begin: behind its local header, which must agree.

        `read` takes the place of the file that the directory was read from, once that is closed.
        """
        read = read or self._read
        from_local = _LOCAL.unpack(read(member.header, _LOCAL.size))
        magic, _, flags, method, _, _, _, packed, size, name_length, extra_length = from_local
        name = read(member.header + _LOCAL.size, name_length)
        sizes_known = not flags & 8 and _IN_64 not in {packed, size}
        if (
            magic != b"PK\x03\x04"
            or name != member.raw_name
            or method != member.method
            or (sizes_known and (packed, size) != (member.packed, member.size))
        ):
            raise self.corrupt(f"its directory and the header of {_shown(member)} disagree")
        offset: int = member.header + _LOCAL.size + name_length + extra_length
        if offset + member.packed > self.directory:
            raise self.corrupt(f"its member {_shown(member)} reaches into the directory")
        return offset

    def bytes_of(self, member: Member, most: int) -> bytes:
        """All of a member, held against its checksum.

        Raises UnsupportedFileError where it is longer than `most`, encrypted or compressed in
        another way than by DEFLATE, CorruptFileError where it is damaged.
        """
        self.check_readable(member)
        if member.size > most:
            raise UnsupportedFileError(
                self.path,
                f"its member {_shown(member)} has {member.size} bytes, which is more than the"
                f" {most} that bncli reads.",
            )
        if member.method == DEFLATED:
            packed = self.packed(member)
            if member.packed <= AT_ONCE:
                return packed.of(self._read(packed.offset, member.packed))
            return bytes(packed.read())
        offset, crc = self.offset(member), self.crc(member)
        data = self._read(offset, member.size)
        if crc not in {None, zlib.crc32(data)}:
            raise unlike_checksum(self.path, member.name)
        return data

    def packed(self, member: Member) -> Packed:
        """The compressed bytes of a deflated member."""
        offset, crc = self.offset(member), self.crc(member)
        return Packed(self.path, member.name, offset, member.packed, member.size, crc)

    def check_readable(self, member: Member) -> None:
        """Raise UnsupportedFileError for an encrypted member or an unknown compression."""
        if problem := self.problem(member):
            raise UnsupportedFileError(
                self.path, f"its member {_shown(member)} is {problem}; save it again without that."
            )

    def problem(self, member: Member) -> str:
        """Why the member's bytes cannot be had, "" where they can."""
        if member.encrypted:
            return "encrypted"
        if member.method not in {STORED, DEFLATED}:
            return f"compressed by method {member.method}"
        return ""

    def _find_directory(self, stop: int) -> tuple[int, int, int, int]:
        """Where the directory must have ended, where it begins, its length, its entries."""
        start = self._start
        tail_at = max(start, stop - _END.size - 0xFFFF)
        tail = self._read(tail_at, stop - tail_at)
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) - at < _END.size:
            raise CorruptFileError(
                self.path,
                "it begins as a ZIP archive (as PyTorch and NumPy write) but its end is missing;"
                " it is cut short, so download or copy it again.",
            )
        _, disk, first_disk, here, count, length, begin, _ = _END.unpack_from(tail, at)
        end = tail_at + at
        self._check_alone(end, length, begin)
        if end - start >= _END64_LOCATOR.size:
            locator = _END64_LOCATOR.unpack(
                self._read(end - _END64_LOCATOR.size, _END64_LOCATOR.size)
            )
            if locator[0] == b"PK\x06\x07":
                end = start + locator[2]
                if end + _END64.size > stop:
                    raise self.corrupt("its directory reaches outside the file")
                magic, _, _, _, disk, first_disk, here, count, length, begin = _END64.unpack(
                    self._read(end, _END64.size)
                )
                if magic != b"PK\x06\x06":
                    raise self.corrupt("the end of its directory is not where it should be")
        if disk or first_disk or here != count:
            raise self.corrupt("it says that it is one of several parts")
        return end, start + begin, length, count

    def _check_alone(self, end: int, length: int, begin: int) -> None:
        """Raise where the directory belongs to the last of several archives in a row."""
        start = self._start
        wide = end - _END64_LOCATOR.size - _END64.size
        if wide >= start and self._read(wide, 4) == b"PK\x06\x06":
            end = wide
            length, begin = _END64.unpack(self._read(wide, _END64.size))[-2:]
        last = end - length - begin
        if (
            last >= start + _END.size
            and self._read(last, 4) == b"PK\x03\x04"
            and self._read(last - _END.size, 4) == b"PK\x05\x06"
        ):
            raise UnsupportedFileError(
                self.path,
                "it is several ZIP archives in a row, as torch.distributed.checkpoint writes them;"
                " call it *.distcp again, put it beside its index .metadata, and name that.",
            )

    def _entry(self, table: bytes, at: int) -> tuple[Member, int]:
        if at + _ENTRY.size > len(table) or table[at : at + 4] != b"PK\x01\x02":
            raise self.corrupt("its directory has fewer entries than it says")
        (
            _, _, _, flags, method, _, _, crc, packed, size,
            name_length, extra_length, comment_length, _, _, attributes, header,
        ) = _ENTRY.unpack_from(table, at)  # fmt: skip
        entry = self.directory + at
        at += _ENTRY.size
        raw_name = table[at : at + name_length]
        extra = table[at + name_length : at + name_length + extra_length]
        at += name_length + extra_length + comment_length
        if at > len(table):
            raise self.corrupt("its directory has fewer entries than it says")
        if _IN_64 in {packed, size, header}:
            wide = iter(self._wide_fields(extra))
            size = next(wide) if size == _IN_64 else size
            packed = next(wide) if packed == _IN_64 else packed
            header = next(wide) if header == _IN_64 else header
        header += self._start
        try:
            name = raw_name.decode("utf-8")
        except UnicodeDecodeError:
            name = raw_name.decode("cp437")
        encrypted, described, folder = bool(flags & 1), bool(flags & 8), bool(attributes & 0x10)
        return _member(
            name=name, raw_name=raw_name, method=method, encrypted=encrypted, crc=crc,
            packed=packed, size=size, header=header, entry=entry, described=described,
            folder=folder,
        ), at  # fmt: skip

    def _wide_fields(self, extra: bytes) -> tuple[int, int, int]:
        """The three 64-bit numbers of an entry; those that are not there are impossible sizes."""
        at = 0
        while at + 4 <= len(extra):
            kind, length = struct.unpack_from("<2H", extra, at)
            if kind == 1:
                field = extra[at + 4 : at + 4 + length]
                numbers = struct.unpack_from(f"<{min(len(field) // 8, 3)}Q", field)
                return (*numbers, *(1 << 63,) * 3)[:3]
            at += 4 + length
        return (1 << 63,) * 3

    def _check_places(self) -> None:
        """Raise where a member lies outside the file or over another, or is too large."""
        end, behind = 0, ""
        for member in sorted(self.members.values(), key=lambda m: m.header):
            if member.header < end:
                raise self.corrupt(f"its members {behind} and {_shown(member)} overlap")
            end = member.least + member.packed
            behind = _shown(member)
            if end > self.directory:
                raise self.corrupt(f"its member {behind} reaches outside the file")
            if member.method == STORED and member.packed != member.size:
                raise self.corrupt(f"it gives two sizes for its member {behind}")
            if member.method == DEFLATED and member.size > DEFLATE_RATIO * member.packed:
                raise self.corrupt(
                    f"it says that the {member.packed} bytes of {behind} become {member.size}"
                )
            if member.size > max(BOMB_SIZE, BOMB_RATIO * member.packed):
                raise CorruptFileError(
                    self.path,
                    f"the {member.packed} bytes of its member {behind} would become {member.size},"
                    " as those of a zip bomb do; save it again without compression.",
                )

    def corrupt(self, fact: str) -> CorruptFileError:
        """The error for an archive that contradicts itself."""
        return CorruptFileError(
            self.path, f"{fact}; the archive is damaged, so download or save it again."
        )


def _shown(member: Member) -> str:
    return quoted(member.name)
