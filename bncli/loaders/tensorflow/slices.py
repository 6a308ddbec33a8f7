"""A variable that was kept in parts, as TensorFlow's partitioners do: each has an entry of its own.

Its key is a number 0, the tensor's name and the part's extents, in an encoding that sorts as they
do (`OrderedCode`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bncli.loaders.pieces import Box

WHOLE = -1
"""The length of an extent that is all of an axis."""
PART_KEY = b"\0"
"""How the keys of parts begin; those of whole tensors are names."""


class Extent(NamedTuple):
    """A part of an axis: `length` is `WHOLE` where it is all of it, from 0 on."""

    start: int
    length: int


def part_key(name: bytes, extents: Sequence[Extent]) -> bytes:
    """The key under which a part of a tensor is stored."""
    count = len(extents)
    digits = count.to_bytes((count.bit_length() + 7) // 8, "big")
    numbers = b"".join(_ordered(number) for extent in extents for number in extent)
    return PART_KEY + _escaped(name) + b"\0\1" + bytes([len(digits)]) + digits + numbers


def box_of(extents: Sequence[Extent], shape: tuple[int, ...]) -> Box | None:
    """Where in a tensor of `shape` the part belongs; None where it does not fit into it."""
    if len(extents) != len(shape):
        return None
    sizes = []
    for (start, length), size in zip(extents, shape, strict=True):
        stop = size if length == WHOLE else start + length
        if not 0 <= start <= stop <= size:
            return None
        sizes.append(stop - start)
    return Box(tuple(extent.start for extent in extents), tuple(sizes))


def _escaped(name: bytes) -> bytes:
    """The name so that no byte of it is taken for its end."""
    return b"".join({0: b"\0\xff", 255: b"\xff\0"}.get(byte, bytes([byte])) for byte in name)


def _ordered(number: int) -> bytes:
    """A signed number: its length as leading bits of 1, then its bits."""
    magnitude = ~number if number < 0 else number
    count = max(1, -(-(magnitude.bit_length() + 1) // 7))
    mask = ((1 << count) - 1) << (7 * count)
    return ((number & ((1 << 8 * count) - 1)) ^ mask).to_bytes(count, "big")
