"""How far weights of two files are correlated, and what that says of the networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.dtypes import DTYPES
from bncli.light import np
from bncli.rulebook.copies import is_aside, parts_of
from bncli.rulebook.order import median
from bncli.rulebook.pairs import sample
from bncli.state_dict.in_front import OUT_LAST

if TYPE_CHECKING:
    from bncli.model import FloatArray, TensorRef

RELATED = 6.0
"""The sum of the weights' z over the root of their number, from which networks are related. Where
weights have nothing in common it is about normal, with variance 1, and wider where all filters have
a strong centre and some are far larger than others: of 4,000 such pairs the highest had 4.6. For
two times of one run it is 10 and more."""

SHARED = 1.5
"""The median z of a weight from which most of them are related, and not a frozen part alone."""

APART = 2.5
"""The same sum up to which networks are not related, where the cosine is small, too."""
SMALL = 0.1
"""The median cosine up to which they are not: of one run, 0.3 is left after 500 epochs."""
FEWEST_UNITS = 400
"""How many independent numbers it takes to say so. A median cosine varies by 1.25/sqrt(n), so that
one of 0.3 is below SMALL once in 1,000 times."""
STRIKING = 8.0
"""The z of a single weight from which networks have something in common, such as a frozen part."""

_MOST_VALUES = 4096
"""How many values of each."""
_FEWEST_OF_TENSOR = 16
"""A weight with fewer values says little."""


def judged(found: Sequence[tuple[float, float]]) -> tuple[float, bool | None]:
    """The median of some cosines, and whether the weights are of one network at two times.

    `found` has the cosine of each pair of weights and n, as `cosine_of` gives them. The second is
    None where they do not tell.
    """
    cosines, units = (np.array(values) for values in zip(*found, strict=True))
    cosine = median(cosines)
    z = cosines * np.sqrt(units)
    total = float(z.sum()) / len(z) ** 0.5
    if total > RELATED and median(z) > SHARED:
        return cosine, True
    apart = total < APART and cosine < SMALL and float(z.max()) < STRIKING
    return cosine, False if apart and float(units.sum()) >= FEWEST_UNITS else None


def out_first(ref: TensorRef, axis: int | None = None) -> TensorRef:
    """A weight as PyTorch has it: the axes of the channels first, then those of the kernel.

    `axis` is that of the output channels, where that is known; else the name shows it.
    """
    last = parts_of(ref.name.removesuffix(":0"))[-1] in OUT_LAST
    if not last and (axis is None or axis < 1 or axis != ref.ndim - 1):
        return ref
    *kernel, inputs, outputs = range(ref.ndim)
    if ref.shape[outputs] == 1:  # depthwise: the channels are where other kernels have the inputs
        inputs, outputs = outputs, inputs
    order = (outputs, inputs, *kernel)
    shape, strides = (tuple(values[axis] for axis in order) for values in (ref.shape, ref.strides))
    return replace(ref, shape=shape, strides=strides)


def is_weight(ref: TensorRef) -> bool:
    """Whether a tensor has two or more axes and enough values, and is not an optimizer's."""
    kind = DTYPES[ref.dtype].kind if ref.dtype in DTYPES else ""
    large = ref.ndim >= 2 and ref.numel >= _FEWEST_OF_TENSOR
    return large and kind == "float" and not is_aside(ref.name)


def cosine_of(a: TensorRef, b: TensorRef) -> tuple[float, float] | None:
    """The cosine of two weights, and n; None where one of them is the same everywhere.

    Both have one shape, and the axes of the channels first. For weights that have nothing in
    common, the cosine has mean 0 and standard deviation 1/sqrt(n). With t the products of the two,
    summed over each kernel, whose values depend on each other, that is the root of the sum of t^2
    over the product of the two sizes: t is as likely to have either sign. Equal weights count as
    much as any can: chance does not make them.
    """
    ours, theirs = sample(a, _MOST_VALUES), sample(b, _MOST_VALUES)
    if ours is None or theirs is None or not (np.isfinite(ours) & np.isfinite(theirs)).all():
        return None
    first, second = _centred(ours), _centred(theirs)
    kernel = tuple(range(2, first.ndim))
    with np.errstate(all="ignore"):
        size = np.linalg.norm(first) * np.linalg.norm(second)
        products = (first * second).sum(axis=kernel)
        cosine, units = products.sum() / size, size**2 / (products**2).sum()
    if not (np.isfinite(cosine) and np.isfinite(units)):
        return None
    return (
        (1.0, float(_MOST_VALUES))
        if np.array_equal(ours, theirs)
        else (float(cosine), float(units))
    )


def _centred(values: FloatArray) -> FloatArray:
    """Values less their mean over the longest axis; exactly 0 where all of them are one number."""
    axis = int(np.argmax(values.shape))
    constant = values.min(axis=axis, keepdims=True) == values.max(axis=axis, keepdims=True)
    result: FloatArray = np.where(constant, 0, values - values.mean(axis=axis, keepdims=True))
    return result
