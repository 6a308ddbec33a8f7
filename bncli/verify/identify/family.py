"""The other norms of the family, measured: each sample has statistics of its own."""

from __future__ import annotations

from dataclasses import field, replace
from math import prod
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES
from bncli.light import dataclass, np
from bncli.norms import chunks, norm_statistics
from bncli.verify.identify.norm_ways import norm_ways, rounding
from bncli.verify.identify.search import DIGITS, LOST, TELLING, Candidate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from bncli.norms import NormStatistics
    from bncli.verify.identify.hypotheses import Known
    from bncli.verify.identify.norm_ways import Way
    from bncli.verify.identify.pair import View

LARGEST_SAMPLE = 1 << 22
"""Elements of a sample beyond which the other norms are not tried."""

KEPT = 12
"""Hypotheses that are measured on all samples, after the first ones."""

SEEN = 8.0
"""How many roundings of the output its standard deviation has to be, for an eps to be fitted."""


@dataclass(slots=True)
class _Worst:
    """The most that a hypothesis left so far, and whether a value tells it from others."""

    apart: float = -1.0
    channel: int = 0
    tight: float = 0.0
    loose: float = 0.0
    tells: list[bool] = field(default_factory=lambda: [False, False])


def family(view: View, known: Known) -> tuple[list[Candidate], int]:
    """The nearest of LayerNorm, InstanceNorm, GroupNorm and RMSNorm, measured, of how many.

    None where the channels are on axis 0 or a sample is too large. Where none of the usual
    values of eps explains the output, one is fitted to each norm.
    """
    shape = view.shape
    if view.channel_axis == 0 or prod(shape[1:]) > LARGEST_SAMPLE:
        return [], 0
    ways = list(norm_ways(view, known))
    tried = len(ways)
    worst = _measured(view, known, ways)
    # The tolerance for rounded statistics and long sums is wide enough to hide another eps.
    if not any(found.tight <= 1 and not way.held for way, found in worst.items()):
        own = {(*way.key, way.hypothesis.affine, way.held): way for way in ways}
        fitted = list(_fitted(view, own.values()))
        worst |= _measured(view, known, fitted)
        tried += len(fitted)
    found = [
        Candidate(
            way.hypothesis,
            item.apart,
            item.channel,
            (item.tight, item.loose, item.loose),
            way.hypothesis.oddness(known),
            tells=(*item.tells, item.tells[1]),
        )
        for way, item in worst.items()
    ]
    return _fewest_digits(found), tried


def _measured(view: View, known: Known, ways: list[Way]) -> dict[Way, _Worst]:
    """What each way leaves; after the first sample only the nearest are measured."""
    worst = {way: _Worst() for way in ways}
    shape = view.shape
    rest = (slice(chunk.start + 1, chunk.stop + 1) for chunk in chunks((shape[0] - 1, *shape[1:])))
    for chunk in (slice(0, 1), *rest):
        x, y = _samples(view, chunk)
        by_norm: dict[tuple[object, ...], NormStatistics] = {}
        for way in ways:
            if way.key not in by_norm:
                by_norm[way.key] = norm_statistics(way.norm, x)
            statistics = replace(by_norm[way.key], norm=way.norm)  # which differ in eps alone
            _measure(view, known, way, x, y, statistics, worst[way])
        ways.sort(key=lambda way: (worst[way].tight, way.hypothesis.oddness(known)))
        for way in ways[KEPT:]:
            del worst[way]
        ways = ways[:KEPT]
    return worst


def _samples(view: View, chunk: slice) -> tuple[NDArray[Any], NDArray[Any]]:
    """Some samples of the input and the output."""
    block = (chunk, *(slice(0, size) for size in view.shape[1:]))
    return view.x.read(block), view.y.read(block)


def _measure(
    view: View,
    known: Known,
    way: Way,
    x: NDArray[Any],
    y: NDArray[Any],
    statistics: NormStatistics,
    worst: _Worst,
) -> None:
    """Add some samples to what a hypothesis left at most."""
    block = tuple(slice(0, size) for size in x.shape)
    kind = DTYPES[view.y.dtype]
    u = rounding(view.y.dtype)
    half = kind.unit_roundoff if kind.unit_roundoff > u else 0.0
    walk = 4 * u * np.sqrt(way.norm.count)
    with np.errstate(all="ignore"):
        made = way.output(x, statistics)
        # An eps of almost 0 gives a constant an enormous scale, which explains nothing.
        usual = replace(way.norm, eps=max(way.norm.eps, known.eps))
        scale = statistics.at(replace(statistics, norm=usual).invstd, block)
        largest = np.maximum(np.abs(statistics.min), np.abs(statistics.max))
        weight = 1.0 if way.weight is None else np.abs(way.weight)
        size = scale * weight * statistics.at(largest + np.abs(statistics.mean), block)
        apart = np.abs(made - y)
        ok = np.isfinite(made) & np.isfinite(y)
        apart = np.where(ok, apart, np.inf)
        tight = u * (4 * size + 2 * np.abs(y)) + kind.unit_roundoff * np.abs(y) + 2 * kind.tiniest
        if way.held:  # var and invstd are rounded to half precision as well
            spread = statistics.at(np.maximum(
                np.abs(statistics.max - statistics.mean), np.abs(statistics.min - statistics.mean)
            ), block)  # fmt: skip
            mean_error = statistics.at(way.held_error(statistics, float(walk)), block)
            tight = tight + scale * weight * (2 * half * spread + mean_error)
        # Kernels for half precision may round the product before the bias is added.
        added = 0.0 if way.bias is None else np.abs(way.bias)
        loose = tight + walk * size + 2 * half * (np.abs(made) + 2 * added)
        at = int(apart.argmax())
        if apart.flat[at] > worst.apart:
            worst.apart = float(apart.flat[at])
            worst.channel = int(np.unravel_index(at, apart.shape)[view.channel_axis])
        telling = TELLING * np.abs(y).max(initial=0, where=ok)
        for level, (name, limit) in enumerate((("tight", tight), ("loose", loose))):
            worst.tells[level] |= bool((limit < telling).any()) or not apart.any()
            share = np.where(apart == 0, 0.0, apart / limit)
            share = np.where(
                np.isnan(share), np.inf, share
            )  # a scale of 1/sqrt(0) explains nothing
            setattr(worst, name, max(getattr(worst, name), float(share.max())))


def _fitted(view: View, ways: Iterable[Way]) -> list[Way]:
    """Each way with the eps that fits the first samples best, to fewer and more digits."""
    x, y = _samples(view, next(chunks(view.shape)))
    found = []
    for way in ways:
        eps = _fitted_eps(view, way, x, y)
        if eps is not None:
            tried = [float(f"{eps:.{digits}g}") for digits in DIGITS]
            found += [way.with_eps(value, fitted=True) for value in dict.fromkeys((*tried, eps))]
    return found


def _fitted_eps(view: View, way: Way, x: NDArray[Any], y: NDArray[Any]) -> float | None:
    """The eps that the slopes of the output on the input ask for; see `search.fitted`."""
    statistics = norm_statistics(way.norm, x)
    u = rounding(view.y.dtype)
    with np.errstate(all="ignore"):
        ones = replace(statistics, norm=replace(way.norm, eps=1.0))
        # The norm's own output with an invstd that is known: its slope is what is looked for.
        made = replace(way, norm=ones.norm, bias=None).output(x, ones)
        wanted = y.astype(np.float64) - (0.0 if way.bias is None else way.bias)
        products, squares = (_by_statistic(ones, part) for part in (made * wanted, made * made))
        total = (statistics.var + 1.0) * (squares / products) ** 2
        told = np.isfinite(total) & (products > 0) & (statistics.var > 0)
        told &= np.sqrt(statistics.var) > LOST * u * np.abs(statistics.mean)
        # An output that is only bias and rounding has no slope.
        size = np.abs(y).max() * DTYPES[view.y.dtype].unit_roundoff
        told &= products / squares * np.sqrt(statistics.var / (statistics.var + 1)) > SEEN * size
        if not told.any():
            return None
        weights = (total[told].min() / total[told]) ** 2
        eps = float((weights * (total - statistics.var)[told]).sum() / weights.sum())
    return eps if eps > 0 and np.isfinite(eps) else None


def _by_statistic(statistics: NormStatistics, values: NDArray[Any]) -> NDArray[Any]:
    """The sums of values by the statistic that they belong to, in the shape `Norm.kept`."""
    kept = statistics.var.shape
    shape: list[int] = []
    axes: list[int] = []
    for axis, size in enumerate(values.shape):
        if kept[axis] == size:
            shape.append(size)
            continue
        # Groups of channels, or an axis that is reduced as a whole.
        shape += [kept[axis], size // kept[axis]]
        axes.append(len(shape) - 1)
    return np.asarray(values.reshape(shape).sum(tuple(axes)).reshape(kept))


def _fewest_digits(found: list[Candidate]) -> list[Candidate]:
    """The candidates; a fitted eps only with the fewest digits that come as near."""
    chosen: dict[object, Candidate] = {}
    for item in found:
        hypothesis = item.hypothesis
        key = replace(hypothesis, eps=0.0) if hypothesis.fitted else hypothesis
        known = chosen.get(key)
        if known is None or _order(item) < _order(known):
            chosen[key] = item
    return list(chosen.values())


def _order(item: Candidate) -> tuple[int, bool, int, float]:
    digits = len(f"{item.hypothesis.eps:.6e}".partition("e")[0].rstrip("0"))
    return item.level, item.shares[0] > 1, digits, item.shares[0]
