"""The backward pass of one channel in exact arithmetic.

g is the upstream gradient, sums go over the channel, n is its count. With batch statistics:

    bias.grad       sum(g)
    weight.grad     sum(g * x_hat)
    grad_var        -1/2 * weight * invstd^3 * sum(g * (x - mean))
    grad_mean       -weight * invstd * sum(g); var has no part in it, as sum(x - mean) = 0
    grad_input      weight * invstd * g + 2 * grad_var * (x - mean) / n + grad_mean / n
                    = weight * invstd * (g - sum(g) / n - x_hat * sum(g * x_hat) / n)

With stored statistics: grad_input = weight * invstd * g (Ioffe and Szegedy 2015, section 3).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.light import dataclass, np
from bncli.verify.trace.forward import deviations, normalized, parenthesized, trained
from bncli.verify.trace.values import Step

if TYPE_CHECKING:
    from bncli.model import FloatArray
    from bncli.verify.batch_norm_pass import BatchNormPass
    from bncli.verify.trace.channel import ChannelView
    from bncli.verify.trace.forward import Element
    from bncli.verify.trace.text import Writer


@dataclass(frozen=True, slots=True)
class Gradients:
    """The sums over a channel that its gradients consist of, and its gradients.

    `grad_var` and `grad_mean` are None where stored statistics normalise.
    """

    count: int
    scale: float
    invstd: float
    sum_g: float
    sum_g_x_hat: float
    sum_g_deviation: float
    grad_var: float | None
    grad_mean: float | None

    def grad_input(self, g: FloatArray, x_hat: FloatArray) -> FloatArray:
        """The gradient of values with this upstream gradient and these normalised values."""
        with np.errstate(invalid="ignore", over="ignore"):
            inner = g
            if self.grad_var is not None:
                # The closed form: `identities` compares it with the chain by grad_var and
                # grad_mean, which could not check itself.
                inner = g - self.sum_g / self.count - x_hat * (self.sum_g_x_hat / self.count)
            return np.asarray(inner * self.scale, np.float64)


def gradients(done: BatchNormPass, view: ChannelView, g: ChannelView) -> Gradients:
    """The gradients of one channel for the upstream gradient `g`, a view like that of the input."""
    channel = view.channel
    weight, invstd = float(done.norm.weight[channel]), float(done.norm.invstd[channel])
    sum_g = sum_g_x_hat = sum_g_deviation = 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        for x, upstream in zip(view.pieces(), g.pieces(), strict=True):
            centered = deviations(done.norm, channel, x)
            sum_g += float(upstream.sum())
            sum_g_deviation += float((upstream * centered).sum())
            sum_g_x_hat += float((upstream * (centered * invstd)).sum())
        grad_var = grad_mean = None
        if done.settings.normalizes_with_batch:
            # The cube by products: ** raises OverflowError where they are infinite.
            grad_var = -0.5 * weight * invstd * invstd * invstd * sum_g_deviation
            grad_mean = -weight * invstd * sum_g
    return Gradients(
        done.stats.count,
        weight * invstd,
        invstd,
        sum_g,
        sum_g_x_hat,
        sum_g_deviation,
        grad_var,
        grad_mean,
    )


def backward_steps(
    done: BatchNormPass,
    found: Gradients,
    view: ChannelView,
    g: ChannelView,
    writer: Writer,
    element: Element | None,
) -> list[Step]:
    """The steps of the backward pass; those of `element` only where there is one.

    In evaluation each step says what training on this batch would have, where it can train.
    """
    steps = _steps(done, found, view, g, writer, element)
    other = trained(done)
    if other is None:
        return steps
    theirs = {
        step.quantity: step.value
        for step in _steps(other, gradients(other, view, g), view, g, writer, element)
    }
    return [replace(step, training=theirs.get(step.quantity)) for step in steps]


def _steps(
    done: BatchNormPass,
    found: Gradients,
    view: ChannelView,
    g: ChannelView,
    writer: Writer,
    element: Element | None,
) -> list[Step]:
    """The steps in words and numbers."""
    number, result = writer.number, writer.result
    positions = [*range(len(writer.values))]
    if not writer.whole:  # the writer shows the first values and the last
        positions[-1] = view.count - 1
    upstream = [float(g.read(p, p + 1)[0]) for p in positions]
    own = type(writer)(writer.digits, tuple(upstream), writer.whole)
    hats = [float(_x_hat(done, view, p)[0]) for p in positions]
    hatted = type(writer)(writer.digits, tuple(hats), writer.whole)

    def step(quantity: str, formula: str, made_of: str, value: float) -> Step:
        return Step(quantity, formula, writer.equation(made_of, value), value, made_of)

    sum_g, sum_g_x_hat = own.summed(), hatted.summed_products(upstream)
    steps = [
        Step("upstream", "of g, the gradient of the output", own.listed(), None),
        step("sum_g", "sum(g)", sum_g, found.sum_g),
        step("sum_g_x_hat", "sum(g * x_hat)", sum_g_x_hat, found.sum_g_x_hat),
    ]
    if done.settings.affine:  # which says the two sums again, by the names of the parameters
        steps[1:] = [replace(step, brief="") for step in steps[1:]]
        steps += [
            Step("grad_bias", "sum(g)", result(found.sum_g), found.sum_g, sum_g),
            Step(
                "grad_weight",
                "sum(g * x_hat)",
                result(found.sum_g_x_hat),
                found.sum_g_x_hat,
                sum_g_x_hat,
            ),
        ]
    weight, invstd = float(done.norm.weight[view.channel]), found.invstd
    if found.grad_var is not None and found.grad_mean is not None:
        steps += [
            step(
                "grad_var",
                "-1/2 * weight * invstd^3 * sum(g * (x - mean))",
                f"-1/2 * {number(weight)} * {result(invstd)}^3 * {result(found.sum_g_deviation)}",
                found.grad_var,
            ),
            step(
                "grad_mean",
                "-weight * invstd * sum(g)",
                f"-{number(weight)} * {result(invstd)} * {result(found.sum_g)}",
                found.grad_mean,
            ),
        ]
    if element is not None:
        steps += _element_steps(done, found, view, g, writer, element)
    return steps


def _element_steps(
    done: BatchNormPass,
    found: Gradients,
    view: ChannelView,
    g: ChannelView,
    writer: Writer,
    element: Element,
) -> list[Step]:
    """The gradient that reaches one element."""
    number, result = writer.number, writer.result
    place = (*element.index[: view.channel_axis], *element.index[view.channel_axis + 1 :])
    position = view.position(place)
    upstream = g.read(position, position + 1)
    x_hat = _x_hat(done, view, position)
    weight = float(done.norm.weight[view.channel])
    value = float(found.grad_input(upstream, x_hat)[0])
    up = float(upstream[0])
    name = element.name.replace("x", "g", 1)
    formula = "weight * invstd * g"
    numbers = f"{number(weight)} * {result(found.invstd)} * {number(up)}"
    if found.grad_var is not None:
        formula = "weight * invstd * (g - sum_g / count - x_hat * sum_g_x_hat / count)"
        numbers = (
            f"{number(weight)} * {number(found.invstd)} * "
            f"({number(up)} - {parenthesized(number(found.sum_g))} / {found.count} - "
            f"{parenthesized(number(float(x_hat[0])))} * {number(found.sum_g_x_hat)} / "
            f"{found.count})"
        )
    return [
        Step("g", name, result(up), up, name),
        Step(
            "grad_x_hat",
            "weight * g",
            writer.equation(f"{number(weight)} * {number(up)}", weight * up),
            weight * up,
        ),
        Step("grad_input", formula, writer.equation(numbers, value), value, numbers),
    ]


def _x_hat(done: BatchNormPass, view: ChannelView, position: int) -> FloatArray:
    return normalized(done.norm, view.channel, view.read(position, position + 1))[0]
