"""The sorted table of an index, and tables that want more than they have."""

import struct
from itertools import pairwise

import pytest

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.files.reading import reading
from bncli.loaders.interface import open_source
from bncli.loaders.tensorflow.table import LONGEST_KEY, entries
from tests.loaders import memory

from .written import MAGIC, block, handle, masked, table, varint

SOME = {f"layer/{number:03d}/kernel".encode(): bytes([number]) * number for number in range(150)}


def read(tmp_path, data):
    path = tmp_path / "x.index"
    path.write_bytes(data)
    with open_source(path) as source:
        return {entry.key: source.read(entry.start, entry.stop - entry.start)
                for entry in entries(source)}  # fmt: skip


def refused(tmp_path, data, error=CorruptFileError, match="is damaged or cut short"):
    with pytest.raises(error, match=match):
        read(tmp_path, data)


def ended(data, at, size, rest=b""):
    """The data with a footer that says where the block of handles is."""
    return data + rest + (handle(0, 0) + handle(at, size)).ljust(40, b"\0") + MAGIC


@pytest.mark.parametrize("per_block", [1, 7, 40, 1000])
def test_entries_come_back_with_keys_that_share_their_begins(tmp_path, per_block):
    assert read(tmp_path, table(SOME, per_block=per_block)) == SOME
    assert list(read(tmp_path, table(SOME))) == sorted(SOME)


def test_an_empty_table_has_no_entries(tmp_path):
    assert read(tmp_path, table({})) == {}


@pytest.mark.parametrize("at", [0, 3, 200, 700])
def test_a_changed_byte_does_not_match_its_checksum(tmp_path, at):
    data = bytearray(table(SOME))
    data[at] ^= 1
    refused(tmp_path, data)


def test_checksums_may_be_left_out(tmp_path):
    data = bytearray(table({b"": b"a", b"key": b"value"}))
    at = data.index(b"value")
    data[at] ^= 1
    refused(tmp_path, data)
    with reading(checksum=False):
        assert read(tmp_path, data)[b"key"] == b"walue"


def test_snappy_is_refused_in_words(tmp_path):
    data = table(SOME, compression=1)
    refused(tmp_path, data, UnsupportedFileError, "compressed with snappy")
    refused(tmp_path, table(SOME, compression=7))


@pytest.mark.parametrize("cut", [1, 8, 47, 48, 60])
def test_a_table_that_is_cut_short(tmp_path, cut):
    refused(tmp_path, table(SOME)[:-cut])
    refused(tmp_path, table(SOME)[cut:])


@pytest.mark.parametrize(
    ("offset", "size"),
    [(0, 1 << 62), (1 << 62, 8), (1 << 63, (1 << 64) - 1), (0, 0), (0, 3), (10, 1 << 27)],
)
def test_handles_that_point_nowhere(tmp_path, offset, size):
    one = block([(b"a", b"b")])
    refused(tmp_path, ended(one, offset, size))
    pointers = block([(b"z", handle(offset, size))])
    refused(tmp_path, ended(one, len(one), len(pointers) - 5, pointers))


def test_blocks_that_are_their_own_or_named_twice(tmp_path):
    one = block([(b"a", b"b")])
    for handles in ([(0, len(one) - 5)] * 2, [(len(one), 20)], [(0, len(one) - 5), (2, 9)]):
        pairs = [(bytes([97 + at]), handle(*each)) for at, each in enumerate(handles)]
        pointers = block(pairs)
        refused(tmp_path, ended(one, len(one), len(pointers) - 5, pointers))


def test_keys_out_of_order(tmp_path):
    for keys in ([b"b", b"a"], [b"a", b"a"]):
        one = block([(key, b"") for key in keys], interval=1)
        pointers = block([(b"z", handle(0, len(one) - 5))])
        refused(tmp_path, ended(one, len(one), len(pointers) - 5, pointers))


def raw(body, restarts=0):
    data = body + struct.pack("<I", restarts) + b"\0"
    return data + struct.pack("<I", masked(data))


@pytest.mark.parametrize(
    "body",
    [
        varint(1) + varint(1) + varint(0) + b"a",  # shares more than there is
        varint(0) + varint(5) + varint(0) + b"a",
        varint(0) + varint(1) + varint(1 << 60) + b"a",
        varint(0) + varint(LONGEST_KEY + 1) + varint(0) + b"a" * (LONGEST_KEY + 1),
        b"\xff" * 30,
        varint(0),
    ],
)
def test_entries_that_contradict_themselves(tmp_path, body):
    one = raw(body)
    pointers = block([(b"z", handle(0, len(one) - 5))])
    refused(tmp_path, ended(one, len(one), len(pointers) - 5, pointers))


def test_restarts_that_are_longer_than_the_block(tmp_path):
    one = raw(b"", restarts=1 << 30)
    pointers = block([(b"z", handle(0, len(one) - 5))])
    refused(tmp_path, ended(one, len(one), len(pointers) - 5, pointers))


def test_keys_that_grow_take_little_memory(tmp_path):
    """Each key shares all of the one before, so that short entries make long keys."""
    body = bytearray(varint(0) + varint(1) + varint(0) + b"a")
    for shared in range(1, 60_000):
        body += varint(shared) + varint(1) + varint(0) + b"a"
    one = raw(bytes(body))
    pointers = block([(b"z", handle(0, len(one) - 5))])
    before = memory.mark()
    refused(tmp_path, ended(one, len(one), len(pointers) - 5, pointers))
    assert memory.grown(before) < 100_000


def test_more_entries_than_any_model_has(tmp_path, monkeypatch):
    monkeypatch.setattr("bncli.loaders.tensorflow.table.MOST_ENTRIES", 100)
    refused(tmp_path, table(SOME), UnsupportedFileError, "its index has more than 100 entries")


def test_the_writer_sorts():
    keys = sorted(SOME)
    assert all(one < other for one, other in pairwise(keys))
