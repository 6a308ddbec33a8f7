"""BN7xx: what becomes of running statistics over many batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.light import np
from bncli.report import Certainty, Finding, Severity
from bncli.rulebook.interface import (
    Rule,
    channel_extent,
    name_channels,
    odd_values,
    percent,
    times,
)

if TYPE_CHECKING:
    from bncli.model import RunningStats
    from bncli.running_stats.conventions import Convention
    from bncli.running_stats.scatter import Population
    from bncli.running_stats.simulation import Trajectory

INVERTED = Rule(
    "BN701",
    "momentum-inverted",
    Severity.WARNING,
    "momentum gives the newest batch more weight than all before it",
    "If the value comes from another framework, use 1 minus it. PyTorch's momentum is the weight "
    "of the new batch; that of Keras, Flax and ONNX is the weight of the old value.",
    symptom="Evaluation follows the last one or two batches: it is noisy, and swings from one "
    "checkpoint to the next.",
    arithmetic="The new batch's weight a is above 0.5 and is not the framework's default. The "
    "average then spans (2 - a)/a batches: 1.2 at a = 0.9, where 19 were meant.",
    certainty="Likely a mistake, although nothing forbids such a momentum.",
    lookalike="A momentum of 1 may be intended, to take the statistics from one large batch.",
    seen=(
        "huggingface/transformers#19454",
        "ludwig-ai/ludwig#2100",
        "pytorch/examples#289",
    ),
    sure=Certainty.LIKELY,
)
INITIAL = Rule(
    "BN702",
    "initial-value-weighs",
    Severity.WARNING,
    "more than 1% of each running statistic is still its initial value",
    "Run more batches, give the new batch more weight, or, in PyTorch, use momentum=None, which "
    "averages all batches alike.",
    symptom="After a short run, evaluation is worse than training, most of all where the true mean "
    "and variance are far from 0 and 1.",
    arithmetic="The product of 1 - a over all updates is above 0.01. At a = 0.1 it falls below "
    "that after 44 updates, at 0.01 after 459, at 0.001 after 4603.",
    certainty="Certain for these batches and this momentum.",
    lookalike="Buffers that start from a trained checkpoint may be meant to keep part of it. A "
    "convention that divides its initial zeros out again, as those of Haiku and Caffe do, keeps "
    "nothing of them.",
    seen=("google/flax#1360",),
)
UNSHUFFLED = Rule(
    "BN703",
    "batches-not-shuffled",
    Severity.WARNING,
    "the batch means differ by more than chance, and running_var misses this variance",
    "Shuffle the samples, or re-estimate the running statistics over shuffled batches.",
    symptom="The model is good in training and bad in evaluation, on data sorted by class, domain "
    "or time.",
    arithmetic="The variance of a population is the mean variance within batches plus the variance "
    "between their means; running_var holds only the first. Even shuffled batches have some "
    "variance between their means. How much to expect follows from the scatter of the sample "
    "means, where an image with all its pixels counts as one sample; for batches of n independent "
    "values it is var/n. Here it is more than three times that, and above the level that chance "
    "exceeds in one channel in a million (an F distribution).",
    certainty="Certain that running_var misses this variance, and likely that the order of the "
    "samples is the cause. For a table of statistics, which holds no samples, the finding is only "
    "likely.",
    lookalike="In a table of batch statistics, which holds no samples, each value counts as one "
    "sample. The means of images, whose pixels are alike, then differ even when they are shuffled, "
    "so that the finding is only a note.",
    less_sure=(Certainty.LIKELY,),
    milder=Severity.INFO,
)
ONE_VALUE = Rule(
    "BN704",
    "one-value-batch",
    Severity.ERROR,
    "a batch has one value per channel, so its unbiased variance is undefined",
    "Drop the last batch (drop_last=True, --drop-last), or choose another batch size.",
    symptom='Training stops with "Expected more than 1 value per channel when training", often '
    "at the end of the first epoch.",
    arithmetic="The number of samples in the batch times the number of pixels is 1, so the "
    "unbiased variance is 0/0. With one pixel, this is the last batch whenever the number of "
    "samples is one more than a multiple of the batch size.",
    certainty="Certain: PyTorch refuses such a batch, and has already increased its counter by "
    "then.",
    lookalike="One image with several pixels is a batch like any other.",
    seen=("pytorch/pytorch#7716",),
)
STALLED = Rule(
    "BN705",
    "half-precision-stall",
    Severity.WARNING,
    "half-precision buffers stopped short of the exact statistics",
    "Keep the running statistics in float32; .half() and .bfloat16() convert them too.",
    symptom="The buffers stop short of the data's mean and variance, however long the training.",
    arithmetic="An update subtracts a times the buffer and adds a times the batch: float16 rounds "
    "their difference to the buffer's last place, bfloat16 rounds each of them. A step below half "
    "of that place changes nothing. On the way from 0 to 1, bfloat16 with a = 0.001 stops at 0.5, "
    "float16 with a = 0.1 at 0.998.",
    certainty="Certain for these batches: the exact update, computed alongside, has come further.",
    lookalike="Buffers are also far from the data's statistics after only a few updates; that is "
    "BN702.",
)
IMPOSSIBLE = Rule(
    "BN706",
    "running-variance-impossible",
    Severity.ERROR,
    "running_var becomes negative, NaN or Inf",
    "Keep the momentum between 0 and 1, and keep NaN, Inf and values whose squares overflow out of "
    "the input. Later batches cannot remove a NaN or Inf from a running statistic.",
    symptom="Evaluation gives NaN from some batch on, or only the bias where running_var is Inf; "
    "training may look as before.",
    arithmetic="running_var is negative, NaN or Inf after an update. With a momentum outside 0 to "
    "1, one of the two weights is negative. A variance beyond the buffers' largest number, 65504 "
    "in float16, is Inf. A NaN stays NaN in every later update, and an Inf stays Inf or becomes "
    "NaN, so no later batch removes them.",
    certainty="Certain. A negative value smaller in magnitude than eps still allows the square "
    "root, because eps is added first.",
    lookalike="A checkpoint that already holds such a value is BN201 to BN204.",
    seen=("pytorch/pytorch#1206",),
)

MOST_NEW_WEIGHT = 0.5
"""The weight of the new batch above which it has more than all before it."""

STALLED_BY = 0.01
"""The distance from the exact value above which it is reported: in standard deviations for
running_mean, relative to itself for running_var. Either moves the output by 1% at most."""

LAST_ALONE = "Give the newest batch less weight, unless its statistics alone are wanted."
"""The fix for a momentum that keeps nothing of the batches before."""

KEEP = (
    "If that state is not meant to stay, run more batches, give the new batch more weight, or, in "
    "PyTorch, use momentum=None."
)


def began_with(*, trained: bool) -> str:
    """What to call the values that the buffers began with."""
    return "the state you started from" if trained else "the initial value"


def momentum_findings(row: Convention, momentum: float | None) -> list[Finding]:
    """Whether the momentum looks like another framework's; None is the cumulative average."""
    if momentum is None or (row.momentum is not None and momentum == float(row.momentum)):
        return []
    new = row.new_weight(momentum)
    if not MOST_NEW_WEIGHT < new <= 1:
        return []
    from bncli.running_stats.conventions import converted_momentum
    from bncli.running_stats.frameworks import convention

    pytorch = convention("pytorch")
    other = next(
        name
        for name in ("keras3", "pytorch")
        if (convention(name).weighs == "old") != (row.weighs == "old")
    )
    meant = converted_momentum(momentum, convention(other), row)
    hint = f"If {momentum:.6g} follows the convention of {other}, use {meant:.6g} in {row.name}."
    if new == 1:
        hint = LAST_ALONE
    return [
        INVERTED.finding(
            "momentum",
            f"in {row.name}, momentum {momentum:.6g} gives the newest batch {percent(new)} of the "
            "weight",
            {
                "momentum": momentum,
                "new_weight": converted_momentum(momentum, row, pytorch),
                "meant": meant,
            },
            detail=span_of_average(new),
            hint=hint,
        )
    ]


def span_of_average(new_weight: float) -> str:
    """How many batches an average spans that gives the newest one this weight, as a sentence."""
    batches = f"{(2 - new_weight) / new_weight:.3g}"
    return f"The average spans {batches} batch{'es' * (batches != '1')}."


def trajectory_findings(
    row: Convention, trajectory: Trajectory, *, finite: bool, trained: bool = False
) -> list[Finding]:
    """What the buffers of one convention hold in the end; `finite` says that all batches are.

    `trained` says that the buffers began with statistics and not with initial values.
    """
    from bncli.running_stats.plan import FADED

    findings = []
    weight = trajectory.final_weight
    # Above 1 it grows, at a momentum outside 0 to 1: more batches do not help, and BN007 says so.
    if FADED < abs(weight) <= 1 and trajectory.impossible is None:
        findings.append(
            INITIAL.finding(
                row.name,
                f"{percent(weight)} of each statistic is still {began_with(trained=trained)} after "
                f"{trajectory.updates} update{'s' * (trajectory.updates != 1)}",
                {"initial_weight": weight, "updates": trajectory.updates},
                hint=KEEP if trained else "",
            )
        )
    if trajectory.impossible is not None:
        var = trajectory.final.running_var
        odd = ~(np.isfinite(var) & (var >= 0))
        now = odd_values(var, odd) or "positive again"
        findings.append(
            IMPOSSIBLE.finding(
                row.name,
                f"running_var is impossible after step {trajectory.impossible}; in the end it is "
                f"{now}",
                {"step": trajectory.impossible, "channels": np.flatnonzero(odd).tolist()},
                detail="" if finite else "The input itself is not finite.",
                extent=channel_extent("impossible", odd),
            )
        )
    return findings


def scatter_findings(scatter: Population) -> list[Finding]:
    """Whether the batches' means differ by more than those of shuffled batches would."""
    f_ratio = scatter.f_ratio.ratio
    beyond = scatter.f_ratio.beyond_chance(scatter.between, scatter.var, scatter.mean)
    apart = np.flatnonzero(beyond).tolist()
    if not apart:
        return []
    with np.errstate(invalid="ignore", divide="ignore"):
        missing = scatter.between / scatter.var
    worst = max(apart, key=lambda channel: float(missing[channel]))
    by_chance = "shuffled samples" if scatter.by_samples else "independent values"
    where = f"in channel {worst}, " if len(apart) > 1 else ""
    return [
        UNSHUFFLED.finding(
            name_channels(apart),
            f"{where}the variance between batches is {times(f_ratio[worst])} what {by_chance} "
            "would show",
            {
                "channels": apart,
                "f_ratio": f_ratio[apart].tolist(),
                "share": missing[apart].tolist(),
                "by": "samples" if scatter.by_samples else "values",
                "border": scatter.f_ratio.border,
            },
            detail=f"It is {percent(missing[worst])} of the population's variance there, which "
            "running_var misses.",
            extent=("by samples",) if scatter.by_samples else (),
            places=("channels",),
            severity=None if scatter.by_samples else Severity.INFO,
            sure=None if scatter.by_samples else Certainty.LIKELY,
        )
    ]


def one_value_findings(
    rows: list[Convention],
    batches: list[int],
    number: int,
    samples: int | None,
    size: int | None,
) -> list[Finding]:
    """Whether batches have one value a channel where a convention has no variance for them.

    `batches` are their indices, from 0, without those of frozen steps: evaluation takes them like
    any other. `number` is how many batches there are, `samples` the size of the set that was cut
    into batches of `size`, None otherwise.
    """
    minding = [row.name for row in rows if row.one_value in ("refused", "nan")]
    if not batches or not minding:
        return []
    if samples is not None and size is not None and size > 1:
        said = f"{samples} samples in batches of {size} leave a last batch of 1 sample"
    elif len(batches) == 1:
        said = f"batch {batches[0] + 1} of {number} has one value per channel"
    else:
        said = f"{len(batches)} of {number} batches have one value per channel, the first is batch "
        said += f"{batches[0] + 1}"
    refusing = [row.name for row in rows if row.one_value == "refused"]
    several = len(refusing or minding) > 1
    who = f"The convention{'s' * several} {', '.join(refusing or minding)}"
    verb = "refuse" if refusing else "compute"
    what = "such a batch, here after counting it" if refusing else "0/0 for such a batch"
    return [
        ONE_VALUE.finding(
            "batches",
            said,
            {"batches": batches[:100], "number": len(batches), "samples": samples},
            detail=f"{who} {verb}{'s' * (not several)} {what}.",
        )
    ]


def stall_findings(
    row: Convention, dtype: str, held: RunningStats, exact: RunningStats
) -> list[Finding]:
    """Whether buffers of `dtype` end at other values than exact ones."""
    with np.errstate(invalid="ignore", divide="ignore"):
        std = np.sqrt(np.abs(exact.running_var))
        off_mean = np.abs(held.running_mean - exact.running_mean) / std
        off_var = np.abs(held.running_var / exact.running_var - 1)
    off = np.fmax(off_mean, off_var)
    off[~np.isfinite(held.running_mean + held.running_var)] = 0  # an overflow: BN706
    bad = np.flatnonzero(off > STALLED_BY).tolist()
    if not bad:
        return []
    worst = max(bad, key=lambda channel: float(off[channel]))
    name = "running_var" if off_var[worst] == off[worst] else "running_mean"
    return [
        STALLED.finding(
            f"{row.name} {name_channels(bad)}",
            f"{name} is {getattr(held, name)[worst]:.6g} in {dtype} and "
            f"{getattr(exact, name)[worst]:.6g} in exact arithmetic"
            + (f" (channel {worst})" if len(bad) > 1 else ""),
            {
                "channels": bad,
                "mean_off_in_std": off_mean[bad].tolist(),
                "var_off": off_var[bad].tolist(),
            },
            places=(row.name,),
        )
    ]
