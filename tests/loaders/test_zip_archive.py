"""The directory of an archive against the stdlib's reading of it."""

import io
import struct
import zipfile
import zlib

import pytest

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.loaders.interface import open_source
from bncli.loaders.zip_archive import DEFLATED, STORED


def read_all(tmp_path, data):
    """Every member as bundled bytes, as a loader would get at them."""
    path = tmp_path / "x"
    path.write_bytes(data)
    with open_source(path) as source:
        archive = source.archive
        found = {}
        for member in archive.members.values():
            if member.method == DEFLATED:
                found[member.name] = bytes(archive.packed(member).read())
            else:
                assert member.method == STORED
                found[member.name] = source.read(archive.offset(member), member.size)
        return found


def expected(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


class Pipe(io.RawIOBase):
    """A file that cannot seek, so that sizes go behind the data."""

    def __init__(self):
        self.data = b""

    def writable(self):
        return True

    def write(self, data):
        self.data += bytes(data)
        return len(data)


MEMBERS = {"a": b"", "b/c": b"x" * 10, "é/ü": bytes(range(256)) * 50, "d": b"0" * 100_000}


def archive(out, compression, comment=b"", *, wide=False):
    with zipfile.ZipFile(out, "w", compression) as target:
        target.comment = comment
        for name, data in MEMBERS.items():
            with target.open(name, "w", force_zip64=wide) as member:
                member.write(data)
    return out


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("wide", [True, False])
def test_members_as_the_stdlib_reads_them(compression, wide, tmp_path):
    for comment in (b"", b"a comment PK\x05", b"c" * 65_535):
        data = archive(io.BytesIO(), compression, comment, wide=wide).getvalue()
        assert read_all(tmp_path, data) == expected(data)
    data = archive(Pipe(), compression).data
    assert read_all(tmp_path, data) == expected(data) == MEMBERS


def test_more_members_than_the_old_directory_can_count(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as target:
        for number in range(65_540):
            target.writestr(zipfile.ZipInfo(str(number)), b"")
    found = read_all(tmp_path, out.getvalue())
    assert list(found) == [str(number) for number in range(65_540)]


def test_members_beyond_4_gigabytes(tmp_path):
    """A hole of 5 GB, then a member: all sizes and offsets need 64 bits."""
    size = 5 << 30
    path = tmp_path / "x"
    entries, at = b"", 0
    with path.open("wb") as file:
        for name, data, length in ((b"hole", b"", size), (b"last", b"end", 3)):
            extra = struct.pack("<2H2Q", 1, 16, length, length)
            local = (b"PK\x03\x04", 45, 0, 0, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF, 4, len(extra))
            file.seek(at)
            file.write(struct.pack("<4s5H3L2H", *local) + name + extra + data)
            wide = struct.pack("<2H3Q", 1, 24, length, length, at)
            entries += struct.pack(
                "<4s6H3L5H2L", b"PK\x01\x02", 45, 45, 0, 0, 0, 0, zlib.crc32(data),
                0xFFFFFFFF, 0xFFFFFFFF,
                4, len(wide), 0, 0, 0, 0, 0xFFFFFFFF,
            ) + name + wide  # fmt: skip
            at += 30 + 4 + len(extra) + length
        file.seek(at)
        file.write(entries)
        file.write(
            struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 2, 2, len(entries), at)
        )
        file.write(struct.pack("<4sLQL", b"PK\x06\x07", 0, at + len(entries), 1))
        file.write(
            struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
        )
    with open_source(path) as source:
        members = source.archive.members
        assert members["hole"].size == size
        assert source.read(source.archive.offset(members["last"]), 3) == b"end"
    with zipfile.ZipFile(path) as theirs:
        assert theirs.read("last") == b"end"


def damaged(at, value):
    data = bytearray(archive(io.BytesIO(), zipfile.ZIP_STORED).getvalue())
    at = at(data)
    data[at : at + len(value)] = value
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        (damaged(lambda d: d.index(b"b/c"), b"b/d"), "the header of b/c disagree"),
        (damaged(lambda d: d.rindex(b"b/c"), b"a\0c"), "disagree"),
        (damaged(lambda d: d.rindex(b"PK\x01\x02"), b"PKxx"), "fewer entries than it says"),
        (damaged(lambda d: d.rindex(b"PK\x05\x06"), b"PKxx"), "it is cut short"),
        (damaged(lambda d: d.rindex(b"PK\x05\x06") + 4, b"\1"), "one of several parts"),
        (damaged(lambda d: d.rindex(b"PK\x05\x06") + 12, b"\xff\xff"), "outside the file"),
        (damaged(lambda d: d.rindex(b"PK\x05\x06") + 16, b"\1"), "fewer entries than it says"),
        (damaged(lambda d: d.index(b"b/c") - 12, b"\x09"), "the header of b/c disagree"),
    ],
)
def test_a_directory_that_contradicts_the_file(data, fact, tmp_path):
    with pytest.raises(CorruptFileError, match=fact):
        read_all(tmp_path, data)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_bytes_of_a_member_within_a_bound(method, tmp_path):
    path = tmp_path / "x"
    with zipfile.ZipFile(path, "w", method) as packed:
        packed.writestr("a", b"12345")
    with open_source(path) as source:
        archive = source.archive
        assert archive.bytes_of(archive.members["a"], 5) == b"12345"
        with pytest.raises(UnsupportedFileError, match="its member a has 5 bytes, which is more"):
            archive.bytes_of(archive.members["a"], 4)
    crc = struct.pack("<L", zlib.crc32(b"12345"))
    path.write_bytes(path.read_bytes().replace(crc, bytes(4)[:3] + b"x"))
    with open_source(path) as source:
        archive = source.archive
        with pytest.raises(CorruptFileError, match="a does not match its checksum"):
            archive.bytes_of(archive.members["a"], 5)


@pytest.mark.parametrize("at_once", [0, 1 << 16])
@pytest.mark.parametrize("change", ["", "cut", "longer", "flipped", "checksum"])
def test_compressed_bytes_are_checked_however_they_are_inflated(
    at_once, change, tmp_path, monkeypatch
):
    monkeypatch.setattr("bncli.loaders.zip_archive.AT_ONCE", at_once)
    data = bytes(range(256)) * 40
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    given = {"cut": data[:-1], "longer": data + b"x", "flipped": b"\1" + data[1:]}.get(change, data)
    packed = packer.compress(given) + packer.flush()
    crc = zlib.crc32(data) ^ (change == "checksum")
    name = b"a"
    sizes = (crc, len(packed), len(data), 1, 0)
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0, *sizes)
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 0, *sizes, 0, 0, 0, 0, 0)
    start = len(local) + 1 + len(packed)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(entry) + 1, start, 0)
    path = tmp_path / "a.zip"
    path.write_bytes(local + name + packed + entry + name + end)
    with open_source(path) as source:
        archive = source.archive
        if not change:
            assert archive.bytes_of(archive.members["a"], 1 << 20) == data
            return
        said = "checksum" if change in {"flipped", "checksum"} else "does not decompress to the"
        with pytest.raises(CorruptFileError, match=said):
            archive.bytes_of(archive.members["a"], 1 << 20)
