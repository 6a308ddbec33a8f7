import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncli.errors import CorruptFileError
from bncli.loaders.interface import open_source
from bncli.loaders.protobuf import BYTES, FIXED32, FIXED64, VARINT, Wire, signed


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def message(*fields: tuple[int, int, int | bytes]) -> bytes:
    out = b""
    for number, wire, value in fields:
        out += varint(number << 3 | wire)
        if wire == VARINT:
            out += varint(value)
        elif wire == BYTES:
            out += varint(len(value)) + value
        else:
            out += value
    return out


def read(tmp_path: Path, data: bytes):
    path = tmp_path / "m"
    path.write_bytes(data)
    with open_source(path) as source:
        wire = Wire(source)
        return [(*field[:2], field.value, data[field.start : field.stop])
                for field in wire.fields(0, len(data))]  # fmt: skip


def test_every_kind_of_field(tmp_path: Path):
    data = message(
        (1, VARINT, 300), (2, BYTES, b"abc"), (3, FIXED32, struct.pack("<f", 0.5)),
        (4, FIXED64, struct.pack("<d", 0.25)), (1, VARINT, -3),
    )  # fmt: skip
    one, two, three, four, five = read(tmp_path, data)
    assert one[:3] == (1, VARINT, 300)
    assert two == (2, BYTES, 3, b"abc")
    assert struct.unpack("<f", three[3]) == (0.5,)
    assert three[2] == int.from_bytes(struct.pack("<f", 0.5), "little")
    assert struct.unpack("<d", four[3]) == (0.25,)
    assert signed(five[2]) == -3


@given(st.lists(st.binary(max_size=40), max_size=5), st.integers(0, 300))
def test_a_cut_message_is_damaged(tmp_path_factory, parts, cut):
    data = message(*((2, BYTES, part) for part in parts))
    path = tmp_path_factory.mktemp("m")
    ends = {sum(map(len, [varint(18) + varint(len(p)) + p for p in parts[:n]]))
            for n in range(len(parts) + 1)}  # fmt: skip
    cut = min(cut, len(data))
    if cut in ends:
        assert len(read(path, data[:cut])) == sorted(ends).index(cut)
    else:
        with pytest.raises(CorruptFileError):
            read(path, data[:cut])


@pytest.mark.parametrize(
    "data",
    [b"\x0b", b"\x00\x01", b"\xff" * 12, b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x0f"],
)
def test_what_is_no_message(tmp_path: Path, data):
    with pytest.raises(CorruptFileError):
        read(tmp_path, data)


def test_long_bytes_are_not_read(tmp_path: Path):
    path = tmp_path / "m"
    data = message((1, BYTES, bytes(1 << 20)), (2, VARINT, 7))
    path.write_bytes(data)
    with open_source(path) as source:
        before, reads = source.read, []
        source.read = lambda at, n: reads.append(n) or before(at, n)
        fields = list(Wire(source).fields(0, len(data)))
    assert [f.value for f in fields] == [1 << 20, 7]
    assert sum(reads) < 1 << 18
