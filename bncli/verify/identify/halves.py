"""Outputs in half precision: which values of eps explain one, and what one rounding allows.

PyTorch's evaluation computes half precision in float32 and rounds each value once, so that no value
of its output is further from the exact one than half a last place of its own, and what float32
rounds. This tells far more of eps than the tolerance of a whole channel, which has to allow for
other kernels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES, decode, encode
from bncli.light import np
from bncli.verify.identify.hypotheses import (
    EPS,
    EVAL,
    FRESH,
    TRAINING,
    Hypothesis,
    channel_map,
    eps_text,
)
from bncli.verify.identify.search import SINGLE, Candidate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray
    from bncli.verify.identify.hypotheses import ChannelMap
    from bncli.verify.identify.pair import View
    from bncli.verify.identify.search import Seen

SAME_EPS = 0.01
"""The relative difference up to which two values of eps count as one."""

NEAR_EPS = 0.1
"""The relative width of a range up to which a usual eps in it is the one that was meant."""

DIGITS = range(1, 8)
"""Digits of an eps that is chosen from a range: the fewest that lie in it."""

EpsRange = tuple[float, float]
"""The least and the largest eps that explain an output."""


def by_one_rounding(seen: Seen, order: list[Candidate]) -> tuple[list[Candidate], EpsRange | None]:
    """The ranking by what one rounding leaves, and the range of eps of the best; else as it is.

    Of the ways of evaluation that explain the output by the tolerance of a channel, those that need
    more than one rounding of a value are put behind, where another way, or another eps, does with
    one. The range is None where the output is not in half precision, or its eps does not matter.
    """
    best = order[0]
    if not (_is_half(seen) and best.explains and not best.hypothesis.view):
        return order, None
    if best.hypothesis.mode != EVAL:
        return order, _range_by_tolerance(seen, best)
    sides = _as_it_may_have_been_kept(seen)
    ways = [item for item in order if item.explains]
    passing = [
        item
        for item in ways
        if item.hypothesis.mode == EVAL
        and not item.hypothesis.view
        and any(_needs_one_rounding(side, item.hypothesis) for side in sides)
    ]
    fresh = FRESH if best.hypothesis.statistics == FRESH else ""
    plain = Hypothesis(EVAL, None, best.hypothesis.eps, statistics=fresh)
    ranges = [found for side in sides if (found := eps_range(side, plain)) is not None]
    if ranges and not any(_has_a_range(item.hypothesis) for item in passing):
        passing.append(_chosen(seen, plain, ranges[0]))
    if not passing:
        return order, _range_by_tolerance(seen, best)
    kept = [*passing, *(item for item in ways if item.hypothesis.mode != EVAL)]
    gone = [replace(item, explains=False, fits=False) for item in ways if item not in kept]
    order = [*kept, *gone, *(item for item in order if item not in ways)]
    if not ranges or not _has_a_range(order[0].hypothesis):
        return order, None
    return order, (min(low for low, _ in ranges), max(high for _, high in ranges))


def is_broad(found: EpsRange, *, fitted: bool) -> bool:
    """Whether a range is too wide for one eps to be named.

    An eps that frameworks use is named where no other is near; one that was `fitted` has to be all
    that the range holds.
    """
    return not found[1] <= (1 + (SAME_EPS if fitted else NEAR_EPS)) * found[0]


def range_text(found: EpsRange) -> str:
    """A range as a sentence says it, rounded outwards to 3 digits."""
    low, high = found
    least, largest = (_rounded_to(low, up=False), _rounded_to(high, up=True))
    return f"between {eps_text(least)} and {eps_text(largest)}"


def _rounded_to(value: float, *, up: bool) -> float:
    """A number with 3 digits, not above it, or not below it."""
    if value == 0:
        return 0.0
    near = float(f"{value:.2e}")
    if (near < value) if up else (near > value):
        place = 10.0 ** (int(f"{value:.2e}".partition("e")[2]) - 2)
        near = float(f"{near + (place if up else -place):.2e}")
    return near


def eps_range(
    seen: Seen, plain: Hypothesis, tolerated: FloatArray | None = None
) -> EpsRange | None:
    """The eps for which no value is further off than one rounding, or than a channel's tolerance.

    `plain` is a way of BatchNorm in which only eps is open. None where no eps does, or any would.
    """
    known, stats, ok = seen.known, seen.fit.stats, seen.fit.ok
    made = channel_map(plain, known, stats)
    low, high = _scales(seen.view, made, tolerated)
    var = stats.unbiased_var if plain.ddof else stats.var
    if plain.mode == EVAL:
        var = np.ones(len(low)) if plain.statistics == FRESH else np.asarray(known.running_var)
    weight = np.ones(len(low)) if known.weight is None else known.weight
    ok = ok & (weight != 0)
    if not ok.any() or (low > high)[ok].any():
        return None
    with np.errstate(all="ignore"):
        ends = np.sort([low / weight, high / weight], axis=0)[:, ok]
        largest = np.where(ends[0] > 0, 1 / ends[0] ** 2 - var[ok], np.inf)
        least = np.where(ends[1] > 0, 1 / ends[1] ** 2 - var[ok], np.inf)
    found = max(0.0, float(least.max())), float(largest.min())
    return found if found[0] <= found[1] < np.inf else None


def _is_half(seen: Seen) -> bool:
    return DTYPES[seen.view.y.dtype].unit_roundoff > SINGLE


def _has_a_range(way: Hypothesis) -> bool:
    """Whether only eps is open in a way of evaluation."""
    return way.statistics in ("", FRESH) and not (way.outside or way.affine or way.view)


def _range_by_tolerance(seen: Seen, best: Candidate) -> EpsRange | None:
    """The eps of the best that leave no more than it may, by each channel's tolerance."""
    way = best.hypothesis
    if way.mode not in (TRAINING, EVAL) or not _has_a_range(way):
        return None
    training = way.mode == TRAINING
    made = channel_map(way, seen.known, seen.fit.stats)
    return eps_range(seen, way, seen.tolerated(made, training=training)[best.level])


def _as_it_may_have_been_kept(seen: Seen) -> list[Seen]:
    """The state as it is given, and as a layer in the output's dtype holds it, if that differs."""
    dtype, known = seen.view.y.dtype, seen.known

    def held(values: FloatArray | None) -> FloatArray | None:
        if values is None:
            return None
        return decode(encode(values, dtype), dtype).astype(np.float64)

    with np.errstate(all="ignore"):
        rounded = replace(
            known,
            weight=held(known.weight),
            bias=held(known.bias),
            running_mean=held(known.running_mean),
            running_var=held(known.running_var),
        )
    pairs = (
        (known.weight, rounded.weight),
        (known.bias, rounded.bias),
        (known.running_mean, rounded.running_mean),
        (known.running_var, rounded.running_var),
    )
    same = all(
        one is None or other is None or np.array_equal(one, other, equal_nan=True)
        for one, other in pairs
    )
    return [seen] if same else [seen, replace(seen, known=rounded)]


def _needs_one_rounding(seen: Seen, way: Hypothesis) -> bool:
    """Whether no value is further from that of the way than one rounding of it leaves."""
    view, made = seen.view, channel_map(way, seen.known, seen.fit.stats)
    with np.errstate(all="ignore"):
        for block, x, y in view.read():
            given, wanted = x.astype(np.float64), y.astype(np.float64)
            value = (given - view.at(made.center, block)) * view.at(made.scale, block)
            apart = np.abs(value + view.at(made.bias, block) - wanted)
            within = apart <= _rounded_once(view, made, block, given, wanted)
            if not (within | (view.at(seen.fit.ok, block) == 0)).all():
                return False
    return True


def _scales(
    view: View, made: ChannelMap, tolerated: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """The least and the largest scale of each channel, with which every value may be rounding."""
    low, high = np.full(view.num_features, -np.inf), np.full(view.num_features, np.inf)
    axes = tuple(axis for axis in range(len(view.shape)) if axis != view.channel_axis)
    with np.errstate(all="ignore"):
        for block, x, y in view.read():
            given, wanted = x.astype(np.float64), y.astype(np.float64)
            limit = (
                _rounded_once(view, made, block, given, wanted)
                if tolerated is None
                else view.at(tolerated, block)
            )
            away = given - view.at(made.center, block)
            rest = wanted - view.at(made.bias, block)
            ends = np.sort([(rest - limit) / away, (rest + limit) / away], axis=0)
            # At the center itself the scale does not show, unless the bias alone is too far off.
            open_end = np.where(np.abs(rest) <= limit, np.inf, -np.inf)
            least = np.where(away == 0, -open_end, ends[0])
            largest = np.where(away == 0, open_end, ends[1])
            part = block[view.channel_axis]
            low[part] = np.maximum(low[part], least.max(axes))
            high[part] = np.minimum(high[part], largest.min(axes))
    return low, high


def _rounded_once(
    view: View, made: ChannelMap, block: Any, x: NDArray[Any], y: NDArray[Any]
) -> NDArray[Any]:
    """How far each value may be from the exact one: half its last place, and float32's rounding."""
    kind = DTYPES[view.y.dtype]
    size = np.abs(x) + view.at(np.abs(made.center), block)
    products = 4 * view.at(np.abs(made.scale), block) * size
    element = products + 2 * (np.abs(y) + view.at(np.abs(made.bias), block))
    limit = kind.unit_roundoff * np.abs(y) + kind.tiniest + SINGLE * element
    return np.asarray(limit)


def _chosen(seen: Seen, plain: Hypothesis, found: EpsRange) -> Candidate:
    """The way with an eps of the range: the expected one, a usual one, or one of few digits."""
    low, high = found
    middle = (low + high) / 2
    usual = [eps for eps in (seen.known.eps, *EPS) if low <= eps <= high]
    short = [float(f"{middle:.{digits}g}") for digits in DIGITS]
    eps = next((eps for eps in (*usual, *short) if low <= eps <= high), middle)
    (measured,) = seen.measured([replace(plain, eps=eps, fitted=not usual)])
    return replace(measured, fits=True, explains=True)
