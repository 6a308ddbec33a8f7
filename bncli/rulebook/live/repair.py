"""BN820 and BN821: whether new running statistics help, and are known well enough."""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from bncli.light import np
from bncli.model.capture import Propagation
from bncli.report import Certainty, Finding, Severity
from bncli.rulebook.interface import Rule, examples
from bncli.rulebook.layers import label
from bncli.rulebook.live.batches import DIFFER
from bncli.rulebook.live.evidence import FEWEST_BATCHES, REAL, THE_INPUT
from bncli.rulebook.live.measures import BLAMED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.model.recalibration import Goal, LayerChange, Recalibration
    from bncli.report import Value
    from bncli.rulebook.live.causes import Diagnosis

NO_HELP = Rule(
    "BN820",
    "new-statistics-do-not-help",
    Severity.ERROR,
    "new running statistics do not make this model better",
    "Find the cause with bncli diagnose; --force writes the new statistics all the same.",
    symptom="A model is worse in evaluation than in training, and re-estimating the running "
    "statistics leaves it so, or makes it worse.",
    arithmetic="The new statistics were put into the model, and it ran over the data. The metric "
    "did not get better. Which way is better is what --metric-goal says, or else the metric "
    "itself, taken of outputs paired with the wrong samples: these are worse. Where that tells "
    "nothing, nearer to the training propagation is better. Without a metric, the outputs' gap "
    "between the two propagations did not become smaller, or tells nothing because batches differ "
    "(BN806).",
    certainty="Certain where it was measured: on these data, with the numbers that would have been "
    "written. Likely where batches differ.",
    lookalike="A gap at its floor, where no layer is off, is the noise of training's own batches: "
    "there is nothing to repair.",
    seen=("huggingface/pytorch-image-models#224",),
    less_sure=(Certainty.LIKELY,),
)
TOO_LITTLE = Rule(
    "BN821",
    "too-little-data",
    Severity.ERROR,
    "there are too few samples to know the new statistics as well as --max-error asks",
    "Give more data.",
    symptom="New running statistics differ from one set of samples to the next.",
    arithmetic="The standard error of a mean is the standard deviation of the samples' means, "
    "within their batches, over the root of the number of samples; here it is in standard "
    "deviations of the channel. In the worst channel of a layer, it is above --max-error (0.01 "
    "unless given). Four times the samples halve it.",
    certainty="Certain for samples that are drawn independently of each other. Batches that differ "
    "from each other add to the error.",
    lookalike="An error of a few hundredths may be small beside what the statistics are off by: "
    "compare it with how far the means move.",
)

STORED = ("BN1", "BN2", "BN7", "BN807", "BN808", "BN809", "BN814")
"""How the codes begin of causes that lie in the stored statistics, which new ones take away."""

FITS = 3.0
"""How many times BLAMED a healthy model's gap may be above its floor for a single batch; less by
the root of their number with more, down to BLAMED itself."""

STILL = 0.01
"""The standard deviations by which statistics may move and count as the same."""


class Outcome(str, Enum):
    """What new statistics come to: they help, they do not, and so on.

    UNTOLD is where the gap is no measure of it, TOO_LITTLE where they may help and are not known
    well enough, and UNKNOWN where nothing was measured.
    """

    HELPS = "helps"
    NO_HELP = "does not help"
    NOTHING = "nothing to repair"
    UNTOLD = "cannot be told"
    TOO_LITTLE = "too little data"
    UNKNOWN = "not known"


class Judgement(NamedTuple):
    """The outcome, the finding that says why nothing should be written, and what else is wrong.

    `others` are the causes that are not in the stored statistics, and stay where these are new.
    """

    outcome: Outcome
    finding: Finding | None = None
    others: tuple[Finding, ...] = ()


def judged(done: Recalibration, goal: Goal, found: Diagnosis, most: float = math.inf) -> Judgement:
    """Whether the new statistics help; `found` is the diagnosis of the same capture.

    By the metric, where there is one, else by the gap; UNKNOWN where neither was measured. `most`
    is the largest standard error of a mean, in standard deviations.
    """
    judgement = _judged(done, goal, found)
    short = [layer for layer in done.layers if layer.standard_error > most]
    if not short or judgement.outcome not in (Outcome.HELPS, Outcome.UNKNOWN):
        return judgement
    worst = max(short, key=lambda layer: layer.standard_error)
    return Judgement(Outcome.TOO_LITTLE, _too_little(worst, most), judgement.others)


def _too_little(worst: LayerChange, most: float) -> Finding:
    """BN821, at the layer whose means are known least."""
    error, samples = worst.standard_error, worst.samples
    accepted = math.ceil(error * 1000) / 1000
    needed: int | None = math.ceil(samples * (error / most) ** 2)
    digits = 10 ** max(len(str(needed)) - 2, 0)
    needed = math.ceil((needed or 0) / digits) * digits
    enough, more = f"For {most:g}, it takes about {needed:,} samples.", "Give more data"
    if worst.average.value == "ema":
        needed, more = None, "Choose a smaller momentum, or larger batches"
        enough = "More batches would not lower it: the newest ones weigh most."
    z = np.abs(worst.z)
    moved = f" The layer's means move by up to {z.max():.3g} std." if np.isfinite(z).all() else ""
    return Finding(
        TOO_LITTLE.code,
        TOO_LITTLE.severity,
        label(worst.name),
        f"{_samples(samples)} give the means with a standard error of up to {error:.3g} std",
        claim=TOO_LITTLE.summary,
        detail=f"{enough}{moved}",
        hint=f"{more}, or accept this with --max-error {accepted:g}.",
        evidence={"standard_error": error, "samples": samples, "samples_needed": needed},
    )


def _samples(samples: int) -> str:
    """So many samples, in words."""
    return "1 sample" if samples == 1 else f"{samples:,} samples"


def _judged(done: Recalibration, goal: Goal, found: Diagnosis) -> Judgement:
    """The same for data that suffice."""
    causes = [each for each in found.findings if each.severity is not Severity.INFO]
    # What explains that new statistics do not help comes before what they would have repaired.
    causes.sort(key=lambda each: each.code.startswith(STORED))
    first = next((layer.name for layer in done.capture.norms), None)
    stay = tuple(
        each
        for each in causes
        # A first layer that alone is off may be the input's fault, which is then built in.
        if not each.code.startswith(STORED) or (each.code == "BN808" and each.subject == first)
    )
    if not done.checked:
        return Judgement(Outcome.UNKNOWN, others=stay)
    cause = next(iter(causes), None)
    metrics, before, after = done.metrics, done.gap_before, done.gap_after
    helps, message = _by_metric(done, goal) if metrics else (False, "")
    # What is stored may do no harm (any more), such as a momentum; but a metric may count for more.
    if not stay and _right(done, found) and not (helps and _gap_tells_little(done, found)):
        return Judgement(Outcome.NOTHING)
    numbers: dict[str, Value] = {"gap_before": before, "gap_after": after}
    if metrics:
        numbers |= {f"metric_{key}": value for key, value in metrics.items()}
    elif after is not None and _was_not_finite(done):
        return Judgement(Outcome.HELPS, others=stay)
    elif before is None or after is None:
        return Judgement(Outcome.UNKNOWN)
    else:
        helps = after < before and not _at_floor(done)
        differ = _differing(done, stay)
        if helps and differ is not None:
            return Judgement(Outcome.UNTOLD, _not_told(differ, numbers))
        message = f"the gap between train() and eval() goes from {before:.4g} to {after:.4g} std"
    if helps:
        return Judgement(Outcome.HELPS, others=stay)
    if done.layers and all((layer.moved < STILL).all() for layer in done.layers):
        return Judgement(Outcome.NOTHING, others=stay)
    return Judgement(
        Outcome.NO_HELP,
        Finding(
            NO_HELP.code,
            NO_HELP.severity,
            "the model",
            f"new statistics do not help: {message}",
            claim=NO_HELP.summary,
            detail=_detail(done, goal, cause),
            hint=_hint(done, cause),
            evidence={**numbers, "cause": None if cause is None else cause.code},
        ),
    )


def _differing(done: Recalibration, causes: Sequence[Finding]) -> Finding | None:
    """The finding that batches differ, where that is certain.

    Where it stands only at layers that a batch calls twice, the calls may differ and not the
    batches.
    """
    again = {layer.name for layer in done.capture.norms if layer.calls > 1}
    for each in causes:
        places = set(each.places or (each.subject,))
        if each.code == DIFFER.code and each.certainty is Certainty.CERTAIN and places - again:
            return each
    return None


def _not_told(cause: Finding, numbers: dict[str, Value]) -> Finding:
    """BN820 where the gap tells nothing: training saw batches that no stored statistics give."""
    return Finding(
        NO_HELP.code,
        NO_HELP.severity,
        "the model",
        "the gap cannot tell whether new statistics help, because the batches differ",
        claim="the gap cannot tell whether new running statistics help",
        detail=f"The cause ({cause.code}, certain): {cause.message}. If training had such batches, "
        "it normalised each by itself, and no stored statistics can give what it saw. If not, the "
        "outputs of train() on these data are no measure.",
        hint="Shuffle the data if training does, or let --metric FILE.py:NAME decide.",
        evidence={**numbers, "cause": cause.code},
        certainty=Certainty.LIKELY,
    )


def _right(done: Recalibration, found: Diagnosis) -> bool:
    """Whether no layer is off by something that matters, and the gap is about its floor.

    With a few batches chance may give the layers more, and statistics found anew fit these batches
    too well, so that the gap may be farther from the floor.
    """
    before, floor = done.gap_before, done.gap_floor
    changed = {layer.name for layer in done.layers}
    living = [each for each in found.measures if not each.frozen or each.name in changed]
    if before == 0 or not found.measures:
        return True
    if before is None or floor is None:
        return False
    number = found.measures[0].batches
    if number < FEWEST_BATCHES:
        loud = any(each.severity is not Severity.INFO for each in found.findings)
        off = loud or any(each.blamed for each in living)
    else:
        off = any(each.error >= BLAMED for each in living)
    return not off and _near(before, floor, number)


def _near(before: float, floor: float, number: int) -> bool:
    """Whether the gap of so many batches is about its floor."""
    return before < REAL * floor or before - floor < BLAMED * max(1.0, FITS / math.sqrt(number))


def _gap_tells_little(done: Recalibration, found: Diagnosis) -> bool:
    """Whether a metric may get better where the gap says that no layer is off.

    The gap is small and not at its floor, which a few batches do not show, or layers change that
    are frozen: in training, too, these normalise by what they store.
    """
    changed = {layer.name for layer in done.layers}
    frozen = any(layer.frozen and layer.name in changed for layer in done.capture.norms)
    enough = any(each.batches >= FEWEST_BATCHES for each in found.measures[:1])
    return frozen or (enough and not _at_floor(done))


def _was_not_finite(done: Recalibration) -> bool:
    """Whether the outputs hold NaN or Inf in evaluation, and not in training."""
    outputs = done.capture.outputs
    trained = all(np.isfinite(out.squares).all() for out in outputs)
    return trained and not all(
        math.isfinite(out.apart.get(Propagation.EVAL, 0.0)) for out in outputs
    )


def _at_floor(done: Recalibration) -> bool:
    """Whether statistics found anew in all layers would leave the gap about as it is."""
    before, floor = done.gap_before, done.gap_floor
    return before is not None and floor is not None and before < REAL * floor


def _by_metric(done: Recalibration, goal: Goal) -> tuple[bool, str]:
    """Whether the metric gets better, and the numbers in words."""
    training, before, after = (
        done.metrics.get(key, math.nan) for key in ("training", "before", "after")
    )
    message = f"the metric goes from {before:.4g} to {after:.4g} ({training:.4g} in training)"
    if before == after:
        return False, f"the metric stays at {before:.4g} ({training:.4g} in training)"
    if math.isnan(before) and not math.isnan(after):
        return True, message
    if goal.value == "max":
        return after > before, message
    if goal.value == "min":
        return after < before, message
    way = better_way(done)
    if way is not None:
        return (after - before) * way > 0, message
    return abs(after - training) < abs(before - training), message


def better_way(done: Recalibration) -> int | None:
    """1 where a greater metric is better, -1 where a smaller one is; None where nothing tells.

    Outputs that are paired with other samples than their own ("chance") are worse than right ones.
    """
    right = done.metrics.get("right", done.metrics.get("training", math.nan))
    chance = done.metrics.get("chance", math.nan)
    if math.isnan(right - chance) or right == chance:
        return None
    return 1 if right > chance else -1


def _detail(done: Recalibration, goal: Goal, cause: Finding | None) -> str:
    """What else the data show: the gap beside a metric, which way is better, and the cause."""
    said = []
    before, after, chance = done.gap_before, done.gap_after, done.metrics.get("chance")
    if done.metrics and before is not None and after is not None:
        said.append(
            f"The gap between train() and eval() goes from {before:.4g} to {after:.4g} std."
        )
    way = better_way(done)
    if chance is not None and way is not None and goal.value == "training":
        said.append(
            f"Outputs that are paired with the wrong samples give {chance:.4g}, so "
            f"{'more' if way > 0 else 'less'} is better."
        )
    if cause is not None:
        sure = f"{cause.code}, {cause.certainty.value}"
        where = _layers(cause)
        at = f" at {examples(where)}" if len(where) == 1 else ""
        said.append(f"The cause{at} ({sure}): {cause.message}.")
    return " ".join(said)


def _hint(done: Recalibration, cause: Finding | None) -> str:
    """What to do instead: that of a cause which is not in the stored statistics.

    Of one that is, layers that were not chosen may have it.
    """
    if cause is None:
        return NO_HELP.hint
    if not cause.code.startswith(STORED):
        return cause.hint or NO_HELP.hint
    others = [name for name in _layers(cause) if done.left.get(name) == "not chosen"]
    if others:
        return f"Choose {examples(others)} too: name them with --layer, or leave --layer out."
    return NO_HELP.hint


def _layers(cause: Finding) -> list[str]:
    """The layers that a finding is about; none where it is about the model or its input."""
    places = cause.places or (cause.subject,)
    return [place for place in places if place not in ("", "the model", THE_INPUT)]
