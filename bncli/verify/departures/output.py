"""Why an output differs: identify's search first, then what only implementations get wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bncli.batchnorm import BlockNormalizer
from bncli.light import np
from bncli.verify.departures.cause import Cause, all_that_fit, in_doubt
from bncli.verify.identify.doubt import differ_in_eps
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
    from bncli.verify.identify.halves import EpsRange
    from bncli.verify.identify.hypotheses import Hypothesis
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
    """What made the output, if it is known; `found` is what the search says, as `identified`.

    All that fits is named: with a new layer's statistics, several mistakes are one number.
    """
    output = run.quantities["output"]
    causes: list[Cause] = []
    if np.array_equal(output, x, equal_nan=True):
        same = "the output is the input, as it was given"
        causes.append(Cause(same, "Return what is normalised."))
    if found.explained and not found.expected:
        causes += _searched(found, known_of(done))
    candidates = []
    for cause, norm in _otherwise(done, run):
        normalizer = BlockNormalizer(norm, x.ndim, done.channel_axis)
        candidates.append(
            (cause, lambda block, by=normalizer: by.output(x[block], block))  # each its own
        )
    causes += all_that_fit(candidates, output, allowed, done.channel_axis)
    # Two oddities at once are no rival to one that explains the same values alone.
    alone = [cause for cause in causes if "; " not in cause.words]
    return in_doubt(alone or causes[:1], _decider(done))


def _decider(done: BatchNormPass) -> str:
    """What would tell apart causes that give the same output."""
    if not done.settings.normalizes_with_batch:
        return "other running statistics, weight and bias (--state)"
    if (done.norm.weight == 1).all() and (done.norm.bias == 0).all():
        return "another weight and bias (--weight, --bias), or with an input of other variances"
    return "an input of other variances"


def _searched(found: Identification, known: Known) -> list[Cause]:
    """What identify's search found, as it is said of an implementation, the likelier first."""
    made = [item.hypothesis for item in found.hypotheses if item.explains]
    causes = []
    for number, hypothesis in enumerate(made):
        if any(differ_in_eps(hypothesis, other) for other in made[:number]):
            continue  # an eps that these data cannot tell from the one before
        without = replace(hypothesis, eps=0.0, fitted=False)
        cause = _said_of(hypothesis, known, found.eps_range, without=without in made)
        causes += [cause] if cause else []
    return causes


def _said_of(
    made: Hypothesis, known: Known, eps_range: EpsRange | None, *, without: bool
) -> Cause | None:
    """A hypothesis as it is said of an implementation; `without` says that eps 0 fits too."""
    plain = not made.variant and made.ddof != 1 and made.mode in (TRAINING, EVAL)
    expected = TRAINING if known.training else EVAL
    if plain and made.mode == expected and eps_range is None:
        if known.eps and without:
            return Cause("eps is not added", "Add eps to the variance, under the root.")
        return Cause(
            f"eps is {eps_text(made.eps)}, not the {eps_text(known.eps)} that was given",
            "Take eps from the argument.",
        )
    if plain and made.mode != expected and made.eps == known.eps:
        used = "running statistics" if made.mode == EVAL else "batch's statistics"
        when = "training" if made.mode == EVAL else "evaluation"
        return Cause(
            f"the {used} normalise in {when}",
            "Normalise by the batch's statistics in training, and by the running ones in "
            "evaluation.",
        )
    words, fix = output_departure(made, known, eps_range)
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
        if not done.settings.normalizes_with_batch and count > 1:
            yield (
                Cause(
                    "running_var is multiplied by n / (n - 1) in eval mode",
                    "Use running_var as it is: it is unbiased already.",
                ),
                with_stats(mean, var * count / (count - 1)),
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
