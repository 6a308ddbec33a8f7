"""What must hold of the gradients of one channel, both sides computed.

With batch statistics sum(x_hat) = 0 and sum(x_hat^2) = n * var / (var + eps), so that grad_input
(see `backward`) sums to 0, and its product with x_hat to what eps leaves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.light import np
from bncli.verify.trace.forward import deviations, normalized
from bncli.verify.trace.values import Identity

if TYPE_CHECKING:
    from bncli.model import FloatArray
    from bncli.verify.batch_norm_pass import BatchNormPass
    from bncli.verify.trace.backward import Gradients
    from bncli.verify.trace.channel import ChannelView


def identities(
    done: BatchNormPass, view: ChannelView, g: ChannelView, found: Gradients
) -> list[Identity]:
    """What must hold of one channel's forward and backward pass, both sides computed."""
    channel, count = view.channel, view.count
    invstd, scale = found.invstd, found.scale
    var, eps = float(done.norm.var[channel]), done.settings.eps
    sums = _Sums()
    with np.errstate(invalid="ignore", over="ignore"):
        for x, upstream in zip(view.pieces(), g.pieces(), strict=True):
            x_hat = normalized(done.norm, channel, x)[0]
            gradient = found.grad_input(upstream, x_hat)
            sums.add("x_hat", x_hat)
            sums.add("x_hat_squared", x_hat * x_hat)
            sums.add("gradient", gradient)
            sums.add("product", gradient * x_hat)
            sums.add("upstream", scale * upstream)
            sums.add("upstream_product", scale * upstream * x_hat)
            if found.grad_var is not None and found.grad_mean is not None:
                parts = (
                    scale * upstream,
                    2 * found.grad_var * deviations(done.norm, channel, x) / count,
                    np.full_like(x, found.grad_mean / count),
                )
                sums.add_worst("chain", gradient, parts)
    if found.grad_var is None:
        return [
            sums.identity("sum(grad_input)", "weight * invstd * sum(g)", "gradient", "upstream"),
            sums.identity(
                "sum(grad_input * x_hat)",
                "weight * invstd * sum(g * x_hat)",
                "product",
                "upstream_product",
            ),
        ]
    share = eps / (var + eps)
    return [
        sums.identity("sum(x_hat)", "0", "x_hat", 0.0),
        sums.identity(
            "sum(x_hat^2)",
            "count * var / (var + eps)",
            "x_hat_squared",
            count * var * invstd * invstd,
        ),
        sums.identity("sum(grad_input)", "0", "gradient", 0.0, also="upstream"),
        sums.identity(
            "sum(grad_input * x_hat)",
            "weight * invstd * sum(g * x_hat) * eps / (var + eps)",
            "product",
            scale * found.sum_g_x_hat * share,
            also="upstream_product",
        ),
        sums.worst(
            "grad_input, where furthest",
            "weight * invstd * g + 2 * grad_var * (x - mean) / count + grad_mean / count",
            "chain",
        ),
    ]


class _Sums:
    """Sums of terms and of absolute terms, by name, and the worst of element by element ones."""

    def __init__(self) -> None:
        self._totals: dict[str, tuple[float, float]] = {}
        self._worst: dict[str, tuple[float, float, float]] = {}

    def add(self, name: str, terms: FloatArray) -> None:
        """Add terms to the sum `name`."""
        total, absolute = self._totals.get(name, (0.0, 0.0))
        self._totals[name] = (total + float(terms.sum()), absolute + float(np.abs(terms).sum()))

    def add_worst(self, name: str, left: FloatArray, parts: tuple[FloatArray, ...]) -> None:
        """Keep the element at which `left` is furthest from the sum of `parts`."""
        right = sum(parts[1:], parts[0])
        scale = np.sum([np.abs(part) for part in parts], axis=0)
        apart = np.abs(left - right)
        place = int(np.argmax(apart))  # a NaN counts as the furthest
        known = self._worst.get(name)
        if known is None or not apart[place] <= abs(known[0] - known[1]):
            self._worst[name] = (float(left[place]), float(right[place]), float(scale[place]))

    def identity(
        self,
        quantity: str,
        equals: str,
        left: str,
        right: str | float,
        also: str | None = None,
    ) -> Identity:
        """The identity of a sum with another, or with a number; `also` adds to its scale."""
        total, scale = self._totals[left]
        if isinstance(right, str):
            right, absolute = self._totals[right]
            scale += absolute
        if also is not None:
            scale += self._totals[also][1]
        return Identity(quantity, equals, total, right, scale + abs(right))

    def worst(self, quantity: str, equals: str, name: str) -> Identity:
        """The identity at the element kept by `add_worst`."""
        return Identity(quantity, equals, *self._worst[name])
