"""CRC-32C (Castagnoli), which TensorFlow keeps of its blocks and tensors; zlib has another one.

A checksum is linear in the bytes: many lanes of the data are taken at once by NumPy, and joined by
what so many zero bytes do to a checksum.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from bncli.light import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

POLYNOMIAL = 0x82F63B78
MASK = 0xA282EAD8
"""What LevelDB and TensorFlow add to a rotated checksum that they store."""
LANE = 1 << 8
"""Bytes of a lane."""
SHORT = 1 << 13
"""Shorter data are taken byte by byte, which is then faster."""
PIECE = 1 << 22
"""How many bytes are taken at once; their lanes take four times as much memory."""


def crc32c(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """The checksum of the data, behind those of which `crc` is the checksum."""
    view = memoryview(data).cast("B")
    crc ^= 0xFFFF_FFFF
    for at in range(0, len(view), PIECE):
        crc = _piece(view[at : at + PIECE], crc)
    return crc ^ 0xFFFF_FFFF


def unmasked(stored: int) -> int:
    """The checksum that stands in a file as `stored`."""
    rotated = (stored - MASK) & 0xFFFF_FFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFF_FFFF


def _piece(view: memoryview, crc: int) -> int:
    """The register after the bytes."""
    count = len(view) // LANE
    if len(view) > SHORT:
        lanes = np.frombuffer(view[: count * LANE], np.uint8).reshape(count, LANE)
        crc = _joined(_of_lanes(lanes, crc))
        view = view[count * LANE :]
    table = _table()
    for byte in view:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc


def _of_lanes(lanes: NDArray[Any], crc: int) -> NDArray[Any]:
    """The registers of the lanes, each begun at 0 but the first."""
    table = np.array(_table(), np.uint32)
    registers = np.zeros(len(lanes), np.uint32)
    registers[0] = crc
    for column in np.ascontiguousarray(lanes.T):
        registers = table[(registers ^ column) & 0xFF] ^ (registers >> 8)
    return registers


def _joined(registers: NDArray[Any]) -> int:
    """The register of all lanes behind each other."""
    doublings = 0
    while len(registers) > 1:
        if len(registers) % 2:  # zeros in front change nothing
            registers = np.concatenate([np.zeros(1, np.uint32), registers])
        behind = _zeros(doublings)
        left = registers[0::2]
        moved = np.zeros(len(left), np.uint32)
        for place in range(4):
            moved ^= behind[place][(left >> (8 * place)) & 0xFF]
        registers = moved ^ registers[1::2]
        doublings += 1
    return int(registers[0])


@cache
def _table() -> tuple[int, ...]:
    """What each value of the lowest byte does to the register."""
    found = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (POLYNOMIAL if value & 1 else 0)  # noqa: PLW2901 (the register)
        found.append(value)
    return tuple(found)


@cache
def _zeros(doublings: int) -> NDArray[Any]:
    """What `LANE` times 2**doublings zero bytes do to each byte of a register: shape (4, 256)."""
    bits = [1 << bit for bit in range(32)]
    if doublings == 0:
        table = _table()
        for _ in range(LANE):
            bits = [table[bit & 0xFF] ^ (bit >> 8) for bit in bits]
    else:
        half = _zeros(doublings - 1)
        images = [int(half[bit // 8][1 << bit % 8]) for bit in range(32)]
        bits = []
        for image in images:
            moved = 0
            for bit in range(32):
                moved ^= images[bit] if image >> bit & 1 else 0
            bits.append(moved)
    out = np.zeros((4, 256), np.uint32)
    for place in range(4):
        for value in range(256):
            moved = 0
            for bit in range(8):
                moved ^= bits[8 * place + bit] if value >> bit & 1 else 0
            out[place, value] = moved
    return out
