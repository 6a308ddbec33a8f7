import msgpack
import pytest

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.loaders import msgpack_marks
from bncli.loaders.interface import open_source
from bncli.loaders.msgpack_marks import EXTENSION, LIST, MAP, NUMBER, OTHER, TEXT, TRUE, Marks

VALUES = [
    *((value, (NUMBER, value)) for value in (0, 127, 128, 255, 256, 2**16, 2**32, 2**64 - 1)),
    *(
        (value, (OTHER, size))
        for value, size in {-1: 0, -32: 0, -33: 1, -129: 2, -(2**20): 4, -(2**40): 8}.items()
    ),
    (None, (OTHER, 0)),
    (False, (OTHER, 0)),
    (True, (TRUE, 0)),
    (1.5, (OTHER, 8)),
    *(("x" * n, (TEXT, n)) for n in (0, 31, 32, 255, 256, 70_000)),
    *((b"x" * n, (TEXT, n)) for n in (0, 255, 256, 70_000)),
    *(([None] * n, (LIST, n)) for n in (0, 15, 16, 70_000)),
    *((dict.fromkeys(map(str, range(n))), (MAP, n)) for n in (0, 15, 16, 70_000)),
    *((msgpack.ExtType(7, bytes(n)), (EXTENSION, n)) for n in (1, 2, 3, 4, 8, 16, 300, 70_000)),
]


@pytest.fixture
def marks(tmp_path):
    opened = []

    def read(data):
        path = tmp_path / "x"
        path.write_bytes(data)
        opened.append(open_source(path))
        return Marks(opened[-1].__enter__())

    yield read
    for each in opened:
        each.__exit__(None, None, None)


@pytest.mark.parametrize(("value", "mark"), VALUES, ids=[str(mark) for _, mark in VALUES])
def test_each_mark_as_the_msgpack_package_writes_it(value, mark, marks):
    at = marks(msgpack.packb(value))
    assert at.mark() == mark
    kind, size = mark
    if kind in (TEXT, OTHER):
        at.skip(size)
    elif kind == EXTENSION:
        assert at.take(1) == b"\x07"
        at.skip(size)
    elif kind in (LIST, MAP):
        for _ in range(size * (1 if kind == LIST else 2)):
            _, width = at.mark()
            at.skip(width)
    with pytest.raises(CorruptFileError, match="cut short at byte"):
        at.take(1)


def test_single_floats_and_texts(marks):
    at = marks(msgpack.packb([1.5, "\u00e9", "y" * 4096, "z" * 4097], use_single_float=True))
    assert at.mark(LIST) == (LIST, 4)
    assert at.mark() == (OTHER, 4)
    at.skip(4)
    assert [at.text(at.mark()), at.text(at.mark(TEXT))] == ["\u00e9", "y" * 4096]
    with pytest.raises(CorruptFileError):
        at.text(at.mark())


@pytest.mark.parametrize("data", [b"\xc1", b"\xcd\x01", b"", b"\xa2\xff\xff"])
def test_what_is_no_mark_or_no_text(data, marks):
    at = marks(data)
    with pytest.raises(CorruptFileError, match="its MessagePack is damaged or cut short at byte"):
        at.text(at.mark())


def test_a_mark_of_another_kind(marks):
    with pytest.raises(CorruptFileError):
        marks(msgpack.packb([1])).mark(MAP, TEXT)


def test_the_number_of_values_is_bounded(marks, monkeypatch):
    monkeypatch.setattr(msgpack_marks, "MOST_VALUES", 100)
    at = marks(msgpack.packb([1] * 200))
    for _ in range(100):
        at.mark()
    with pytest.raises(UnsupportedFileError, match="of more than 100 values; load it where it"):
        at.mark()
