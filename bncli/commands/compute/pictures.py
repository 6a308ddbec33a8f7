"""What a pass shows: each channel's normalised values, and how far the inputs lie from each other.

The values are read once more for it, when a page is made.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bncli.commands.compute.histograms import Bins, count_values
from bncli.light import np
from bncli.pictures import Axis, Kind, Panel, Picture, Series
from bncli.sections.answer import counted
from bncli.sections.channels import troubles, worst_first
from bncli.sections.tables import output_statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from bncli.arguments.input import Input
    from bncli.commands.compute.histograms import Counted
    from bncli.model import FloatArray
    from bncli.report import Finding
    from bncli.sections.judged_pass import JudgedPass
    from bncli.sections.tables import Spread
    from bncli.verify.batch_norm_pass import BatchNormPass

MOST_PANELS = 12
"""Channels whose histogram is drawn."""

MOST_CHANNELS = 200
"""Channels whose variances are drawn."""

REACH = 4.0
"""How far a histogram reaches to either side of 0, in standard deviations, where that is enough."""

FARTHEST = 40.0
"""How far it reaches at most in a channel whose mean and standard deviation are not known."""

CURVE = 81
"""Points of the standard normal's curve."""

FEW_VALUES = 100
"""Values of a channel below which its bars need not look like the curve, whatever they are of.

Of so many from a standard normal, the fullest bin holds 10, and a third more or less by chance."""

FEW = 3
"""Channels that a sentence tells of."""

ODD = 0.1
"""How far a channel's mean is from 0, or its standard deviation from 1, where that is told."""


def pass_pictures(
    given: Input,
    judged: JudgedPass,
    shown: Sequence[int],
    unchanged: Callable[[], None] | None,
    findings: Sequence[Finding] = (),
) -> tuple[Picture, ...]:
    """The histograms of the channels `shown`, and the variance within and between inputs.

    `unchanged` raises where the files are no longer what they were; it is None where there are no
    values, but statistics alone. Raises as `count_values`.
    """
    made = []
    if unchanged is not None and judged.done.stats.count > 1:
        made += _histograms(given, judged.done, shown, unchanged, findings)
    if judged.apart is not None:
        made += _spread(judged.apart, shown, findings)
    return tuple(made)


# ------------------------------------------------------------------------------ the histograms


def _histograms(
    given: Input,
    done: BatchNormPass,
    shown: Sequence[int],
    unchanged: Callable[[], None],
    findings: Sequence[Finding],
) -> list[Picture]:
    """One picture, a panel for each channel that has values; none where no channel has any."""
    trouble = troubles(findings, done.channel_axis)
    output = _x_hat_statistics(done)
    channels = _chosen(shown, trouble, output)
    bins = [
        _bins(*(float(output[name][channel]) for name in ("mean", "std", "min", "max")))
        for channel in channels
    ]
    unchanged()
    found = count_values(given, done.norm, done.stats, channels, bins)
    unchanged()
    panels, empty = [], []
    for channel, each in zip(channels, found.histograms, strict=True):
        if not each.finite:
            empty.append(channel)
            continue
        codes = ", ".join(dict.fromkeys(one.code for one in trouble.get(channel, ())))
        panels.append(
            Panel(
                f"channel {channel}" + (f" ({codes})" if codes else ""),
                Axis("normalised value"),
                Axis("density"),
                (
                    Series("values", Kind.BARS, each.bins.centres, each.density),
                    Series("standard normal", Kind.LINE, *_normal()),
                ),
            )
        )
    if not panels:
        return []
    text = _histograms_said(done, shown, channels, found, empty, output)
    return [Picture("normalised", "Normalised values by channel", tuple(panels), text, columns=3)]


def _x_hat_statistics(done: BatchNormPass) -> dict[str, FloatArray]:
    """Mean, std, min and max of the values before weight and bias, (num_features,) each."""
    ones = np.ones_like(done.norm.var)
    norm = replace(done.norm, weight=ones, bias=np.zeros_like(ones))
    return output_statistics(done.stats, norm, np.arange(len(ones)))


def _chosen(
    shown: Sequence[int],
    trouble: Mapping[int, Sequence[Finding]],
    output: Mapping[str, FloatArray],
) -> list[int]:
    """The channels drawn: the worst findings first, then what is farthest from a standard normal.

    That is by mean and standard deviation, and where these are alike by the largest value. Where
    all have room they are in the order of the answer's table.
    """
    if len(shown) <= MOST_PANELS:
        return [*map(int, worst_first(shown, trouble))]
    channels = np.array(shown, np.int64)
    rank = np.zeros(len(output["mean"]))
    for channel, findings in trouble.items():
        if channel < len(rank):
            rank[channel] = 1 + max(each.severity.rank for each in findings)
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.hypot(output["mean"][channels], np.log(output["std"][channels])).round(3)
        reach = np.fmax(np.abs(output["min"][channels]), np.abs(output["max"][channels]))
    off, reach = (np.nan_to_num(each, posinf=np.inf) for each in (off, reach))
    worst = np.lexsort((-reach, -off, -rank[channels]))[:MOST_PANELS]
    return [*map(int, channels[worst])]


def _bins(mean: float, std: float, least: float, greatest: float) -> Bins:
    """From -REACH to REACH, and farther where the values are not where a standard normal's are.

    The ends of the values count where mean and standard deviation are not known.
    """
    low, high = mean - REACH * std, mean + REACH * std
    if not (math.isfinite(low) and math.isfinite(high)):
        low, high = max(least, -FARTHEST), min(greatest, FARTHEST)
    elif abs(mean) <= 0.5 and std <= 1.25:
        return Bins(-REACH, REACH)
    if not (math.isfinite(low) and math.isfinite(high)):
        return Bins(-REACH, REACH)
    return Bins(min(-REACH, math.floor(low)), max(REACH, math.ceil(high)))


def _normal() -> tuple[list[float], list[float]]:
    """The standard normal's density."""
    x = np.linspace(-REACH, REACH, CURVE)
    return x.tolist(), (np.exp(-x * x / 2) / math.sqrt(2 * math.pi)).tolist()


def _histograms_said(
    done: BatchNormPass,
    shown: Sequence[int],
    channels: list[int],
    found: Counted,
    empty: list[int],
    output: Mapping[str, FloatArray],
) -> str:
    """What the histograms are of, and what is odd in them."""
    said = [
        "The bars are a histogram of the channel's values, normalised by "
        + _normalised_by(done)
        + "; the curve is the standard normal distribution's density.",
        _few_said(done.stats.count),
    ]
    if len(channels) < len(shown):
        said.append(
            f"{len(channels) - len(empty)} of {len(shown)} channels are drawn: those with findings "
            "first, then those farthest from a standard normal distribution by their mean, "
            "standard deviation and largest value."
        )
    said += [
        f"Channel {channel} has mean {_number(output['mean'][channel])} and standard deviation "
        f"{_number(output['std'][channel])}."
        for channel in _odd(channels, output)
    ]
    said += [_farthest_said(channels, output), _outside_said(channels, found)]
    count = done.stats.count
    if found.read < count:
        said.append(
            f"The histograms are made of {found.read} of the {count} values of each channel, in "
            f"{counted(found.pieces, 'piece')} at even distances."
        )
    if empty:
        names = ", ".join(map(str, empty))
        have = "Channel {} has" if len(empty) == 1 else "Channels {} have"
        said.append(f"{have.format(names)} no finite normalised value and no panel.")
    return " ".join(filter(None, said))


def _few_said(count: int) -> str:
    """That bars of so few values need not look like the curve; "" where they are enough."""
    if count >= FEW_VALUES:
        return ""
    return (
        f"Each channel has only {counted(count, 'value')}: bars of so few need not look like the "
        "curve, even where the data are normally distributed."
    )


def _normalised_by(done: BatchNormPass) -> str:
    """Which statistics were used, and whether weight and bias come after what is shown."""
    by = "the batch's own mean and biased variance"
    if not done.settings.normalizes_with_batch:
        by = (
            "running_mean and running_var, so that they need not have mean 0 and standard "
            "deviation 1"
        )
    norm = done.norm
    return by + (", before weight and bias" if (norm.weight != 1).any() or norm.bias.any() else "")


def _odd(channels: list[int], output: Mapping[str, FloatArray]) -> list[int]:
    """The first channels whose mean or standard deviation is not that of the standard normal."""
    found = []
    for channel in channels:
        mean, std = (float(output[name][channel]) for name in ("mean", "std"))
        if math.isfinite(mean) and math.isfinite(std) and (abs(mean) > ODD or abs(std - 1) > ODD):
            found.append(channel)
    return found[:FEW]


def _farthest_said(channels: list[int], output: Mapping[str, FloatArray]) -> str:
    """Where the value is that a standard normal has least; "" where none is finite."""
    ends = [
        (abs(value), value, channel)
        for channel in channels
        for value in (float(output["min"][channel]), float(output["max"][channel]))
        if math.isfinite(value)
    ]
    if not ends:
        return ""
    _, value, channel = max(ends, key=lambda end: end[0])
    return f"The value farthest from 0 is {_number(value)}, in channel {channel}."


def _outside_said(channels: list[int], found: Counted) -> str:
    """How many values lie in no bin, and in which channel most of them do."""
    outside = [each.outside for each in found.histograms]
    total = sum(outside)
    if not total:
        return ""
    most = outside.index(max(outside))
    each = found.histograms[most]
    rest = total - outside[most]
    more = f", and {rest} of the other channels' values beyond theirs" if rest else ""
    return (
        f"{outside[most]} of the {each.finite} values of channel {channels[most]} "
        f"{'lies' if outside[most] == 1 else 'lie'} beyond its panel, which reaches from "
        f"{each.bins.low:g} to {each.bins.high:g}{more}."
    )


# --------------------------------------------------------------------------- between the inputs


def _spread(spread: Spread, shown: Sequence[int], findings: Sequence[Finding]) -> list[Picture]:
    """The variances within and between inputs, and their ratio; none where it is not known."""
    by_sample = spread.by_sample is not None
    ratio = spread.f_ratio if spread.by_sample is None else spread.by_sample.ratio
    channels = _largest(np.array(shown, np.int64), ratio)
    known = channels[np.isfinite(ratio[channels])]
    if not known.size:
        return []
    at = channels.tolist()
    own = [each for each in findings if each.subject == "inputs" and "f_ratio" in each.evidence]
    levels = [Series("shuffled samples, on average", Kind.LEVEL, (), [1.0])]
    border = own[0].evidence.get("border") if own else None
    if isinstance(border, float):
        levels.append(Series("what chance explains", Kind.LEVEL, (), [border]))
    channel = Axis("channel")
    panels = (
        Panel(
            "Variance",
            channel,
            Axis("variance", log=True),
            (
                Series("within inputs", Kind.POINTS, at, spread.within[channels].tolist()),
                Series("between inputs", Kind.POINTS, at, spread.between[channels].tolist()),
            ),
        ),
        Panel(
            "Between inputs, over what chance leaves",
            channel,
            Axis("F ratio", log=True),
            (
                Series("F ratio", Kind.POINTS, at, ratio[channels].tolist()),
                *levels,
                *(_marks(each, at, ratio) for each in own),
            ),
        ),
    )
    worst = int(known[np.argmax(ratio[known])])
    text = _spread_said(spread, worst, float(ratio[worst]), len(shown), by_sample=by_sample)
    if len(channels) < len(shown):
        text += (
            f" {len(channels)} of {len(shown)} channels are drawn: of neighbours, the one whose "
            "ratio is largest."
        )
    return [Picture("spread", "Variance within and between inputs", panels, text, columns=2)]


def _largest(channels: NDArray[Any], ratio: FloatArray) -> NDArray[Any]:
    """At most MOST_CHANNELS of the channels: of neighbours, the one with the largest ratio."""
    if len(channels) <= MOST_CHANNELS:
        return channels
    groups = np.array_split(channels, MOST_CHANNELS)
    return np.array([each[np.argmax(np.nan_to_num(ratio[each], nan=-1.0))] for each in groups])


def _marks(finding: Finding, at: list[int], ratio: FloatArray) -> Series:
    """The channels of a finding on the spread."""
    named = finding.evidence.get("channels", ())
    sick = set(named) if isinstance(named, (list, tuple)) else set()
    channels = [channel for channel in at if channel in sick]
    return Series(
        finding.code,
        Kind.POINTS,
        channels,
        ratio[channels].tolist(),
        severity=finding.severity,
        names=[finding.code] * len(channels),
    )


def _spread_said(spread: Spread, worst: int, ratio: float, number: int, *, by_sample: bool) -> str:
    """Where the inputs differ most, in sentences."""
    unit = "samples" if by_sample else "values, each taken as independent of the others,"
    where = "In the only channel" if number == 1 else f"The inputs differ most in channel {worst}:"
    return (
        "The first panel has the variance within the inputs and that between their means, the "
        f"second one their F ratio, which is about 1 where shuffled {unit} were divided among the "
        f"inputs. {where} {_number(spread.between[worst])} of variance is between inputs and "
        f"{_number(spread.within[worst])} within them; the F ratio is {ratio:.3g}."
    )


def _number(value: float) -> str:
    """A number as a sentence has it; what is rounding alone is 0."""
    return "0" if abs(value) < 1e-12 else f"{value:.3g}"
