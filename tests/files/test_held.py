"""Bytes that came out of a file have its path, and are another file."""

from pathlib import Path

from bncli.files.file_bytes import FileBytes
from bncli.files.held import held
from bncli.files.reading import open_to_read


def test_it_reads_as_the_path_and_opens_as_the_bytes(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(b"outside")
    inside = held(path, b"inside!")
    assert str(inside) == str(path)
    assert inside.name == "x.gz"
    with open_to_read(inside) as file, open_to_read(inside) as other:
        assert file.read(2) == b"in"
        assert other.read() == b"inside!"
    with FileBytes(inside, 2, 4).opened() as file:
        assert file.read() == b"inside!"


def test_two_are_never_one_file():
    one, other = held(Path("x"), b"a"), held(Path("x"), b"a")
    assert one == one  # noqa: PLR0124 (its own)
    assert one != other
    assert one != Path("x")
    assert len({one, other, Path("x")}) == 3
