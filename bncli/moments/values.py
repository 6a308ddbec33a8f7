"""From stored bits to float64, tile by tile, in buffers that are used again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bncli.dtypes import decode, encode
from bncli.moments import fast

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray

_WIDER = {
    "float16": ("float32", "float64"),
    "bfloat16": ("float32", "float64"),
    "float32": ("float64",),
}
"""Casts that change no value."""


def keeps(dtype: str, cast: str | None) -> bool:
    """Whether the cast from `dtype`, if any, changes no value."""
    return cast in (None, dtype, *_WIDER.get(dtype, ()))


class Widener:
    """Turns tiles of the stored dtype into contiguous float64, after an optional cast.

    A call's result lives in this object's buffers, until the next call, or in the tile itself.
    """

    def __init__(self, dtype: str, cast: str | None, capacity: int) -> None:
        """`dtype` is the stored one and `cast` the one to round to first, by PyTorch's names.

        `capacity` is the largest number of values in a tile.
        """
        if keeps(dtype, cast):
            cast = None
        self._dtype = dtype
        self._cast = cast
        self._wide: FloatArray = np.empty(capacity)
        self._narrow: NDArray[np.float32] | None = None
        if cast is None and dtype in FLOAT32_OF:
            self._narrow = np.empty(capacity, np.float32)

    @property
    def buffer(self) -> FloatArray:
        """The float64 buffer, flat."""
        return self._wide

    def __call__(self, stored: NDArray[Any]) -> tuple[FloatArray, NDArray[Any]]:
        """The values of `stored` as float64, and the same in the narrowest dtype.

        The second is the cheaper to find the extremes in. Neither may be written to where it is
        `stored` itself.
        """
        narrow = self.narrow(stored)
        return self.wide(narrow), narrow

    def narrow(self, stored: NDArray[Any]) -> NDArray[Any]:
        """The values of `stored`, of the same shape, contiguous, in float32 or float64."""
        plain = stored.flags.c_contiguous and stored.dtype.isnative and stored.flags.aligned
        if self._cast is None and plain and self._dtype in ("float32", "float64"):
            return stored
        size = stored.size
        if self._narrow is not None:
            narrow = self._narrow[:size].reshape(stored.shape)
            FLOAT32_OF[self._dtype](stored, narrow)
            return narrow
        wide = self._wide[:size].reshape(stored.shape)
        if self._cast is not None or self._dtype.startswith("float8"):
            values = decode(stored, self._dtype)
            if self._cast is not None:
                values = decode(encode(values, self._cast), self._cast)
            np.copyto(wide, values)
        else:
            np.copyto(wide, stored)
        return wide

    def wide(self, narrow: NDArray[Any]) -> FloatArray:
        """What `narrow` gave, as contiguous float64."""
        if narrow.dtype == np.float64:
            return narrow
        wide = self._wide[: narrow.size].reshape(narrow.shape)
        np.copyto(wide, narrow)
        return wide


def _widen_bfloat16(stored: NDArray[Any], out: NDArray[np.float32]) -> None:
    """bfloat16 is the upper half of a float32."""
    bits = out.view(np.uint32)
    np.copyto(bits, stored)
    np.left_shift(bits, 16, out=bits)


def _widen_float16(stored: NDArray[Any], out: NDArray[np.float32]) -> None:
    """float16 by NumKong, where it is installed, else by NumPy; exact by either.

    NumPy's own cast handles one half after the other. Without NumKong, bits are moved and
    multiplied instead, for the whole tile at once.

    Sign and exponent with fraction go to their places in a float32, whose exponent then lacks
    the difference of the two biases, 127 - 15; the product with 2**112 is exact, for subnormal
    halves too. An exponent of all ones would come out as a finite number, so tiles with a NaN
    or Inf are left to the cast.
    """
    use = fast.kernels()
    if use is not None and stored.dtype.isnative and stored.flags.aligned:
        use.astype(stored, "float32", out=out)
        return
    signed = stored.view(stored.dtype.str.replace("f", "i"))
    # As signed numbers +Inf and NaN are the largest; as unsigned ones -Inf and -NaN are.
    unsigned = stored.view(stored.dtype.str.replace("f", "u"))
    if signed.max() >= 0x7C00 or unsigned.max() >= 0xFC00:
        np.copyto(out, stored)
        return
    bits = out.view(np.int32)
    np.copyto(bits, signed)
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, np.int32(~0x70000000), out=bits)
    np.multiply(out, np.float32(2.0**112), out=out)


FLOAT32_OF = {"float16": _widen_float16, "bfloat16": _widen_bfloat16}
"""What writes the values of a half's bits to an array of float32."""
