"""The CRC-32 of bytes of which some change, from the old one: what stays is never read.

CRC-32 is linear over GF(2): two texts of one length have checksums that differ by the sum,
without its constants, of the texts' difference, which is 0 wherever they agree. A run of zeros
multiplies that sum, as a polynomial, by a power of x.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from functools import cache

POLYNOMIAL = 0xEDB88320
"""CRC-32's, its bits in reverse: x**0 is the highest."""
ONE = 1 << 31
FED = 1 << 15
"""Up to so many zeros are fed to zlib, which takes less time than the powers."""
_ALL = 0xFFFFFFFF


def difference(pieces: Iterable[tuple[int, bytes, bytes]], nbytes: int) -> int:
    """What is to be xored to the CRC-32 of `nbytes` bytes of which some change.

    `pieces` are (offset, old bytes, new bytes), in order and without overlap.
    """
    state, at = 0, 0
    for offset, old, new in pieces:
        state = _behind_zeros(state, offset - at)
        changed = int.from_bytes(old, "little") ^ int.from_bytes(new, "little")
        # zlib inverts the sum before and after; so it comes without these constants.
        state = zlib.crc32(changed.to_bytes(len(new), "little"), state ^ _ALL) ^ _ALL
        at = offset + len(new)
    return _behind_zeros(state, nbytes - at)


def _behind_zeros(state: int, count: int) -> int:
    """The sum after `count` zeros."""
    if not state or not count:
        return state
    if count <= FED:
        return zlib.crc32(bytes(count), state ^ _ALL) ^ _ALL
    power, factor = 3, ONE  # a zero byte is x**8
    while count:
        if count & 1:
            factor = _product(factor, _square(power))
        count >>= 1
        power += 1
    return _product(factor, state)


@cache
def _square(power: int) -> int:
    """x**(2**power) modulo the polynomial."""
    if not power:
        return ONE >> 1
    root = _square(power - 1)
    return _product(root, root)


def _product(one: int, other: int) -> int:
    """The product of two polynomials modulo CRC-32's."""
    product = 0
    for place in range(31, -1, -1):
        if one >> place & 1:
            product ^= other
        other = other >> 1 ^ (POLYNOMIAL if other & 1 else 0)
    return product
