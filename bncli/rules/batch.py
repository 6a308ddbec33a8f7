"""BN0xx: what a batch's own statistics show before any comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES
from bncli.report import Finding, Severity
from bncli.rules.interface import Rule

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import BatchNormSettings, ChannelStats, FloatArray

NOT_FINITE = Rule(
    "BN001",
    "not-finite",
    Severity.ERROR,
    "A channel holds NaN or Inf: its statistics, and its whole output in training, are lost.",
    "Look at what produced the input; a NaN that reaches running_mean or running_var stays there.",
)
ILL_CONDITIONED = Rule(
    "BN002",
    "ill-conditioned",
    Severity.WARNING,
    "|mean| is so large against std that float32 loses the digits of the normalised values.",
    "Subtract a constant from the input, or normalise in float64.",
)
BELOW_EPS = Rule(
    "BN003",
    "variance-below-eps",
    Severity.WARNING,
    "The variance is below eps, so that eps and not the data sets the scale.",
    "Check that the channel is alive, scale the input up, or lower eps.",
)
OVERFLOW = Rule(
    "BN004",
    "overflow",
    Severity.WARNING,
    "The squared deviations overflow the dtype that PyTorch adds them in: its output is the bias.",
    "Scale the input down.",
)
FRESH_STATISTICS = Rule(
    "BN005",
    "fresh-running-statistics",
    Severity.WARNING,
    "Evaluation without a state uses a fresh module's running_mean 0 and running_var 1.",
    "Give --state, or --running-mean and --running-var.",
)
NOT_POSITIVE = Rule(
    "BN006",
    "running-variance-not-positive",
    Severity.ERROR,
    "running_var + eps is not above 0: the output is not finite.",
    "Look at how running_var was made; a variance is never negative.",
)
MOMENTUM = Rule(
    "BN007",
    "momentum-out-of-range",
    Severity.WARNING,
    "momentum is the weight of the new batch; outside [0, 1] the update extrapolates.",
    "Keras, Flax and ONNX name the weight of the old value instead: their 0.9 is 0.1 here.",
)
FEW_VALUES = Rule(
    "BN008",
    "few-values",
    Severity.INFO,
    "Fewer than 8 values a channel: the batch variance is mostly noise.",
    "Use a larger batch, or a normalisation that does not need one.",
)
CONSTANT = Rule(
    "BN009",
    "constant",
    Severity.INFO,
    "All values of a channel are equal: its variance is 0, and in training its output the bias.",
    "Check that the channel is alive.",
)
INPUTS_DIFFER = Rule(
    "BN010",
    "inputs-differ",
    Severity.INFO,
    "The inputs' means lie further apart than those of shuffled batches would.",
    "Batches sorted by class or domain do this, and so do values that go together, such as pixels.",
)
STATE_NOT_FINITE = Rule(
    "BN011",
    "state-not-finite",
    Severity.ERROR,
    "A weight, bias or running statistic of the layer is NaN or Inf.",
    "Look at where the checkpoint came from; no batch mends a NaN in the running statistics.",
)

RULES = (
    NOT_FINITE,
    ILL_CONDITIONED,
    BELOW_EPS,
    OVERFLOW,
    FRESH_STATISTICS,
    NOT_POSITIVE,
    MOMENTUM,
    FEW_VALUES,
    CONSTANT,
    INPUTS_DIFFER,
    STATE_NOT_FINITE,
)

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
    import numpy as np

    findings = []

    def report(
        rule: Rule,
        channels: NDArray[Any],
        message: Callable[[int], str],
        key: Callable[[int], float] | None = None,
        **evidence: Sequence[Any],
    ) -> None:
        found = [int(channel) for channel in np.flatnonzero(channels)]
        if not found:
            return
        worst = max(found, key=key) if key else found[0]
        chosen = {name: [values[channel] for channel in found] for name, values in evidence.items()}
        findings.append(
            rule.finding(name_channels(found), message(worst), {"channels": found, **chosen})
        )

    finite = (stats.nan + stats.inf) == 0
    std = np.sqrt(np.where(finite, stats.var, np.nan))
    with np.errstate(divide="ignore", invalid="ignore"):
        condition = np.where(finite & (std > 0), np.abs(stats.mean) / std, 0.0)
    several = stats.count > 1

    report(
        NOT_FINITE,
        ~finite,
        lambda c: (
            f"{int(stats.nan.sum())} NaN and {int(stats.inf.sum())} Inf in all, of {stats.count} "
            f"values a channel; the first at {list(stats.first_nonfinite[c] or ())}."
        ),
        nan=stats.nan.tolist(),
        inf=stats.inf.tolist(),
        first_nonfinite=stats.first_nonfinite,
    )
    if settings.normalizes_with_batch:
        with np.errstate(over="ignore", invalid="ignore"):
            squares = stats.var * stats.count
        kept = "float64" if parameter_dtype == "float64" else "float32"
        report(
            OVERFLOW,
            finite & (squares > DTYPES[kept].largest),
            lambda c: (
                f"the squared deviations add up to {squares[c]:.6g}, beyond {kept}'s largest."
            ),
            key=lambda c: float(squares[c]),
            sum_of_squares=squares.tolist(),
        )
    if parameter_dtype != "float64":
        report(
            ILL_CONDITIONED,
            condition > WORST_CONDITION,
            lambda c: (
                f"|mean|/std is up to {condition[c]:.6g} (channel {c}); float32 keeps the "
                f"normalised values to about {condition[c] * 2.0**-24:.1g}."
            ),
            key=lambda c: float(condition[c]),
            condition=condition.tolist(),
        )
    constant = finite & (stats.min == stats.max)
    # What stands under the root: the batch's variance, or the stored one.
    var = stats.var if running_var is None else running_var
    dead = constant if running_var is None else np.zeros_like(constant)
    report(
        BELOW_EPS,
        (var >= 0) & (var < settings.eps) & ~dead,
        lambda c: (
            f"{'the variance' if running_var is None else 'running_var'} is as low as "
            f"{var[c]:.6g}, below eps {settings.eps:.6g}."
        ),
        key=lambda c: -float(var[c]),
        var=var.tolist(),
    )
    if running_var is not None:
        report(
            NOT_POSITIVE,
            ~(running_var + settings.eps > 0),
            lambda c: f"running_var is {running_var[c]:.6g} in channel {c}.",
            running_var=running_var.tolist(),
        )
    if settings.momentum is not None and not 0 <= settings.momentum <= 1:
        findings.append(
            MOMENTUM.finding(
                "momentum", f"it is {settings.momentum:g}.", {"momentum": settings.momentum}
            )
        )
    if stats.count < FEWEST_VALUES:
        findings.append(
            FEW_VALUES.finding(
                "every channel", f"{stats.count} value{'s' * several} each.", {"count": stats.count}
            )
        )
    report(
        CONSTANT,
        constant & several,
        lambda c: f"every value is {stats.min[c]:.6g}.",
        value=stats.min.tolist(),
    )
    return findings


def state_findings(state: Mapping[str, FloatArray | None]) -> list[Finding]:
    """A finding for each of the layer's tensors, by name, that holds NaN or Inf."""
    import numpy as np

    findings = []
    for name, values in state.items():
        if values is None or np.isfinite(values).all():
            continue
        bad = [int(channel) for channel in np.flatnonzero(~np.isfinite(values))]
        findings.append(
            STATE_NOT_FINITE.finding(
                name, f"{values[bad[0]]} in {name_channels(bad)}.", {"channels": bad}
            )
        )
    return findings


def fresh_statistics_finding() -> Finding:
    """The warning for evaluation without any state."""
    return FRESH_STATISTICS.finding(
        "running statistics", "none were given; a fresh module's 0 and 1 were used.", {}
    )


def inputs_findings(f_ratio: FloatArray) -> list[Finding]:
    """What the spread between inputs shows; `f_ratio` (num_features,) is 1 when shuffled."""
    import numpy as np

    apart = [int(channel) for channel in np.flatnonzero(f_ratio > MOST_APART)]
    if not apart:
        return []
    worst = max(apart, key=lambda channel: float(f_ratio[channel]))
    return [
        INPUTS_DIFFER.finding(
            "inputs",
            f"the variance between their means is up to {f_ratio[worst]:.3g} times what "
            f"independent values would leave (channel {worst}; {len(apart)} of {len(f_ratio)} "
            f"beyond {MOST_APART:g}).",
            {"channels": apart, "f_ratio": [float(f_ratio[channel]) for channel in apart]},
        )
    ]


def name_channels(channels: list[int]) -> str:
    """Channels as a person lists them: "channels 0, 1, 2 and 61 more"."""
    if len(channels) == 1:
        return f"channel {channels[0]}"
    if len(channels) <= 4:
        return f"channels {', '.join(map(str, channels[:-1]))} and {channels[-1]}"
    return f"channels {', '.join(map(str, channels[:3]))} and {len(channels) - 3} more"
