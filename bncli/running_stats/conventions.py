"""How a framework keeps running statistics, and the conversions between two of them.

`bncli.running_stats.frameworks` has a row for each.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from bncli.light import dataclass


@dataclass(frozen=True, slots=True)
class Names:
    """What a framework calls the four tensors of a layer and its two arguments."""

    weight: str
    bias: str
    running_mean: str
    running_var: str
    momentum: str
    eps: str


@dataclass(frozen=True, slots=True)
class Convention:
    """One framework's running statistics. Each normalises a training batch with the biased variance
    unless its `note` says otherwise.

    `weighs` says what the momentum is the weight of: the "new" batch, as in PyTorch, or the "old"
    value. `momentum` is the default, None where there is none. `variance` says what enters the
    running one: the "biased" variance, the "unbiased" one, or what Keras 2.1.3 to 2.3 computed,
    n/(n - (1 + eps)) times the biased one. `one_value` says what a batch with one value per channel
    does: it is "refused", leaves "nan", enters as variance "0", or is "skipped".

    The buffers begin at `initial_mean` and `initial_var`. `debias` is "no" where the buffers are
    what evaluation uses; "divided" where evaluation uses buffer/(1 - old**steps); "first" where the
    first batch takes the place of the initial values.

    `eps` is the default; it is raised to `least_eps`, and is added outside the root where
    `eps_outside_root`. `channel_axis` is the default one.
    """

    name: str
    weighs: Literal["new", "old"]
    momentum: str | None
    eps: str
    variance: Literal["biased", "unbiased", "keras2"]
    one_value: Literal["refused", "nan", "0", "skipped"]
    channel_axis: str
    names: Names
    initial_mean: float = 0.0
    initial_var: float = 1.0
    debias: Literal["no", "divided", "first"] = "no"
    least_eps: float = 0.0
    eps_outside_root: bool = False
    framework: str = ""
    source: str = ""
    note: str = ""

    def new_weight(self, momentum: float) -> float:
        """The weight of the new batch at this momentum: PyTorch's momentum."""
        return momentum if self.weighs == "new" else float(1 - _decimal(momentum))

    def momentum_of(self, new_weight: float) -> float:
        """The momentum that gives the new batch this weight; the reverse of `new_weight`."""
        return self.new_weight(new_weight)

    def variance_divisor(self, count: int, eps: float | None = None) -> float:
        """What the squared deviations of `count` values per channel are divided by.

        0 for one value, which has no unbiased variance, unless the framework lets a variance of 0
        enter. `eps` is the layer's, where the framework uses it here.
        """
        if self.variance == "biased":
            return count
        if self.variance == "keras2":
            return count - (1 + (float(self.eps) if eps is None else eps))
        return 1 if count == 1 and self.one_value == "0" else count - 1

    def variance_factor(self, count: int, eps: float | None = None) -> float:
        """What the biased variance is multiplied by; NaN if the divisor is 0."""
        divisor = self.variance_divisor(count, eps)
        return count / divisor if divisor else float("nan")


def converted_momentum(momentum: float, source: Convention, target: Convention) -> float:
    """The momentum of `target` that has the same effect as this one in `source`."""
    return momentum if source.weighs == target.weighs else float(1 - _decimal(momentum))


def variance_ratio(
    count: int,
    source: Convention,
    target: Convention,
    source_eps: float | None = None,
    target_eps: float | None = None,
) -> float:
    """running_var of `target` over that of `source`, once both have settled, at equal batches.

    The layers' eps are the defaults unless given; NaN where a framework divides by 0.
    """
    return target.variance_factor(count, target_eps) / source.variance_factor(count, source_eps)


def _decimal(value: float) -> Decimal:
    """A number as a person writes it, so that 1 - 0.99 is 0.01."""
    return Decimal(repr(value))
