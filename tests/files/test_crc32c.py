"""CRC-32C against its published values and a bitwise one."""

import random

import pytest

from bncli.files.crc32c import LANE, PIECE, SHORT, crc32c, unmasked
from tests.loaders.tensorflow.written import crc32c as bitwise
from tests.loaders.tensorflow.written import masked


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),  # RFC 3720, B.4
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
    ],
)
def test_the_published_values(data, crc):
    assert crc32c(data) == crc


@pytest.mark.parametrize(
    "count", [1, LANE, SHORT, SHORT + 1, SHORT + LANE - 1, SHORT + LANE, 5 * SHORT + 77]
)
def test_lanes_give_what_bytes_give(count):
    data = random.Random(count).randbytes(count)
    assert crc32c(data) == bitwise(data)
    for cut in (0, 1, count // 3, count):
        assert crc32c(data[cut:], crc32c(data[:cut])) == bitwise(data)


def test_long_data_are_taken_in_pieces():
    data = random.Random(1).randbytes(SHORT + 100)
    long = bytes(PIECE - 50) + data
    assert crc32c(memoryview(long)) == crc32c(data, crc32c(bytes(PIECE - 50)))


def test_the_mask_comes_off():
    for data in (b"", b"a", b"hello"):
        assert unmasked(masked(data)) == bitwise(data)
