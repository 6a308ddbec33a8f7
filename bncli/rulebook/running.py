"""BN7xx: what becomes of running statistics over many batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.light import np
from bncli.report import Finding, Severity
from bncli.rulebook.interface import Rule, channel_extent, name_channels, odd_values, times

if TYPE_CHECKING:
    from bncli.model import RunningStats
    from bncli.running_stats.conventions import Convention
    from bncli.running_stats.scatter import Population
    from bncli.running_stats.simulation import Trajectory

INVERTED = Rule(
    "BN701",
    "momentum-inverted",
    Severity.WARNING,
    "The new batch weighs more than all before it: the momentum is probably another framework's.",
    "PyTorch's momentum weighs the new batch, that of Keras, Flax and ONNX the old value: their "
    "0.9 is its 0.1.",
    symptom="Evaluation follows the last batch or two: it is noisy, and swings from one checkpoint "
    "to the next.",
    arithmetic="The new batch's weight a is above 0.5 and not the framework's own default. The "
    "average then lasts (2 - a)/a batches: 1.2 at a = 0.9, where 19 were meant.",
    certainty="Likely. Nothing forbids such a momentum.",
    lookalike="A momentum of 1 on purpose, to take the statistics of one large batch.",
    seen=(
        "huggingface/transformers#19454",
        "ludwig-ai/ludwig#2100",
        "pytorch/examples#289",
    ),
)
INITIAL = Rule(
    "BN702",
    "initial-value-weighs",
    Severity.WARNING,
    "What the buffers began with still weighs more than 1 % in the running statistics.",
    "Run more batches, give the new batch more weight, or use momentum none.",
    symptom="Evaluation of a short run is worse than its training, most where the true mean and "
    "variance are far from 0 and 1.",
    arithmetic="The product of 1 - a over all updates is above 0.01. At a = 0.1 it falls below "
    "after 44 updates, at 0.01 after 459, at 0.001 after 4603.",
    certainty="Certain for these batches and this momentum.",
    lookalike="Buffers that begin at a trained checkpoint's: what they keep of it may be wanted. A "
    "convention that divides its initial zeros out again, as Haiku and Caffe do, keeps none.",
    seen=("google/flax#1360",),
)
UNSHUFFLED = Rule(
    "BN703",
    "batches-not-shuffled",
    Severity.WARNING,
    "The batches' means lie further apart than those of shuffled samples: running_var misses the "
    "variance between them.",
    "Shuffle the samples; or take the statistics once more over shuffled batches.",
    symptom="Training is good and evaluation bad, on data sorted by class, domain or time.",
    arithmetic="The variance of a population is the mean variance within batches plus the variance "
    "between their means. running_var holds the first part. What shuffled batches leave for the "
    "second follows from the scatter of their samples' means, an image with all its pixels being "
    "one sample: var/n for batches of n independent values. Here it is more than three times that, "
    "and more than chance leaves once in a million channels (an F distribution).",
    certainty="That running_var misses this variance is certain. That it came from the order of "
    "the samples is likely.",
    lookalike="A table of batch statistics tells nothing of samples, and each value counts as one: "
    "images, whose pixels are alike, differ in their means even when they are shuffled. There it "
    "is a note.",
)
ONE_VALUE = Rule(
    "BN704",
    "one-value-batch",
    Severity.ERROR,
    "A batch has one value a channel, and so no unbiased variance.",
    "Drop the last batch (drop_last=True, --drop-last), or choose another batch size.",
    symptom='Training stops with "Expected more than 1 value per channel when training", often '
    "at the end of the first epoch.",
    arithmetic="The batch's samples times its pixels are 1. The unbiased variance is 0/0. With "
    "one pixel, it is the last batch wherever the number of samples is one more than a multiple "
    "of the batch size.",
    certainty="Certain: PyTorch refuses such a batch, and its counter has moved by then.",
    lookalike="One image with several pixels is a batch like any other.",
    seen=("pytorch/pytorch#7716",),
)
STALLED = Rule(
    "BN705",
    "half-precision-stall",
    Severity.WARNING,
    "Half-precision buffers stand still: the steps left are smaller than half of their last place.",
    "Keep the running statistics in float32, as .half() and .bfloat16() do not.",
    symptom="The buffers stop short of the data's mean and variance, however long the training.",
    arithmetic="An update takes a times the buffer away and adds a times the batch: float16 "
    "rounds their difference to the buffer's last place, bfloat16 each of them. Below half of "
    "that place they come to nothing. On the way from 0 to 1 bfloat16 with a = 0.001 stops at "
    "0.5, float16 with a = 0.1 at 0.998.",
    certainty="Certain for these batches: the exact update, run beside it, has come further.",
    lookalike="Buffers of few updates are far from the data too; that is BN702.",
)
IMPOSSIBLE = Rule(
    "BN706",
    "running-variance-impossible",
    Severity.ERROR,
    "running_var is negative or not finite: evaluation gives NaN, or the same for every input.",
    "Keep the momentum between 0 and 1; keep NaN, Inf and values whose squares overflow out of the "
    "input. NaN and Inf never heal.",
    symptom="Evaluation gives NaN from some batch on, or the bias alone where running_var is Inf; "
    "training may look as before.",
    arithmetic="running_var < 0, NaN or Inf after an update. With a momentum outside 0 to 1 one of "
    "the two weights is negative. A variance beyond the buffers' largest number is Inf: above "
    "65504 in float16. NaN or Inf times 0 is NaN, so that no later batch replaces either.",
    certainty="Certain for NaN and Inf. A negative value that eps outweighs still gives a root.",
    lookalike="A checkpoint that holds such a value already is BN201 to BN204.",
    seen=("pytorch/pytorch#1206",),
)

MOST_NEW_WEIGHT = 0.5
"""The weight of the new batch above which it outweighs all before it."""

STALLED_BY = 0.01
"""The distance from the exact value that is remarked: in standard deviations for running_mean,
relative to itself for running_var. Either moves the output by 1 % at most."""


KEEP = (
    "Nothing, if it is meant to stay; else run more batches, give the new batch more weight, or "
    "use momentum none."
)


def began_with(*, trained: bool) -> str:
    """What to call that which the buffers began with."""
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
    lasts = f"{(2 - new) / new:.3g}"
    return [
        INVERTED.finding(
            "momentum",
            f"in {row.name} {momentum:.6g} gives the new batch a weight of {new:.6g}, and the "
            f"average lasts {lasts} batch{'es' * (lasts != '1')}. If it was meant as in {other}, "
            f"write {meant:.6g}.",
            {
                "momentum": momentum,
                "new_weight": converted_momentum(momentum, row, pytorch),
                "meant": meant,
            },
        )
    ]


def trajectory_findings(
    row: Convention, trajectory: Trajectory, *, finite: bool, trained: bool = False
) -> list[Finding]:
    """What the buffers of one convention have come to; `finite` says that all batches are.

    `trained` says that they began with statistics and not with initial values.
    """
    from bncli.running_stats.plan import FADED

    findings = []
    weight = trajectory.final_weight
    # Above 1 it grows, at a momentum outside 0 to 1: more batches are no mend, and BN007 says so.
    if FADED < abs(weight) <= 1 and trajectory.impossible is None:
        findings.append(
            INITIAL.finding(
                row.name,
                f"{began_with(trained=trained)} weighs {weight:.2%} after {trajectory.updates} "
                f"update{'s' * (trajectory.updates != 1)}.",
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
                f"it was so after step {trajectory.impossible} already; in the end it is {now}."
                + ("" if finite else " The input is not finite itself."),
                {"step": trajectory.impossible, "channels": np.flatnonzero(odd).tolist()},
                extent=channel_extent("impossible", odd),
            )
        )
    return findings


def scatter_findings(scatter: Population) -> list[Finding]:
    """Whether the batches are further apart than shuffled ones would be."""
    f_ratio = scatter.f_ratio.ratio
    beyond = scatter.f_ratio.beyond_chance(scatter.between, scatter.var, scatter.mean)
    apart = np.flatnonzero(beyond).tolist()
    if not apart:
        return []
    with np.errstate(invalid="ignore", divide="ignore"):
        missing = scatter.between / scatter.var
    worst = max(apart, key=lambda channel: float(missing[channel]))
    return [
        UNSHUFFLED.finding(
            name_channels(apart),
            f"the variance between batches is {times(f_ratio[worst])} what shuffled ones "
            f"leave, and {missing[worst]:.1%} of the population's variance (channel {worst}).",
            {
                "channels": apart,
                "f_ratio": f_ratio[apart].tolist(),
                "share": missing[apart].tolist(),
                "by": "samples" if scatter.by_samples else "values",
                "border": scatter.f_ratio.border,
            },
            extent=("by samples",) if scatter.by_samples else (),
            places=("channels",),
            severity=None if scatter.by_samples else Severity.INFO,
        )
    ]


def one_value_findings(
    rows: list[Convention],
    batches: list[int],
    number: int,
    samples: int | None,
    size: int | None,
) -> list[Finding]:
    """Batches with one value a channel, counted from 0, where a convention has no number for them.

    Those of frozen steps are not among `batches`: evaluation takes them like any other.

    `number` is how many batches there are, `samples` the size of the set that was cut into batches
    of `size`, None otherwise.
    """
    minding = [row.name for row in rows if row.one_value in ("refused", "nan")]
    if not batches or not minding:
        return []
    if samples is not None and size is not None and size > 1:
        why = f"{samples} samples in batches of {size} leave a last one of 1 sample"
    else:
        why = f"{len(batches)} of {number} batches, the first of them batch {batches[0] + 1}"
    refusing = [row.name for row in rows if row.one_value == "refused"]
    does = (
        f"{', '.join(refusing)} refuses it, here after it has counted it"
        if refusing
        else f"{', '.join(minding)} computes 0/0"
    )
    return [
        ONE_VALUE.finding(
            "batches",
            f"{why}; {does}.",
            {"batches": batches[:100], "number": len(batches), "samples": samples},
        )
    ]


def stall_findings(
    row: Convention, dtype: str, held: RunningStats, exact: RunningStats
) -> list[Finding]:
    """Whether buffers of `dtype` have come to another end than exact ones."""
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
            f"{name} is {getattr(held, name)[worst]:.6g} in {dtype}, where exact arithmetic has "
            f"{getattr(exact, name)[worst]:.6g} (channel {worst}).",
            {
                "channels": bad,
                "mean_off_in_std": off_mean[bad].tolist(),
                "var_off": off_var[bad].tolist(),
            },
            places=(row.name,),
        )
    ]
