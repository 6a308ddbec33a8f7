"""What to change where a normalisation or an update was made in another way than was expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.verify.identify.halves import range_text
from bncli.verify.identify.hypotheses import (
    AFTER_RELU,
    EVAL,
    FRESH,
    HELD,
    INVSTD_STORED,
    IS_INVSTD,
    KEPT_EPS,
    NO_AFFINE,
    NO_BIAS,
    NO_WEIGHT,
    SWAPPED,
    TRAINING,
    UNCENTERED,
    UNSCALED,
    eps_text,
)
from bncli.verify.identify.updates import APART, KEPT, STD, TOGETHER, TWICE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bncli.verify.identify.halves import EpsRange
    from bncli.verify.identify.hypotheses import Hypothesis, Known
    from bncli.verify.identify.updates import Update

STATISTICS = {
    SWAPPED: "Swap running_mean and running_var where they are loaded.",
    IS_INVSTD: "Compute 1 / sqrt(running_var + eps); running_var is not invstd.",
    INVSTD_STORED: "Store the variance in running_var, not invstd.",
    FRESH: "Load running_mean and running_var: the layer still has those of a new one.",
    UNCENTERED: "Subtract the mean.",
    UNSCALED: "Divide by sqrt(var + eps).",
    KEPT_EPS: "Store running_var without eps; eps is added when the layer runs.",
}
"""The fix for each odd use of the statistics."""

AFFINE = {
    NO_WEIGHT: "Multiply by weight.",
    NO_BIAS: "Add bias.",
    NO_AFFINE: "Multiply by weight and add bias.",
}
"""The fix for a weight or bias that is left out."""


def output_departure(
    made: Hypothesis, known: Known, eps_range: EpsRange | None = None
) -> tuple[str, str]:
    """How an output differs from what was expected, in a line, and the fix in sentences.

    `eps_range` holds every eps that explains it, None where that of `made` alone does.
    """
    odd = list(_odd_in_output(made, known, eps_range))
    if not odd:
        return f"the output was computed {made.way}", ""
    return "; ".join(claim for claim, _ in odd), " ".join(fix for _, fix in odd if fix)


def _odd_in_output(
    made: Hypothesis, known: Known, eps_range: EpsRange | None
) -> Iterator[tuple[str, str]]:
    """Each difference from PyTorch's own BatchNorm with the expected eps and mode, and its fix."""
    batch_norm = made.mode in (TRAINING, EVAL)
    if not batch_norm:
        yield (
            f"the output was computed by {made.mode}, but BatchNorm was expected",
            f"Use BatchNorm instead, or compare with {made.mode}.",
        )
    elif known.training is not None and known.training != (made.mode == TRAINING):
        other = EVAL if made.mode == TRAINING else TRAINING
        call = "eval()" if made.mode == TRAINING else "train()"
        yield (
            f"the output was computed in {made.mode} mode, but {other} mode was expected",
            f"Call {call} before the layer runs.",
        )
    if made.ddof == 1:
        yield (
            "the output was normalised by the unbiased variance",
            "Divide the batch variance by n, not by n - 1.",
        )
    if eps_range is not None:
        if not eps_range[0] <= known.eps <= eps_range[1]:
            yield (
                f"eps is {range_text(eps_range)}, but {eps_text(known.eps)} was expected",
                "Compare eps on both sides; the same output in float32 tells more of its digits.",
            )
    elif made.eps != known.eps:
        eps, expected = eps_text(made.eps), eps_text(known.eps)
        yield (
            f"eps is {eps}, but {expected} was expected",
            f"Set eps={eps} on the side that has {expected}.",
        )
    if made.outside:
        yield "eps is outside the root", "Add eps to the variance, under the root."
    if made.statistics and batch_norm:
        fix = "Normalise with the statistics of the whole batch."
        yield made.statistics, STATISTICS.get(made.statistics, fix)
    elif made.statistics.startswith(HELD):
        yield made.statistics, "Compute the statistics in float32."
    if made.affine:
        yield made.affine, AFFINE[made.affine]
    if made.view:
        taken = "the output was taken " if made.view == AFTER_RELU else ""
        yield f"{taken}{made.view}", _fix_of_view(made.view)


def _fix_of_view(view: str) -> str:
    """The fix for tensors that have to be looked at in another way."""
    if view == AFTER_RELU:
        return "Take the output before the activation."
    if "rounded to" in view:
        return "Keep float32, if half precision is not meant."
    if view.startswith("axis"):
        return "Say on which axis the channels are, with --channel-axis."
    if view.startswith("output channels") and view.endswith(("first", "last")):
        return "Transpose the output to the input's layout."
    return "Bring the channels into the same order on both sides."


def update_departure(made: Update) -> tuple[str, str]:
    """How an update differs from PyTorch's, in a line, and the fix in sentences."""
    odd = list(_odd_in_update(made))
    if not odd:
        return f"the update has {made.words}", ""
    return "; ".join(claim for claim, _ in odd), " ".join(fix for _, fix in odd if fix)


def _odd_in_update(made: Update) -> Iterator[tuple[str, str]]:
    """Each difference from PyTorch's update, whatever its momentum, and its fix."""
    variant = made.variant
    if made.weight == 0 and made.mean_weight:
        yield "running_mean was updated and running_var was not", "Update running_var too."
        return
    if made.variance == "biased":
        yield (
            "running_var takes the biased variance, but PyTorch's takes the unbiased one",
            "Multiply the batch variance by n / (n - 1) before it enters running_var.",
        )
    elif made.variance == "keras2":
        yield (
            f"the batch variance is {variant}, but PyTorch divides by n - 1",
            "Divide the sum of squares by n - 1 where running_var is updated.",
        )
    if variant.startswith(TWICE):
        yield (
            "the buffers were updated twice",
            "Run the layer once in each step; recomputing a forward pass updates them again.",
        )
    elif variant == STD:
        yield STD, "Store the variance in running_var, not its root."
    elif KEPT in variant:
        yield variant, "Leave eps out of what enters running_var."
    elif variant in TOGETHER:
        yield (
            f"the batch's statistics are {variant}",
            "Merge the parts by their counts, with the variance between their means.",
        )
    elif variant.startswith("INPUT"):
        yield (
            f"the statistics are those of {variant}",
            "Update with the statistics of all inputs together.",
        )
    elif variant.startswith(APART):
        yield (
            f"{variant} and running_var with momentum {made.weight:g}",
            "Use one momentum for both buffers.",
        )
