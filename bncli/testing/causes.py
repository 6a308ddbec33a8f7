"""The causes that are named: for each a few words, the way that it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bncli.light import dataclass
from bncli.testing.allowed import INPUT_DTYPE, ONE_PASS
from bncli.verify.identify.fixes import AFFINE, STATISTICS, update_departure
from bncli.verify.identify.hypotheses import (
    EPS,
    FRESH,
    INVSTD_STORED,
    IS_INVSTD,
    NO_AFFINE,
    NO_BIAS,
    NO_WEIGHT,
    OUTSIDE,
    SWAPPED,
    UNCENTERED,
    UNSCALED,
    eps_text,
)
from bncli.verify.identify.updates import STD, TWICE, WEIGHTS, Update


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an implementation is wrong: `words`, the `fix`, and what differs from PyTorch's way."""

    words: str
    fix: str
    changes: Mapping[str, Any]

    @property
    def is_formula(self) -> bool:
        """Whether it says what each number is, and not only where one may be off."""
        return any("." in path or path == "skips_nan" for path in self.changes)

    @property
    def is_wide(self) -> bool:
        """Whether it allows for so much that it counts only where it explains all that is left."""
        open_buffers = self.changes.get("update.judged") is False
        return open_buffers or "loss" in self.changes or "layout_breaks" in self.changes


def every_cause() -> tuple[Cause, ...]:
    """All of them; where two explain the same, the first is the one that is meant."""
    return (
        *_updates(), *_momentum(), *_counters(), *_forward(), *_sources(), *_affine(), *_groups(),
        *_backward(), *_special(), *_losses(),
    )  # fmt: skip


IN_TRAINING, IN_EVAL = " in training", " in eval"
MODES = {"train": IN_TRAINING, "evaluate": IN_EVAL}
"""What the words have of what is done in one mode alone."""


def _in_modes(words: str, fix: str, **changes: Any) -> Iterator[Cause]:
    """The same change of the forward pass in both modes, and in either; {} is where it is."""
    for modes in (("train", "evaluate"), ("train",), ("evaluate",)):
        where = MODES[modes[0]] if len(modes) == 1 else ""
        yield Cause(
            words.replace("{}", where),
            fix,
            {f"{mode}.{name}": value for mode in modes for name, value in changes.items()},
        )


def _fix_of(made: Update) -> str:
    """What identify says is to be done about an update."""
    return update_departure(made)[1]


def _updates() -> Iterator[Cause]:
    biased = _fix_of(Update(0.1, "biased"))
    yield Cause("running_var is biased: it divides by n", biased, {"update.variance": "biased"})
    yield Cause(
        "running_var is multiplied by (n - 1) / n, not by n / (n - 1)",
        biased, {"update.variance": "inverted"},
    )  # fmt: skip
    yield Cause(
        "running_var divides by n - (1 + eps), as Keras 2's",
        _fix_of(Update(0.1, "keras2")),
        {"update.variance": "keras2"},
    )
    for variance, which in (("std", "unbiased"), ("biased std", "biased")):
        yield Cause(
            f"running_var holds {STD.removesuffix(' taken for the variance')} ({which})",
            _fix_of(Update(0.1, "unbiased", STD)),
            {"update.variance": variance},
        )
    yield Cause(
        "running_var holds the mean of squares: the mean is not subtracted",
        "Subtract the mean before the values are squared.",
        {"update.variance": "squares"},
    )
    for variance in ("unbiased", "biased"):
        also = " (biased)" if variance == "biased" else ""
        yield Cause(
            f"eps is added into running_var{also}",
            _fix_of(Update(0.1, "unbiased", "eps added into the kept variance")),
            {"update.kept_eps": True, "update.variance": variance},
        )
        yield Cause(
            f"running_var is the mean of the samples' own variances{also}",
            "Take the variance over the samples too, not within each.",
            {"update.within": True, "update.variance": variance},
        )


def _momentum() -> Iterator[Cause]:
    for weighs in ("old", "old if given"):
        yield Cause(
            "momentum weighs the old value",
            "Compute running = (1 - momentum) * running + momentum * batch.",
            {"update.weighs": weighs},
        )
    for weight in dict.fromkeys((*WEIGHTS, 1.0)):
        yield Cause(
            f"momentum is ignored: it is always {weight:g}",
            "Use the momentum that is given.",
            {"update.momentum": weight, "update.cumulative": weight},
        )
        yield Cause(
            f"momentum is ignored: it is always {weight:g}",
            "Use the momentum that is given.",
            {"update.momentum": weight},
        )
        yield Cause(
            f"momentum 0 is taken for {weight:g}",
            "Compare momentum with None; 0 is a momentum too.",
            {"update.momentum_for_0": weight},
        )
        yield Cause(
            f"momentum None is taken for {weight:g}, not for the cumulative average",
            "At momentum None, the weight of the batch is 1 / num_batches_tracked.",
            {"update.cumulative": weight},
        )
    yield Cause(
        "momentum None leaves the running statistics as they are",
        "At momentum None, the weight of the batch is 1 / num_batches_tracked.",
        {"update.cumulative": 0.0},
    )
    for divisor, when in (
        ("n + 1", "one batch too many"),
        ("n - 1", "the batches before this one"),
    ):
        yield Cause(
            f"the cumulative average divides by {when}",
            "Count the batch first, and divide by num_batches_tracked.",
            {"update.cumulative": divisor},
        )
    twice = _fix_of(Update(0.19, "unbiased", f"{TWICE} 0.1"))
    yield Cause("the buffers are updated twice", twice, {"update.twice": True})
    yield Cause(
        "the batch is added without (1 - momentum) * running",
        "Compute running = (1 - momentum) * running + momentum * batch.",
        {"update.undamped": True},
    )
    yield Cause(
        "running_mean is updated and running_var is not",
        "Update running_var too.",
        {"update.of": "mean"},
    )
    yield Cause(
        "running_var is updated and running_mean is not",
        "Update running_mean too.",
        {"update.of": "var"},
    )


def _counters() -> Iterator[Cause]:
    yield Cause(
        "training does not update the buffers",
        "Update running_mean and running_var in each step of training, in place.",
        {"update.when": "never"},
    )
    yield Cause(
        "training does not update the buffers, nor num_batches_tracked",
        "Update the buffers in each step of training, in place.",
        {"update.when": "never", "update.counted": "never"},
    )
    for counted in ("training", "always"):
        yield Cause(
            "evaluation updates the buffers",
            "Leave the buffers as they are where training is False.",
            {"update.when": "always", "update.counted": counted},
        )
    yield Cause(
        "num_batches_tracked is not counted",
        "Add 1 to num_batches_tracked in each step of training.",
        {"update.counted": "never"},
    )
    yield Cause(
        "num_batches_tracked is counted in eval too",
        "Add 1 to num_batches_tracked in training alone.",
        {"update.counted": "always"},
    )
    yield Cause(
        "an empty batch is not counted by num_batches_tracked",
        "Add 1 to num_batches_tracked before the batch is looked at.",
        {"update.counted": "with values"},
    )


def _forward() -> Iterator[Cause]:
    yield Cause(
        "the output is normalised by the unbiased variance",
        "Divide the batch variance by n, not by n - 1.",
        {"train.ddof": 1, "evaluate.ddof": 1},
    )
    inside = "Add eps to the variance, under the root."
    yield from _in_modes(f"{OUTSIDE.replace('eps', 'eps is')}{{}}", inside, root="outside")
    yield from _in_modes(
        "the output is divided by the variance, not by its root{}",
        STATISTICS[UNSCALED],
        root="none",
    )
    yield from _in_modes(
        "eps is a lower bound of the variance{}, and not added", inside, root="largest"
    )
    yield from _in_modes("eps is left out{}", inside, eps=0.0)
    for eps in EPS:
        if eps:
            fix = "Use the eps that is given."
            yield from _in_modes(f"eps is ignored{{}}: it is always {eps_text(eps)}", fix, eps=eps)
            yield Cause(
                f"eps 0 is taken for {eps_text(eps)}",
                "Compare eps with None; 0 is an eps too.",
                {"train.eps_for_0": eps, "evaluate.eps_for_0": eps},
            )
    yield from _in_modes("the mean is not subtracted{}", STATISTICS[UNCENTERED], centered=False)
    yield Cause(
        "the variance is the mean of squares, in the output and in running_var",
        "Subtract the mean before the values are squared.",
        {"train.mean_square": True, "evaluate.mean_square": True, "update.variance": "squares"},
    )
    yield from _in_modes(
        "the output is normalised by the mean of squares{}",
        "Subtract the mean before the values are squared.",
        mean_square=True,
    )
    yield from _in_modes(
        "the output is not divided by the standard deviation{}",
        STATISTICS[UNSCALED],
        root="unscaled",
    )


def _sources() -> Iterator[Cause]:
    yield Cause(
        "evaluation normalises with the batch's statistics",
        "Normalise with running_mean and running_var where training is False.",
        {"evaluate.source": "batch"},
    )
    yield Cause(
        "training is taken for evaluation, and evaluation for training",
        "Normalise with the batch's statistics where training is True.",
        {"train.source": "stored", "evaluate.source": "batch"},
    )
    for source, which in (("stored", "the running statistics"),
                          ("updated", "the running statistics after their update")):  # fmt: skip
        yield Cause(
            f"training normalises with {which}",
            "Normalise with the batch's own statistics in training.",
            {"train.source": source},
        )
    yield Cause(
        f"evaluation uses {FRESH}",
        "Normalise with running_mean and running_var where training is False.",
        {"evaluate.source": "fresh"},
    )
    yield Cause(
        "without running statistics, evaluation uses 0 and 1",
        "Normalise with the batch's statistics where there are no running ones.",
        {"evaluate.source": "fresh if none"},
    )
    for stored, words in (
        ("swapped", SWAPPED.replace("running_var swapped", "running_var are swapped")),
        ("invstd", IS_INVSTD.replace("taken", "is taken")),
        ("of invstd", INVSTD_STORED.replace("taken", "is taken")),
    ):
        known = {"swapped": SWAPPED, "invstd": IS_INVSTD, "of invstd": INVSTD_STORED}[stored]
        yield Cause(f"{words} in eval", STATISTICS[known], {"evaluate.stored": stored})


def _affine() -> Iterator[Cause]:
    for affine, known in (("no weight", NO_WEIGHT), ("no bias", NO_BIAS), ("neither", NO_AFFINE)):
        verb = "are ignored" if affine == "neither" else "is ignored"
        words = known.replace("ignored", f"{verb}{{}}")
        yield from _in_modes(words, AFFINE[known], affine=affine)
    for affine, words in (
        ("bias first", "bias is added before weight multiplies{}"),
        ("1 + weight", "1 is added to weight{}"),
        ("swapped", "weight and bias are swapped{}"),
        ("minus bias", "bias is subtracted{}"),
    ):
        yield from _in_modes(words, "Compute x_hat * weight + bias.", affine=affine)


def _groups() -> Iterator[Cause]:
    fix = "Take the statistics over all axes but that of the channels."
    for groups, words in (
        ("sample", "each sample has statistics of its own, as in InstanceNorm"),
        ("places", "the statistics are those of the batch axis alone, not of the spatial axes"),
        ("features", "each sample has statistics over all channels, as in LayerNorm"),
        ("all", "all channels share one mean and variance"),
        ("last", "channels are taken from the last axis"),
    ):
        for judged in (True, False):
            yield Cause(words, fix, {
                "train.groups": groups, "evaluate.groups": groups, "update.judged": judged,
            })  # fmt: skip
        if groups == "sample":
            for variance in ("unbiased", "biased"):
                yield Cause(words, fix, {
                    "train.groups": groups, "evaluate.groups": groups,
                    "update.within": True, "update.variance": variance,
                })  # fmt: skip


def _backward() -> Iterator[Cause]:
    full = "weight * invstd * (g - mean(g) - x_hat * mean(g * x_hat))"
    for batch, words in (
        ("none", "the gradient leaves out the batch statistics"),
        ("no mean", "the gradient leaves out the batch mean"),
        ("no variance", "the gradient leaves out the batch variance"),
    ):
        yield Cause(words, f"In training grad_input is {full}.", {"backward.batch": batch})
    yield Cause(
        "the gradient in eval is that of batch statistics",
        "In eval grad_input is weight * invstd * g.",
        {"backward.batch": "always"},
    )
    yield Cause(
        "the gradient leaves out weight",
        f"In training grad_input is {full}.",
        {"backward.weight": False},
    )
    yield Cause(
        "the gradients of weight and bias are means, not sums",
        "grad_weight is sum(g * x_hat), and grad_bias sum(g).",
        {"backward.means": True},
    )
    yield Cause(
        "the gradient of weight takes x without its mean subtracted",
        "grad_weight is sum(g * x_hat).",
        {"backward.centered": False},
    )
    yield Cause(
        "the gradient divides by n - 1",
        f"In training grad_input is {full}, with means over n values.",
        {"backward.ddof": 1},
    )


def _special() -> Iterator[Cause]:
    for words, fix, name in (
        ("the input, weight or bias is overwritten",
         "Leave the arguments but the buffers as they are.", "changes_input"),
        ("the gradients are missing in training: autograd cannot pass",
         "Leave out detach(), no_grad() and data between the input and the output.", "detached"),
        ("the output has another dtype than the input",
         "Return the output in the input's dtype.", "other_dtype"),
        ("NaN spreads to other channels", "Keep each channel's sums apart.", "spreads"),
        ("NaN and Inf are left out of the statistics",
         "Let NaN and Inf through: they show a fault of the network.", "skips_nan"),
        ("an empty batch turns the running statistics into NaN",
         "Leave the buffers as they are where there are no values.", "empty_spoils"),
        ("one value a channel gives neither ValueError nor the bias",
         "Raise ValueError where training has one value per channel.", "one_value_is_nan"),
        ("an input that is not contiguous is read wrongly",
         "Use the array's strides, or copy it into the usual layout first.", "layout_breaks"),
    ):  # fmt: skip
        yield Cause(words, fix, {name: True})


def _losses() -> Iterator[Cause]:
    yield Cause(
        "one-pass variance, mean(x^2) - mean^2: it loses its digits where |mean| is 1000 std",
        "Subtract the mean first, or use Welford's algorithm.",
        {"loss": ONE_PASS},
    )
    wide = "Compute the statistics in float32 at least; or allow for it with tolerance_factor."
    yield Cause(
        "precision is lost: half precision is summed in half precision", wide, {"loss": INPUT_DTYPE}
    )
    yield Cause(
        "precision is lost: float64 is computed in float32",
        "Compute in the input's dtype; or allow for it with tolerance_factor.",
        {"loss": "float32"},
    )
    for dtype, which in (
        ("float16", "11 bits, as float16 and TF32"),
        ("bfloat16", "8 bits, as bfloat16"),
    ):
        yield Cause(f"precision is lost: values have only {which}", wide, {"loss": dtype})
