"""Why gradients differ behind an output that is right: terms that a backward pass left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bncli.batchnorm import BlockNormalizer, along
from bncli.light import np
from bncli.verify.departures.cause import Block, Cause, all_of_channels, all_that_fit, in_doubt

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from numpy.typing import NDArray

    from bncli.batchnorm import GradientSums
    from bncli.model import FloatArray
    from bncli.verify.batch_norm_pass import BatchNormPass
    from bncli.verify.closeness import Tolerance
    from bncli.verify.comparison import Compared

WHOLE = "weight * invstd * (g - mean(g) - x_hat * mean(g * x_hat))"

DECIDER = "an input and a state with other statistics"
"""What would tell apart causes that give the same gradient."""


def gradient_causes(
    done: BatchNormPass,
    x: NDArray[Any],
    compared: Compared,
    sums: GradientSums,
    allowed: Mapping[str, Tolerance],
    wanted: AbstractSet[str],
) -> dict[str, Cause]:
    """What explains each gradient of `wanted`, by quantity."""
    theirs = compared.run.quantities
    found: dict[str, list[Cause]] = {}
    if "grad_weight" in wanted:
        found["grad_weight"] = all_of_channels(
            _of_weight(done, sums), theirs["grad_weight"].astype(np.float64), allowed["grad_weight"]
        )
    if "grad_bias" in wanted:
        found["grad_bias"] = all_of_channels(
            _of_bias(done, sums), theirs["grad_bias"].astype(np.float64), allowed["grad_bias"]
        )
    if "grad_input" in wanted:
        found["grad_input"] = all_that_fit(
            _of_input(done, x, compared.grad_output, sums),
            theirs["grad_input"],
            allowed["grad_input"],
            done.channel_axis,
        )
    causes = {name: in_doubt(fitting, DECIDER) for name, fitting in found.items()}
    return {name: cause for name, cause in causes.items() if cause is not None}


def _of_weight(done: BatchNormPass, sums: GradientSums) -> dict[Cause, FloatArray]:
    """Ways to get grad_weight wrong."""
    norm, count = done.norm, done.stats.count
    right = "grad_weight is sum(g * x_hat)."
    with np.errstate(all="ignore"):
        centered = sums.g_x_hat / norm.invstd
        return {
            Cause("grad_weight is zero", right): np.zeros_like(sums.g),
            Cause("grad_weight is a mean, not a sum", right): sums.g_x_hat / count,
            Cause("grad_weight takes x - mean, which is not divided by std", right): centered,
            Cause("grad_weight takes x, which is not normalised", right): centered
            + sums.g * norm.mean,
            Cause("grad_weight and grad_bias are swapped", right): sums.g,
            Cause("grad_weight is multiplied by weight", right): sums.g_x_hat * norm.weight,
            Cause("the sign of grad_weight is wrong", right): -sums.g_x_hat,
        }


def _of_bias(done: BatchNormPass, sums: GradientSums) -> dict[Cause, FloatArray]:
    """Ways to get grad_bias wrong."""
    norm, count = done.norm, done.stats.count
    right = "grad_bias is sum(g)."
    with np.errstate(all="ignore"):
        return {
            Cause("grad_bias is zero", right): np.zeros_like(sums.g),
            Cause("grad_bias is a mean, not a sum", right): sums.g / count,
            Cause("grad_weight and grad_bias are swapped", right): sums.g_x_hat,
            Cause("grad_bias is multiplied by weight", right): sums.g * norm.weight,
            Cause("the sign of grad_bias is wrong", right): -sums.g,
        }


def _of_input(
    done: BatchNormPass, x: NDArray[Any], grad_output: NDArray[Any], sums: GradientSums
) -> list[tuple[Cause, Callable[[Block], FloatArray]]]:
    """Ways to get grad_input wrong: each of its terms and factors left out, or taken otherwise."""
    norm, count, axis = done.norm, done.stats.count, done.channel_axis
    normalizer = BlockNormalizer(norm, x.ndim, axis)
    batch = done.settings.normalizes_with_batch
    none = np.zeros_like(sums.g)

    def made(
        mean_g: FloatArray, mean_g_x_hat: FloatArray, scale: FloatArray
    ) -> Callable[[Block], FloatArray]:
        def of(block: Block) -> FloatArray:
            def at(values: FloatArray) -> FloatArray:
                return np.asarray(along(values[block[axis]], x.ndim, axis))

            g = grad_output[block].astype(np.float64)
            x_hat = normalizer.x_hat(x[block], block)
            return np.asarray((g - at(mean_g) - x_hat * at(mean_g_x_hat)) * at(scale))

        return of

    with np.errstate(all="ignore"):
        terms = sums.g / count, sums.g_x_hat / count
        scale = norm.weight * norm.invstd
        own = terms if batch else (none, none)
        ways: list[tuple[str, tuple[FloatArray, FloatArray], FloatArray]] = [
            ("grad_input is zero", own, none),
            ("grad_input lacks the factor weight", own, norm.invstd),
            ("grad_input lacks the factor invstd", own, norm.weight),
            ("grad_input is divided by the variance, not by its root", own, scale * norm.invstd),
            ("the sign of grad_input is wrong", own, -scale),
        ]
        if batch:
            ways[:0] = [
                ("grad_input takes the batch's statistics for constants", (none, none), scale),
                ("grad_input takes the variance for a constant", (terms[0], none), scale),
                ("grad_input takes the mean for a constant", (none, terms[1]), scale),
                (
                    "grad_input has sums in the place of means",
                    (sums.g, sums.g_x_hat),
                    scale,
                ),
                (
                    "grad_input divides sum(g * x_hat) by n - 1, not by n",
                    (terms[0], sums.g_x_hat / max(count - 1, 1)),
                    scale,
                ),
            ]
        else:
            ways.insert(0, ("grad_input has the terms of training in eval mode", terms, scale))
    right = f"grad_input is {WHOLE if batch else 'weight * invstd * g'}."
    return [(Cause(words, right), made(*both, factor)) for words, both, factor in ways]
