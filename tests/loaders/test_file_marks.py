"""What tells whether a file is still what it was."""

import zlib
from pathlib import Path

import pytest

from bncli.errors import FileError, UsageError
from bncli.loaders.file_marks import PIECE, crc_of, described, file_size, fingerprint
from bncli.loaders.interface import STANDARD_INPUT


def test_all_bytes_of_files_count(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"a" * 70_000)
    two.write_bytes(b"b" * 5)
    crc = zlib.crc32(b"a" * 70_000 + b"b" * 5)
    assert crc_of([one, two]) == f"{crc:08x}"
    assert described([one, two]) == f"of 70005 bytes, CRC-32 {crc:08x}"


@pytest.mark.parametrize("place", [0, 9 * PIECE // 2, 9 * PIECE - 1])
def test_a_fingerprint_is_of_three_pieces_and_the_size(tmp_path, place):
    file = tmp_path / "x"
    content = bytearray(9 * PIECE)
    file.write_bytes(content)
    before = fingerprint(file, file_size(file))
    content[place] = 1
    file.write_bytes(content)
    assert fingerprint(file, file_size(file)) != before
    file.write_bytes(bytes(len(content) + 1))
    assert fingerprint(file, file_size(file)) != before


def test_what_has_no_size(tmp_path):
    with pytest.raises(FileError):
        file_size(tmp_path / "gone")
    with pytest.raises(UsageError):
        file_size(Path(STANDARD_INPUT))
    (tmp_path / "in").write_bytes(b"123")
    assert file_size(tmp_path) == 3
    assert len(fingerprint(tmp_path, 3)) == 8
