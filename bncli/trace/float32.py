"""The forward pass of some channels in PyTorch's own float32 arithmetic, beside the exact one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bncli.pytorch_cpu.float32 import (
    BatchStatistics,
    batch_statistics,
    evaluation_invstd,
    fma,
    folded,
    training_invstd,
    updated,
)
from bncli.running_stats import update_factor
from bncli.trace.forward import Element, beginning, counter_steps, forward_values, parameter_steps
from bncli.trace.text import Writer, squared
from bncli.trace.values import Step

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray
    from bncli.pytorch_cpu.float32 import Float32Array
    from bncli.trace.channel import ChannelView
    from bncli.verify import BatchNormPass

MOST_ADDITIONS = 5_000_000
"""Additions of rows that are repeated one by one; each takes some microseconds."""

FLOAT32_DIGITS = 9
"""Significant digits that tell any two float32 apart."""


@dataclass(frozen=True, slots=True)
class Float32Pass:
    """A forward pass over some channels; every array is float32 of shape (their number,).

    `batch` is None where stored statistics normalise, the running statistics where the layer keeps
    none. `threads` shared the rows, if the input was summed by `rows`.
    """

    batch: BatchStatistics | None
    mean: Float32Array
    var: Float32Array
    invstd: Float32Array
    weight: Float32Array
    bias: Float32Array
    alpha: Float32Array
    beta: Float32Array
    factor: float | None
    running_mean: Float32Array | None
    running_var: Float32Array | None
    rows: bool
    threads: int

    def deviation(self, position: int, values: FloatArray) -> Float32Array:
        """float32(x - mean), whose squares are summed, for values as in `output`."""
        import numpy as np

        with np.errstate(invalid="ignore", over="ignore"):
            return np.asarray(values.astype(np.float32) - self.mean[position], np.float32)

    def output(self, position: int, values: FloatArray) -> Float32Array:
        """The output for flat values of the channel at `position` among those chosen."""
        import numpy as np

        own = slice(position, position + 1)
        return fma(values.astype(np.float32), self.alpha[own], self.beta[own])


def float32_pass(
    done: BatchNormPass, x: NDArray[Any], channels: list[int], *, rows: bool, threads: int
) -> Float32Pass:
    """The pass over `channels`; `x` holds those alone, float32 of shape (N, C, ...)."""
    import numpy as np

    settings, norm, before = done.settings, done.norm, done.before

    def chosen(values: FloatArray) -> Float32Array:
        return values[channels].astype(np.float32)

    batch = factor = running_mean = running_var = None
    if settings.normalizes_with_batch:
        batch = batch_statistics(x, rows=rows, threads=threads, num_features=len(norm.var))
        mean, var = batch.mean, batch.var
        invstd = training_invstd(var, settings.eps)
    else:
        mean, var = chosen(norm.mean), chosen(norm.var)
        invstd = evaluation_invstd(var, settings.eps)
    if before is not None:
        running_mean, running_var = chosen(before.running_mean), chosen(before.running_var)
        if settings.training and batch is not None:
            factor = update_factor(settings.momentum, before.num_batches_tracked + 1)
            running_mean, running_var = updated(running_mean, running_var, batch, factor)
    weight, bias = chosen(norm.weight), chosen(norm.bias)
    alpha, beta = folded(mean, invstd, weight, bias)
    return Float32Pass(
        batch,
        mean,
        var,
        invstd,
        weight,
        bias,
        alpha,
        beta,
        factor,
        running_mean,
        running_var,
        rows,
        threads,
    )


def float32_steps(
    done: BatchNormPass,
    found: Float32Pass,
    position: int,
    view: ChannelView,
    element: Element | None,
) -> list[Step]:
    """The steps of the channel of `view`, the one at `position` among the pass's."""
    import numpy as np

    settings, stats, channel = done.settings, done.stats, view.channel
    exact = forward_values(done, channel, element)
    exact["var_sum"] = float(stats.var[channel]) * stats.count
    with np.errstate(invalid="ignore"):
        exact["alpha"] = exact["invstd"] * exact["weight"]
        exact["beta"] = exact["bias"] - exact["mean"] * exact["alpha"]
    writer = Writer.of(view, exact["mean"], float(stats.var[channel]))
    writer = Writer(max(writer.digits, FLOAT32_DIGITS), writer.values, writer.whole)
    number = writer.number

    def step(quantity: str, formula: str, made_of: str, value: Any) -> Step:
        own = float(value)
        numbers = writer.equation(made_of, own) if made_of else number(own)
        return Step(quantity, formula, numbers, own, exact=exact.get(quantity))

    own = {
        name: float(getattr(found, name)[position])
        for name in ("mean", "var", "invstd", "weight", "bias", "alpha", "beta")
    }
    eps = settings.eps
    steps = beginning(done, view, writer)
    if found.batch is not None:
        mean32 = np.float32(own["mean"])
        order = "one by one in float64"
        if found.rows:
            order = f"row by row in float32 ({found.threads} threads), then float64"
            order = order.replace("1 threads", "1 thread")
        total = float(found.batch.var_sum[position])
        squares = writer.summed_squares(lambda x: float(np.float32(x) - mean32))
        shifted = own["var"] + eps
        root = float(np.sqrt(shifted))
        steps += [
            step("mean", f"sum(x) / count, {order}", f"({writer.summed()}) / {stats.count}",
                 own["mean"]),
            step("var_sum", "sum((x - mean)^2), mean as rounded, in that order", squares, total),
            step("var", "var_sum / count: normalises the batch",
                 f"{number(total)} / {stats.count}", own["var"]),
            step("var_plus_eps", "var + eps, in float64", f"{number(own['var'])} + {eps:g}",
                 shifted),
            step("sqrt", "sqrt(var + eps), in float64", f"sqrt({number(shifted)})", root),
            step("invstd", "1 / sqrt(var + eps), rounded here", f"1 / {number(root)}",
                 own["invstd"]),
        ]  # fmt: skip
    else:
        with np.errstate(invalid="ignore"):
            shifted = float(found.var[position] + np.float32(eps))
            root = float(np.sqrt(np.float32(shifted)))
        steps += [
            step("mean", "running_mean, in place of the batch's", "", own["mean"]),
            step("var", "running_var, in place of the batch's", "", own["var"]),
            step("var_plus_eps", "var + eps, eps rounded too",
                 f"{number(own['var'])} + {number(float(np.float32(eps)))}", shifted),
            step("sqrt", "sqrt(var + eps)", f"sqrt({number(shifted)})", root),
            step("invstd", "1 / sqrt(var + eps)", f"1 / {number(root)}", own["invstd"]),
        ]  # fmt: skip
    steps += parameter_steps(done, writer, own)
    steps += [
        step("alpha", "invstd * weight", f"{number(own['invstd'])} * {number(own['weight'])}",
             own["alpha"]),
        step("beta", "fma(-mean, alpha, bias)",
             f"fma({number(-own['mean'])}, {number(own['alpha'])}, {number(own['bias'])})",
             own["beta"]),
    ]  # fmt: skip
    if element is not None:
        x = np.float32(element.x)
        output = found.output(position, np.array([element.x]))[0]
        steps.append(Step("x", element.name, f"{element.name} = {number(float(x))}", float(x)))
        if found.batch is not None:
            deviation = found.deviation(position, np.array([element.x]))[0]
            with np.errstate(invalid="ignore", over="ignore"):
                square = deviation * deviation
            steps += [
                step("deviation", "x - mean: enters var_sum alone",
                     f"{number(float(x))} - {number(own['mean'])}", deviation),
                step("squared", "(x - mean)^2", squared(number(float(deviation))), square),
            ]  # fmt: skip
        steps.append(
            step(
                "output",
                "fma(x, alpha, beta)",
                f"fma({number(float(x))}, {number(own['alpha'])}, {number(own['beta'])})",
                output,
            )
        )
    return steps + _running_steps(done, found, position, channel, writer, exact)


def _running_steps(
    done: BatchNormPass,
    found: Float32Pass,
    position: int,
    channel: int,
    writer: Writer,
    exact: dict[str, float],
) -> list[Step]:
    """The running statistics after the pass."""
    import numpy as np

    if found.running_mean is None or found.running_var is None:
        return []
    number = writer.number
    after = {
        "running_mean": float(found.running_mean[position]),
        "running_var": float(found.running_var[position]),
    }
    if found.batch is None or found.factor is None or done.before is None:
        return [
            Step(name, "as before: evaluation changes nothing", number(value), value, value)
            for name, value in after.items()
        ] + counter_steps(done)
    factor = float(np.float32(found.factor))
    kept = float(np.float32(1) - np.float32(factor))
    unbiased = float(found.batch.unbiased_var[position])
    letter = "momentum" if done.settings.momentum is not None else "factor"
    steps = [
        Step(
            "unbiased_var",
            "var_sum / (count - 1): enters running_var",
            writer.equation(
                f"{number(float(found.batch.var_sum[position]))} / {done.stats.count - 1}", unbiased
            ),
            unbiased,
            exact["unbiased_var"],
        ),
        Step("factor", f"{letter}, rounded", number(factor), factor, exact["factor"]),
    ]
    for name, batch, formula in (
        (
            "running_mean",
            float(found.mean[position]),
            f"(1 - {letter}) * running_mean + {letter} * mean",
        ),
        (
            "running_var",
            unbiased,
            f"(1 - {letter}) * running_var, rounded, + {letter} * unbiased_var in float64",
        ),
    ):
        old = float(getattr(done.before, name)[channel])
        made_of = f"{number(kept)} * {number(old)} + {number(factor)} * {number(batch)}"
        value = after[name]
        steps.append(Step(name, formula, writer.equation(made_of, value), value, exact[name]))
    return steps + counter_steps(done)
