"""What tells whether a file is still what it was."""

import os
import zlib
from pathlib import Path

import pytest

from bncli.errors import FileError, UsageError
from bncli.loaders.file_marks import (
    PIECE,
    check_marks,
    crc_of,
    described,
    file_size,
    fingerprint,
    marks_of,
)
from bncli.loaders.interface import STANDARD_INPUT
from bncli.paths import as_path


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


@pytest.mark.parametrize("change", ["bytes", "time", "size", "gone"])
def test_a_file_that_changes_during_a_call(tmp_path, change):
    file = tmp_path / "x"
    file.write_bytes(bytes(100))
    then = file.stat().st_mtime_ns
    marks = marks_of([file, tmp_path / "never"])
    assert marks[tmp_path / "never"] is None
    check_marks({file: marks[file]})
    if change == "gone":
        file.unlink()
    elif change != "time":
        file.write_bytes(bytes(99) + b"1" * (1 + (change == "size")))
    if change == "bytes":
        os.utime(file, ns=(then, then))
    if change == "time":
        os.utime(file, ns=(then, then + 1000))
    with pytest.raises(FileError, match="written to or replaced"):
        check_marks({file: marks[file]})
    with pytest.raises(FileError, match="written to or replaced"):
        check_marks({tmp_path / "never": None})


def test_files_elsewhere_are_not_marked():
    assert marks_of([as_path("https://localhost:1/x.npy")]) == {}
