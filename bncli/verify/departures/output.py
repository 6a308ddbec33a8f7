"""Why an output differs: identify's search first, then what only implementations get wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bncli.batchnorm import BlockNormalizer
from bncli.light import np
from bncli.verify.departures.cause import Cause, first_that_fits
from bncli.verify.identify.fixes import output_departure
from bncli.verify.identify.hypotheses import EVAL, TRAINING, Known, eps_text
from bncli.verify.identify.output import identify_output
from bncli.verify.identify.pair import ArraySource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from bncli.backends.interface import BackendRun
    from bncli.batchnorm import Normalization
    from bncli.verify.batch_norm_pass import BatchNormPass
    from bncli.verify.closeness import Tolerance
    from bncli.verify.identify.output import Identification


def identified(done: BatchNormPass, x: NDArray[Any], run: BackendRun, name: str) -> Identification:
    """What identify's search says of the output; `name` is what the implementation is called."""
    return identify_output(
        ArraySource(x, done.dtype),
        ArraySource(run.quantities["output"], done.dtype),
        done.channel_axis,
        known_of(done),
        f"{name}'s output",
    )


def output_cause(
    done: BatchNormPass,
    x: NDArray[Any],
    run: BackendRun,
    allowed: Tolerance,
    found: Identification,
) -> Cause | None:
    """What made the output, if it is known; `found` is what the search says, as `identified`."""
    if np.array_equal(run.quantities["output"], x, equal_nan=True):
        return Cause("the output is the input, as it was given", "Return what is normalised.")
    if found.explained and not found.expected:
        return _searched(found, known_of(done))
    output = run.quantities["output"]
    candidates = []
    for cause, norm in _otherwise(done, run):
        normalizer = BlockNormalizer(norm, x.ndim, done.channel_axis)
        candidates.append(
            (cause, lambda block, by=normalizer: by.output(x[block], block))  # each its own
        )
    return first_that_fits(candidates, output, allowed, done.channel_axis)


def _searched(found: Identification, known: Known) -> Cause | None:
    """What identify's search found, as it is said of an implementation."""
    made = [item.hypothesis for item in found.hypotheses if item.explains]
    best = made[0]
    plain = not best.variant and best.ddof != 1 and best.mode in (TRAINING, EVAL)
    expected = TRAINING if known.training else EVAL
    if plain and best.mode == expected and found.eps_range is None:
        if known.eps and any(replace(best, eps=0.0) == other for other in made):
            return Cause("eps is not added", "Add eps to the variance, under the root.")
        return Cause(
            f"eps is {eps_text(best.eps)}, not the {eps_text(known.eps)} that was given",
            "Take eps from the argument.",
        )
    if plain and best.mode != expected and best.eps == known.eps:
        used = "running statistics" if best.mode == EVAL else "batch's statistics"
        when = "training" if best.mode == EVAL else "evaluation"
        return Cause(
            f"the {used} normalise in {when}",
            "Normalise by the batch's statistics in training, and by the running ones in "
            "evaluation.",
        )
    words, fix = output_departure(best, known, found.eps_range)
    return Cause(words, fix) if fix else None


def known_of(done: BatchNormPass) -> Known:
    """What a search may know of the layer: its state before the pass, eps and the mode."""
    running = done.before
    return Known(
        weight=done.layer.weight,
        bias=done.layer.bias,
        running_mean=running.running_mean if running else None,
        running_var=running.running_var if running else None,
        eps=done.settings.eps,
        training=done.settings.normalizes_with_batch,
    )


def _otherwise(done: BatchNormPass, run: BackendRun) -> Iterator[tuple[Cause, Normalization]]:
    """Mistakes in the formula that stored outputs hardly have, and new implementations do."""
    norm, eps, count = done.norm, done.settings.eps, done.stats.count
    mean, var, weight, bias = norm.mean, norm.var, norm.weight, norm.bias
    with np.errstate(all="ignore"):

        def with_stats(mean: Any, var: Any, invstd: Any = None) -> Normalization:
            invstd = 1 / np.sqrt(var + eps) if invstd is None else invstd
            return replace(norm, shift=mean, offset=np.zeros_like(mean), var=var, invstd=invstd)

        after = [run.quantities.get(each) for each in ("running_mean", "running_var")]
        if after[0] is not None and after[1] is not None and done.settings.training:
            yield (
                Cause(
                    "the output is normalised by the running statistics after their update",
                    "In training, normalise by the statistics of the batch.",
                ),
                with_stats(*(np.asarray(each, np.float64) for each in after)),
            )
        yield (
            Cause(
                "the output is divided by the variance, not by its root",
                "Divide by sqrt(var + eps).",
            ),
            replace(norm, invstd=1 / (var + eps)),
        )
        yield (
            Cause(
                "the output is divided by the root of the sum of squares, not of their mean",
                "Divide the sum of squared deviations by n.",
            ),
            with_stats(mean, var * count),
        )
        yield (
            Cause("eps is subtracted", "Add eps to the variance."),
            with_stats(mean, var, 1 / np.sqrt(var - eps)),
        )
        yield (
            Cause("the mean is added, not subtracted", "Subtract the mean."),
            with_stats(-mean, var),
        )
        changes = (
            ("1 is added to weight", "Multiply by weight itself.", 1 + weight, bias),
            ("weight is applied twice", "Multiply by weight once.", weight * weight, bias),
            ("the output is divided by weight", "Multiply by weight.", 1 / weight, bias),
            (
                "bias is added before weight multiplies",
                "Multiply by weight first, and add bias then.",
                weight,
                bias * weight,
            ),
            ("bias is subtracted", "Add bias.", weight, -bias),
            ("weight and bias are swapped", "Multiply by weight and add bias.", bias, weight),
        )
        for words, fix, other_weight, other_bias in changes:
            yield Cause(words, fix), replace(norm, weight=other_weight, bias=other_bias)
