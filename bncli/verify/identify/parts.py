"""Batch statistics of a part of the batch, of each part by itself, or merged from parts.

A part is a run of samples: what one device, one microbatch or one INPUT had.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np
from bncli.moments import channel_stats, merge
from bncli.verify.identify.hypotheses import EPS, TRAINING, Hypothesis, affine_ways, channel_map
from bncli.verify.identify.pair import ArraySource, View, furthest
from bncli.verify.identify.search import LEVELS, Candidate, Seen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from bncli.model import ChannelStats, FloatArray

LARGEST = 1 << 24
"""Elements of a tensor that is looked at by parts, which are held in memory."""

MOST_RUNS = 256
"""Samples of which every run is tried; of more, those that begin or end with the batch."""

MOST_SAMPLES = 1 << 14
"""Samples whose runs are tried."""

MOST_DIVISORS = 8
"""Sizes of equal parts that are tried, each part with statistics of its own."""

LIKELY = 4
"""How many runs of samples, and ways with the statistics of each, are measured."""

OWN = "each with statistics of its own"
WITHIN = "the means of the inputs' means and variances"
SQUARES = "the means of the inputs' means and mean squares"


def parts_of_batch(seen: Seen, shards: Sequence[int] = ()) -> tuple[list[Candidate], int]:
    """Those hypotheses, measured, and how many were tried; `shards` are the INPUTs' samples.

    None where axis 0 holds the channels, or the tensors are large.
    """
    view = seen.view
    if view.channel_axis == 0 or view.shape[0] < 2 or prod(view.shape) > LARGEST:
        return [], 0
    whole = tuple(slice(0, size) for size in view.shape)
    x, y = view.x.read(whole), view.y.read(whole)
    held = replace(
        seen, view=replace(view, x=ArraySource(x, view.x.dtype), y=ArraySource(y, view.y.dtype))
    )
    found = [*_runs(held, x, shards), *_put_together(held, x, shards)]
    found += _of_their_own(held, x, y, shards)
    return found, len(found)


def shard_statistics(parts: Sequence[ChannelStats], how: str) -> ChannelStats:
    """The statistics of parts of any size of which each counts the same; `how` as above."""
    whole = merge(parts)
    shift = whole.shift
    means = np.stack([(part.shift - shift) + part.offset for part in parts])
    offset = means.mean(0)
    var = np.stack([part.var for part in parts]).mean(0)
    if how == SQUARES:
        var = var + ((means - offset) ** 2).mean(0)
    return replace(whole, offset=offset, var=var)


@dataclass(frozen=True, slots=True)
class _Samples:
    """The mean and the sum of squared deviations of each sample's channels, (N, C), by prefix.

    `mean` is the sum of the means from `center`, and `squares` that of squares around it.
    """

    center: FloatArray
    mean: FloatArray
    squares: FloatArray

    @classmethod
    def of(cls, x: NDArray[Any], axis: int, center: FloatArray) -> _Samples:
        table = np.moveaxis(x, axis, 1).reshape(x.shape[0], x.shape[axis], -1)
        apart = table.astype(np.float64) - center[:, np.newaxis]
        none = np.zeros((1, len(center)))
        return cls(
            center,
            np.concatenate([none, apart.mean(2).cumsum(0)]),
            np.concatenate([none, np.square(apart).mean(2).cumsum(0)]),
        )

    def runs(self, begin: NDArray[Any], end: NDArray[Any]) -> tuple[FloatArray, FloatArray]:
        """(mean, var) of the samples from `begin` to `end`, each of shape (runs, C)."""
        count = (end - begin)[:, None]
        offset = (self.mean[end] - self.mean[begin]) / count
        var = (self.squares[end] - self.squares[begin]) / count - offset**2
        return self.center + offset, var


def _runs(seen: Seen, x: NDArray[Any], shards: Sequence[int]) -> Iterator[Candidate]:
    """Statistics of some of the samples, in a row: those that come nearest to the implied ones."""
    view, fit, known = seen.view, seen.fit, seen.known
    samples = view.shape[0]
    if samples > MOST_SAMPLES:
        return
    if samples <= MOST_RUNS:
        begin, end = np.triu_indices(samples)
        end = end + 1
    else:
        some = np.arange(1, samples)
        begin = np.concatenate([np.zeros_like(some), some])
        end = np.concatenate([some, np.full_like(some, samples)])
    told = (end - begin < samples) & ((end - begin) * (view.count // samples) > 1)
    begin, end = begin[told], end[told]
    weight = 1.0 if known.weight is None else known.weight
    bias = 0.0 if known.bias is None else known.bias
    with np.errstate(all="ignore"):
        invstd = fit.slope / weight
        center = fit.stats.mean - (fit.y_stats.mean - bias) / fit.slope
        ok = fit.ok & np.isfinite(center) & (invstd > 0)
        if not ok.any() or not len(begin):
            return
        mean, var = _Samples.of(x, view.channel_axis, fit.stats.mean).runs(begin, end)
        apart = np.abs(mean - center) * invstd
        apart += np.abs(np.log((np.maximum(var, 0) + known.eps) * invstd**2))
        nearest = np.argsort(np.nan_to_num(apart[:, ok].sum(1), nan=np.inf))[:LIKELY]
    starts = np.cumsum([0, *shards]).tolist()
    for run in nearest.tolist():
        first, last = int(begin[run]), int(end[run])
        what = _run_name(first, last, samples, starts)
        stats = channel_stats(x[first:last], view.channel_axis)
        yield from _measured(seen, stats, what)


def _run_name(first: int, last: int, samples: int, starts: list[int]) -> str:
    """A run of samples as a person says it."""
    if first in starts and starts.index(first) + 1 < len(starts):
        shard = starts.index(first)
        if starts[shard + 1] == last:
            return f"statistics of INPUT {shard + 1} alone"
    if first == 0:
        return f"statistics of the first {last} of {samples} samples"
    if last == samples:
        return f"statistics of the last {last - first} of {samples} samples"
    return f"statistics of samples {first} to {last - 1} of {samples}"


def _measured(seen: Seen, stats: ChannelStats, what: str) -> Iterator[Candidate]:
    """Training with these statistics, under every usual eps and use of weight and bias."""
    known = seen.known
    ways = [
        Hypothesis(TRAINING, ddof, eps, statistics=what, affine=affine, view=seen.view.name)
        for ddof in (0, 1)
        for eps in dict.fromkeys((known.eps, *EPS))
        for affine in affine_ways(known)
    ]
    maps = [channel_map(way, known, stats) for way in ways]
    screened = [
        seen.judged(way, made, seen.screened(made)) for way, made in zip(ways, maps, strict=True)
    ]
    order = sorted(range(len(ways)), key=lambda i: (screened[i].shares[0], screened[i].oddness))
    chosen = order[:LIKELY]
    apart = furthest(seen.view, [maps[i] for i in chosen], seen.fit.ok)
    for row, i in zip(apart, chosen, strict=True):
        yield seen.judged(ways[i], maps[i], row)


def _put_together(seen: Seen, x: NDArray[Any], shards: Sequence[int]) -> Iterator[Candidate]:
    """Statistics as processes make them that average theirs, whatever each had of the batch."""
    if len(shards) < 2:
        return
    parts = [channel_stats(part, seen.view.channel_axis) for part in _cut(x, shards)]
    for how in (WITHIN, SQUARES):
        yield from _measured(seen, shard_statistics(parts, how), how)


def _cut(values: NDArray[Any], sizes: Sequence[int]) -> list[NDArray[Any]]:
    """Runs of samples of these sizes."""
    return np.split(values, np.cumsum(sizes)[:-1])


def _of_their_own(
    seen: Seen, x: NDArray[Any], y: NDArray[Any], shards: Sequence[int]
) -> list[Candidate]:
    """Each INPUT, or each of some equal parts, normalised by its own statistics."""
    view, known = seen.view, seen.known
    samples = view.shape[0]
    each = view.count // samples
    sizes = [n for n in range(1, samples) if samples % n == 0 and n * each > 1]
    ways = {f"{samples // n} parts of {n} samples, {OWN}": [n] * (samples // n)
            for n in sizes[-MOST_DIVISORS:] if n > 1}  # fmt: skip
    if len(shards) > 1 and min(shards) * each > 1:
        ways = {f"the inputs, {OWN}": list(shards)} | ways
    found = []
    for what, cut in ways.items():
        hypotheses = [
            Hypothesis(TRAINING, ddof, eps, statistics=what, affine=affine, view=view.name)
            for ddof in (0, 1)
            for eps in dict.fromkeys((known.eps, *EPS[:3]))
            for affine in affine_ways(known)
        ]
        left: list[Candidate] = []
        for x_part, y_part in zip(_cut(x, cut), _cut(y, cut), strict=True):
            part = View(
                ArraySource(x_part, view.x.dtype), ArraySource(y_part, view.y.dtype),
                view.channel_axis, view.name,
            )  # fmt: skip
            measured = Seen.of(part, known).measured(hypotheses)
            if left:
                measured = [_worse(*pair) for pair in zip(left, measured, strict=True)]
            left = [item for item in measured if item.level < LEVELS]
            hypotheses = [item.hypothesis for item in left]
            if not left:
                break
        found += left
    return found


def _worse(one: Candidate, other: Candidate) -> Candidate:
    """One hypothesis over both parts."""
    worst = one if one.max_abs_diff >= other.max_abs_diff else other
    return replace(
        worst,
        shares=tuple(max(pair) for pair in zip(one.shares, other.shares, strict=True)),
        tells=tuple(a or b for a, b in zip(one.tells, other.tells, strict=True)),
    )
