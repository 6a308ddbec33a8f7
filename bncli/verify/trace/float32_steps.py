"""The steps of a `Float32Pass`: PyTorch's roundings in formulas, beside the exact values."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np
from bncli.verify.trace.forward import (
    STORED_MEAN,
    STORED_VAR,
    UNCHANGED,
    beginning,
    counter_steps,
    forward_values,
    parameter_steps,
    parenthesized,
)
from bncli.verify.trace.text import Writer, squared
from bncli.verify.trace.values import Step

if TYPE_CHECKING:
    from bncli.verify.batch_norm_pass import BatchNormPass
    from bncli.verify.trace.channel import ChannelView
    from bncli.verify.trace.float32_pass import Float32Pass
    from bncli.verify.trace.forward import Element

FLOAT32_DIGITS = 9
"""Significant digits that tell any two float32 apart."""


def float32_steps(
    done: BatchNormPass,
    found: Float32Pass,
    position: int,
    view: ChannelView,
    element: Element | None,
) -> list[Step]:
    """The steps of the channel of `view`, the one at `position` among the pass's."""
    channel = view.channel
    exact = forward_values(done, channel, element)
    exact["var_sum"] = float(done.stats.var[channel]) * done.stats.count
    with np.errstate(invalid="ignore"):
        exact["alpha"] = exact["invstd"] * exact["weight"]
        exact["beta"] = exact["bias"] - exact["mean"] * exact["alpha"]
    writer = Writer.of(view, exact["mean"], float(done.stats.var[channel]))
    writer = replace(writer, digits=max(writer.digits, FLOAT32_DIGITS))
    own = {
        name: float(getattr(found, name)[position])
        for name in ("mean", "var", "invstd", "weight", "bias", "alpha", "beta")
    }
    steps = _Steps(done, found, position, channel, writer, exact, own)
    return [
        *beginning(done, view, writer),
        *(steps.stored_statistics() if found.batch is None else steps.batch_statistics()),
        *parameter_steps(done, writer, own),
        *steps.transform(),
        *(steps.element(element) if element is not None else ()),
        *steps.running(),
    ]


@dataclass(frozen=True, slots=True)
class _Steps:
    """The steps of one channel; `own` are the pass's values there, `exact` the exact ones."""

    done: BatchNormPass
    found: Float32Pass
    position: int
    channel: int
    writer: Writer
    exact: dict[str, float]
    own: dict[str, float]

    def step(
        self, quantity: str, formula: str, made_of: str, value: Any, brief: str | None = None
    ) -> Step:
        """A step beside its exact value; `made_of` is the formula in numbers, or empty."""
        own = float(value)
        numbers = self.writer.equation(made_of, own) if made_of else self.writer.number(own)
        brief = made_of if brief is None else brief
        return Step(quantity, formula, numbers, own, brief, exact=self.exact.get(quantity))

    def batch_statistics(self) -> list[Step]:
        """From the values to invstd, in training."""
        batch, own, number = self.found.batch, self.own, self.writer.number
        assert batch is not None
        mean = np.float32(own["mean"])
        with np.errstate(invalid="ignore", over="ignore"):
            squares = self.writer.summed_squares(lambda x: float(np.float32(x) - mean))
        order = "one by one in float64"
        if self.found.rows:
            threads = f"{self.found.threads} thread{'s' * (self.found.threads > 1)}"
            order = f"row by row in float32 ({threads}), then float64"
        total, count, eps = float(batch.var_sum[self.position]), batch.count, self.done.settings.eps
        shifted = own["var"] + eps
        root = float(np.sqrt(shifted))
        var_plus_eps = f"{number(own['var'])} + {eps:g}"
        step = self.step
        return [
            step("mean", f"sum(x) / count, {order}", f"({self.writer.summed()}) / {count}", mean),
            step("var_sum", "sum((x - mean)^2), mean as rounded, in that order", squares, total),
            step(
                "var",
                "var_sum / count: normalises the batch",
                f"{number(total)} / {count}",
                own["var"],
            ),
            step("var_plus_eps", "var + eps, in float64", var_plus_eps, shifted, ""),
            step("sqrt", "sqrt(var + eps), in float64", f"sqrt({number(shifted)})", root, ""),
            step(
                "invstd",
                "1 / sqrt(var + eps), rounded here",
                f"1 / {number(root)}",
                own["invstd"],
                f"1 / sqrt({var_plus_eps})",
            ),
        ]

    def stored_statistics(self) -> list[Step]:
        """From the stored statistics to invstd, in evaluation."""
        own, number, step = self.own, self.writer.number, self.step
        eps = np.float32(self.done.settings.eps)
        with np.errstate(invalid="ignore", over="ignore"):
            shifted = np.float32(own["var"]) + eps
            root = np.sqrt(shifted)
        var_plus_eps = f"{number(own['var'])} + {number(float(eps))}"
        return [
            step("mean", STORED_MEAN, "", own["mean"], STORED_MEAN),
            step("var", STORED_VAR, "", own["var"], STORED_VAR),
            step("var_plus_eps", "var + eps, eps rounded too", var_plus_eps, shifted, ""),
            step("sqrt", "sqrt(var + eps)", f"sqrt({number(float(shifted))})", root, ""),
            step(
                "invstd",
                "1 / sqrt(var + eps)",
                f"1 / {number(float(root))}",
                own["invstd"],
                f"1 / sqrt({var_plus_eps})",
            ),
        ]

    def transform(self) -> list[Step]:
        """What a value is multiplied by, and what is added."""
        own, number = self.own, self.writer.number
        alpha = f"{number(own['invstd'])} * {number(own['weight'])}"
        beta = f"fma({number(-own['mean'])}, {number(own['alpha'])}, {number(own['bias'])})"
        return [
            self.step("alpha", "invstd * weight", alpha, own["alpha"]),
            self.step("beta", "fma(-mean, alpha, bias)", beta, own["beta"]),
        ]

    def element(self, element: Element) -> list[Step]:
        """What becomes of one element."""
        own, number = self.own, self.writer.number
        given = np.array([element.x])
        x = number(element.x)
        steps = [Step("x", element.name, f"{element.name} = {x}", element.x, element.name)]
        if self.found.batch is not None:
            deviation = self.found.deviation(self.position, given)[0]
            with np.errstate(invalid="ignore", over="ignore"):
                square = deviation * deviation
            difference = f"{x} - {parenthesized(number(own['mean']))}"
            steps += [
                self.step("deviation", "x - mean: enters var_sum alone", difference, deviation),
                self.step("squared", "(x - mean)^2", squared(number(float(deviation))), square, ""),
            ]
        made_of = f"fma({x}, {number(own['alpha'])}, {number(own['beta'])})"
        output = self.found.output(self.position, given)[0]
        return [*steps, self.step("output", "fma(x, alpha, beta)", made_of, output)]

    def running(self) -> list[Step]:
        """The running statistics after the pass, where the layer keeps them."""
        found, before, number = self.found, self.done.before, self.writer.number
        if found.running_mean is None or found.running_var is None or before is None:
            return []
        after = {
            "running_mean": found.running_mean[self.position],
            "running_var": found.running_var[self.position],
        }
        if found.batch is None or found.factor is None:
            return [
                *(
                    self.step(name, UNCHANGED, "", value, UNCHANGED)
                    for name, value in after.items()
                ),
                *counter_steps(self.done),
            ]
        new = np.float32(found.factor)
        old = np.float32(1) - new
        unbiased = float(found.batch.unbiased_var[self.position])
        var_sum = number(float(found.batch.var_sum[self.position]))
        letter = "momentum" if self.done.settings.momentum is not None else "factor"
        batch = {"running_mean": self.own["mean"], "running_var": unbiased}
        formulas = {
            "running_mean": f"(1 - {letter}) * running_mean + {letter} * mean",
            "running_var": (
                f"(1 - {letter}) * running_var, rounded, + {letter} * unbiased_var in float64"
            ),
        }
        steps = [
            self.step(
                "unbiased_var",
                "var_sum / (count - 1): enters running_var",
                f"{var_sum} / {found.batch.count - 1}",
                unbiased,
                f"{var_sum} / ({found.batch.count} - 1)",
            ),
            self.step("factor", f"{letter}, rounded", "", new),
        ]
        for name, formula in formulas.items():
            kept = float(getattr(before, name)[self.channel])
            made_of = (
                f"{number(float(old))} * {number(kept)} + "
                f"{number(float(new))} * {number(batch[name])}"
            )
            steps.append(self.step(name, formula, made_of, after[name]))
        return [*steps, *counter_steps(self.done)]
