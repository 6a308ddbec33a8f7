"""One pass of a layer, computed here and by a backend, compared quantity by quantity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bncli.backends.interface import QUANTITIES, Backend, BackendRun, BatchNormCall
from bncli.batchnorm import (
    BlockNormalizer,
    Normalization,
    along,
    blocks,
    gradient_sums,
)
from bncli.compare import ClosenessMeter, closeness
from bncli.dtypes import DTYPES, decode, encode
from bncli.pytorch_cpu import cpu_statistics
from bncli.running_stats import update_factor
from bncli.tolerance import Tolerances, fixed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.batchnorm import GradientSums
    from bncli.compare import Tolerance
    from bncli.model import (
        BatchNormSettings,
        ChannelStats,
        Closeness,
        FloatArray,
        RunningStats,
    )


@dataclass(frozen=True, slots=True)
class BatchNormPass:
    """What bncli computed of one forward pass, exactly; see `BatchNormCall` for the arrays.

    `before` and `after` are the running statistics around the pass, None without them.
    """

    dtype: str
    parameter_dtype: str
    channel_axis: int
    settings: BatchNormSettings
    stats: ChannelStats
    norm: Normalization
    weight: FloatArray | None
    bias: FloatArray | None
    before: RunningStats | None
    after: RunningStats | None


def compare_pass(
    done: BatchNormPass,
    x: NDArray[Any],
    backend: Backend,
    *,
    seed: int = 0,
    grad_output: NDArray[Any] | None = None,
    tolerance: tuple[float, float] | None = None,
) -> tuple[list[Closeness], BackendRun]:
    """Run `backend` on `x` and compare every quantity that exists in this mode.

    `x` holds the input's values (bfloat16 as float32) in the user's axes. The upstream gradient
    is `grad_output`, of the same shape and dtype, or standard normal noise from `seed`.
    `tolerance` is (rtol, atol) for all, or None for the tolerances that follow from the arithmetic.
    """
    if grad_output is None:
        grad_output = upstream_gradient(x.shape, done.dtype, seed)
    run = backend.run(backend_call(done, x, grad_output))
    return _differences(done, x, grad_output, run, tolerance), run


def backend_call(done: BatchNormPass, x: NDArray[Any], grad_output: NDArray[Any]) -> BatchNormCall:
    """The same pass as a backend is asked for it."""
    return BatchNormCall(
        x=x,
        grad_output=grad_output,
        dtype=done.dtype,
        parameter_dtype=done.parameter_dtype,
        channel_axis=done.channel_axis,
        settings=done.settings,
        weight=done.weight,
        bias=done.bias,
        running=done.before,
    )


def upstream_gradient(shape: tuple[int, ...], dtype: str, seed: int) -> NDArray[Any]:
    """Standard normal noise, rounded to `dtype` (bfloat16 then widened to float32)."""
    import numpy as np

    noise = np.random.default_rng(seed).standard_normal(
        shape, dtype=np.float64 if dtype == "float64" else np.float32
    )
    return decode(encode(noise, dtype), dtype)


def _differences(
    done: BatchNormPass,
    x: NDArray[Any],
    grad_output: NDArray[Any],
    run: BackendRun,
    tolerance: tuple[float, float] | None,
) -> list[Closeness]:
    """Each quantity's closeness, in the order of QUANTITIES."""
    import numpy as np

    stats, norm = done.stats, done.norm
    sums = gradient_sums(x, grad_output, norm, done.channel_axis)
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
            "num_batches_tracked": np.array([done.after.num_batches_tracked], np.float64),
        }
    if tolerance is None:
        allowed = _derived(done, x, sums, run)
    else:
        allowed = dict.fromkeys(QUANTITIES, fixed(*tolerance, stats.num_features))
    allowed["num_batches_tracked"] = fixed(0.0, 0.0, 1)

    found = {
        quantity: closeness(
            quantity,
            _overflowed(actual, done.parameter_dtype),
            run.quantities[quantity],
            allowed[quantity],
        )
        for quantity, actual in exact.items()
        if quantity in run.quantities
    }
    found |= _elementwise(done, x, grad_output, sums, run, allowed)
    return [found[quantity] for quantity in QUANTITIES if quantity in found]


def _derived(
    done: BatchNormPass, x: NDArray[Any], sums: GradientSums, run: BackendRun
) -> dict[str, Tolerance]:
    """The tolerances that follow from how `run` computed, by quantity."""
    import numpy as np

    settings = done.settings
    recomputed = None
    if settings.normalizes_with_batch:
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


def _elementwise(
    done: BatchNormPass,
    x: NDArray[Any],
    grad_output: NDArray[Any],
    sums: GradientSums,
    run: BackendRun,
    allowed: dict[str, Tolerance],
) -> dict[str, Closeness]:
    """The closeness of output and grad_input, block by block."""
    normalizer = BlockNormalizer(done.norm, x.ndim, done.channel_axis)
    meters = (ClosenessMeter("output"), ClosenessMeter("grad_input"))
    for block in blocks(x.shape):
        values = x[block]
        exact = (
            normalizer.output(values, block),
            normalizer.grad_input(
                values, grad_output[block], sums, done.stats.count, block, done.settings
            ),
        )
        channels = block[done.channel_axis]
        for meter, actual in zip(meters, exact, strict=True):
            chosen = allowed[meter.quantity]
            meter.add(
                _overflowed(actual, done.dtype),
                run.quantities[meter.quantity][block],
                along(chosen.rtol[channels], x.ndim, done.channel_axis),
                along(chosen.atol[channels], x.ndim, done.channel_axis),
                tuple(part.start for part in block),
            )
    return {meter.quantity: meter.closeness() for meter in meters}


def _overflowed(values: FloatArray, dtype: str) -> FloatArray:
    """`values`, but those beyond the largest of `dtype` as the infinities that a cast makes."""
    import numpy as np

    u = DTYPES[dtype].unit_roundoff
    limit = DTYPES[dtype].largest / (1 - u) * (1 - u / 2)  # half a step beyond the largest
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(values) >= limit, np.copysign(np.inf, values), values)
