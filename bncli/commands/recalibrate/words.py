"""A recalibration in sentences: its effect, how it was done, what is left, and the verdict."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

from bncli.model.capture import Propagation
from bncli.model.recalibration import Average
from bncli.rulebook.interface import examples
from bncli.rulebook.live.repair import Outcome
from bncli.sections.answer import counted
from bncli.sections.live import gap_line, left_out_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bncli.commands.recalibrate.run import Found
    from bncli.commands.recalibrate.writing import Written
    from bncli.live.recalibration import Wish
    from bncli.model.recalibration import Recalibration

AVERAGES = {
    Average.POPULATION: "mean and variance of all values",
    Average.BATCHES: "unweighted average of the batches' means and variances",
    Average.EMA: "running average from the stored statistics on",
}
"""What the new statistics are, as people read it."""

WHY = {
    "frozen": ("is frozen", "are frozen"),
    "not chosen": ("is not chosen", "are not chosen"),
    "no batch reaches it": ("is reached by no batch", "are reached by no batch"),
    "no running statistics": ("has no running statistics", "have no running statistics"),
    "InstanceNorm": ("is an InstanceNorm", "are InstanceNorm"),
}
"""Why a layer, or several, are left alone."""


def remarks(
    found: Found,
    wish: Wish,
    written: Written | None,
    metric: str,
    *,
    told: bool = False,
    kept: bool = False,
) -> Iterator[str]:
    """The effect, how the statistics were found, what is left alone, and what was written.

    `told` says that a finding has the effect, and `kept` that counters stay as they are.
    """
    done = found.done
    if done is None:
        return
    if not told:
        yield from _effect(done, metric)
    yield _how(done, wish)
    if not done.checked:
        why = "as --no-check asks" if found.ran else "because that needs the model"
        yield f"whether they help was not measured, {why}"
    yield from _left(found.left)
    if done.capture.left_out:
        yield left_out_lines(done.capture)[0]
    if written is not None:
        zeros = sum(layer.state.num_batches_tracked == 0 for layer in done.layers)
        if zeros and kept:
            where = (
                "the layer" if len(done.layers) == 1 else f"{zeros} of {len(done.layers)} layers"
            )
            yield f"num_batches_tracked stays 0 in {where} (--counter batches stores the number)"
        yield from written.remarks()


def _effect(done: Recalibration, metric: str) -> Iterator[str]:
    """The gap and the metric, before and after."""
    if not done.checked:
        return
    before, after, floor = done.gap_before, done.gap_after, done.gap_floor
    if after is None:
        yield gap_line(done.capture)
    else:
        least = "" if floor is None else f" (floor {floor:.3g})"
        yield f"gap between train() and eval(): {change(before, after)} std of the output{least}"
    numbers = done.metrics
    if {"before", "after"} <= set(numbers):
        training = f" ({numbers['training']:.4g} in training)" if "training" in numbers else ""
        yield f"{metric}: {change(numbers['before'], numbers['after'], '.4g')}{training}"


def change(before: float | None, after: float, spec: str = ".3g") -> str:
    """Two numbers, the old one first; None where it is not finite."""
    old = "not finite" if before is None or not math.isfinite(before) else f"{before:{spec}}"
    return f"{old} -> {after:{spec}}"


def _how(done: Recalibration, wish: Wish) -> str:
    """What the new statistics are, and in which propagation they were found."""
    said = AVERAGES[wish.average]
    if wish.propagation is Propagation.EVAL:
        passes = counted(done.rounds, "pass", "passes")
        rest = "" if done.settled else ", after which some layers still moved"
        return f"new statistics: {said}, in the eval propagation ({passes}{rest})"
    return f"new statistics: {said}, in the training propagation"


def _left(left: Mapping[str, str]) -> Iterator[str]:
    """The layers that stay as they are, in one line."""
    if left:
        yield f"left alone: {left_alone(left)}"


def left_alone(left: Mapping[str, str]) -> str:
    """How many layers stay as they are and why: "2 layers are frozen (a, b)"."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for name, why in left.items():
        reasons[why].append(name)
    said = []
    for why, names in reasons.items():
        one, several = WHY[why]
        verb = one if len(names) == 1 else several
        said.append(f"{counted(len(names), 'layer')} {verb} ({examples(names)})")
    return ", ".join(said)


# ------------------------------------------------------------------ the verdict


def verdict(
    found: Found, outcome: Outcome, written: Written | None, *, asked: bool, forced: bool = False
) -> str:
    """What became of it, without a full stop; `asked`: a file was to be written."""
    done = found.done
    if done is None:
        return nothing(found)
    layers = counted(len(done.layers), "layer")
    unwritten = ", so nothing was written" if asked else ""
    if outcome is Outcome.NO_HELP and not forced:
        return f"new statistics do not make this model better{unwritten}"
    if outcome is Outcome.UNTOLD and not forced:
        return f"it cannot be told whether new statistics help{unwritten}"
    if outcome is Outcome.TOO_LITTLE and not forced:
        return f"there are too few samples to renew the statistics{unwritten}"
    if outcome is Outcome.NOTHING and not forced:
        return f"nothing to repair: {_right(done)}{unwritten}"
    if written is not None and written.output is not None:
        have = "has" if len(done.layers) == 1 else "have"
        return f"{layers} of {written.output} {have} new statistics{_then(done, outcome)}"
    how = "--checkpoint FILE and --save-checkpoint FILE write them"
    if written is not None:
        how = f"--save-checkpoint FILE writes them ({written.nbytes:,} bytes change)"
    return f"{layers} would get new statistics{_then(done, outcome)}; {how}"


def _then(done: Recalibration, outcome: Outcome) -> str:
    """What the new statistics do, where it was measured."""
    if outcome not in (Outcome.HELPS, Outcome.TOO_LITTLE):
        return ""
    what, before, after = "the gap", done.gap_before, done.gap_after
    if done.metrics:
        what = "the metric"
        before, after = done.metrics.get("before"), done.metrics.get("after")
    if after is None:
        return ""
    if before is None or not math.isfinite(before):
        return f"; {what} becomes {after:.4g}, and was not finite"
    return f"; {what} goes from {before:.4g} to {after:.4g}"


def _right(done: Recalibration) -> str:
    """Why there is nothing to repair."""
    if done.gap_before == 0:
        return "the outputs of train() and eval() are the same"
    if done.gap_before is None:
        return "no layer is off"
    floor = "" if done.gap_floor is None else f" and {done.gap_floor:.3g} at best"
    return f"no layer is off, and the gap is {done.gap_before:.3g} std{floor}"


def nothing(found: Found) -> str:
    """Why no layer changes, without a full stop."""
    if not found.left:
        return f"{found.label} has no BatchNorm layer"
    return f"no layer changes: {left_alone(found.left)}"
