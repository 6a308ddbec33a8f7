"""BN0xx: what a batch's own statistics show before any comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES
from bncli.light import np
from bncli.report import Finding, Severity
from bncli.rulebook import batch_rules as rules
from bncli.rulebook.interface import (
    MOST_EVIDENCE,
    Rule,
    channel_extent,
    name_channels,
    odd_values,
    span,
    times,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import BatchNormSettings, ChannelStats, FloatArray
    from bncli.report import Member, Value
    from bncli.running_stats.scatter import FRatio

WORST_CONDITION = 1000.0
"""|mean|/std above which float32's output is off by more than 6e-5 (1000 times 2**-24)."""

FEWEST_VALUES = 8
"""Below this, the relative standard deviation of a normal batch's variance exceeds a half."""

MOST_APART = 30.0
"""The F ratio above which it is reported. With two shuffled inputs of 60 values a channel in all,
one channel in a million exceeds it."""


def batch_findings(
    stats: ChannelStats,
    settings: BatchNormSettings,
    parameter_dtype: str,
    running_var: FloatArray | None,
) -> list[Finding]:
    """What the statistics of the whole input show.

    `running_var` (num_features,) is given where stored statistics normalise, and None elsewhere.
    """
    finite = (stats.nan + stats.inf) == 0
    constant = finite & (stats.min == stats.max)
    by_batch = settings.normalizes_with_batch
    findings = _not_finite(stats, ~finite, by_batch=by_batch)
    # Evaluation does not sum the squares of this batch.
    if by_batch:
        findings += _overflow(stats, finite, parameter_dtype)
    if parameter_dtype != "float64":
        findings += _ill_conditioned(stats, finite)
    if running_var is None:
        findings += _below_eps("the variance", stats.var, settings.eps, ~constant)
    else:
        findings += _below_eps("running_var", running_var, settings.eps)
        findings += _not_positive(running_var, settings.eps)
    findings += outside_findings(settings.momentum)
    findings += _few_values(stats.count)
    if stats.count > 1:
        findings += _constant(stats, constant, by_batch=by_batch)
    return findings


def outside_findings(momentum: float | None) -> list[Finding]:
    """Whether a momentum is outside 0 to 1; None is the cumulative average."""
    if momentum is None or 0 <= momentum <= 1:
        return []
    said = f"momentum {momentum:g} is outside 0 to 1"
    return [rules.MOMENTUM.finding("momentum", said, {"momentum": momentum})]


def _few_values(count: int) -> list[Finding]:
    """BN008: how few values there are, and how far off their variance is by chance."""
    if count >= FEWEST_VALUES:
        return []
    said = f"only {count} value{'s' * (count > 1)} per channel"
    if count > 1:
        noise = (2 / (count - 1)) ** 0.5
        said += f", whose variance is off by about {noise:.0%} by chance alone"
    return [rules.FEW_VALUES.finding("every channel", said, {"count": count})]


def _constant(stats: ChannelStats, channels: NDArray[Any], *, by_batch: bool) -> list[Finding]:
    """BN009: what all values of a channel are; `by_batch` says that this batch normalises."""
    if not channels.any():
        return []
    values = span(stats.min[channels], ".6g")
    of = " of each channel" if channels.sum() > 1 else ""
    return _at(
        rules.CONSTANT,
        channels,
        f"all values{of} are equal: {values}",
        detail="The variance is 0, so the output is the bias." if by_batch else "",
        value=stats.min,
    )


def _not_finite(stats: ChannelStats, channels: NDArray[Any], *, by_batch: bool) -> list[Finding]:
    """BN001: how many NaN and Inf there are, and where; `by_batch` is as in `_constant`."""
    first = stats.first_nonfinite[int(channels.argmax())]
    counts = ((int(stats.nan.sum()), "NaN"), (int(stats.inf.sum()), "Inf"))
    found = " and ".join(f"{number} {what}" for number, what in counts if number)
    at = f", the first at {list(first)}" if first is not None else ""
    return _at(
        rules.NOT_FINITE,
        channels,
        f"{found} among {stats.count} values per channel{at}",
        detail="The whole output of such a channel is NaN." if by_batch else "",
        extent=(*channel_extent("NaN", stats.nan > 0), *channel_extent("Inf", stats.inf > 0)),
        nan=stats.nan,
        inf=stats.inf,
        first_nonfinite=stats.first_nonfinite,
    )


def _overflow(stats: ChannelStats, finite: NDArray[Any], parameter_dtype: str) -> list[Finding]:
    """BN004: squares whose sum is too large for the dtype in which PyTorch adds them."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = stats.var * stats.count
    kept = "float64" if parameter_dtype == "float64" else "float32"
    channels = finite & (squares > DTYPES[kept].largest)
    worst = _worst(channels, squares)
    return _at(
        rules.OVERFLOW,
        channels,
        f"the squared deviations add up to {squares[worst]:.6g}{_where(worst, channels)}, too much "
        f"for {kept}",
        detail="PyTorch then computes a variance of Inf, and an output that is the bias.",
        sum_of_squares=squares,
    )


def _ill_conditioned(stats: ChannelStats, finite: NDArray[Any]) -> list[Finding]:
    """BN002: a mean so far from 0 that float32 has few digits left for what varies."""
    std = np.sqrt(np.where(finite, stats.var, np.nan))
    with np.errstate(divide="ignore", invalid="ignore"):
        condition = np.where(finite & (std > 0), np.abs(stats.mean) / std, 0.0)
    channels = condition > WORST_CONDITION
    worst = _worst(channels, condition)
    return _at(
        rules.ILL_CONDITIONED,
        channels,
        f"|mean|/std is {condition[worst]:.6g}{_where(worst, channels)}: float32 keeps the output "
        f"to about {condition[worst] * 2.0**-24:.1g}",
        condition=condition,
    )


def _below_eps(
    what: str, var: FloatArray, eps: float, channels: NDArray[Any] | bool = True
) -> list[Finding]:
    """BN003 in all channels or in the mask `channels`; `what` names `var` (num_features,)."""
    below = channels & (var >= 0) & (var < eps)
    if not below.any():
        return []
    said = f"{what} is {span(var[below], '.6g')}, below eps {eps:.6g}"
    detail, place = "", "running_var"
    if what != "running_var":
        std = span(np.sqrt(var[below] / (var[below] + eps)), ".2g")
        detail = f"Before weight and bias, the output's standard deviation is {std} instead of 1."
        place = "channels"
    return _at(rules.BELOW_EPS, below, said, place, detail=detail, var=var)


def _not_positive(running_var: FloatArray, eps: float) -> list[Finding]:
    """BN006: the square root of 0, of a negative number or of NaN."""
    channels = ~(running_var + eps > 0)
    first = int(channels.argmax())
    return _at(
        rules.NOT_POSITIVE,
        channels,
        f"running_var is {running_var[first]:.6g}{_where(first, channels)}, not positive even with "
        f"eps {eps:g} added",
        "running_var",
        channel_extent("not positive", channels),
        running_var=running_var,
    )


def state_findings(state: Mapping[str, FloatArray | None]) -> list[Finding]:
    """A finding for each of the layer's tensors that holds NaN or Inf; `state` is by name."""
    findings = []
    for name, values in state.items():
        if values is None or np.isfinite(values).all():
            continue
        bad = np.flatnonzero(~np.isfinite(values))
        findings.append(
            rules.STATE_NOT_FINITE.finding(
                name,
                f"{name} is {odd_values(values, ~np.isfinite(values))}",
                _listed(bad),
                extent=(
                    *channel_extent("NaN", np.isnan(values)),
                    *channel_extent("Inf", np.isinf(values)),
                ),
            )
        )
    return findings


def gradient_findings(grad_output: NDArray[Any], channel_axis: int) -> list[Finding]:
    """A finding where the upstream gradient, in the input's shape, is NaN or Inf."""
    others = tuple(axis for axis in range(grad_output.ndim) if axis != channel_axis)
    counts = (~np.isfinite(grad_output)).sum(others)
    bad = np.flatnonzero(counts)
    if not bad.size:
        return []
    return [
        rules.GRADIENT_NOT_FINITE.finding(
            "grad_output",
            f"the upstream gradient has {int(counts.sum())} NaN or Inf in {name_channels(bad)}",
            {**_listed(bad), "not_finite": counts[bad[:MOST_EVIDENCE]].tolist()},
            detail="The gradients of weight and bias are not finite in these channels.",
            extent=(
                *channel_extent("NaN", np.isnan(grad_output).any(others)),
                *channel_extent("Inf", np.isinf(grad_output).any(others)),
            ),
        )
    ]


def fresh_statistics_finding() -> Finding:
    """The warning for evaluation without any state."""
    said = "no running statistics were given; a new module's 0 and 1 were used"
    return rules.FRESH_STATISTICS.finding("running statistics", said, {})


def inputs_findings(
    f_ratio: FloatArray, samples: FRatio | None, sorted_ones: NDArray[Any] | None
) -> list[Finding]:
    """What the spread between inputs shows; `f_ratio` (num_features,) is by values.

    `samples` is the ratio by samples, and `sorted_ones` the mask of channels in which it is beyond
    chance; both are None where the samples are not known.
    """
    if samples is not None and sorted_ones is not None and sorted_ones.any():
        found = np.flatnonzero(sorted_ones).tolist()
        worst = max(found, key=lambda channel: float(samples.ratio[channel]))
        return [
            rules.INPUTS_DIFFER.finding(
                "inputs",
                f"in channel {worst}, the variance between inputs is {times(samples.ratio[worst])} "
                "what shuffled samples would show",
                {
                    "channels": found,
                    "f_ratio": samples.ratio[found].tolist(),
                    "by": "samples",
                    "border": samples.border,
                    "freedom": list(samples.freedom),
                },
                detail=_channels_above(len(found), len(f_ratio), samples.border),
                hint="Shuffle the samples before they are cut into inputs: inputs sorted by class, "
                "domain or time differ like this.",
                extent=("by samples",),
            )
        ]
    apart = [int(channel) for channel in np.flatnonzero(f_ratio > MOST_APART)]
    if not apart:
        return []
    worst = max(apart, key=lambda channel: float(f_ratio[channel]))
    return [
        rules.INPUTS_DIFFER.finding(
            "inputs",
            f"in channel {worst}, the variance between inputs is {f_ratio[worst]:.3g} times what "
            "independent values would show",
            {
                "channels": apart,
                "f_ratio": [float(f_ratio[channel]) for channel in apart],
                "by": "values",
                "border": MOST_APART,
            },
            detail=_channels_above(len(apart), len(f_ratio), MOST_APART),
            severity=Severity.INFO,
        )
    ]


def _channels_above(number: int, total: int, border: float) -> str:
    """How many channels exceed the border of a ratio of variances."""
    verb = "is" if number == 1 else "are"
    return f"{number} of {total} channels {verb} above {border:.3g} times."


def _at(
    rule: Rule,
    channels: NDArray[Any],
    message: str,
    place: str = "channels",
    extent: tuple[Member, ...] = (),
    detail: str = "",
    **evidence: NDArray[Any] | Sequence[Any],
) -> list[Finding]:
    """One finding for the channels of a mask, if any; `evidence` has a value for each channel."""
    found = np.flatnonzero(channels)
    if not found.size:
        return []
    chosen = {
        name: [_plain(values[channel]) for channel in found[:MOST_EVIDENCE]]
        for name, values in evidence.items()
    }
    numbers = {**_listed(found), **chosen}
    return [
        rule.finding(
            name_channels(found), message, numbers, detail=detail, extent=extent, places=(place,)
        )
    ]


def _where(channel: int, channels: NDArray[Any]) -> str:
    """Words such as " in channel 3" if the mask has several; the subject names a single one."""
    return f" in channel {channel}" if channels.sum() > 1 else ""


def _worst(channels: NDArray[Any], values: FloatArray) -> int:
    """The channel of a mask with the largest value; any channel where the mask is empty."""
    return int(np.argmax(np.where(channels, values, -np.inf)))


def _listed(channels: NDArray[Any]) -> dict[str, Value]:
    """Channels as evidence: the first MOST_EVIDENCE of them, and how many there are if more."""
    listed: dict[str, Value] = {"channels": channels[:MOST_EVIDENCE].tolist()}
    if len(channels) > MOST_EVIDENCE:
        listed["channel_count"] = len(channels)
    return listed


def _plain(value: Any) -> Any:
    """A NumPy number as a Python number; anything else unchanged."""
    return value.item() if hasattr(value, "item") else value
