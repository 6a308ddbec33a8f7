"""Members of an archive that lies elsewhere, whose headers are read with their bytes."""

from __future__ import annotations

import io
import zipfile

import fsspec
import pytest

from bncli.errors import CorruptFileError
from bncli.files.reading import reading
from bncli.loaders.interface import open_source
from bncli.loaders.zip_elsewhere import plain_members
from bncli.paths import ShiftedPath, as_path


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.fixture
def archive():
    """Members with longer and shorter local headers, so that none begins where it is guessed."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for k, extra in enumerate((b"", b"FB\x05\0ZZZZZ", b"FB\x30\0" + b"Z" * 48)):
            info = zipfile.ZipInfo(f"a/{k}")
            info.extra = extra
            file.writestr(info, bytes([k]) * (10 + k))
    return stream.getvalue()


def places(path):
    with open_source(as_path(path)) as source:
        plain = plain_members(source.archive)
        return [plain(member) for member in source.archive.members.values()]


def test_the_bytes_are_those_of_the_local_file(memory, archive, tmp_path):
    memory.pipe("/x.zip", archive)
    (tmp_path / "x.zip").write_bytes(archive)
    with reading():
        found = [places("memory://x.zip"), places(tmp_path / "x.zip")]
        for where in found:
            for k, place in enumerate(where):
                with place.opened() as file:
                    place.check(file)
                    file.seek(place.offset)
                    assert file.read(place.nbytes) == bytes([k]) * (10 + k)
        elsewhere, local = found
        assert all(isinstance(place.path, ShiftedPath) for place in elsewhere)
        assert not any(isinstance(place.path, ShiftedPath) for place in local)
        for late, place in zip(elsewhere, local, strict=True):
            begin, end = late.path.range(late.offset, late.nbytes)
            assert begin <= place.offset - 30
            assert place.offset + place.nbytes <= end
        assert len({place.path for place in elsewhere}) == 3
        assert len({place.path.whole for place in elsewhere}) == 1


def test_a_download_is_read_as_a_local_file_is(memory, archive):
    memory.pipe("/x.zip", archive)
    with reading(download=True):
        assert not any(isinstance(place.path, ShiftedPath) for place in places("memory://x.zip"))


@pytest.mark.parametrize("damage", ["name", "method", "magic"])
def test_a_header_that_disagrees_is_refused_when_it_is_read(memory, archive, damage):
    at = archive.index(b"a/1")
    data = bytearray(archive)
    data[{"name": at, "method": at - 22, "magic": at - 30}[damage]] ^= 1
    memory.pipe("/x.zip", bytes(data))
    with reading():
        first, second, _ = places("memory://x.zip")
        first.opened().close()
        with pytest.raises(CorruptFileError, match="its directory and the header of a/1 disagree"):
            second.opened()


def test_a_wrong_checksum_is_seen(memory, archive):
    data = bytearray(archive)
    data[archive.index(b"\1" * 11)] ^= 1
    memory.pipe("/x.zip", bytes(data))
    with reading():
        place = places("memory://x.zip")[1]
        with place.opened() as file, pytest.raises(CorruptFileError, match="checksum"):
            place.check(file)
