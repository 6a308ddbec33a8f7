"""A variance that is another times one ratio: biased and unbiased, and the n between them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.changes.states.conventions.fitting import (
    CHANNELS,
    CLEAR,
    Fit,
    Relation,
    Room,
    rooms,
    shown,
    vector,
)
from bncli.light import dataclass, np
from bncli.model.changes import Found, Same, State
from bncli.report import Certainty

if TYPE_CHECKING:
    from bncli.changes.pair import LayerPair
    from bncli.model import FloatArray
    from bncli.report import Value

SHARP = 0.1
"""How wide the range of n is at most, so that a whole number in it is hardly chance."""
ROUND = 10
"""Up to this n, n/(n - 1) is a number such as 2, 1.5 or 1.25 that people multiply by, too."""
KERAS_2 = 1.001
"""Keras 2.1.3 to 2.3 multiplied by n/(n - (1 + eps)), with eps 1e-3."""
ONE_PRODUCT, MANY = 0.6, 8
"""Up to which residual, in ulps, and from how many channels on a variance was multiplied once."""
LEAST_MOMENTUM = 1e-3
"""The least weight of a new batch that frameworks have by default."""
LOOSE = 4
"""How many channels show a ratio that is not the same in all of them."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """The second variance over the first: between `low` and `high`.

    `spread` is how far the channels are apart, `loose` says that rounding does not explain it.
    `share` is the part of the variance that is still the initial 1, None where none was needed.
    `doubt` is the relative error that slower averages than the layer's own would leave.
    """

    low: float
    high: float
    spread: float = 0.0
    loose: bool = False
    share: float | None = None
    residual: float | None = None
    doubt: float = 0.0

    @property
    def value(self) -> float:
        """The ratio in one number."""
        return (self.low + self.high) / 2


def counts(low: float, high: float, less: float = 1.0) -> tuple[float, float]:
    """The least and greatest n with n/(n - less) in a range of ratios above 1."""
    least = less * high / (high - 1)
    return least, less * low / (low - 1) if low > 1 else math.inf


def one_count(ratio: float, ulp: float) -> int | None:
    """The n with n/(n - 1) equal to a ratio or its inverse, where one whole number alone fits."""
    above = max(ratio, 1 / ratio) if ratio > 0 else 0.0
    if not 1 < above <= 2:
        return None
    least, most = counts(above * (1 - ulp), above * (1 + ulp))
    count = round((least + most) / 2) if most < math.inf else 0
    return count if least <= count <= most and most - least < SHARP else None


def said_of_ratio(fit: Fit) -> Found:
    """The state where one ratio holds in every channel within the rounding of one product."""
    before, after = vector(fit.plain, "running_var"), vector(fit.odd, "running_var")
    with np.errstate(all="ignore"):
        ratio, room = after / before, fit.room(np.abs(after)) / before
    known = np.isfinite(ratio) & np.isfinite(room)
    low, high = (ratio - room)[known].max(), (ratio + room)[known].min()
    # Many updates hardly leave every channel within half an ulp, the rounding of one product.
    product = fit.residual <= ONE_PRODUCT and known.sum() >= MANY
    off = 0.0 if product else _drift(fit.pair, fit.room)
    found = Ratio(
        float(low) * (1 - off),
        float(high) * (1 + off),
        float(ratio[known].max() - ratio[known].min()),
        residual=fit.residual,
        doubt=0.0 if product else _drift(fit.pair, fit.room, LEAST_MOMENTUM),
    )
    zero_mean = fit.plain.mean is None or not fit.plain.mean.any()
    return say(found, zero_mean=zero_mean)


def trained(pair: LayerPair, moved: tuple[str, ...]) -> Found | None:
    """Biased and unbiased variances, each updated in float32 for many batches.

    Every update rounds the old statistic's product and the sum, so that an error of one ulp a batch
    decays as the statistic does: 1/momentum ulps at most, for each file. The mean may differ as
    much, where another framework computed it.
    """
    if moved not in (("running_var",), ("running_mean", "running_var")):
        return None
    for room in rooms(pair, Relation("", ("running_var",), lambda *_: (), steps=_steps(pair))):
        ratio = _mean_stays(pair, room) and (_one(pair, room) or _share(pair, room))
        if ratio:
            return say(ratio)
    room = rooms(pair, Relation("", ("running_var",), lambda *_: ()))[-1]
    loose = _loose(pair, room) if moved == ("running_var",) else None
    return say(loose) if loose else None


def say(ratio: Ratio, *, zero_mean: bool = False) -> Found:
    """The state, named after what the ratio can be."""
    below = ratio.value < 1
    low, high = (1 / ratio.high, 1 / ratio.low) if below else (ratio.low, ratio.high)
    unbiased = "first" if below else "second"
    numbers: dict[str, Value] = {
        "cause": "unbiased",
        "ratio": ratio.value,
        "n": None,
        "unbiased_file": unbiased,
        "spread": ratio.spread,
        "share": ratio.share,
        "residual": ratio.residual,
    }
    undo = f"Multiply running_var by {1 / ratio.value:.7g} in the second file"
    if low > 2:
        return _factor_said(ratio, numbers, undo, zero_mean=zero_mean)
    least, most = counts(low, high)
    whole = range(math.ceil(least), math.floor(min(most, 2**53)) + 1)
    if not whole:
        keras = _keras_2(low, high)
        least, most = counts(low * (1 - ratio.doubt), high * (1 + ratio.doubt))
        whole = range(math.ceil(least), math.floor(min(most, 2**53)) + 1)
        if keras is None and not whole:
            return _no_count(ratio, numbers, undo)
        if keras is not None:
            numbers["cause"], whole, least, most = "unbiased-keras2", range(keras, keras + 1), 0, 0
    numbers |= {"n_min": whole[0], "n_max": None if most == math.inf else whole[-1]}
    if len(whole) == 1:
        numbers["n"] = whole[0]
    sure = len(whole) == 1 and most - least < SHARP and whole[0] > ROUND and not ratio.loose
    keras = numbers["cause"] != "unbiased"
    # With n = 2m - 1, n/(n - 1) is m/(m - 1) over 2m/(2m - 1): two ranks, one with half the values.
    half = (whole[0] + 1) // 2 if len(whole) == 1 and whole[0] % 2 and not keras else 0
    one, other = ("biased", "unbiased") if below else ("unbiased", "biased")
    return Found(
        State.CONVENTION,
        f"the variance is {one} where the first file's is {other}, {_said_of_counts(whole, most)}"
        + ", not one n" * ratio.loose,
        _detail(ratio, unbiased, keras=keras, half=half),
        Certainty.CERTAIN if sure and ratio.share is None and not half else Certainty.LIKELY,
        numbers,
        f"{undo} to have the first file's convention.",
    )


def _factor_said(ratio: Ratio, numbers: dict[str, Value], undo: str, *, zero_mean: bool) -> Found:
    """One factor that is no n/(n - 1), which is at most 2."""
    detail = "The mean is the same, so that this is not an input that was scaled."
    if zero_mean:
        detail = f"An input that was multiplied by {math.sqrt(ratio.value):.6g} gives this, too."
    return Found(
        State.CONVENTION,
        f"running_var is {ratio.value:.6g} times the first file's in every channel",
        f"The factor is not n/(n - 1), that of an unbiased variance, which is at most 2. {detail}",
        numbers=numbers | {"cause": "factor", "unbiased_file": None},
        hint=f"{undo}, or find what multiplied it.",
    )


def _no_count(ratio: Ratio, numbers: dict[str, Value], undo: str) -> Found:
    """One ratio that no single n gives."""
    return Found(
        State.CONVENTION,
        f"running_var is {ratio.value:.5g} times the first file's in every channel",
        "No single n gives this ratio as n/(n - 1). It is n1/(n1 - 1) over n2/(n2 - 1), as where "
        "each of two ranks multiplied its variance by n/(n - 1) with its own n.",
        Certainty.LIKELY,
        numbers | {"cause": "one-ratio", "unbiased_file": None},
        f"{undo} to have the first file's, or take running_var from one rank for all.",
    )


def _said_of_counts(whole: range, most: float) -> str:
    if most == math.inf:
        return f"n {whole[0]:,} or more"
    if len(whole) == 1:
        return f"n = {whole[0]:,}"
    low, high = f"{float(f'{whole[0]:.3g}'):,.0f}", f"{float(f'{whole[-1]:.3g}'):,.0f}"
    if low == high or whole[0] < 1000:
        low, high = f"{whole[0]:,}", f"{whole[-1]:,}"
    return f"n about {low} to {high}"


def _detail(ratio: Ratio, unbiased: str, *, keras: bool, half: int) -> str:
    factor = "n/(n - 1.001), as in Keras 2.1.3 to 2.3" if keras else "n/(n - 1)"
    other = "first" if unbiased == "second" else "second"
    sentences = [
        f"The {unbiased} file has the unbiased variance: it is {factor} times that of the {other}."
    ]
    if half:
        sentences.append(
            f"Unbiased variances of {half} values in it and {2 * half} in the other fit, too."
        )
    if ratio.share is not None:
        sentences.append(
            f"This holds but for the initial variance of 1, of which {ratio.share:.3g} is left."
        )
    if ratio.loose:
        sentences.append(
            f"The ratio is {ratio.low:.5g} to {ratio.high:.5g}, as where batches had different "
            "sizes; the mean is the same."
        )
    return " ".join(sentences)


def _keras_2(low: float, high: float) -> int | None:
    """The n of Keras 2's factor, if it is sure to be a whole number."""
    least, most = counts(low, high, KERAS_2)
    count = math.ceil(least)
    return count if count <= most and most - least < SHARP else None


def _steps(pair: LayerPair) -> float:
    """The roundings that many updates leave in the difference of the two, in half ulps."""
    return sum(2 / _momentum(side.layer.momentum) for side in (pair.a, pair.b))


def _momentum(momentum: float | None) -> float:
    """The weight of a new batch; that of the hundredth, for an average of all batches."""
    return min(max(momentum or 0.01, LEAST_MOMENTUM), 1.0)


def _drift(pair: LayerPair, room: Room, least: float = 1.0) -> float:
    """How far updates may leave the ratio from what it should be, in all channels alike.

    The weights of the old value and the new are rounded, half an ulp below 1 together, and need not
    sum to 1: the statistic is off by that over the momentum. What every step rounds has a standard
    deviation of 0.4 ulps and sums to sqrt(1/(2 momentum)) times that; three of those are allowed.
    """
    total = 0.0
    for side in (pair.a, pair.b):
        momentum = min(_momentum(side.layer.momentum), least)
        total += 0.25 / momentum + 1.2 * math.sqrt(0.5 / momentum)
    return total * room.computed_ulp


def _mean_stays(pair: LayerPair, room: Room) -> bool:
    """Whether the means are the same but for the rounding of updates.

    A batch's mean is rounded beside its values, which the standard deviation is the size of.
    """
    mean, other = pair.a.layer.mean, pair.b.layer.mean
    if mean is None or other is None or pair.same.get("running_mean") is not Same.MOVED:
        return mean is not None
    size = np.abs(mean) + np.sqrt(np.abs(vector(pair.a.layer, "running_var")))
    with np.errstate(all="ignore"):
        return bool((np.abs(other - mean) <= room(size)).all())


def _variances(pair: LayerPair) -> tuple[FloatArray, FloatArray]:
    a, b = (vector(side.layer, "running_var") for side in (pair.a, pair.b))
    known = np.isfinite(a) & np.isfinite(b) & (a > 0) & (b > 0)
    if not np.array_equal(a[~known], b[~known], equal_nan=True):
        return a[:0], b[:0]
    return a[known], b[known]


def _one(pair: LayerPair, room: Room) -> Ratio | None:
    """One ratio within the rounding of many updates."""
    a, b = _variances(pair)
    if len(a) < CHANNELS or not shown(a, b, room(b)):
        return None
    ratio = b / a
    if (ratio - room(b) / a).max() > (ratio + room(b) / a).min():
        return None
    low, high = float(ratio.min()), float(ratio.max())
    off, doubt = (_drift(pair, room, least) for least in (1.0, LEAST_MOMENTUM))
    return Ratio(low * (1 - off), high * (1 + off), high - low, doubt=doubt)


def _share(pair: LayerPair, room: Room) -> Ratio | None:
    """One ratio but for what is left of the initial variance of 1, a share q of it.

    The variances are q + (1 - q) v and q + (1 - q) r v, and so b/a = r - q (r - 1)/a.
    """
    a, b = _variances(pair)
    if len(a) <= LOOSE or not shown(a, b, room(b)):
        return None
    ratio, inverse = b / a, 1 / a
    slope, one = np.polyfit(inverse, ratio, 1)
    left = ratio - (one + slope * inverse)
    share = -slope / (one - 1)
    if not (0 < share < a.min() and share < 1) or (np.abs(left) > room(b) / a).any():
        return None
    # A line through two numbers leaves no residual: the others have to show it.
    off = 2 * float(np.abs(left).max()) + _drift(pair, room)
    one = float(one)
    return Ratio(one - off, one + off, float(np.ptp(ratio)), share=float(share))


def _loose(pair: LayerPair, room: Room) -> Ratio | None:
    """Ratios of about the same size: that of a last batch of another size, under an equal mean.

    The mean has to show that both files saw the same batches: it is the same in every channel.
    """
    a, b = _variances(pair)
    mean = pair.a.layer.mean
    if len(a) < LOOSE or mean is None or len(np.unique(mean[mean != 0])) < LOOSE:
        return None
    ratio = b / a
    low, high = float(ratio.min()), float(ratio.max())
    away = min(abs(low - 1), abs(high - 1))
    clear = (np.abs(b - a) > CLEAR * room(b)).all()
    if not clear or (low - 1) * (high - 1) <= 0 or high - low > away or not 0.5 <= low <= high <= 2:
        return None
    return Ratio(low, high, high - low, loose=True)
