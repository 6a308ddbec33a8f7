"""The momenta that reach what was asked for, and what each of them leaves."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.commands.simulate_ema.answer import remaining
from bncli.light import dataclass
from bncli.report import Column, Table
from bncli.rulebook.interface import percent
from bncli.running_stats.plan import (
    FADED,
    Memory,
    new_weight_for_noise,
    new_weight_for_steps,
    relative_errors,
)
from bncli.sections.answer import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.commands.simulate_ema.flags import PlanFlags
    from bncli.commands.simulate_ema.running_tables import Simulated
    from bncli.model import IntArray
    from bncli.report import Value
    from bncli.running_stats.conventions import Convention

REACH_COLUMNS = (
    Column("asked", "asked for"),
    Column("momentum", "momentum"),
    Column("mean_error", "mean error"),
    Column("var_error", "var error"),
    Column("steps", "steps to 1%", spare=1),
    Column("left", "left"),
)


@dataclass(frozen=True, slots=True)
class Reached:
    """A momentum, as the convention means it, that reaches what was asked for.

    `steps` or `noise` is what was asked for, the other one None. `new` is the weight of the new
    batch, and `errors` are the relative standard errors of running_mean and running_var that it
    leaves once they have settled.
    """

    steps: int | None
    noise: float | None
    convention: Convention
    new: float
    errors: tuple[float, float]

    @property
    def momentum(self) -> float | None:
        """The momentum as the convention means it, None where none reaches what was asked for."""
        return self.convention.momentum_of(self.new) if self.new else None

    @property
    def asked(self) -> str:
        """What was asked for, in a few words."""
        return f"1% after {self.steps}" if self.noise is None else f"se {self.noise:g}, e"

    @property
    def most(self) -> float:
        """The larger of the two errors, NaN where there is none."""
        return max(self.errors)

    def formula(self, mean: str, var: str) -> str:
        """How the momentum follows; `mean` and `var` are the relative variances of a batch."""
        text = f"1 - 0.01**(1/{self.steps})"
        if self.noise is not None:
            text = f"2*e*e/(e*e + max({mean}, {var}))"
            text = f"min({text}, 1)" if self.new == 1 else text
        return text if self.convention.weighs == "new" else f"1 - ({text})"


def reached(
    plan: PlanFlags, convention: Convention, counts: IntArray, kurtosis: float
) -> list[Reached]:
    """The momentum for each thing that the flags ask for.

    `counts` (batches,) are the values per channel in each batch, `kurtosis` their excess kurtosis.
    """
    wanted: list[tuple[int | None, float | None, float]] = []
    if plan.reach_steps is not None:
        wanted.append((plan.reach_steps, None, new_weight_for_steps(plan.reach_steps)))
    if plan.reach_noise is not None:
        new = new_weight_for_noise(plan.reach_noise, counts, kurtosis)
        wanted.append((None, plan.reach_noise, new))
    return [
        Reached(steps, noise, convention, new, relative_errors(counts, kurtosis, new / (2 - new)))
        for steps, noise, new in wanted
    ]


def reach_answer(
    found: Sequence[Reached], run: Simulated, settled: tuple[float, float], *, fresh: bool
) -> Table:
    """What each momentum leaves beside the simulated one, and whether one meets all that was asked.

    `settled` are the errors of the simulated one; `fresh` says that it began without a state.
    """
    after = counted(run.trajectory.updates, "update")
    *columns, left = REACH_COLUMNS
    shares = [_left(run, each.new, fresh=fresh) for each in found]
    rows = [
        _row(each.asked.removesuffix(", e"), each.momentum, each.errors, Memory(each.new), share)
        for each, share in zip(found, shares, strict=True)
    ]
    simulated = "none" if run.momentum is None else run.momentum
    rows.append(
        _row("simulated", simulated, settled, run.memory, run.trajectory.final_weight),
    )
    said = [_both(*found)] if len(found) > 1 and found[1].new else []
    said += [text for each in found for text in _unreached(each)]
    least = min(found, key=lambda each: each.new)
    most = max(shares)
    if most > FADED and least.new:
        # Where no momentum meets both, the sentence before has just named this one.
        apart = len(found) > 1 and found[0].new > least.new
        which = "That" if apart else f"Momentum {least.momentum:.6g}"
        said.append(f"{which} leaves {remaining(most)} of the start after {after}.")
    said.append("Errors: once settled.")
    return Table(
        "",
        "",
        (*columns, replace(left, title=f"left after {run.trajectory.updates}")),
        rows,
        note=" ".join(said),
    )


def _row(
    asked: str, momentum: Value, errors: tuple[float, float], memory: Memory, left: float
) -> dict[str, Value]:
    """What a momentum leaves; None is no momentum, which leaves nothing."""
    mean, var = (math.nan, math.nan) if momentum is None else errors
    return {
        "asked": asked,
        "momentum": momentum,
        "mean_error": f"{mean:.2g} std" if math.isfinite(mean) else None,
        "var_error": percent(var) if math.isfinite(var) else None,
        "steps": memory.steps_to_1_percent,
        "left": None if momentum is None else remaining(left),
    }


def _unreached(each: Reached) -> list[str]:
    """What is to be said of an error that no momentum leaves, or that all of them go below."""
    if each.noise is None:
        return []
    if each.new == 0:
        return [f"No momentum leaves an error of {each.noise:g} in batches of one value."]
    if each.most < each.noise * (1 - 1e-9):
        said = (
            f"No momentum leaves an error of {each.noise:g}: {each.momentum:.6g}, which keeps the "
            f"newest batch alone, leaves only {each.most:.2g}."
        )
        return [said]
    return []


def _both(steps: Reached, noise: Reached) -> str:
    """Whether one momentum is fast enough and leaves a small enough error, and which."""
    if steps.new <= noise.new:
        low, high = sorted(each.convention.momentum_of(each.new) for each in (steps, noise))
        return f"Any momentum from {low:.6g} to {high:.6g} meets both."
    least, most = "at least", "at most"
    if steps.convention.weighs == "old":
        least, most = most, least
    return (
        f"No momentum meets both: 1% after {steps.steps} takes {least} {steps.momentum:.6g}, "
        f"se {noise.noise:g} {most} {noise.momentum:.6g}."
    )


def _left(run: Simulated, new: float, *, fresh: bool) -> float:
    """The weight that the initial value would have, at another weight of the new batch."""
    first, debias = run.trajectory.first, run.convention.debias
    before = first.num_batches_tracked
    fade: float = (1 - new) ** run.trajectory.updates
    if debias == "no":
        return fade
    if debias == "first":
        return fade if before or not run.trajectory.updates else 0.0
    if not (first.running_mean.any() or first.running_var.any()):
        return 0.0
    kept = (1 - new) ** before
    return (1.0 if fresh else 1 - kept) * fade / ((1 - kept * fade) or 1.0)
