"""How far each quantity of a step may be from the exact one, as its dtypes explain."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.backends.arithmetic import Arithmetic
from bncli.batchnorm import along, gradient_sums, normalization
from bncli.dtypes import DTYPES
from bncli.light import np
from bncli.pytorch_cpu import CpuStatistics
from bncli.running_stats import update_factor
from bncli.verify.closeness import Tolerance
from bncli.verify.tolerance import Tolerances

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bncli.model import FloatArray
    from bncli.testing.runs import Step

ONE_PASS = "one pass"  # noqa: S105  # nothing secret
"""A variance of E[x^2] - E[x]^2, as `Way.loss`; the others are names of dtypes."""

INPUT_DTYPE = "input's dtype"
"""The loss of statistics in the input's half precision."""

SLACK, OTHER, EXTREME = 8.0, 32.0, 8.0
"""How much wider tolerances are for a formula that is not PyTorch's; see `widened`."""

FEW = 8
"""Additions, of the sums of an arithmetic that loses digits: pairwise, or in a wider register."""


def arithmetic_of(step: Step, loss: str = "") -> Arithmetic:
    """What may be assumed of an implementation: sums in any order, in float32 or in float64.

    With a `loss`, an arithmetic of fewer digits.
    """
    call = step.call
    count = call.x.size // max(call.x.shape[1], 1)
    if loss and loss != ONE_PASS:
        coarse = call.dtype if loss == INPUT_DTYPE else loss
        if DTYPES[coarse].unit_roundoff > DTYPES[call.parameter_dtype].unit_roundoff:
            return Arithmetic.plain(call.dtype, coarse, FEW)
    computed_in = "float64" if call.dtype == "float64" else "float32"
    return Arithmetic.plain(call.dtype, call.parameter_dtype, count, computed_in=computed_in)


def tolerances(step: Step, loss: str = "") -> Mapping[str, Tolerance]:
    """The tolerance of each quantity that is not an integer; of a step with values.

    Those of what has the input's shape broadcast against it.
    """
    call, stats = step.call, step.stats
    assert stats is not None
    settings, before = call.settings, call.running
    with np.errstate(all="ignore"):
        norm = normalization(stats, before, call.weight, call.bias, settings)
        arithmetic = arithmetic_of(step, loss)
        recomputed = None
        if loss == ONE_PASS and settings.normalizes_with_batch:
            u = DTYPES[arithmetic.accumulate_dtype].unit_roundoff
            squares = stats.mean**2 + stats.var
            lost = np.sqrt(stats.count) * u * squares
            recomputed = CpuStatistics(stats.mean, stats.var + lost, None)
            arithmetic = replace(arithmetic, order="similar")
        own = Tolerances.of(arithmetic, stats, norm, settings, recomputed)
        sums = gradient_sums(call.x, call.grad_output, norm, 1)
        found = {
            "output": own.output(),
            "grad_input": own.grad_input(sums),
            "grad_weight": own.grad_weight(sums),
            "grad_bias": own.grad_bias(sums),
        }
        if settings.normalizes_with_batch:
            found |= {"mean": own.mean(), "var": own.var(), "invstd": own.invstd()}
        if before is not None and (stats.count > 1 or not settings.training):
            tracked = before.num_batches_tracked + settings.training
            factor = update_factor(settings.momentum, max(tracked, 1))
            found["running_mean"] = own.running_mean(before, factor)
            found["running_var"] = own.running_var(before, factor)
    if step.configuration.kind == "overflow":
        # A bound on what flushes to 0 is multiplied by values that large; output is about 1.
        for name in ("output", "grad_input", "grad_weight"):
            for part in (found[name].rtol, found[name].atol):
                part[1] = part[0]
    ndim = call.x.ndim
    for name in ("output", "grad_input"):
        found[name] = Tolerance(along(found[name].rtol, ndim, 1), along(found[name].atol, ndim, 1))
    return found


def widened(tolerance: Tolerance, other: FloatArray, step: Step, room: float = 1.0) -> Tolerance:
    """The tolerance for `other` values in the place of the exact ones, made by another formula.

    Several times that of the exact one, and as much as `OTHER` roundings of the largest value of a
    channel; more for extreme numbers, of which another formula may lose more digits. `room` is a
    share of all that.
    """
    call = step.call
    coarsest = max(DTYPES[dtype].unit_roundoff for dtype in (call.dtype, call.parameter_dtype))
    more = room * (EXTREME if step.configuration.is_extreme else 1.0)
    axes = tuple(axis for axis in range(other.ndim) if axis != 1) if other.ndim > 1 else ()
    with np.errstate(all="ignore"):
        sizes = np.where(np.isfinite(other), np.abs(other), 0.0)
        largest = sizes.max(axes, keepdims=True, initial=0.0) if axes else sizes
    return Tolerance(
        np.asarray(tolerance.rtol * (SLACK * more)),
        np.asarray(tolerance.atol * (SLACK * more) + OTHER * more * coarsest * largest),
    )
