"""The other norms of the family as hypotheses: each sample has statistics of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

from bncli.batchnorm import along
from bncli.dtypes import DTYPES
from bncli.identify.hypotheses import (
    AFFINE,
    EPS,
    NO_AFFINE,
    NO_BIAS,
    NO_WEIGHT,
    RMS_EPS,
    Hypothesis,
)
from bncli.identify.search import SINGLE, Candidate
from bncli.norms import GROUP, INSTANCE, LAYER, RMS, chunks, describe, norm_statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.identify.hypotheses import Known
    from bncli.identify.pair import View
    from bncli.norms import Norm, NormStatistics

LARGEST_SAMPLE = 1 << 22
"""Elements of a sample beyond which the other norms are not tried."""

MOST_GROUPINGS = 12
"""Numbers of groups that are tried."""

KEPT = 6
"""Hypotheses that are measured on all samples, after the first ones."""


@dataclass(frozen=True, slots=True)
class _Way:
    """One norm with one eps, and how weight and bias are used."""

    norm: Norm
    hypothesis: Hypothesis


@dataclass(slots=True)
class _Worst:
    """What a hypothesis left at most so far."""

    apart: float = -1.0
    channel: int = 0
    tight: float = 0.0
    loose: float = 0.0


def family(view: View, known: Known) -> tuple[list[Candidate], int]:
    """The nearest of LayerNorm, InstanceNorm, GroupNorm and RMSNorm, measured, of how many.

    None of them where the channels are on axis 0 or a sample is too large.
    """
    shape = view.shape
    if view.channel_axis == 0 or prod(shape[1:]) > LARGEST_SAMPLE:
        return [], 0
    ways = list(_ways(view, known))
    tried = len(ways)
    worst = {way.hypothesis: _Worst() for way in ways}
    rest = (slice(chunk.start + 1, chunk.stop + 1) for chunk in chunks((shape[0] - 1, *shape[1:])))
    for chunk in (slice(0, 1), *rest):
        block = (chunk, *(slice(0, size) for size in shape[1:]))
        x, y = view.x.read(block), view.y.read(block)
        by_norm: dict[tuple[object, ...], NormStatistics] = {}
        for way in ways:
            norm = way.norm
            key = norm.name, norm.axes, norm.groups
            if key not in by_norm:
                by_norm[key] = norm_statistics(norm, x)
            statistics = replace(by_norm[key], norm=norm)  # which differ in eps alone
            _measure(view, known, way, x, y, statistics, worst[way.hypothesis])
        ways.sort(key=lambda way: (worst[way.hypothesis].tight, way.hypothesis.oddness(known)))
        ways = ways[:KEPT]
    found_ways = [
        Candidate(
            way.hypothesis,
            found.apart,
            found.channel,
            (found.tight, found.loose, found.loose),
            way.hypothesis.oddness(known),
        )
        for way in ways
        if (found := worst[way.hypothesis]).apart >= 0
    ]
    return found_ways, tried


def _ways(view: View, known: Known) -> Iterator[_Way]:
    """Every norm of the family that has more than one value a statistic, with every eps."""
    affine = [
        way
        for way in AFFINE
        if not (way in (NO_WEIGHT, NO_AFFINE) and known.weight is None)
        and not (way in (NO_BIAS, NO_AFFINE) and known.bias is None)
    ]
    rms_eps = RMS_EPS[view.y.dtype == "float64"]
    for eps in dict.fromkeys((known.eps, *EPS, rms_eps)):
        for norm, detail in _norms(view, known, eps):
            if norm.count < 2 or (eps == rms_eps and norm.name != RMS):
                continue
            for way in affine:
                yield _Way(
                    norm,
                    Hypothesis(norm.name, None, eps, statistics=detail, affine=way, view=view.name),
                )


def _norms(view: View, known: Known, eps: float) -> Iterator[tuple[Norm, str]]:
    """The norms with one eps, and the words for what their names leave open.

    One group of all channels is a LayerNorm's statistics, and a group of each an InstanceNorm's.
    With a weight or bias of one value a channel only GroupNorm fits the first, unless the channels
    are last.
    """
    shape, axis = view.shape, view.channel_axis
    ndim, channels = len(shape), shape[axis]
    per_channel = (known.weight is not None or known.bias is not None) and axis != ndim - 1
    groupings = [g for g in range(1, channels) if channels % g == 0][:MOST_GROUPINGS]

    def described(groups: int, normalized: int) -> dict[str, Norm]:
        norms = describe(shape, axis, groups=groups, normalized=normalized, eps=eps, rms_eps=eps)
        return {norm.name: norm for norm in norms}

    for normalized in dict.fromkeys((ndim - 1, 1)):
        over = "over the last axis" if normalized == 1 else f"over the last {normalized} axes"
        norms = described(1, normalized)
        if not per_channel:
            yield norms[LAYER], over
        yield norms[RMS], over
    yield described(1, 1)[INSTANCE], ""
    for groups in groupings:
        if groups > 1 or per_channel:
            yield described(groups, 1)[GROUP], "1 group" if groups == 1 else f"{groups} groups"


def _measure(
    view: View,
    known: Known,
    way: _Way,
    x: NDArray[Any],
    y: NDArray[Any],
    statistics: NormStatistics,
    worst: _Worst,
) -> None:
    """Add some samples to what a hypothesis left at most."""
    import numpy as np

    block = tuple(slice(0, size) for size in x.shape)
    kind = DTYPES[view.y.dtype]
    u = SINGLE if kind.unit_roundoff > 2.0**-53 else 2 * kind.unit_roundoff
    ndim, axis = len(view.shape), view.channel_axis
    affine = way.hypothesis.affine
    with np.errstate(all="ignore"):
        made = statistics.output(x, block)
        # An eps of almost 0 makes the scale of a constant absurd, and explains nothing by it.
        sober = replace(way.norm, eps=max(way.norm.eps, known.eps))
        scale = statistics.at(replace(statistics, norm=sober).invstd, block)
        largest = np.maximum(np.abs(statistics.min), np.abs(statistics.max))
        size = scale * statistics.at(largest + np.abs(statistics.mean), block)
        if known.weight is not None and affine not in (NO_WEIGHT, NO_AFFINE):
            weight = along(known.weight, ndim, axis)
            made, size = made * weight, size * np.abs(weight)
        if known.bias is not None and affine not in (NO_BIAS, NO_AFFINE):
            made = made + along(known.bias, ndim, axis)
        apart = np.abs(made - y)
        ok = np.isfinite(made) & np.isfinite(y)
        apart = np.where(ok, apart, np.inf)
        tight = u * (4 * size + 2 * np.abs(y)) + kind.unit_roundoff * np.abs(y) + 2 * kind.tiniest
        loose = tight + 4 * u * np.sqrt(way.norm.count) * size
        at = int(apart.argmax())
        if apart.flat[at] > worst.apart:
            worst.apart = float(apart.flat[at])
            worst.channel = int(np.unravel_index(at, apart.shape)[axis])
        for name, limit in (("tight", tight), ("loose", loose)):
            share = np.where(apart == 0, 0.0, apart / limit)
            share = np.where(
                np.isnan(share), np.inf, share
            )  # a scale of 1/sqrt(0) explains nothing
            setattr(worst, name, max(getattr(worst, name), float(share.max())))
