"""What a step gives when it is computed in one way: `Way()` is PyTorch's, in exact arithmetic.

The statistics of the channels are exact, and the rest is float64: what is compared has at least as
many roundings of its own, for which the tolerances allow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.batchnorm import along
from bncli.light import dataclass, np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from bncli.model import FloatArray
    from bncli.testing.runs import Step
    from bncli.testing.ways import Backward, Forward, Groups, Way


@dataclass(frozen=True, slots=True)
class Normalized:
    """What a forward pass used, each array broadcasting against the input.

    `away` are the values less what was subtracted, `around` less their mean (or as they are, where
    the mean square stands for the variance), and `slope` is d invstd / d var. `axes` were reduced,
    over `count` values, where the batch's own statistics were used.
    """

    away: FloatArray
    around: FloatArray
    invstd: FloatArray
    slope: FloatArray
    axes: tuple[int, ...]
    count: Any
    own: bool


def predicted(step: Step, way: Way) -> Mapping[str, FloatArray] | None:
    """The quantities of a step by name; None where the way fails on this shape.

    A quantity that is not there may have any value.
    """
    after = buffers_after(step, way)
    found = passed(step, way, after)
    return None if found is None else {**after, **found}


def passed(
    step: Step, way: Way, after: Mapping[str, FloatArray]
) -> Mapping[str, FloatArray] | None:
    """The output and the gradients; `after` are the buffers after the step."""
    call = step.call
    forward = forward_of(step, way)
    if forward.groups == "last" and call.x.shape[-1] != call.x.shape[1]:
        return None
    axis = call.x.ndim - 1 if forward.groups == "last" else 1
    weight, bias = (
        None if values is None else along(values, call.x.ndim, axis)
        for values in (call.weight, call.bias)
    )
    with np.errstate(all="ignore"):
        done = _normalized(step, forward, after, skips_nan=way.skips_nan)
        output = _scaled(done.away * done.invstd, weight, bias, forward)
        return {
            "output": output,
            **_gradients(step, done, forward, way.backward, weight, bias),
        }


def forward_of(step: Step, way: Way) -> Forward:
    """How the output of a step is made."""
    return way.train if step.call.settings.training else way.evaluate


def buffers_after(step: Step, way: Way) -> dict[str, FloatArray]:
    """The buffers after a step, empty without them."""
    call, update = step.call, way.update
    before, settings = call.running, call.settings
    if before is None:
        return {}
    training, empty = settings.training, step.stats is None
    counted = {
        "training": training,
        "always": True,
        "never": False,
        "with values": training and not empty,
    }[update.counted]
    tracked = np.array([before.num_batches_tracked + counted], np.float64)
    found: dict[str, FloatArray] = {"num_batches_tracked": tracked}
    if not update.judged:
        return found
    mean, var = before.running_mean, before.running_var
    moves = update.when == "always" or (update.when == "training" and training)
    if moves and not training and step.stats is not None and step.stats.count == 1:
        return found  # NaN, or no update
    with np.errstate(all="ignore"):
        if moves and step.stats is not None:
            factor = _factor(settings.momentum, before.num_batches_tracked + training, way)
            kept = 1.0 if update.undamped else 1 - factor
            if update.of != "var":
                mean = kept * mean + factor * _batch_mean(step, way)
            if update.of != "mean":
                var = kept * var + factor * _batch_variance(step, way)
        elif moves and way.empty_spoils:
            mean, var = mean * np.nan, var * np.nan
    return found | {"running_mean": mean, "running_var": var}


def _factor(momentum: float | None, batches: int, way: Way) -> float:
    """The weight of the new batch, the `batches`-th."""
    update = way.update
    given = momentum is not None
    if momentum is None:
        divisor = {"n": batches, "n - 1": batches - 1, "n + 1": batches + 1}
        kept = update.cumulative
        if isinstance(kept, str):
            factor = 1.0 / divisor[kept] if divisor[kept] else np.inf
        else:
            factor = kept
    elif momentum == 0 and update.momentum_for_0 is not None:
        factor = update.momentum_for_0
    else:
        factor = momentum if update.momentum is None else update.momentum
    if update.weighs == "old" or (update.weighs == "old if given" and given):
        factor = 1 - factor
    return 1 - (1 - factor) ** 2 if update.twice else factor


def _batch_mean(step: Step, way: Way) -> FloatArray:
    """What enters running_mean."""
    if way.skips_nan:
        return np.asarray(_nan_moments(step.call.x)[0].reshape(-1))
    assert step.stats is not None
    return step.stats.mean


def _batch_variance(step: Step, way: Way) -> FloatArray:
    """What enters running_var."""
    stats, update, eps = step.stats, way.update, step.call.settings.eps
    assert stats is not None
    count, var = stats.count, stats.var
    if way.skips_nan:
        _, var, counts = _nan_moments(step.call.x)
        return np.asarray((var * counts / (counts - 1)).reshape(-1))
    if update.within and step.call.x.ndim > 2:
        x = step.call.x.astype(np.float64)
        var = x.var(tuple(range(2, x.ndim))).mean(0)
        count = int(np.prod(x.shape[2:], dtype=int))
    if update.variance == "squares":
        var = var + stats.mean**2
    elif update.variance == "unbiased":
        var = var * count / (count - 1) if count > 1 else var * np.nan
    elif update.variance == "inverted":
        var = var * (count - 1) / count
    elif update.variance == "keras2":
        var = var * count / (count - (1 + eps))
    elif update.variance == "std":
        var = np.sqrt(var * count / (count - 1)) if count > 1 else var * np.nan
    elif update.variance == "biased std":
        var = np.sqrt(var)
    return np.asarray(var + eps if update.kept_eps else var)


def _normalized(
    step: Step, forward: Forward, after: Mapping[str, FloatArray], *, skips_nan: bool
) -> Normalized:
    """What a forward pass uses."""
    call, x = step.call, step.call.x.astype(np.float64)
    before, eps = call.running, call.settings.eps
    source: str = forward.source
    if source in ("own", "fresh if none"):
        fresh = source == "fresh if none" and before is None and not call.settings.training
        own = "batch" if call.settings.normalizes_with_batch else "stored"
        source = "fresh" if fresh else own
    if source in ("stored", "updated") and before is None:
        source = "batch"
    eps = eps if forward.eps is None else forward.eps
    eps = forward.eps_for_0 if forward.eps_for_0 is not None and eps == 0 else eps
    # Without spatial axes InstanceNorm refuses, or is BatchNorm.
    groups = "channel" if forward.groups == "sample" and x.ndim == 2 else forward.groups
    axes = _reduced(groups, x.ndim)
    if source == "batch":
        around, var, count = _batch(step, x, groups, axes, skips_nan=skips_nan)
        away = around if forward.centered else x
        if forward.mean_square and x.size:
            around, var = x, (x * x).mean(axes, keepdims=True)
        if forward.ddof and count != forward.ddof:
            var = var * count / (count - forward.ddof)
        invstd, slope = _root(var, eps, forward)
        return Normalized(away, around, invstd, slope, axes, count, own=True)
    mean, var = _stored(step, source, after, forward, eps)
    mean, var = along(mean, x.ndim, 1), along(var, x.ndim, 1)
    away = x - mean if forward.centered else x
    invstd, slope = (var, var * 0) if forward.stored == "invstd" else _root(var, eps, forward)
    count = max(x.size // max(x.shape[1], 1), 1)
    return Normalized(away, away, invstd, slope, axes, count, own=False)


def _batch(
    step: Step, x: FloatArray, groups: Groups, axes: tuple[int, ...], *, skips_nan: bool
) -> tuple[FloatArray, FloatArray, Any]:
    """The values around their mean, their biased variance and their number."""
    if skips_nan:
        mean, var, counts = _nan_moments(x)
        return x - mean, var, counts
    if groups == "channel" and step.stats is not None:
        shift, offset, var = (
            along(values, x.ndim, 1)
            for values in (step.stats.shift, step.stats.offset, step.stats.var)
        )
        return (x - shift) - offset, var, step.stats.count
    count = int(np.prod([x.shape[axis] for axis in axes], dtype=int))
    if not x.size:
        return x, np.ones([1] * x.ndim), count
    around = x - x.mean(axes, keepdims=True)
    return around, (around * around).mean(axes, keepdims=True), count


def _stored(
    step: Step, source: str, after: Mapping[str, FloatArray], forward: Forward, eps: float
) -> tuple[FloatArray, FloatArray]:
    """The mean and the variance of each channel that are not the batch's."""
    features = step.call.x.shape[1]
    before = step.call.running
    if source == "fresh" or before is None:
        return np.zeros(features), np.ones(features)
    mean, var = before.running_mean, before.running_var
    if source == "updated" and "running_mean" in after:
        mean, var = after["running_mean"], after["running_var"]
    if forward.stored == "swapped":
        mean, var = var, mean
    elif forward.stored == "of invstd":
        var = 1 / np.sqrt(var + eps)
    return mean, var


def _root(var: FloatArray, eps: float, forward: Forward) -> tuple[FloatArray, FloatArray]:
    """What is multiplied by, and its derivative by the variance."""
    std = np.sqrt(var)
    if forward.root == "outside":
        return 1 / (std + eps), -0.5 / (std * (std + eps) ** 2)
    if forward.root == "none":
        return 1 / (var + eps), -1 / (var + eps) ** 2
    if forward.root == "largest":
        large = np.maximum(var, eps)
        return 1 / np.sqrt(large), np.where(var > eps, -0.5 * large**-1.5, 0.0)
    if forward.root == "unscaled":
        return np.ones_like(var), np.zeros_like(var)
    return 1 / np.sqrt(var + eps), -0.5 * (var + eps) ** -1.5


def _scaled(
    x_hat: FloatArray, weight: FloatArray | None, bias: FloatArray | None, forward: Forward
) -> FloatArray:
    """The output of the normalised values."""
    if weight is None or bias is None or forward.affine == "neither":
        return x_hat
    made = {
        "": lambda: x_hat * weight + bias,
        "no weight": lambda: x_hat + bias,
        "no bias": lambda: x_hat * weight,
        "bias first": lambda: (x_hat + bias) * weight,
        "1 + weight": lambda: x_hat * (1 + weight) + bias,
        "swapped": lambda: x_hat * bias + weight,
        "minus bias": lambda: x_hat * weight - bias,
    }
    return np.asarray(made[forward.affine]())


def _gradients(
    step: Step,
    done: Normalized,
    forward: Forward,
    backward: Backward,
    weight: FloatArray | None,
    bias: FloatArray | None,
) -> dict[str, FloatArray]:
    """The gradients of the pass, changed as `backward` says."""
    g = step.call.grad_output.astype(np.float64)
    scale = 1.0 if weight is None else _slope_of(weight, bias, forward)
    inner = g * scale if backward.weight else g
    axes, count = done.axes, done.count - backward.ddof
    own = (done.own and backward.batch != "none") or backward.batch == "always"
    gradient = inner * done.invstd
    if own and g.size:
        centered = (forward.centered or not done.own) and backward.batch != "no mean"
        if centered:
            gradient = gradient - inner.sum(axes, keepdims=True) / count * done.invstd
        if backward.batch != "no variance":
            slope = done.slope if done.own else -0.5 * done.invstd**3
            along_var = (inner * done.away).sum(axes, keepdims=True)
            divisor = count - (forward.ddof if done.own else 0)
            gradient = gradient + slope * 2 * done.around / divisor * along_var
    # Between two values of a group nothing is left but rounding, times a large invstd.
    few = forward.groups != "channel" and np.max(done.count) <= 2
    found = {} if few else {"grad_input": gradient}
    if weight is None or bias is None:
        return found
    others = tuple(axis for axis in range(g.ndim) if axis != 1)
    x_hat = done.away * done.invstd
    if not backward.centered:
        x_hat = step.call.x.astype(np.float64) * done.invstd
    share = max(g.size // g.shape[1], 1) if backward.means else 1
    by_weight, by_bias = x_hat, np.ones_like(x_hat)
    if forward.affine == "bias first":
        by_weight, by_bias = x_hat + bias, by_bias * weight
    elif forward.affine == "minus bias":
        by_bias = -by_bias
    elif forward.affine == "swapped":
        by_weight, by_bias = by_bias, by_weight
    if forward.affine not in ("no weight", "neither"):
        found["grad_weight"] = (g * by_weight).sum(others) / share
    if forward.affine not in ("no bias", "neither"):
        found["grad_bias"] = (g * by_bias).sum(others) / share
    return found


def _slope_of(weight: Any, bias: Any, forward: Forward) -> Any:
    """What the normalised values are multiplied by."""
    if forward.affine in ("no weight", "neither"):
        return 1.0
    return {"1 + weight": 1 + weight, "swapped": bias}.get(forward.affine, weight)


def _reduced(groups: Groups, ndim: int) -> tuple[int, ...]:
    """The axes over which the statistics are taken."""
    everything = tuple(range(ndim))
    return {
        "channel": tuple(axis for axis in everything if axis != 1),
        "sample": everything[2:],
        "places": (0,),
        "features": everything[1:],
        "all": everything,
        "last": everything[:-1],
    }[groups]


def _nan_moments(x: NDArray[Any]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean, biased variance and number of the finite values of each channel, along axis 1."""
    values = x.astype(np.float64)
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    finite = np.isfinite(values)
    counts = finite.sum(axes, keepdims=True)
    mean = np.where(finite, values, 0.0).sum(axes, keepdims=True) / counts
    var = (np.where(finite, values - mean, 0.0) ** 2).sum(axes, keepdims=True) / counts
    return mean, var, counts.astype(np.float64)
