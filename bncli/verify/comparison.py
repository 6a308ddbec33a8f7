"""One pass of a layer, computed here and by a backend, compared quantity by quantity."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bncli.backends.interface import QUANTITIES, Backend, BackendRun
from bncli.batchnorm import BlockNormalizer, along, blocks, gradient_sums
from bncli.light import dataclass, np
from bncli.model import ChannelCloseness
from bncli.pytorch_cpu import cpu_statistics
from bncli.running_stats import update_factor
from bncli.verify.batch_norm_pass import Path, backend_call, upstream_gradient
from bncli.verify.closeness import alike, overflowed
from bncli.verify.meter import ClosenessMeter, closeness, pooled_closeness, with_explained
from bncli.verify.tolerance import Tolerances, fixed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.batchnorm import GradientSums
    from bncli.model import Closeness, FloatArray
    from bncli.verify.batch_norm_pass import BatchNormPass
    from bncli.verify.closeness import GivenTolerance, Tolerance


@dataclass(frozen=True, slots=True)
class Compared:
    """What a comparison found, quantity by quantity, and what it was made of.

    `grad_output` is the upstream gradient of the backward pass, `run` what the backend computed.
    """

    quantities: list[ChannelCloseness]
    run: BackendRun
    grad_output: NDArray[Any]


def compare_pass(
    done: BatchNormPass,
    x: NDArray[Any],
    backend: Backend,
    *,
    seed: int = 0,
    grad_output: NDArray[Any] | None = None,
    tolerance: GivenTolerance = None,
) -> tuple[list[Closeness], BackendRun]:
    """Run `backend` on `x` and compare every quantity that exists in this mode.

    `x` holds the input's values (bfloat16 as float32) in the user's axes. The upstream gradient
    is `grad_output`, of the same shape and dtype, or standard normal noise from `seed`.
    `tolerance` is (rtol, atol) for all, or None for the tolerances that follow from the arithmetic,
    or a factor on these; what fails the first and not the second is `explained`. NaN is
    close to NaN: a finding of its own speaks of what is not finite.
    """
    found = compare_channels(
        done, x, backend, seed=seed, grad_output=grad_output, tolerance=tolerance, path=Path()
    )
    return [item.whole for item in found.quantities], found.run


def compare_channels(
    done: BatchNormPass,
    x: NDArray[Any],
    backend: Backend,
    *,
    seed: int,
    tolerance: GivenTolerance,
    path: Path,
    grad_output: NDArray[Any] | None = None,
) -> Compared:
    """As `compare_pass`, channel by channel."""
    if grad_output is None:
        grad_output = upstream_gradient(x.shape, done.dtype, seed)
    call = replace(
        backend_call(done, x, grad_output),
        device=path.device,
        memory_format=path.memory_format,
        threads=path.threads,
    )
    run = backend.run(call)
    if isinstance(tolerance, float):
        run = replace(run, arithmetic=replace(run.arithmetic, factor=tolerance))
        tolerance = None
    comparison = _Comparison(done, x, grad_output, run)
    found = comparison.quantities(tolerance)
    if tolerance is not None and not all(item.whole.passed for item in found):
        found = [
            replace(item, whole=with_explained(item.whole, derived.whole))
            for item, derived in zip(found, comparison.quantities(None), strict=True)
        ]
    return Compared(found, run, grad_output)


@dataclass(frozen=True, slots=True)
class _Comparison:
    """One pass beside a backend's run of it."""

    done: BatchNormPass
    x: NDArray[Any]
    grad_output: NDArray[Any]
    run: BackendRun

    def quantities(self, tolerance: tuple[float, float] | None) -> list[ChannelCloseness]:
        """Each quantity's closeness, in the order of QUANTITIES."""
        done, x = self.done, self.x
        stats, norm = done.stats, done.norm
        sums = gradient_sums(x, self.grad_output, norm, done.channel_axis)
        exact: dict[str, FloatArray] = {
            "mean": stats.mean,
            "var": stats.var,
            "invstd": norm.invstd,
            "grad_weight": sums.g_x_hat,
            "grad_bias": sums.g,
        }
        if done.after is not None:
            exact |= {
                "running_mean": done.after.running_mean,
                "running_var": done.after.running_var,
            }
        if tolerance is None:
            allowed = derived_tolerances(done, x, sums, self.run)
        else:
            allowed = dict.fromkeys(QUANTITIES, fixed(*tolerance, stats.num_features))
        sizes = _sizes(done, sums, exact)
        lost = self._lost(sums)

        found: dict[str, ChannelCloseness] = {}
        for quantity, actual in exact.items():
            if quantity in self.run.quantities:
                meter = ClosenessMeter(quantity, stats.num_features, 0)
                chosen = allowed[quantity]
                meter.add(
                    *alike(
                        overflowed(actual, done.parameter_dtype),
                        self.run.quantities[quantity],
                        lost,
                    ),
                    chosen.rtol,
                    chosen.atol,
                    (0,),
                )
                found[quantity] = _of(meter, sizes[quantity])
        if done.after is not None and "num_batches_tracked" in self.run.quantities:
            counter = closeness(
                "num_batches_tracked",
                np.array([done.after.num_batches_tracked], np.float64),
                self.run.quantities["num_batches_tracked"],
                fixed(0.0, 0.0, 1),
            )
            found["num_batches_tracked"] = ChannelCloseness(counter, (), ())
        found |= self._elementwise(sums, allowed)
        return [found[quantity] for quantity in QUANTITIES if quantity in found]

    def _lost(self, sums: GradientSums) -> NDArray[Any]:
        """The channels in which something that goes into every value is not finite."""
        norm = self.done.norm
        with np.errstate(invalid="ignore", over="ignore"):
            made_of = norm.mean + norm.var + norm.invstd * norm.weight + norm.bias + sums.g
            return np.asarray(~np.isfinite(made_of + self.done.stats.var))

    def _elementwise(
        self, sums: GradientSums, allowed: dict[str, Tolerance]
    ) -> dict[str, ChannelCloseness]:
        """The closeness of what has the input's shape, block by block."""
        done, x = self.done, self.x
        features, axis = done.stats.num_features, done.channel_axis
        normalizer = BlockNormalizer(done.norm, x.ndim, axis)
        axes = tuple(other for other in range(x.ndim) if other != axis)
        meters = {
            quantity: ClosenessMeter(quantity, features, axis)
            for quantity in ("output", "grad_input")
            if quantity in self.run.quantities
        }
        sizes = {quantity: np.zeros(features) for quantity in meters}
        lost = self._lost(sums)
        for block in blocks(x.shape):
            values, channels = x[block], block[axis]
            for quantity, meter in meters.items():
                if quantity == "output":
                    actual = normalizer.output(values, block)
                else:
                    g, count = self.grad_output[block], done.stats.count
                    actual = normalizer.grad_input(values, g, sums, count, block, done.settings)
                chosen = allowed[quantity]
                expected = self.run.quantities[quantity][block]
                meter.add(
                    *alike(
                        overflowed(actual, done.dtype),
                        expected,
                        along(lost[channels], x.ndim, axis),
                    ),
                    along(chosen.rtol[channels], x.ndim, axis),
                    along(chosen.atol[channels], x.ndim, axis),
                    tuple(part.start for part in block),
                )
                largest = np.abs(expected).max(axes).astype(np.float64)
                sizes[quantity][channels] = np.maximum(sizes[quantity][channels], largest)
        if "grad_input" in sizes:
            with np.errstate(all="ignore"):
                # The differences that a gradient ends as are those of values as large as these.
                terms = np.abs(done.norm.weight * done.norm.invstd) * np.sqrt(
                    sums.g_squared / done.stats.count
                )
                sizes["grad_input"] = np.fmax(sizes["grad_input"], terms)
        return {quantity: _of(meter, sizes[quantity]) for quantity, meter in meters.items()}


def _of(meter: ClosenessMeter, sizes: FloatArray) -> ChannelCloseness:
    """What a meter found, as a whole and in each channel."""
    channels = meter.channels()
    return ChannelCloseness(
        pooled_closeness(meter.quantity, channels), channels, tuple(sizes.tolist())
    )


def _sizes(
    done: BatchNormPass, sums: GradientSums, exact: dict[str, FloatArray]
) -> dict[str, FloatArray]:
    """How large the values are that were rounded on the way to each quantity.

    A mean is a sum of values as large as the standard deviation, however near to 0 it ends; a
    gradient's sum wanders as far as the root of its squares.
    """
    stats = done.stats
    sizes = {quantity: np.abs(values) for quantity, values in exact.items()}
    with np.errstate(invalid="ignore", over="ignore"):
        mean = np.maximum(np.abs(stats.mean), np.sqrt(stats.var))
        sizes["mean"] = mean
        sizes["grad_weight"] = np.maximum(sizes["grad_weight"], np.sqrt(sums.g_x_hat_squared))
        sizes["grad_bias"] = np.maximum(sizes["grad_bias"], np.sqrt(sums.g_squared))
        if done.before is not None and done.after is not None and done.settings.training:
            factor = update_factor(done.settings.momentum, done.after.num_batches_tracked)
            terms = np.abs(factor) * mean, np.abs((1 - factor) * done.before.running_mean)
            sizes["running_mean"] = np.maximum(*terms)
    return sizes


def derived_tolerances(
    done: BatchNormPass,
    x: NDArray[Any],
    sums: GradientSums,
    run: BackendRun,
) -> dict[str, Tolerance]:
    """The tolerances that follow from how `run` computed, by quantity."""
    settings = done.settings
    recomputed = None
    if settings.normalizes_with_batch and run.arithmetic.order != "any":
        recomputed = cpu_statistics(
            np.moveaxis(x, done.channel_axis, 1),
            dtype=done.dtype,
            parameter_dtype=done.parameter_dtype,
            rows=run.arithmetic.rows,
            threads=run.threads,
        )
    own = Tolerances.of(run.arithmetic, done.stats, done.norm, settings, recomputed)
    allowed = {
        "mean": own.mean(),
        "var": own.var(),
        "invstd": own.invstd(),
        "output": own.output(),
        "grad_input": own.grad_input(sums),
        "grad_weight": own.grad_weight(sums),
        "grad_bias": own.grad_bias(sums),
    }
    if done.before is not None and done.after is not None:
        factor = update_factor(settings.momentum, max(done.after.num_batches_tracked, 1))
        allowed["running_mean"] = own.running_mean(done.before, factor)
        allowed["running_var"] = own.running_var(done.before, factor)
    return allowed
