"""Weights that no training changed: made 1 or 0, put in another order, rounded to 8 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.changes.contents import orders, turned
from bncli.changes.pair import LayerPair, as_dtype, coarser
from bncli.dtypes import COMPUTE_DTYPES
from bncli.errors import TensorError
from bncli.light import np
from bncli.model.changes import Found, Same, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bncli.model import FloatArray
    from bncli.report import Value
    from bncli.state_dict.in_front import InFront

MOST_VALUES = 1 << 22
"""Larger weights are not read for this."""
FEWEST = 8
"""Values that show a rounding to 8 bits: by chance, 1 in 50 lies within 1% of a multiple."""
COLOURS = (3, 4)
"""Input channels of a network for images."""
NEUTRAL = {"weight": 1.0, "bias": 0.0}
"""What a layer computes with that has none of these."""
KEPT = "the statistics did not move"


def converted(pair: LayerPair) -> Found | None:
    """WEIGHTS with the change that explains all of it; None where there is none so certain.

    The statistics are taken to be the same.
    """
    moved = [leaf for leaf in NEUTRAL if pair.same.get(leaf) is Same.MOVED]
    if moved:
        return _neutral(pair, moved)
    if pair.before is not Same.MOVED or pair.a.before is None or pair.b.before is None:
        return None
    try:
        both = next(_arrays(pair.a.before, pair.b.before), None)
        found = _reordered(pair) or (None if both is None else _eight_bits(*both))
    except TensorError:  # values that cannot be had show nothing
        return None
    if found is None:
        return None
    cause, what, hint = found
    numbers: dict[str, Value] = {"cause": cause, "own_moved": False, "counted": False}
    return Found(State.WEIGHTS, f"{what}, {KEPT}", numbers=numbers, hint=hint)


def _neutral(pair: LayerPair, moved: list[str]) -> Found | None:
    """The weight that became 1, the bias that became 0, or both, in every channel of several."""
    if pair.before is Same.MOVED:
        return None
    for leaf in moved:
        ours, theirs = pair.a.vector(leaf), pair.b.vector(leaf)
        value = NEUTRAL[leaf]
        if ours is None or theirs is None or len(theirs) < 2 or (theirs != value).any():
            return None
        if (ours == value).any():
            return None
    both = len(moved) > 1
    names = " and ".join(moved)
    hint = f"Take {names} from the first file."
    if both:
        hint = (
            "Take weight and bias from the first file, unless its network applies none, as with "
            "affine=False."
        )
    elif moved == ["weight"]:
        hint = (
            "Take weight from the first file, unless its network does not apply it, as with "
            "fix_gamma=True in MXNet."
        )
    cause = "affine-neutral" if both else f"{moved[0]}-neutral"
    numbers: dict[str, Value] = {"cause": cause, "own_moved": True, "counted": False}
    values = "weight is 1 and bias 0" if both else f"{names} is {NEUTRAL[moved[0]]:g}"
    what = f"{values} in every channel of the second file"
    return Found(State.WEIGHTS, what, numbers=numbers, hint=hint)


# ------------------------------------------------------------------ what is in front


def _arrays(a: InFront, b: InFront) -> Iterator[tuple[FloatArray, FloatArray]]:
    """The weights, the outputs first, then the inputs, in the dtype of the two with fewer digits.

    The second as it is and with its axes in the order of other frameworks.
    """
    if max(a.weight.numel, b.weight.numel) > MOST_VALUES:
        return
    if not {a.weight.dtype, b.weight.dtype} <= set(COMPUTE_DTYPES):
        return
    dtype = coarser(a.weight.dtype, b.weight.dtype)
    there = [b.weight] if a.weight.shape == b.weight.shape else []
    there += [turned(b.weight, order) for order in orders(a.weight.shape, b.weight.shape)]
    last = a.weight.ndim - 1
    inputs = {0: 1, 1: 0, last: last - 1}.get(a.axis, 0)
    for ref in there:
        yield tuple(  # type: ignore[misc]  # of two
            np.moveaxis(as_dtype(each.read().astype(np.float64), dtype), (a.axis, inputs), (0, 1))
            for each in (a.weight, ref)
        )


def _reordered(pair: LayerPair) -> tuple[str, str, str] | None:
    """That the convolutions hold the same values in other places: cause, claim and hint."""
    assert pair.a.before is not None
    assert pair.b.before is not None
    kernel = "Turn the kernel as the first file has it."
    for ours, theirs in _arrays(pair.a.before, pair.b.before):
        spatial = tuple(range(2, ours.ndim))
        if len(spatial) > 1 and np.array_equal(ours, theirs.swapaxes(-1, -2)):
            what = "height and width are exchanged in the kernel before it"
            return "kernel-transposed", what, kernel
        if spatial and np.array_equal(ours, np.flip(theirs, spatial)):
            return "kernel-flipped", "the kernel before it is flipped in all directions", kernel
        if ours.shape[0] == ours.shape[1] and np.array_equal(ours, theirs.swapaxes(0, 1)):
            what = "input and output channels are exchanged in the weight before it"
            return "channels-exchanged", what, "Transpose the weight as the first file has it."
        if np.array_equal(ours, np.flip(theirs, 1)):
            what = "the input channels of the weight before it are reversed"
            such = ", as BGR for RGB" if ours.shape[1] in COLOURS else ""
            hint = f"Nothing needs fixing if what goes in is reversed, too{such}."
            return "inputs-reversed", what, hint
        if _rows(ours.swapaxes(0, 1)) == _rows(theirs.swapaxes(0, 1)):
            what = "the input channels of the weight before it are in another order"
            hint = "Nothing needs fixing if what goes in is in that order, too."
            return "inputs-permuted", what, hint
        if _rows(ours) == _rows(theirs) and _tells_channels(pair):
            what = "the output channels of the weight before it are in another order"
            hint = "Put them into the order of the layer's channels."
            return "outputs-permuted", what, hint
    return None


def _rows(values: FloatArray) -> list[bytes]:
    """The channels of the first axis, sorted by their bytes."""
    return sorted((row + 0.0).tobytes() for row in values)


def _tells_channels(pair: LayerPair) -> bool:
    """Whether the layer's channels differ, so that their order matters."""
    var = pair.a.layer.var
    return var is not None and bool((var != var[0]).any())


def _eight_bits(ours: FloatArray, theirs: FloatArray) -> tuple[str, str, str] | None:
    """That one of the two is the other, rounded to 8 bits with a step for each channel or all."""
    for exact, coarse in ((ours, theirs), (theirs, ours)):
        rows, exact_rows = (each.reshape(len(each), -1) for each in (coarse, exact))
        for most in (np.abs(rows).max(axis=1, keepdims=True), np.abs(rows).max(keepdims=True)):
            if rows.size - most.size < FEWEST:  # the largest of a channel is a step's multiple
                continue
            for levels in (127, 128):
                step = most / levels
                with np.errstate(all="ignore"):
                    off = np.abs(rows / step - np.rint(rows / step))
                near = np.abs(exact_rows - rows) <= 0.51 * step
                if near.all() and (np.nan_to_num(off) < 0.01).all():
                    hint = "Nothing needs fixing if the file was quantised on purpose."
                    return "eight-bits", "the weights before it are rounded to 8 bits", hint
    return None
