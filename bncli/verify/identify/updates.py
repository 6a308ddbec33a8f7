"""The ways to update running statistics, as data, a line of words each."""

from __future__ import annotations

from typing import Literal

from bncli.light import dataclass
from bncli.running_stats.frameworks import CONVENTIONS
from bncli.verify.identify.hypotheses import eps_text
from bncli.verify.identify.parts import SQUARES, WITHIN

Variance = Literal["biased", "unbiased", "keras2"]

WEIGHTS = (0.1, 0.01, 0.001, 0.05, 0.03, 0.02, 0.003, 0.0003, 0.2, 0.25, 0.3, 0.5, 0.9, 0.99, 0.999)
"""Weights of the new batch that people use, the most common first."""

MOST_BATCHES = 1000
"""Batches of a cumulative average that is looked for."""

KERAS2 = "divided by n - (1 + eps)"
TWICE = "updated twice with momentum"
AVERAGE = "the average over"
FITTED = "fitted momentum"
STD = "the standard deviation taken for the variance"
APART = "running_mean with momentum"

KEPT = "added into the kept variance"
KEPT_EPS = (1e-5, 1e-3, 1e-6)
"""The values of eps that may have been added."""

TOGETHER = (WITHIN, SQUARES)
"""How processes may have put their statistics together, each counting the same."""

MOST_SHARDS = 64
"""How many INPUTs are tried one by one."""


@dataclass(frozen=True, slots=True)
class Update:
    """One way to update: `weight` is the batch's, PyTorch's momentum.

    `mean_weight` is that of the mean where it has another one, `kept_eps` is added to what enters
    running_var, and `part` the INPUT whose statistics alone were taken.
    """

    weight: float
    variance: Variance
    variant: str = ""
    mean_weight: float | None = None
    kept_eps: float = 0.0
    part: int | None = None

    @property
    def is_none(self) -> bool:
        """Whether nothing is updated, so that the variance does not matter."""
        return self.weight == 0 and not self.mean_weight

    @property
    def ddof(self) -> int | None:
        """0 for the biased variance, 1 for the unbiased one and Keras 2's, None for no update."""
        if self.weight == 0:
            return None
        return 0 if self.variance == "biased" else 1

    @property
    def frameworks(self) -> tuple[str, ...]:
        """The conventions that update so with their default momentum, or with any if none does."""
        if self.variant not in ("", FITTED, KERAS2) or self.weight == 0:
            return ()
        alike = [row for row in CONVENTIONS if row.variance == self.variance and row.debias == "no"]
        by_default = [
            row.name
            for row in alike
            if row.momentum is not None and row.new_weight(float(row.momentum)) == self.weight
        ]
        return tuple(by_default or [row.name for row in alike])

    @property
    def variance_words(self) -> str:
        """The variance that enters running_var, as a person says it."""
        return (
            "Keras 2's variance" if self.variance == "keras2" else f"the {self.variance} variance"
        )

    @property
    def words(self) -> str:
        """The update as a person says it."""
        if self.weight == 0:
            return f"running_var unchanged ({self.variant})" if self.mean_weight else "no update"
        said = f"momentum {self.weight:.6g} ({1 - self.weight:.6g} in Keras)"
        said += f" and {self.variance_words}"
        return f"{said} ({self.variant})" if self.variant else said


NO_UPDATE = Update(0.0, "unbiased")
USUAL = Update(WEIGHTS[0], "unbiased")


def usual_updates(shards: int) -> list[Update]:
    """Those with a usual weight; `shards` is the number of INPUTs."""
    ways = [
        Update(weight, variance, KERAS2 if variance == "keras2" else "")
        for weight in (*WEIGHTS, 1.0)
        for variance in ("unbiased", "biased", "keras2")
    ]
    ways.append(NO_UPDATE)
    for variance in ("unbiased", "biased"):
        ways += [
            Update(1 - (1 - weight) ** 2, variance, f"{TWICE} {weight:g}") for weight in WEIGHTS[:5]
        ]
        ways += [Update(weight, variance, STD) for weight in WEIGHTS[:3]]
        ways += [
            Update(weight, variance, f"eps {eps_text(eps)} {KEPT}", kept_eps=eps)
            for weight in WEIGHTS[:3]
            for eps in KEPT_EPS
        ]
        if shards > 1:
            ways += [Update(weight, variance, how) for weight in WEIGHTS for how in TOGETHER]
            ways += [
                Update(weight, variance, f"INPUT {part + 1} alone", part=part)
                for weight in WEIGHTS[:3]
                for part in range(min(shards, MOST_SHARDS))
            ]
    return ways


def oddness(way: Update) -> int:
    """How far an update is from what one expects."""
    rank = WEIGHTS.index(way.weight) if way.weight in WEIGHTS else len(WEIGHTS)
    odd = 0
    for variant, oddness in ((KERAS2, 40), (AVERAGE, 50), (TWICE, 60), (STD, 70), ("eps ", 75),
                             (WITHIN, 80), (SQUARES, 80), ("INPUT ", 85), (FITTED, 90),
                             (APART, 120)):  # fmt: skip
        if way.variant.startswith(variant):
            odd = oddness + len(f"{way.weight:g}")
    return rank + 20 * (way.variance != "unbiased") + odd
