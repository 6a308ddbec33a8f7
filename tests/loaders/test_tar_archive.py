"""The directory of a tar file, as `tarfile` writes it and as nobody should."""

import io
import tarfile

import pytest

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.loaders import tar_archive
from bncli.loaders.interface import open_source
from bncli.loaders.tar_archive import BLOCK, members

from .files import tarred

LONG = "a/" * 80 + "name.pt"


@pytest.fixture
def look(tmp_path):
    """The members of these bytes: {name: data}."""

    def look(data):
        (tmp_path / "x").write_bytes(data)
        with open_source(tmp_path / "x") as source:
            return {m.name: source.read(m.start, m.stop - m.start) for m in members(source)}

    return look


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_and_bytes(form, look):
    files = {"./a.pt": b"x" * 513, "empty": b"", LONG: b"y" * 512, "caf\u00e9": b"z"}
    if form == tarfile.USTAR_FORMAT:
        files.pop("caf\u00e9")
    assert look(tarred(files, form)) == {
        name.removeprefix("./"): data for name, data in files.items()
    }


def test_a_size_as_pax_and_as_bytes(look):
    """A size that has no room in octal digits stands in a header before, or as a number."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a")
        info.size = 3
        info.pax_headers = {"size": "3"}
        archive.addfile(info, io.BytesIO(b"abc"))
    assert look(out.getvalue()) == {"a": b"abc"}
    plain = bytearray(tarred({"a": b"abc"}))
    plain[124:136] = b"\x80" + (3).to_bytes(11, "big")
    assert look(summed(plain)) == {"a": b"abc"}


def summed(data, at=0):
    """The header's checksum set right."""
    data[at + 148 : at + 156] = b" " * 8
    total = sum(data[at : at + BLOCK])
    data[at + 148 : at + 156] = b"%06o\0 " % total
    return bytes(data)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE]
)
def test_links_and_devices_are_left_out(kind, look):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("link.pt")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
        info = tarfile.TarInfo("a")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"x"))
    assert look(out.getvalue()) == {"a": b"x"}


def test_what_is_damaged(look):
    data = bytearray(tarred({"a": b"x" * 600, "b": b"y"}))
    at = 512 + 1024  # of the second header
    with pytest.raises(CorruptFileError, match="no tar header at byte 1536"):
        look(bytes(data[:at]) + b"q" * 1024)
    with pytest.raises(CorruptFileError, match="its member at byte 0 reaches outside"):
        look(bytes(data[:1100]))
    data[124:136] = b"77777777777\0"
    with pytest.raises(CorruptFileError, match="reaches outside"):
        look(summed(data))
    data[124:136] = b"\xff" * 12
    with pytest.raises(CorruptFileError, match="reaches outside"):
        look(summed(data))


def test_a_note_without_an_end_is_refused(look):
    data = bytearray(tarred({LONG: b"x"}))
    assert data[156:157] == b"L"
    data[124:136] = b"%011o\0" % (1 << 17)
    with pytest.raises(CorruptFileError, match="too long"):
        look(summed(data) + bytes(1 << 17))


def test_sparse_files(look):
    data = bytearray(tarred({"a": b"x"}))
    data[156:157], data[482] = b"S", 1
    with pytest.raises(UnsupportedFileError, match="sparse"):
        look(summed(data))
    data[482] = 0
    assert look(summed(data)) == {}


def test_no_end_of_members(look, monkeypatch):
    monkeypatch.setattr(tar_archive, "MOST_MEMBERS", 10)
    assert len(look(tarred({str(n): b"" for n in range(9)}))) == 9
    with pytest.raises(UnsupportedFileError, match="more than 10 members"):
        look(tarred({str(n): b"" for n in range(11)}))
