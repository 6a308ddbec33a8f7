"""A diagnosis in sentences: how it ran, the gap and what closes it, and the verdict."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.model.capture import Propagation
from bncli.rulebook.interface import percent
from bncli.rulebook.live.evidence import FEWEST_BATCHES, REAL
from bncli.rulebook.live.measures import BLAMED
from bncli.sections.answer import counted
from bncli.sections.findings import closing
from bncli.sections.live import gap_line, left_out_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bncli.model.capture import Capture, Trial, Trials
    from bncli.report import Finding, Value
    from bncli.rulebook.live.measures import LayerMeasure

LEAST = 0.1
"""The share of the gap above its floor, and of the metric's change, that is worth a word."""

MANY = 10
"""A ratio from which on three digits say enough."""

ENOUGH = 0.9
"""The share that a layer closes whose statistics alone need to be new."""

ABOVE = " of the gap above its floor"
"""What a trial closes a share of."""

METRICS = {
    Propagation.TRAINING.value: "training",
    Propagation.EVAL.value: "evaluation",
    Propagation.RENEWED.value: "with new statistics in all layers",
}
"""Where the user's metric is measured, as people read it."""


def modes_of(capture: Capture) -> str:
    """What is particular about the modes in which the layers ran; "" for nothing."""
    frozen = sum(layer.frozen for layer in capture.norms)
    said = ["in eval() alone"] if capture.refused_training else []
    said += [f"{counted(frozen, 'layer')} frozen"] if frozen else []
    return ", ".join(said)


# ------------------------------------------------------------------ remarks


def remarks(
    capture: Capture, trials: Trials | None, measures: Sequence[LayerMeasure], metric: str
) -> Iterator[str]:
    """The gap and its floor, what the trials showed, the metric, and what was not reached."""
    yield gap_line(capture)
    yield from trial_remarks(capture, trials, measures)
    if trials is not None and trials.metrics:
        yield metric_remark(trials, metric)
    yield from left_out_lines(capture)


def trial_remarks(
    capture: Capture, trials: Trials | None, measures: Sequence[LayerMeasure]
) -> Iterator[str]:
    """What new statistics close in one layer, in the first ones, or in all of them."""
    gap, floor = capture.gap(Propagation.EVAL), capture.gap_floor
    if not gap or floor is None:
        return
    if trials is None:
        yield "new statistics were not tried in single layers, because that needs the model"
        return
    if at_floor(capture):
        differ = any(each.evaluation.differ for each in measures[:1])
        if any(trial.kind == "all" for trial in trials.trials):
            why = ", because the batches differ" if differ else ""
            yield f"new statistics in all layers close next to nothing{why}"
        return
    alone, first = best_alone(capture, trials, measures), best(capture, trials, "first")
    if alone is None:
        return
    told = [alone] if round(alone[1], 2) >= LEAST else []  # as the table rounds it
    if first is not None and first[1] > max(alone[1], 0.0) + LEAST:
        told.append(first)
    said: list[str] = []
    for trial, closes in told:
        words = ("to", "", "") if said else ("bring the gap to", "closing ", ABOVE)
        part = f"{words[1]}{_part(closes)}{words[2]}"
        said.append(f"in {trial.what} {words[0]} {trial.gap:.3g} ({part})")
    if said:
        yield f"new statistics {', those '.join(said)}"
    else:
        yield f"new statistics in a single layer close less than {LEAST:.0%}{ABOVE}"


def _of_gap(trial: Trial, gap: float) -> str:
    """The share of the whole gap that a trial closes."""
    return percent(1 - (trial.gap or 0.0) / gap)


def _part(closes: float) -> str:
    """A share of the gap above its floor; all of it where a trial ends below the floor."""
    return percent(min(closes, 1.0))


def best(capture: Capture, trials: Trials, *kinds: str) -> tuple[Trial, float] | None:
    """The trial of these kinds that closes most, and the share that it closes."""
    found = [
        (trial, closes)
        for trial in trials.trials
        if trial.kind in kinds and (closes := capture.closes(trial)) is not None
    ]
    return max(found, key=lambda pair: pair[1], default=None)


def best_alone(
    capture: Capture, trials: Trials, measures: Sequence[LayerMeasure]
) -> tuple[Trial, float] | None:
    """The best trial of a single layer: one that is to blame, where any is.

    New statistics of a later layer are found behind the wrong ones, and hide what is in front.
    """
    blamed = {each.name for each in measures if each.blamed}
    of_blamed = tuple(trial for trial in trials.trials if blamed.issuperset(trial.layers))
    return best(capture, replace(trials, trials=of_blamed if blamed else trials.trials), "one")


def mapped(capture: Capture, trials: Trials | None) -> Trial | None:
    """The simplest map of the input that closes most; None where that is less than half the gap."""
    found = trials.input_map if trials is not None else None
    gap = capture.gap(Propagation.EVAL)
    if found is None or gap is None or found.gap is None or found.gap > gap / 2:
        return None
    return found


def at_floor(capture: Capture) -> bool:
    """Whether new statistics in all layers leave the gap about as it is: nine tenths and more."""
    gap, floor = capture.gap(Propagation.EVAL), capture.gap_floor
    return gap is not None and floor is not None and gap < REAL * floor


def closes_alone(capture: Capture, trials: Trials | None) -> dict[str, float | None]:
    """The share of the gap that each layer closes alone, of those that were tried.

    Nothing where the gap is at its floor: shares of next to nothing say nothing.
    """
    return {
        trial.layers[0]: capture.closes(trial)
        for trial in (trials.trials if trials and not at_floor(capture) else ())
        if trial.kind == "one" or (trial.kind == "all" and len(trial.layers) == 1)
    }


# ------------------------------------------------------------------ the user's metric


def metric_facts(trials: Trials | None, metric: str | None) -> dict[str, Value]:
    """The metric's name and what it is in each propagation; none where it was not asked for."""
    if metric is None or trials is None:
        return {}
    return {"metric": metric, **{f"metric_{key}": trials.metrics.get(key) for key in METRICS}}


def metric_remark(trials: Trials, metric: str) -> str:
    """The user's numbers in training, in evaluation and with new statistics in all layers."""
    said = [
        f"{how} {trials.metrics[key]:.4g}" for key, how in METRICS.items() if key in trials.metrics
    ]
    return f"{metric}: {', '.join(said)}".replace(" nan", " NaN")


def metric_then(metrics: Mapping[str, float], then: float | None) -> str:
    """What becomes of the metric in evaluation, in numbers; "" where it comes nearer training's.

    Whether more is better is not known, so that nothing is said of better and worse.
    """
    training, evaluation = (metrics.get(key, math.nan) for key in list(METRICS)[:2])
    way = training - evaluation
    if then is None or not math.isfinite(way + then) or not way:
        return ""
    if (then - evaluation) / way > -LEAST:
        return ""
    return f"the metric goes from {evaluation:.4g} to {then:.4g} ({training:.4g} in training)"


# ------------------------------------------------------------------ the verdict


def verdict(
    capture: Capture,
    trials: Trials | None,
    measures: Sequence[LayerMeasure],
    strongest: Finding | None,
) -> str:
    """The cause and whether new statistics would help, without a full stop."""
    if strongest is not None:
        return closing(strongest.claim or strongest.message, _outcome(capture, trials, measures))
    worst = max((each.error for each in measures), default=0.0)
    gap, floor, ratio = capture.gap(Propagation.EVAL), capture.gap_floor, capture.ratio
    right = worst < BLAMED
    off = f"no layer's output is off by {BLAMED} std or more"
    if not right:
        off = f"the output of a layer is off by {worst:.3g} std"
    if gap is None:
        return off
    if gap == 0 and all(layer.frozen for layer in capture.norms):
        return f"{_frozen(len(measures))}; {off}{'' if right else ', which may be right'}"
    if gap == 0:
        return f"the outputs of train() and eval() are the same; {off}"
    about = "about " if capture.renewals > 1 else ""  # as each part found its own
    if right and floor is not None and (at_floor(capture) or gap - floor < BLAMED):
        return (
            f"nothing is wrong: {off}, and new statistics would leave {about}{floor:.3g} of "
            f"the gap of {gap:.3g} std, because training normalises each batch by itself"
        )
    times = f", {_times(ratio)} its floor" if ratio is not None else ""
    batches = max((each.batches for each in measures), default=0) // capture.renewals
    if batches < FEWEST_BATCHES:
        few = counted(batches, "batch", "batches")
        if capture.renewals > 1:
            few, times = f"{few} in each part", ""
        few += " is" if batches == 1 else " are"
        return f"{few} too few to judge the gap of {gap:.3g} std{times}; {off}"
    return f"no cause was found for the gap of {gap:.3g} std{times}; {off}"


def _times(ratio: float) -> str:
    return f"{ratio:.2f} times" if ratio < MANY else f"{ratio:.3g} times"


def _frozen(layers: int) -> str:
    who = "all layers are" if layers > 1 else "the layer is"
    return f"{who} frozen, so that train() and eval() give the same outputs"


def _outcome(capture: Capture, trials: Trials | None, measures: Sequence[LayerMeasure]) -> str:
    """What new statistics, or another input, would do to the gap."""
    gap, floor = capture.gap(Propagation.EVAL), capture.gap_floor
    if not gap or floor is None:
        return ""
    if (change := mapped(capture, trials)) is not None:
        return f"with the {change.what}, {_of_gap(change, gap)} of the gap closes"
    if at_floor(capture):
        return "new statistics would not close the gap"
    most = "at most about " if capture.renewals > 1 else ""  # as each part found its own
    said = f"new statistics in all layers close {most}{percent(1 - floor / gap)} of the gap"
    metrics: Mapping[str, float] = trials.metrics if trials is not None else {}
    then = metrics.get(Propagation.RENEWED.value)
    alone = best_alone(capture, trials, measures) if trials is not None else None
    if alone is not None and alone[1] >= ENOUGH:
        said = f"new statistics in {alone[0].what} close {_of_gap(alone[0], gap)} of the gap"
        then = alone[0].metric
    return ", and ".join(filter(None, [said, metric_then(metrics, then)]))
