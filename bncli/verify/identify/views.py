"""Other ways to look at the tensors: axes, orders of channels, roundings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES
from bncli.light import np
from bncli.verify.identify.hypotheses import EVAL, TRAINING, Hypothesis, Known, channel_map
from bncli.verify.identify.pair import View, representable
from bncli.verify.identify.search import Seen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.verify.identify.pair import Source

HALVES = ("float16", "bfloat16")

MOST_CHANNELS = 4096
"""Channels that are matched with each other, all pairs of them."""

SAMPLES = 256
"""Values of a channel by which it is recognised."""

LARGEST_SAMPLE = 1 << 22
"""Elements that are read at once to recognise channels."""

ALIKE = 1 - 1e-3
"""The correlation from which two channels hold the same data."""


def layouts(x: Source, y: Source, channel_axis: int) -> list[View]:
    """The ways in which the output's axes fit the input's, the plain one first."""
    ndim = len(x.shape)
    found = []
    if y.shape == x.shape:
        found.append(View(x, y, channel_axis))
    if ndim == len(y.shape) and ndim > 2:
        last = channel_axis == ndim - 1
        moved = y.moved(1, -1) if last else y.moved(-1, channel_axis)
        if moved.shape == x.shape:
            name = "output channels first" if last else "output channels last"
            found.append(View(x, moved, channel_axis, name))
    return found


def other_axes(view: View, known: Known) -> Iterator[View]:
    """The channels on axis 1 instead of the last, or the other way round."""
    ndim = len(view.shape)
    for axis, name in ((1, "axis 1"), (ndim - 1, "axis -1")):
        vectors = (known.weight, known.bias, known.running_mean, known.running_var)
        fits = all(values is None or len(values) == view.shape[axis] for values in vectors)
        if axis != view.channel_axis and fits and view.count > 1:
            yield replace(view, channel_axis=axis, name=name)


def roundings(view: View) -> Iterator[View]:
    """Input, output or both rounded to half precision, though they are stored in a wider dtype."""
    wide = DTYPES[view.x.dtype].digits
    for dtype in HALVES:
        coarse_input = DTYPES[dtype].digits < wide
        coarse_output = representable(view.y, dtype)
        if coarse_output:
            yield replace(view, y_dtype=dtype, name=f"output rounded to {dtype}")
        if coarse_input:
            yield replace(view, x_dtype=dtype, name=f"input rounded to {dtype}")
        if coarse_input and coarse_output:
            yield replace(
                view, x_dtype=dtype, y_dtype=dtype, name=f"input and output rounded to {dtype}"
            )


def reordered(seen: Seen) -> Iterator[Seen]:
    """The channels of the input, the output or the state in another order."""
    view, known = seen.view, seen.known
    if not 1 < view.num_features <= MOST_CHANNELS:
        return
    order = _order_of_output(view)
    if order is not None:
        how = _moved(order)
        of_output = replace(view, channels=tuple(order), name=f"output channels {how}")
        first = Seen.of(of_output, known.taken(order))
        yield first
        if any(
            values is not None
            for values in (known.weight, known.bias, known.running_mean, known.running_var)
        ):
            yield replace(first, view=replace(of_output, name=f"input channels {how}"), known=known)
    for mode in (TRAINING, EVAL):
        order = _order_of_state(seen, mode)
        if order is not None:
            name = f"state's channels {_moved(order)}"
            yield replace(seen, view=replace(view, name=name), known=known.taken(order))


def _moved(order: list[int]) -> str:
    """How an order differs from the plain one; the first channel comes from `order[0]`."""
    shift = -order[0] % len(order)
    if all(source == (c - shift) % len(order) for c, source in enumerate(order)):
        return f"shifted by {shift}"
    return "permuted"


def _order_of_output(view: View) -> list[int] | None:
    """For each output channel the input channel that it holds, None where that is itself.

    Channels are recognised by correlation; None also where that gives no permutation.
    """
    size = 1
    for axis_size in view.shape[1:]:
        size *= axis_size
    if view.channel_axis == 0 or size > LARGEST_SAMPLE:
        return None
    rows = min(view.shape[0], max(1, LARGEST_SAMPLE // size))
    block = (slice(0, rows), *(slice(0, n) for n in view.shape[1:]))

    def channels(values: NDArray[Any]) -> NDArray[Any]:
        table: NDArray[Any] = np.moveaxis(values, view.channel_axis, 0).reshape(
            view.num_features, -1
        )
        picked = np.unique(np.linspace(0, table.shape[1] - 1, SAMPLES).astype(int))
        table = table[:, picked].astype(np.float64)
        table -= table.mean(1, keepdims=True)
        table /= np.sqrt(np.square(table).sum(1, keepdims=True))
        return table

    with np.errstate(all="ignore"):
        likeness = np.abs(channels(view.y.read(block)) @ channels(view.x.read(block)).T)
    likeness = np.nan_to_num(likeness)
    order = likeness.argmax(1)
    return _permutation(order.tolist(), certain=bool((likeness.max(1) > ALIKE).all()))


def _order_of_state(seen: Seen, mode: str) -> list[int] | None:
    """For each channel the entry of the state that was used for it, None where that is its own."""
    known, fit = seen.known, seen.fit
    if mode == EVAL and not known.has_statistics:
        return None
    if mode == TRAINING and known.weight is None and known.bias is None:
        return None
    made = channel_map(Hypothesis(mode, 0, known.eps), known, fit.stats)
    with np.errstate(all="ignore"):
        if mode == EVAL:
            offered = made.scale, made.bias - made.center * made.scale
            wanted = fit.slope, fit.y_stats.mean - fit.slope * fit.stats.mean
        else:
            ones = np.ones(seen.view.num_features)
            offered = (
                ones if known.weight is None else known.weight,
                0 * ones if known.bias is None else known.bias,
            )
            wanted = fit.slope * np.sqrt(fit.stats.var + known.eps), fit.y_stats.mean
        distance = np.zeros((seen.view.num_features, seen.view.num_features))
        for here, there in zip(wanted, offered, strict=True):
            unit = np.abs(there).max() or 1.0
            distance += np.abs(here[:, np.newaxis] - there) / unit
    if not np.isfinite(distance).all():
        return None
    return _permutation(distance.argmin(1).tolist(), certain=True)


def _permutation(order: list[int], *, certain: bool) -> list[int] | None:
    """The order, if it is a permutation and not the plain order; else None."""
    plain = list(range(len(order)))
    return order if certain and order != plain and sorted(order) == plain else None
