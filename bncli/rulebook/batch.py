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
"""|mean|/std beyond which float32's output is off by more than 6e-5 (1000 times 2**-24)."""

FEWEST_VALUES = 8
"""Below this, the relative standard deviation of a normal batch's variance exceeds a half."""

MOST_APART = 30.0
"""The F ratio beyond which it is remarked; of two shuffled inputs with 60 values a channel in all,
one channel in a million exceeds it."""


def batch_findings(
    stats: ChannelStats,
    settings: BatchNormSettings,
    parameter_dtype: str,
    running_var: FloatArray | None,
) -> list[Finding]:
    """What the statistics of the whole input show; `running_var` where stored ones normalise."""
    finite = (stats.nan + stats.inf) == 0
    constant = finite & (stats.min == stats.max)
    findings = _not_finite(stats, ~finite)
    # In evaluation no squares of this batch are summed.
    if settings.normalizes_with_batch:
        findings += _overflow(stats, finite, parameter_dtype)
    if parameter_dtype != "float64":
        findings += _ill_conditioned(stats, finite)
    if running_var is None:
        findings += _below_eps("the variance", stats.var, settings.eps, ~constant)
    else:
        findings += _below_eps("running_var", running_var, settings.eps)
        findings += _not_positive(running_var, settings.eps)
    findings += outside_findings(settings.momentum)
    count = stats.count
    if count < FEWEST_VALUES:
        said = f"{count} value{'s' * (count > 1)} each."
        findings.append(rules.FEW_VALUES.finding("every channel", said, {"count": count}))
    if constant.any() and count > 1:
        said = f"every value of a channel is the same: {span(stats.min[constant], '.6g')}."
        findings += _at(rules.CONSTANT, constant, said, value=stats.min)
    return findings


def outside_findings(momentum: float | None) -> list[Finding]:
    """That a momentum is outside 0 to 1; None is the cumulative average."""
    if momentum is None or 0 <= momentum <= 1:
        return []
    return [rules.MOMENTUM.finding("momentum", f"it is {momentum:g}.", {"momentum": momentum})]


def _not_finite(stats: ChannelStats, channels: NDArray[Any]) -> list[Finding]:
    """BN001: how many NaN and Inf there are, and where the first is."""
    first = stats.first_nonfinite[int(channels.argmax())]
    return _at(
        rules.NOT_FINITE,
        channels,
        f"{int(stats.nan.sum())} NaN and {int(stats.inf.sum())} Inf in all, of {stats.count} "
        f"values a channel; the first at {list(first or ())}.",
        extent=(*channel_extent("NaN", stats.nan > 0), *channel_extent("Inf", stats.inf > 0)),
        nan=stats.nan,
        inf=stats.inf,
        first_nonfinite=stats.first_nonfinite,
    )


def _overflow(stats: ChannelStats, finite: NDArray[Any], parameter_dtype: str) -> list[Finding]:
    """BN004: squares that add up to more than the dtype holds that PyTorch adds them in."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = stats.var * stats.count
    kept = "float64" if parameter_dtype == "float64" else "float32"
    channels = finite & (squares > DTYPES[kept].largest)
    worst = _worst(channels, squares)
    return _at(
        rules.OVERFLOW,
        channels,
        f"the squared deviations add up to {squares[worst]:.6g} in channel {worst}, "
        f"beyond {kept}'s largest.",
        sum_of_squares=squares,
    )


def _ill_conditioned(stats: ChannelStats, finite: NDArray[Any]) -> list[Finding]:
    """BN002: a mean so far off 0 that float32 has few digits left for what varies."""
    std = np.sqrt(np.where(finite, stats.var, np.nan))
    with np.errstate(divide="ignore", invalid="ignore"):
        condition = np.where(finite & (std > 0), np.abs(stats.mean) / std, 0.0)
    channels = condition > WORST_CONDITION
    worst = _worst(channels, condition)
    return _at(
        rules.ILL_CONDITIONED,
        channels,
        f"|mean|/std is up to {condition[worst]:.6g} (channel {worst}); float32 keeps the "
        f"normalised values to about {condition[worst] * 2.0**-24:.1g}.",
        condition=condition,
    )


def _below_eps(
    what: str, var: FloatArray, eps: float, channels: NDArray[Any] | bool = True
) -> list[Finding]:
    """BN003, in some channels or all; `var` is what stands under the root, and `what` it is."""
    below = channels & (var >= 0) & (var < eps)
    if not below.any():
        return []
    said = f"{what} is {span(var[below], '.6g')}, below eps {eps:.6g}."
    place = "running_var" if what == "running_var" else "channels"
    return _at(rules.BELOW_EPS, below, said, place, var=var)


def _not_positive(running_var: FloatArray, eps: float) -> list[Finding]:
    """BN006: a root of 0 or of less."""
    channels = ~(running_var + eps > 0)
    first = int(channels.argmax())
    return _at(
        rules.NOT_POSITIVE,
        channels,
        f"running_var is {running_var[first]:.6g} in channel {first}.",
        "running_var",
        channel_extent("not positive", channels),
        running_var=running_var,
    )


def state_findings(state: Mapping[str, FloatArray | None]) -> list[Finding]:
    """A finding for each of the layer's tensors, by name, that holds NaN or Inf."""
    findings = []
    for name, values in state.items():
        if values is None or np.isfinite(values).all():
            continue
        bad = np.flatnonzero(~np.isfinite(values))
        findings.append(
            rules.STATE_NOT_FINITE.finding(
                name,
                f"{odd_values(values, ~np.isfinite(values))}.",
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
            f"{int(counts.sum())} NaN or Inf, in {name_channels(bad)}.",
            {**_listed(bad), "not_finite": counts[bad[:MOST_EVIDENCE]].tolist()},
            extent=(
                *channel_extent("NaN", np.isnan(grad_output).any(others)),
                *channel_extent("Inf", np.isinf(grad_output).any(others)),
            ),
        )
    ]


def fresh_statistics_finding() -> Finding:
    """The warning for evaluation without any state."""
    return rules.FRESH_STATISTICS.finding(
        "running statistics", "none were given; a fresh module's 0 and 1 were used.", {}
    )


def inputs_findings(
    f_ratio: FloatArray, samples: FRatio | None, sorted_ones: NDArray[Any] | None
) -> list[Finding]:
    """What the spread between inputs shows; `f_ratio` (num_features,) counts each value as one.

    `samples` is the ratio by samples, and `sorted_ones` the channels in which it is beyond chance;
    None where the samples are not known.
    """
    if samples is not None and sorted_ones is not None and sorted_ones.any():
        found = np.flatnonzero(sorted_ones).tolist()
        worst = max(found, key=lambda channel: float(samples.ratio[channel]))
        return [
            rules.INPUTS_DIFFER.finding(
                "inputs",
                f"the variance between their means is up to {times(samples.ratio[worst])} what "
                f"shuffled samples would leave (channel {worst}; {len(found)} of {len(f_ratio)} "
                f"beyond {samples.border:.3g}).",
                {
                    "channels": found,
                    "f_ratio": samples.ratio[found].tolist(),
                    "by": "samples",
                    "border": samples.border,
                    "freedom": list(samples.freedom),
                },
                hint="Batches sorted by class, domain or time do this: shuffle the samples first.",
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
            f"the variance between their means is up to {f_ratio[worst]:.3g} times what "
            f"independent values would leave (channel {worst}; {len(apart)} of {len(f_ratio)} "
            f"beyond {MOST_APART:g}).",
            {
                "channels": apart,
                "f_ratio": [float(f_ratio[channel]) for channel in apart],
                "by": "values",
                "border": MOST_APART,
            },
            severity=Severity.INFO,
        )
    ]


def _at(
    rule: Rule,
    channels: NDArray[Any],
    message: str,
    place: str = "channels",
    extent: tuple[Member, ...] = (),
    **evidence: NDArray[Any] | Sequence[Any],
) -> list[Finding]:
    """One finding for the channels of a mask, none for none; `evidence` has a value a channel."""
    found = np.flatnonzero(channels)
    if not found.size:
        return []
    chosen = {
        name: [_plain(values[channel]) for channel in found[:MOST_EVIDENCE]]
        for name, values in evidence.items()
    }
    numbers = {**_listed(found), **chosen}
    return [rule.finding(name_channels(found), message, numbers, extent=extent, places=(place,))]


def _worst(channels: NDArray[Any], values: FloatArray) -> int:
    """The channel of the largest value, among those of a mask; any where the mask is empty."""
    return int(np.argmax(np.where(channels, values, -np.inf)))


def _listed(channels: NDArray[Any]) -> dict[str, Value]:
    """Channels as evidence: the first MOST_EVIDENCE of them, and the number where it is larger."""
    listed: dict[str, Value] = {"channels": channels[:MOST_EVIDENCE].tolist()}
    if len(channels) > MOST_EVIDENCE:
        listed["channel_count"] = len(channels)
    return listed


def _plain(value: Any) -> Any:
    """A number of NumPy's as one of Python's; anything else as it is."""
    return value.item() if hasattr(value, "item") else value
