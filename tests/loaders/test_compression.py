"""How a file is compressed, and what it unpacks to: all of it, within a bound, or one sentence."""

import bz2
import gzip
import lzma
import zlib

import pytest

from bncli.errors import CorruptFileError
from bncli.loaders.compression import compression, unpacked
from bncli.loaders.interface import open_source

from . import memory


@pytest.fixture
def look(tmp_path):
    """What a function of a source gives for these bytes."""

    def look(function, data, *more):
        (tmp_path / "x").write_bytes(data)
        with open_source(tmp_path / "x") as source:
            return function(source, *more)

    return look


TEXT = b"what is inside" * 9


@pytest.mark.parametrize(
    ("data", "name", "mark"),
    [
        (gzip.compress(TEXT), "gzip", 3),
        (bz2.compress(TEXT), "bzip2", 3),
        (lzma.compress(TEXT), "xz", 6),
        (lzma.compress(TEXT, lzma.FORMAT_ALONE), "lzma", 3),
        (zlib.compress(TEXT), "zlib", 1),
    ],
    ids=["gzip", "bzip2", "xz", "lzma", "zlib"],  # gzip writes the time into its bytes
)
def test_how_it_is_compressed_and_what_is_inside(look, data, name, mark):
    assert look(compression, data) == (name, TEXT)
    broken = data[:mark] + b"\xff" * 20
    assert look(compression, broken) == (
        name if name in {"gzip", "bzip2", "xz"} else "",
        b"",
    )


@pytest.mark.parametrize(
    ("start", "name"),
    [(b"\x28\xb5\x2f\xfd", "zstd"), (b"\x04\x22\x4d\x18", "lz4"), (b"Rar!", "RAR"), (b"x", "")],
)
def test_what_cannot_be_looked_into(look, start, name):
    assert look(compression, start + bytes(9)) == (name, b"")


SURE = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}


def contents(part):
    return None if part is None else part.read(0, part.size)


@pytest.mark.parametrize("how", SURE)
def test_all_of_it_comes_out(look, how):
    pack = SURE[how]
    data = bytes(range(256)) * 9000  # more than a piece
    assert contents(look(unpacked, pack(data), how)) == data
    # Streams in a row, with zeros between them and something else behind.
    row = pack(data) + bytes(1024) + pack(TEXT) + b"else"
    assert contents(look(unpacked, row, how)) == data + TEXT


@pytest.mark.parametrize("how", SURE)
def test_what_is_cut_or_damaged(look, how):
    data = SURE[how](bytes(range(256)) * 99)
    for cut in (len(data) - 1, len(data) // 2):
        with pytest.raises(CorruptFileError, match=f"compressed by {how}, and is cut short"):
            look(unpacked, data[:cut], how)
    with pytest.raises(CorruptFileError, match=f"compressed by {how}, and is damaged"):
        look(unpacked, data[:-8] + b"crc!" + data[-4:], how)


@pytest.mark.parametrize("how", SURE)
def test_a_bomb_is_left(look, how):
    """More zeros than may be held, of which the file has a thousandth."""
    data = SURE[how](bytes(40 << 20))
    before = memory.mark()
    assert look(unpacked, data, how) is None
    assert memory.grown(before) < 30_000


def test_a_file_that_is_itself_too_large_is_left_at_once(look, monkeypatch):
    monkeypatch.setattr("bncli.loaders.compression._pieces", lambda *args: pytest.fail("unpacked"))
    monkeypatch.setattr("bncli.loaders.compression.MOST_HELD", 50)
    assert look(unpacked, gzip.compress(bytes(range(99))), "gzip") is None
