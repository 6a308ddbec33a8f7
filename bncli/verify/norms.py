"""Each norm of one tensor, computed here and by a backend, compared quantity by quantity."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bncli.backends.interface import NORM_QUANTITIES, NormCall, NormRun, RunsNorms
from bncli.batchnorm import along, blocks, normalization
from bncli.light import dataclass, np
from bncli.model import BatchNormSettings
from bncli.norms import BATCH, norm_statistics, of_channels
from bncli.pytorch_cpu import cpu_statistics
from bncli.verify.closeness import Tolerance
from bncli.verify.meter import ClosenessMeter, with_explained
from bncli.verify.norm_tolerance import norm_tolerances
from bncli.verify.tolerance import Tolerances

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bncli.model import ChannelStats, Closeness
    from bncli.norms import Norm, NormStatistics
    from bncli.verify.closeness import GivenTolerance


@dataclass(frozen=True, slots=True)
class NormsComparison:
    """The closeness of every quantity, named "LayerNorm mean".

    `missing` names the norms that the backend's library lacks.
    """

    compared: tuple[Closeness, ...]
    missing: tuple[str, ...]


def compare_norms(
    norms: Sequence[Norm],
    x: NDArray[Any],
    dtype: str,
    stats: ChannelStats,
    backend: RunsNorms,
    tolerance: GivenTolerance = None,
) -> NormsComparison:
    """Run `backend` on `x` for each norm that is not refused, and compare what it gives.

    `x` holds values of `dtype` (bfloat16 as float32) in the user's axes, and `stats` are those of
    its channels. `tolerance` is (rtol, atol) for all, or None for what follows from the arithmetic,
    or a factor on that.
    """
    compared: list[Closeness] = []
    missing = []
    for norm in norms:
        if norm.refused:
            continue
        run = backend.run_norm(NormCall(norm, x, dtype))
        if run.affine_shape is None:
            missing.append(norm.name)
            continue
        if isinstance(tolerance, float):
            run = replace(run, arithmetic=replace(run.arithmetic, factor=tolerance))
        if norm.name == BATCH:
            exact = of_channels(norm, stats)
            allowed = _batch_bounds(exact, x, stats, run)
        else:
            exact = norm_statistics(norm, x)
            allowed = norm_tolerances(run.arithmetic, exact)
        found = _differences(exact, x, run, allowed)
        if isinstance(tolerance, tuple):
            rtol, atol = (np.full(norm.kept, bound) for bound in tolerance)
            chosen = dict.fromkeys(NORM_QUANTITIES, Tolerance(rtol, atol))
            both = zip(_differences(exact, x, run, chosen), found, strict=True)
            found = [with_explained(*pair) for pair in both]
        compared += found
    return NormsComparison(tuple(compared), tuple(missing))


def _batch_bounds(
    exact: NormStatistics, x: NDArray[Any], stats: ChannelStats, run: NormRun
) -> dict[str, Tolerance]:
    """BatchNorm's tolerances, from the sums repeated in PyTorch's own order if they are its."""
    norm = exact.norm
    arithmetic = run.arithmetic
    settings = BatchNormSettings(eps=norm.eps)
    recomputed = None
    if arithmetic.order != "any":
        recomputed = cpu_statistics(
            np.ascontiguousarray(np.moveaxis(x, norm.channel_axis, 1)),
            dtype=arithmetic.dtype,
            parameter_dtype=arithmetic.parameter_dtype,
            rows=arithmetic.rows,
            threads=run.threads,
        )
    own = Tolerances.of(
        arithmetic, stats, normalization(stats, None, None, None, settings), settings, recomputed
    )
    return {
        name: Tolerance(*(along(part, x.ndim, norm.channel_axis) for part in (it.rtol, it.atol)))
        for name, it in (("mean", own.mean()), ("invstd", own.invstd()), ("output", own.output()))
    }


def _differences(
    exact: NormStatistics, x: NDArray[Any], run: NormRun, allowed: dict[str, Tolerance]
) -> list[Closeness]:
    """The closeness of each quantity of one norm that the backend gives."""
    norm = exact.norm
    shape = norm.statistics_shape
    meters = {
        name: ClosenessMeter(f"{norm.name} {name}")
        for name in NORM_QUANTITIES
        if name in run.quantities
    }
    for name, values in (("mean", exact.mean), ("invstd", exact.invstd)):
        if name not in meters:
            continue
        actual, expected = values.reshape(shape), run.quantities[name].reshape(shape)
        # The mean of what holds an infinity depends on the order of additions.
        lost = ~(np.isfinite(actual) | np.isfinite(expected))
        meters[name].add(
            np.where(lost, np.nan, actual),
            np.where(lost, np.nan, expected),
            allowed[name].rtol.reshape(shape),
            allowed[name].atol.reshape(shape),
            (0,) * len(shape),
        )
    tolerance = allowed["output"]
    for block in blocks(x.shape):
        meters["output"].add(
            exact.output(x[block], block),
            run.quantities["output"][block],
            exact.at(tolerance.rtol, block),
            exact.at(tolerance.atol, block),
            tuple(part.start for part in block),
        )
    return [meter.closeness() for meter in meters.values()]
