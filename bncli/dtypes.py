"""The dtypes that files hold, under PyTorch's names, and how NumPy stands in for each.

bfloat16 and the float8 kinds are not NumPy dtypes: their bits are held as unsigned integers
("stored") and widened exactly to float32 ("decoded") when the values are wanted.
"""

from __future__ import annotations

from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from bncli.light import dataclass, np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["float", "int", "bool", "complex"]


@dataclass(frozen=True, slots=True)
class DType:
    """One dtype: PyTorch's `name`, the NumPy dtype string that `stored` bits are held in.

    `digits` is the number of significant bits of a float (24 for float32), 0 for other kinds.
    `largest` and `tiniest` are the largest finite and the smallest subnormal value of a float.
    """

    name: str
    stored: str
    itemsize: int
    kind: Kind
    digits: int = 0
    largest: float = 0.0
    tiniest: float = 0.0

    @property
    def unit_roundoff(self) -> float:
        """u: the largest relative error of one rounding to nearest, 2**-digits."""
        return 2.0**-self.digits

    @property
    def smallest_normal(self) -> float:
        """The smallest value of a float that has all its digits."""
        return self.tiniest * 2.0 ** (self.digits - 1)


DTYPES: dict[str, DType] = {
    d.name: d
    for d in (
        DType("float64", "f8", 8, "float", 53, 1.7976931348623157e308, 5e-324),
        DType("float32", "f4", 4, "float", 24, 3.4028234663852886e38, 2.0**-149),
        DType("float16", "f2", 2, "float", 11, 65504.0, 2.0**-24),
        DType("bfloat16", "u2", 2, "float", 8, 3.3895313892515355e38, 2.0**-133),
        DType("float8_e4m3fn", "u1", 1, "float", 4, 448.0, 2.0**-9),
        DType("float8_e4m3fnuz", "u1", 1, "float", 4, 240.0, 2.0**-10),
        DType("float8_e5m2", "u1", 1, "float", 3, 57344.0, 2.0**-16),
        DType("float8_e5m2fnuz", "u1", 1, "float", 3, 57344.0, 2.0**-17),
        DType("float8_e8m0fnu", "u1", 1, "float", 1, 2.0**127, 2.0**-127),
        DType("int64", "i8", 8, "int"),
        DType("int32", "i4", 4, "int"),
        DType("int16", "i2", 2, "int"),
        DType("int8", "i1", 1, "int"),
        DType("uint64", "u8", 8, "int"),
        DType("uint32", "u4", 4, "int"),
        DType("uint16", "u2", 2, "int"),
        DType("uint8", "u1", 1, "int"),
        DType("bool", "?", 1, "bool"),
        DType("complex32", "u4", 4, "complex"),
        DType("complex64", "c8", 8, "complex"),
        DType("complex128", "c16", 16, "complex"),
    )
}
"""Every dtype a tensor may have, by name. complex32 is listed by its bits and never decoded."""


class ComputeDtype(str, Enum):
    """The dtypes that BatchNorm computes in."""

    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"
    FLOAT64 = "float64"


COMPUTE_DTYPES = tuple(dtype.value for dtype in ComputeDtype)
"""Their names."""


def decode(stored: NDArray[Any], dtype: str) -> NDArray[Any]:
    """The values behind `stored` bits: float8 and bfloat16 as float32 (exact), others as they are.

    Shape and byte order of the result: the same shape, native byte order where bits are widened.
    """
    if dtype == "bfloat16":
        wide: NDArray[Any] = np.asarray(stored).astype(np.uint32)  # a 0-d shift gives a scalar
        wide = np.left_shift(wide, 16, out=np.empty(wide.shape, np.uint32))
        return wide.view(np.float32)
    if dtype.startswith("float8"):
        table: NDArray[Any] = float8_table(dtype)
        return np.asarray(table[stored])
    return stored


def encode(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """`values` rounded to nearest, ties to even, as the stored bits of a `COMPUTE_DTYPES` name.

    Overflow gives an infinity, as a cast does; a NaN stays a NaN. float64 becomes half precision
    by way of float32, as in PyTorch's own casts.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype == "float16":
            return values.astype("f4").astype("f2")
        if dtype != "bfloat16":
            return values.astype(DTYPES[dtype].stored)
        bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32).reshape(values.shape)
    # Add half of the last place kept, and one more where that place is odd.
    rounded = ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where((bits & 0x7FFFFFFF) > 0x7F800000, np.uint16(0x7FC0), rounded)


@cache
def float8_table(dtype: str) -> NDArray[np.float32]:
    """The 256 values of a float8 dtype as float32, by bit pattern (OCP OFP8 and the fnuz kinds)."""
    if dtype == "float8_e8m0fnu":
        table = np.full(256, np.nan, np.float32)  # the last pattern is NaN; there is no zero
        table[:255] = np.ldexp(1.0, np.arange(255) - 127)
        return table
    mantissa_bits = 3 if "e4m3" in dtype else 2
    fnuz = dtype.endswith("fnuz")
    bias = (1 << (6 - mantissa_bits)) - 1 + (1 if fnuz else 0)
    bits = np.arange(256)
    sign = np.where(bits & 0x80, -1.0, 1.0)
    exponent = (bits & 0x7F) >> mantissa_bits
    fraction = (bits & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    magnitude = np.where(
        exponent == 0,
        np.ldexp(fraction, 1 - bias),
        np.ldexp(1 + fraction, exponent - bias),
    )
    table = (sign * magnitude).astype(np.float32)
    if fnuz:
        table[0x80] = np.nan  # the pattern of minus zero; there is no other NaN and no infinity
    elif dtype == "float8_e4m3fn":
        table[[0x7F, 0xFF]] = np.nan
    else:
        table[[0x7C, 0xFC]] = np.inf, -np.inf
        table[[0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF]] = np.nan
    return table
