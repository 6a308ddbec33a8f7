"""The bias of a convolution into which a layer was folded: right, or by which mistake not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bncli.changes.states.folded.factors import ULPS
from bncli.dtypes import COMPUTE_DTYPES, DTYPES
from bncli.light import dataclass, np

if TYPE_CHECKING:
    from bncli.model import FloatArray
    from bncli.rulebook.layers import Layer
    from bncli.state_dict.in_front import InFront

SAYS = {
    "bias-not-scaled": "the convolution's bias was not scaled",
    "mean": "the mean was not folded",
    "layer-bias": "the layer's bias was left out",
    "convolution-bias": "the convolution's bias was left out",
    "bias": "the bias was not folded",
    "mean-sign": "the mean was added, not subtracted",
    "bias-weight": "the layer's weight was left out of the bias",
    "no-bias": "the bias is missing",
    "other-bias": "the bias is not what the layer needs",
}
"""What is wrong with a bias, by fault, as a phrase after "but"."""


@dataclass(frozen=True, slots=True)
class Bias:
    """A bias, read, and the dtype it is stored in; `values` are None where there is none."""

    values: FloatArray | None
    dtype: str = "float64"


@dataclass(frozen=True, slots=True)
class BiasFold:
    """What became of the bias: "" or a fault of `SAYS`.

    `off` is the largest difference from the right one where it is not, in the channel `worst`.
    `told` counts the channels in which the right bias is not that of before, where it is right. It
    is not `known` where no name tells the bias, and no vector is what it should be.
    """

    fault: str = ""
    off: float | None = None
    worst: int = 0
    told: int = 0
    known: bool = True

    @property
    def says(self) -> str:
        """The fault as a phrase."""
        return SAYS.get(self.fault, "")


def bias_of(before: InFront, channels: int) -> Bias:
    """The bias of a convolution, float64. Raises TensorError or FileError."""
    ref = before.bias
    if ref is None or ref.shape != (channels,) or ref.dtype not in COMPUTE_DTYPES:
        return Bias(None)
    return Bias(ref.read().astype(np.float64), ref.dtype)


def fold_of_bias(
    layer: Layer, scale: FloatArray, old: Bias, new: Bias, added: FloatArray | None, dtype: str
) -> BiasFold:
    """What became of the bias, where the weight was multiplied by `scale`, shape (channels,).

    `old` is the convolution's before it was folded, `new` afterwards, `added` what is left of the
    layer adds. The numbers were computed in `dtype`, or in one of a bias that has fewer digits.
    """
    b = np.zeros(len(scale)) if old.values is None else old.values
    actual = np.zeros(len(scale)) if new.values is None else new.values
    if added is not None:
        actual = actual + added
    held = [DTYPES[each] for each in (dtype, old.dtype, new.dtype)]
    kind = min(held, key=lambda each: each.digits)
    right = None
    for fault, terms in _terms(layer, scale, b):
        expected = np.sum(terms, axis=0)
        # Each term is rounded as a product of the scale is, and so is what is left of their sum.
        size = np.sum(np.abs(terms), axis=0)
        room = ULPS * (2.0 ** (1 - kind.digits) * size + kind.tiniest * (1 + np.abs(scale)))
        with np.errstate(all="ignore"):
            off = np.abs(actual - expected)
        right = off if right is None else right
        if not (off <= room).all():
            continue
        if not fault:
            return BiasFold(told=int((np.abs(actual - b) > 2 * room).sum()))
        if new.values is None and added is None:
            fault = "no-bias"  # noqa: PLW2901  # the plainer name of a bias of 0
        return _worst(fault, right)
    assert right is not None
    return _worst("no-bias" if new.values is None and added is None else "other-bias", right)


def _terms(
    layer: Layer, scale: FloatArray, b: FloatArray
) -> Iterator[tuple[str, tuple[FloatArray, ...]]]:
    """The terms of the bias, the right ones first, then those of each mistake."""
    mean = layer.mean
    assert mean is not None
    none = np.zeros(len(scale))
    beta = none if layer.bias is None else layer.bias
    yield "", (b * scale, -mean * scale, beta)
    yield "bias-not-scaled", (b, -mean * scale, beta)
    yield "mean", (b * scale, none, beta)
    yield "layer-bias", (b * scale, -mean * scale, none)
    yield "convolution-bias", (none, -mean * scale, beta)
    yield "bias", (b, none, none)
    yield "mean-sign", (b * scale, mean * scale, beta)
    if layer.weight is not None and layer.weight.all():
        bare = scale / layer.weight
        yield "bias-weight", (b * bare, -mean * bare, beta)


def _worst(fault: str, off: FloatArray) -> BiasFold:
    worst = int(np.argmax(np.nan_to_num(off, nan=np.inf)))
    return BiasFold(fault, float(off[worst]), worst)
