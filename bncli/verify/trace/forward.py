"""The forward pass of one channel in exact arithmetic: float64 on exact statistics."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from bncli.batchnorm import BlockNormalizer, Normalization
from bncli.dtypes import DTYPES
from bncli.light import dataclass, np
from bncli.running_stats import update_factor
from bncli.verify.batch_norm_pass import BatchNormPass, batch_norm_pass
from bncli.verify.trace.text import Writer, squared
from bncli.verify.trace.values import Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from bncli.model import FloatArray
    from bncli.verify.trace.channel import ChannelView


STORED_MEAN, STORED_VAR = "running_mean, not the batch's mean", "running_var, not the batch's var"
"""What normalises in evaluation."""

OF_ELEMENT = {"x", "deviation", "squared", "x_hat", "scaled", "g", "grad_x_hat"}
"""The steps between an element and its output, or its upstream gradient and its gradient."""

UNCHANGED = "as before: evaluation changes nothing"
"""What becomes of the running statistics in evaluation."""

WEIGHTS = 1e-3, 1e-2
"""The weights of a batch between which the momentum is taken to be where rounding is estimated: a
momentum of 0 would allow any difference, and few layers are known to be trained with a larger one.
"""


@dataclass(frozen=True, slots=True)
class Element:
    """The element that is followed: its index in the whole tensor, and its value."""

    index: tuple[int, ...]
    x: float

    @property
    def name(self) -> str:
        """`x[0, 0, 1, 1]`."""
        return f"x[{', '.join(map(str, self.index))}]"


def forward_steps(
    done: BatchNormPass, view: ChannelView, writer: Writer, element: Element | None
) -> list[Step]:
    """The steps of the channel of `view`; those of `element` only where there is one.

    In evaluation each step says what training on this batch would have, where it can train.
    """
    values = forward_values(done, view.channel, element)
    steps = _steps(done, view, writer, element, values)
    other = trained(done)
    if other is None:
        return steps
    theirs = forward_values(other, view.channel, element)
    return [replace(step, training=theirs.get(step.quantity)) for step in steps]


def could_train(done: BatchNormPass) -> bool:
    """Whether this is evaluation, on a batch that PyTorch would train on too."""
    settings = done.settings
    return not settings.training and done.stats.count > 1 and settings.eps > 0


def trained(done: BatchNormPass) -> BatchNormPass | None:
    """The pass that training would have made, for one in evaluation; None where it cannot."""
    if not could_train(done):
        return None
    layer = replace(done.layer, settings=replace(done.settings, training=True))
    return batch_norm_pass(layer, done.stats, dtype=done.dtype, channel_axis=done.channel_axis)


def differs_at(done: BatchNormPass, channel: int) -> str | None:
    """The first quantity at which evaluation differs from training by more than rounding.

    "mean" or "var", on which all that follows depends; None where both agree. Stored statistics
    carry the roundings of many updates: three an update, and those of 1/momentum updates remain.
    """
    other = trained(done)
    if other is None:
        return None
    momentum = done.settings.momentum
    counted = done.before.num_batches_tracked if done.before is not None else 0
    kept = 1 / max(counted, 1) if momentum is None else abs(momentum)
    least, most = WEIGHTS
    share = 3 * DTYPES[done.parameter_dtype].unit_roundoff / min(max(kept, least), most)
    mean, var = (
        (float(getattr(done.norm, name)[channel]), float(getattr(other.norm, name)[channel]))
        for name in ("mean", "var")
    )
    with np.errstate(invalid="ignore"):
        spread = float(np.sqrt(max(var[1], 0.0)))  # the values that a mean near 0 was summed from
    sizes = max(map(abs, mean)) + spread, max(map(abs, var))
    for name, (ours, theirs), size in zip(("mean", "var"), (mean, var), sizes, strict=True):
        if ours == theirs or (math.isnan(ours) and math.isnan(theirs)):
            continue
        if not abs(ours - theirs) <= share * size:
            return name
    return None


def forward_values(done: BatchNormPass, channel: int, element: Element | None) -> dict[str, float]:
    """The value of every quantity of a forward pass over one channel, by name."""
    settings, stats, norm, after = done.settings, done.stats, done.norm, done.after
    var = float(norm.var[channel])
    with np.errstate(invalid="ignore"):
        root = float(np.sqrt(var + settings.eps))
    values = {
        "count": stats.count,
        "mean": float(norm.mean[channel]),
        "var": var,
        "unbiased_var": float(stats.unbiased_var[channel]),
        "var_plus_eps": var + settings.eps,
        "sqrt": root,
        "invstd": float(norm.invstd[channel]),
        "weight": float(norm.weight[channel]),
        "bias": float(norm.bias[channel]),
    }
    if element is not None:
        values |= element_values(norm, channel, element.x)
    if after is not None:
        values |= {
            "running_mean": float(after.running_mean[channel]),
            "running_var": float(after.running_var[channel]),
            "num_batches_tracked": after.num_batches_tracked,
        }
        if settings.training:
            values["factor"] = update_factor(settings.momentum, after.num_batches_tracked)
    return values


def element_values(norm: Normalization, channel: int, x: float) -> dict[str, float]:
    """What becomes of the value `x` of a channel."""
    given = np.array([x])
    deviation = deviations(norm, channel, given)
    x_hat, output = normalized(norm, channel, given)
    with np.errstate(invalid="ignore", over="ignore"):
        return {
            "x": x,
            "deviation": float(deviation[0]),
            "squared": float(deviation[0] ** 2),
            "x_hat": float(x_hat[0]),
            "scaled": float(x_hat[0] * norm.weight[channel]),
            "output": float(output[0]),
        }


def deviations(norm: Normalization, channel: int, values: FloatArray) -> FloatArray:
    """x - mean for values of one channel, flat."""
    with np.errstate(invalid="ignore", over="ignore"):
        centered: FloatArray = (values - norm.shift[channel]) - norm.offset[channel]
    return centered


def normalized(
    norm: Normalization, channel: int, values: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """(x_hat, output) for values of one channel, flat."""
    normalizer = BlockNormalizer(one_channel(norm, channel), 2, 1)
    block = (slice(0, len(values)), slice(0, 1))
    table = values.reshape(-1, 1)
    return normalizer.x_hat(table, block)[:, 0], normalizer.output(table, block)[:, 0]


def one_channel(norm: Normalization, channel: int) -> Normalization:
    """The normalisation of one channel alone."""
    own = slice(channel, channel + 1)
    return Normalization(*(getattr(norm, field.name)[own] for field in fields(norm)))


def _steps(
    done: BatchNormPass,
    view: ChannelView,
    writer: Writer,
    element: Element | None,
    values: dict[str, float],
) -> list[Step]:
    """The steps in words and numbers."""
    number, equation = writer.number, writer.equation

    def step(quantity: str, formula: str, made_of: str, brief: str | None = None) -> Step:
        value = values[quantity]
        numbers = equation(made_of, value) if made_of else writer.result(value)
        return Step(quantity, formula, numbers, value, made_of if brief is None else brief)

    mean, invstd = values["mean"], values["invstd"]
    shifted = f"{writer.result(values['var'])} + {done.settings.eps:g}"
    steps = [*beginning(done, view, writer), *_mean_and_var(done, view, writer, step)]
    steps += [
        step("var_plus_eps", "var + eps", shifted, ""),
        step("sqrt", "sqrt(var + eps)", f"sqrt({writer.result(values['var_plus_eps'])})", ""),
        step(
            "invstd",
            "1 / sqrt(var + eps)",
            f"1 / {writer.result(values['sqrt'])}",
            f"1 / sqrt({shifted})",
        ),
        *parameter_steps(done, writer, values),
    ]
    if element is not None:
        deviation, x_hat = writer.result(values["deviation"]), writer.result(values["x_hat"])
        steps += [
            Step(
                "x", element.name, f"{element.name} = {number(element.x)}", element.x, element.name
            ),
            step("deviation", "x - mean", f"{number(element.x)} - {parenthesized(number(mean))}"),
            step("squared", "(x - mean)^2", squared(deviation), ""),
            step("x_hat", "(x - mean) * invstd", f"{deviation} * {writer.result(invstd)}"),
            step("scaled", "weight * x_hat", f"{number(values['weight'])} * {x_hat}"),
            step(
                "output",
                "weight * x_hat + bias",
                f"{writer.result(values['scaled'])} + {parenthesized(number(values['bias']))}",
            ),
        ]
    return steps + running_steps(done, view.channel, writer, values)


def _mean_and_var(
    done: BatchNormPass, view: ChannelView, writer: Writer, step: Callable[..., Step]
) -> list[Step]:
    """The statistics that normalise, each put into words by `step`."""
    stats, settings = done.stats, done.settings
    if not settings.normalizes_with_batch:
        return [
            step("mean", STORED_MEAN, "", STORED_MEAN),
            step("var", STORED_VAR, "", STORED_VAR),
        ]
    mean = float(done.norm.mean[view.channel])
    steps = [
        step("mean", "sum(x) / count", f"({writer.summed()}) / {stats.count}"),
        step(
            "var",
            "sum((x - mean)^2) / count: normalises the batch",
            f"({writer.summed_squares(lambda x: x - mean)}) / {stats.count}",
        ),
    ]
    if settings.training and settings.track_running_stats:
        total = writer.result(float(stats.var[view.channel]) * stats.count)
        steps.append(
            step(
                "unbiased_var",
                "sum((x - mean)^2) / (count - 1): enters running_var",
                f"{total} / {stats.count - 1}",
                f"{total} / ({stats.count} - 1)",
            )
        )
    return steps


def beginning(done: BatchNormPass, view: ChannelView, writer: Writer) -> list[Step]:
    """What is reduced over, and how many values that is."""
    sizes = [str(size) for size in view.shape]
    what = "of x, reduced over" if done.settings.normalizes_with_batch else "of x"
    return [
        Step("values", what, writer.listed(), None),
        Step(
            "count",
            "values per channel: every axis except the channel axis",
            f"{' * '.join(sizes)} = {view.count}" if len(sizes) > 1 else sizes[0],
            view.count,
            " * ".join(sizes) if len(sizes) > 1 else f"{view.count} values",
        ),
    ]


def parameter_steps(done: BatchNormPass, writer: Writer, values: dict[str, float]) -> list[Step]:
    """weight and bias, where the layer has them."""
    if not done.settings.affine:
        return []
    return [
        Step(
            name,
            "of this channel",
            writer.result(values[name]),
            values[name],
            "of this channel" if values[name] != initial else "",
        )
        for name, initial in (("weight", 1), ("bias", 0))
    ]


def running_steps(
    done: BatchNormPass, channel: int, writer: Writer, values: dict[str, float]
) -> list[Step]:
    """The running statistics before and after, where the layer keeps them."""
    if done.before is None or done.after is None:
        return []
    number = writer.number
    if not done.settings.training:
        return [
            Step(name, UNCHANGED, number(values[name]), values[name], UNCHANGED)
            for name in ("running_mean", "running_var")
        ] + counter_steps(done)
    factor = values["factor"]
    formula, numbers, brief = "momentum", f"{factor:.{writer.digits}g}", ""
    if done.settings.momentum is None:
        formula = "1 / num_batches_tracked, as momentum is none"
        brief = f"1 / {done.after.num_batches_tracked}"
        numbers = f"{brief} = {numbers}"
    steps = [Step("factor", formula, numbers, factor, brief)]
    letter = "momentum" if done.settings.momentum is not None else "factor"
    for name, batch in (("running_mean", "mean"), ("running_var", "unbiased_var")):
        old = float(getattr(done.before, name)[channel])
        made_of = (
            f"(1 - {number(factor)}) * {number(old)} + "
            f"{number(factor)} * {writer.result(values[batch])}"
        )
        formula = f"(1 - {letter}) * {name} + {letter} * {batch}"
        numbers = writer.equation(made_of, values[name])
        steps.append(Step(name, formula, numbers, values[name], made_of))
    return steps + counter_steps(done)


def counter_steps(done: BatchNormPass) -> list[Step]:
    """num_batches_tracked before and after, where the layer counts."""
    if done.before is None or done.after is None:
        return []
    before, after = done.before.num_batches_tracked, done.after.num_batches_tracked
    name = "num_batches_tracked"
    if not done.settings.training:
        return [Step(name, UNCHANGED, str(after), after)]
    return [Step(name, f"{name} + 1", f"{before} + 1 = {after}", after)]


def of_example(
    steps: list[Step], done: BatchNormPass, channel: int, writer: Writer, element: Element
) -> list[Step]:
    """The `steps` without those of `element`, except for its output and its gradient.

    An output in exact arithmetic takes several steps, and its formula here holds all of them.
    """
    kept = []
    place = element.name.removeprefix("x").replace(", ", ",")
    for step in steps:
        if step.quantity in OF_ELEMENT:
            continue
        if step.quantity in ("output", "grad_input"):
            brief = step.brief
            if step.quantity == "output" and step.exact is None:
                brief = _in_full(done.norm, channel, writer, element)
            step = replace(step, quantity=f"{step.quantity}{place}", brief=brief)  # noqa: PLW2901
        kept.append(step)
    return kept


def _in_full(norm: Normalization, channel: int, writer: Writer, element: Element) -> str:
    """An element's output as one formula, without a weight of 1 and a bias of 0."""
    mean, invstd, weight, bias = (
        float(getattr(norm, name)[channel]) for name in ("mean", "invstd", "weight", "bias")
    )
    difference = f"({writer.number(element.x)} - {parenthesized(writer.number(mean))})"
    text = f"{difference} * {writer.result(invstd)}"
    if weight != 1:
        text = f"{writer.number(weight)} * {text}"
    return f"{text} + {parenthesized(writer.number(bias))}" if bias else text


def parenthesized(text: str) -> str:
    """`5`, or `(-5)` where a sign stands before it."""
    return f"({text})" if text.startswith("-") else text
