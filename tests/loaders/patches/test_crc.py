"""The CRC-32 of bytes of which some change, from the old one."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncli.loaders.patches import crc


@st.composite
def changes(draw):
    """Bytes, and pieces of them that get other bytes."""
    old = draw(st.binary(min_size=1, max_size=300))
    cuts = sorted(draw(st.sets(st.integers(0, len(old)), max_size=8)))
    pieces = []
    for start, stop in zip(cuts[::2], cuts[1::2], strict=False):
        new = draw(st.binary(min_size=stop - start, max_size=stop - start))
        pieces.append((start, old[start:stop], new))
    return old, pieces


def patched(old, pieces):
    new = bytearray(old)
    for offset, before, after in pieces:
        assert new[offset : offset + len(before)] == before
        new[offset : offset + len(after)] = after
    return bytes(new)


@given(changes())
def test_the_new_checksum_is_that_of_zlib(change):
    old, pieces = change
    new = zlib.crc32(patched(old, pieces))
    assert zlib.crc32(old) ^ crc.difference(pieces, len(old)) == new


@given(changes())
def test_zeros_that_are_not_fed_give_the_same(change):
    old, pieces = change
    fed = crc.difference(pieces, len(old))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crc, "FED", 0)
        assert crc.difference(pieces, len(old)) == fed


@given(changes(), st.integers(1, 0xFFFFFFFF))
def test_a_wrong_checksum_stays_as_wrong_as_it_was(change, wrong):
    old, pieces = change
    stored = zlib.crc32(old) ^ wrong
    new = stored ^ crc.difference(pieces, len(old))
    assert new ^ wrong == zlib.crc32(patched(old, pieces))


@pytest.mark.parametrize("behind", [0, 1, crc.FED - 1, crc.FED, crc.FED + 1, 3_000_001])
@pytest.mark.parametrize("before", [0, 5, 100_003])
def test_long_runs_on_both_sides(before, behind):
    old = bytes(range(256)) * ((before + 11 + behind) // 256 + 1)
    old = old[: before + 11 + behind]
    pieces = [(before, old[before : before + 4], b"abcd")]
    pieces += [(before + 9, old[before + 9 : before + 11], b"\0\xff")]
    change = crc.difference(pieces, len(old))
    assert zlib.crc32(old) ^ change == zlib.crc32(patched(old, pieces))


def test_what_is_behind_is_not_read():
    # The same change before 128 MB of zeros, which zlib sums up in pieces; and before far more
    # than can be read.
    change = crc.difference([(0, b"\0", b"\1")], 1 + (1 << 27))
    state = zlib.crc32(b"\1", 0xFFFFFFFF) ^ 0xFFFFFFFF
    for _ in range(1 << 7):
        state = zlib.crc32(bytes(1 << 20), state ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
    assert change == state
    # x is of order 2**32 - 1: after so many bits of zeros, the sum is what it was.
    assert crc.difference([(0, b"\0", b"\1")], 1 + (1 << 32) - 1) == crc.difference(
        [(0, b"\0", b"\1")], 1
    )


def test_the_same_bytes_change_nothing():
    assert crc.difference([(3, b"abc", b"abc")], 1 << 20) == 0
    assert crc.difference([], 1 << 20) == 0
