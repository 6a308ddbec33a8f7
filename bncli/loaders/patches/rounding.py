"""Values as the dtype of a tensor can hold them, rounded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from bncli.dtypes import COMPUTE_DTYPES, DTYPES, decode, encode
from bncli.errors import TensorError
from bncli.light import np
from bncli.state_dict.names import OTHERS, TORCH, split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import TensorRef

VARIANCES = frozenset(naming.var for naming in (TORCH, *OTHERS))
"""What running variances are called."""
MOST_LOST = 0.02
"""How far off a variance may be once it is rounded, as a part of it.

A dtype that rounds a variance so is too narrow for it: float16 has all its digits down to 6e-5,
and rounds 1e-6 by up to 3 %. The layer's output is then off by half as much.
"""


def rounded(ref: TensorRef, values: NDArray[Any]) -> NDArray[np.float64]:
    """The values as a tensor will hold them, of its shape: each the nearest, ties to even.

    `values` have the tensor's shape, or are flat. They are floats for statistics, and for a counter
    integers, which a float may hold, too. They are rounded once from float64, so that those of
    half precision may differ in the last bit from what goes there by way of float32. Integers above
    2**53 are not exact in the result. Raises TensorError for values that are not finite or too
    large, a variance that loses more than MOST_LOST of itself or becomes 0, a counter that does not
    fit, and a dtype that holds no statistics.
    """
    stored = stored_values(ref, values)
    return np.asarray(decode(stored, ref.dtype), np.float64)


def stored_values(ref: TensorRef, values: NDArray[Any]) -> NDArray[Any]:
    """The same as stored bits, in native byte order, of the tensor's shape."""
    values = np.asarray(values)
    if values.shape not in {ref.shape, (ref.numel,)}:
        raise TensorError(
            f"{ref.label}: it has the shape {ref.shape}, and its new values have {values.shape}; "
            "take the statistics of the model that this file is of."
        )
    values = values.reshape(ref.shape)
    if values.dtype.kind in "iu":
        return _counted(ref, values)
    if ref.dtype not in COMPUTE_DTYPES:
        raise TensorError(
            f"{ref.label}: its dtype {ref.dtype} is not one for statistics; convert it to float32 "
            "in the file, and run again."
        )
    return _floats(ref, values.astype(np.float64))


def _counted(ref: TensorRef, values: NDArray[Any]) -> NDArray[Any]:
    """Counters as stored bits."""
    if ref.dtype in COMPUTE_DTYPES:
        return _floats(ref, values.astype(np.float64))
    dtype = DTYPES[ref.dtype]
    if dtype.kind != "int":
        raise TensorError(
            f"{ref.label}: its dtype {ref.dtype} is not one for a counter; convert it to int64 in "
            "the file, or leave the counters as they are."
        )
    limits = np.iinfo(dtype.stored)
    for value in (int(values.min()), int(values.max())) if values.size else ():
        if not limits.min <= value <= limits.max:
            raise TensorError(
                f"{ref.label}: {ref.dtype} cannot hold the counter {value}; leave the counters as "
                "they are, or convert it to int64 in the file."
            )
    return values.astype(dtype.stored)


def _floats(ref: TensorRef, values: NDArray[np.float64]) -> NDArray[Any]:
    """Floats as stored bits of one of the dtypes that BatchNorm computes in."""
    finite = np.isfinite(values)
    if not finite.all():
        why = "which is not finite; look for the cause in the data or in the layers before it"
        _refuse(ref, values, int(np.argmin(finite)), why)
    nearest = _nearest(values, ref.dtype)
    to_wider = "; convert the statistics to float32 in the file, and run again"
    above = np.abs(nearest) > DTYPES[ref.dtype].largest
    if above.any():
        at = int(np.argmax(np.abs(values)))
        _refuse(ref, values, at, f"which {ref.dtype} cannot hold{to_wider}")
    if split(ref.name)[1] in VARIANCES and values.size:
        with np.errstate(divide="ignore", invalid="ignore"):
            lost = np.where(values == 0, 0, np.abs(nearest - values) / np.abs(values))
        at = int(np.argmax(lost))
        if lost.flat[at] > MOST_LOST:
            became = f"{nearest.flat[at]:.4g}" if nearest.flat[at] else "0"
            _refuse(ref, values, at, f"which would become {became} in {ref.dtype}{to_wider}")
    return encode(nearest, ref.dtype)  # exact, by whatever way


def _nearest(values: NDArray[np.float64], dtype: str) -> NDArray[np.float64]:
    """The nearest values with the digits of a dtype, ties to even; its largest is not heeded."""
    if dtype == "float64":
        return values
    kind = DTYPES[dtype]
    _, last = np.frexp(np.float64(kind.tiniest))
    _, exponents = np.frexp(values)
    units = np.maximum(exponents - kind.digits, last - 1)  # of the last digit that is kept
    nearest: NDArray[np.float64] = np.ldexp(np.rint(np.ldexp(values, -units)), units)
    return nearest


def _refuse(ref: TensorRef, values: NDArray[np.float64], at: int, why: str) -> NoReturn:
    """Raise TensorError for the value at a place in the flat order."""
    where = f"channel {at} gets" if values.size > 1 else "it gets"
    raise TensorError(f"{ref.label}: {where} {values.flat[at]:.4g}, {why}.")
