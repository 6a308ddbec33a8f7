"""Whether the convolution before a layer is in the same order as the layer's channels."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

from bncli.changes.pair import LayerPair, as_dtype, coarser
from bncli.dtypes import DTYPES
from bncli.errors import TensorError
from bncli.light import np
from bncli.model.changes import Same

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bncli.model import FloatArray, TensorRef

MOST_BYTES = 64 << 20
"""A larger convolution is not read."""

ConvolutionOrder = Literal["same order", "not permuted", "unknown"]


def convolution_order(
    pair: LayerPair,
    ours: Mapping[str, FloatArray],
    theirs: Mapping[str, FloatArray],
    leaves: Sequence[str],
) -> ConvolutionOrder:
    """How the output channels of the convolution are ordered, where the layer's are permuted.

    `ours` and `theirs` are the layers' vectors, so rounded that they can be compared. The inputs
    of the convolution may be in another order, too, as where a whole network was sorted.
    """
    if pair.before in (Same.SAME, Same.ROUNDED):
        return "not permuted"
    a, b = pair.a.before, pair.b.before
    count = len(ours[leaves[0]])
    if a is None or b is None or a.weight.shape != b.weight.shape or a.axis != b.axis:
        return "unknown"
    if a.weight.ndim <= a.axis or a.weight.shape[a.axis] != count:
        return "unknown"
    if a.weight.numel * DTYPES[a.weight.dtype].itemsize > MOST_BYTES:
        return "unknown"
    try:
        dtype = coarser(a.weight.dtype, b.weight.dtype)
        weights = [_rows(each.weight, a.axis, dtype) for each in (a, b)]
    except TensorError:
        return "unknown"
    if np.array_equal(weights[0], weights[1], equal_nan=True):
        return "not permuted"
    for sort in (False, True):  # values of a channel in any order, where the inputs moved, too
        digests = []
        for rows, vectors in zip(weights, (ours, theirs), strict=True):
            own = np.column_stack([vectors[leaf] for leaf in leaves])
            digests.append(sorted(_digest(r, o, sort=sort) for r, o in zip(rows, own, strict=True)))
        if digests[0] == digests[1]:
            return "same order"
    return "unknown"


def _rows(weight: TensorRef, axis: int, dtype: str) -> FloatArray:
    """The weight as a matrix with one row an output channel, rounded to a dtype."""
    values = np.moveaxis(weight.read(), axis, 0)
    rows = values.reshape(len(values), -1)
    return rows if weight.dtype == dtype else as_dtype(rows.astype(np.float64), dtype)


def _digest(row: FloatArray, own: FloatArray, *, sort: bool) -> bytes:
    values = np.sort(row) if sort else row
    digest = hashlib.blake2b(own.tobytes(), digest_size=16)
    digest.update((values.astype(np.float64) + 0.0).tobytes())
    return digest.digest()
