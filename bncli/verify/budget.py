"""Where a float32 difference comes from: bncli and the backend against exact arithmetic.

Beside them PyTorch's own arithmetic, repeated: where that meets PyTorch bit for bit, nothing is
wrong with it.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from bncli.batchnorm import blocks
from bncli.light import dataclass, np
from bncli.pytorch_cpu.float32 import fma
from bncli.pytorch_cpu.statistics import LONGEST_LOOP
from bncli.running_stats import update_factor
from bncli.verify.closeness import spacing
from bncli.verify.exact import ExactPass, exact_channel
from bncli.verify.trace.float32_pass import float32_pass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import ChannelCloseness, Closeness
    from bncli.verify.batch_norm_pass import BatchNormPass
    from bncli.verify.comparison import Compared

MOST_VALUES = 1 << 20
"""Values that are summed exactly; of a larger input, the worst channels that fit."""

LARGEST_CHANNEL = 1 << 22
"""Values of a channel beyond which none is summed exactly."""


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """One quantity: the largest errors, absolute and in ULPs of each channel's size.

    `channels` is the number of channels that were computed exactly, each at its worst element;
    `torch_error` and `torch_ulp` are the backend's, whichever it is. `repeated_ulp` is the distance
    of the repeated arithmetic from PyTorch over all elements, in ULPs of each value; None where
    that path is not repeated.
    """

    quantity: str
    channels: int
    bncli_error: float | None
    bncli_ulp: float | None
    torch_error: float | None
    torch_ulp: float | None
    repeated_ulp: float | None


def error_budget(done: BatchNormPass, x: NDArray[Any], compared: Compared) -> list[BudgetLine]:
    """A line for each quantity of a float32 pass that can be computed exactly, or repeated."""
    exact = _exact(done, x, compared)
    repeated = _repeated(done, x, compared)
    return [
        _line(item, exact.get(item.whole.quantity, {}), repeated.get(item.whole.quantity))
        for item in compared.quantities
        if item.whole.quantity in exact or item.whole.quantity in repeated
    ]


def _line(item: ChannelCloseness, exact: dict[int, Fraction], repeated: float | None) -> BudgetLine:
    """The largest errors of both sides over the channels that are known exactly."""
    known = [channel for channel in exact if _finite(item.channels[channel])]
    if not known:
        return BudgetLine(item.whole.quantity, 0, None, None, None, None, repeated)
    errors = np.array(
        [
            [
                abs(float(Fraction(side) - exact[channel]))
                for side in (item.channels[channel].actual, item.channels[channel].expected)
            ]
            for channel in known
        ]
    )
    steps = spacing(np.array([item.sizes[channel] for channel in known]), "float32")
    (ours, theirs), (our_ulp, their_ulp) = (
        values.max(0).tolist() for values in (errors, errors / steps[:, np.newaxis])
    )
    return BudgetLine(item.whole.quantity, len(known), ours, our_ulp, theirs, their_ulp, repeated)


def _finite(item: Closeness) -> bool:
    """Whether both values at the worst element are numbers."""
    return math.isfinite(item.actual) and math.isfinite(item.expected)


def _chosen(done: BatchNormPass, compared: Compared) -> list[int]:
    """The channels to compute exactly: the worst of them, as many as `MOST_VALUES` allows."""
    stats = done.stats
    if stats.count > LARGEST_CHANNEL:
        return []
    used = np.zeros(stats.num_features)
    for item in compared.quantities:
        if item.channels:
            used = np.maximum(used, [channel.used for channel in item.channels])
    finite = np.isfinite(stats.mean) & np.isfinite(stats.var)
    norm = done.norm
    kept = [norm.mean, norm.var, norm.weight, norm.bias]
    if done.before is not None:
        kept += [done.before.running_mean, done.before.running_var]
    finite &= np.isfinite(kept).all(0)
    order = sorted(np.flatnonzero(finite).tolist(), key=lambda channel: -used[channel])
    return order[: max(1, MOST_VALUES // stats.count)]


def _exact(
    done: BatchNormPass, x: NDArray[Any], compared: Compared
) -> dict[str, dict[int, Fraction]]:
    """The exact values by quantity and channel, of an element at the index of its closeness."""
    found: dict[str, dict[int, Fraction]] = {}
    items: dict[str, ChannelCloseness] = {item.whole.quantity: item for item in compared.quantities}

    def keep(quantity: str, channel: int, value: Fraction) -> None:
        if quantity in items:
            found.setdefault(quantity, {})[channel] = value

    settings = done.settings
    for channel in _chosen(done, compared):
        part = (slice(None),) * done.channel_axis + (channel,)
        sums = exact_channel(x[part], compared.grad_output[part])
        center, var = sums.mean, sums.var
        if not settings.normalizes_with_batch:
            center = Fraction(float(done.norm.mean[channel]))
            var = Fraction(float(done.norm.var[channel]))
        if var + Fraction(settings.eps) <= 0:
            continue
        own = ExactPass(
            sums,
            center,
            var,
            settings.eps,
            float(done.norm.weight[channel]),
            float(done.norm.bias[channel]),
            settings.normalizes_with_batch,
        )
        keep("mean", channel, sums.mean)
        keep("var", channel, sums.var)
        keep("invstd", channel, own.invstd)
        keep("grad_bias", channel, sums.g)
        keep("grad_weight", channel, own.grad_weight)
        for quantity in {"output", "grad_input"} & set(items):
            index = items[quantity].channels[channel].index
            value, gradient = float(x[index]), float(compared.grad_output[index])
            exact = own.output(value)
            if quantity == "grad_input":
                exact = own.grad_input(value, gradient)
            keep(quantity, channel, exact)
        if done.before is not None and done.after is not None:
            factor = Fraction(0)
            if settings.training:
                factor = Fraction(update_factor(settings.momentum, done.after.num_batches_tracked))
            unbiased = sums.var * sums.count / max(sums.count - 1, 1)
            for quantity, batch in (("running_mean", sums.mean), ("running_var", unbiased)):
                old = Fraction(float(getattr(done.before, quantity)[channel]))
                keep(quantity, channel, (1 - factor) * old + factor * batch)
    return found


def _repeated(done: BatchNormPass, x: NDArray[Any], compared: Compared) -> dict[str, float]:
    """The distance of PyTorch's repeated arithmetic from PyTorch by quantity, in ULPs."""
    arithmetic, run = compared.run.arithmetic, compared.run
    share = -(-done.stats.count // run.threads)
    if not arithmetic.order_known or (arithmetic.rows and share > LONGEST_LOOP):
        return {}
    values = np.moveaxis(x, done.channel_axis, 1).astype(np.float32, copy=False)
    every = list(range(done.stats.num_features))
    mine = float32_pass(done, values, every, rows=arithmetic.rows, threads=run.threads)
    found = {"running_mean": mine.running_mean, "running_var": mine.running_var}
    if mine.batch is not None:
        found |= {"mean": mine.mean, "var": mine.var, "invstd": mine.invstd}
    distances = {
        quantity: _distance(own, run.quantities[quantity])
        for quantity, own in found.items()
        if own is not None and quantity in run.quantities
    }
    output = np.moveaxis(run.quantities["output"], done.channel_axis, 1)
    worst = 0.0
    for block in blocks(values.shape):
        shape = [1, -1] + [1] * (values.ndim - 2)
        alpha, beta = (part[block[1]].reshape(shape) for part in (mine.alpha, mine.beta))
        worst = max(worst, _distance(fma(values[block], alpha, beta), output[block]))
    return distances | {"output": worst}


def _distance(mine: NDArray[Any], theirs: NDArray[Any]) -> float:
    """The largest difference in ULPs of the larger value; infinite where one is not finite."""
    one, other = mine.astype(np.float64), theirs.astype(np.float64)
    with np.errstate(all="ignore"):
        same = (one == other) | (np.isnan(one) & np.isnan(other))
        step = spacing(np.maximum(np.abs(one), np.abs(other)), "float32")
        apart = np.where(same, 0.0, np.abs(one - other) / step)
    return float(np.where(np.isnan(apart), np.inf, apart).max(initial=0.0))
