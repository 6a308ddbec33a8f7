"""BN815 to BN819: what a capture could not see, and what is said and not repaired."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.model.capture import Propagation
from bncli.report import Finding, Severity
from bncli.rulebook.interface import Rule
from bncli.rulebook.live.evidence import Evidence, at_layers, off_by

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bncli.model.capture import InputSums

FROZEN = Rule(
    "BN815",
    "frozen-off-the-data",
    Severity.INFO,
    "a frozen layer's statistics do not fit the data, which may be right",
    "Leave the statistics as they are if the model was trained with them frozen. With new ones, "
    "the weights behind them would get other inputs than those that they were trained on.",
    symptom="Statistics of a backbone differ from the data, and the model is good in evaluation.",
    arithmetic="The layer is frozen by its class, by requires_grad=False or by --frozen, and its "
    "predicted error is above 0.1 and beyond noise.",
    certainty="Certain that they do not fit. Weights that were trained with frozen statistics "
    "expect them: in one test, re-estimating them closed 90% of the gap and made the loss 20 times "
    "worse.",
    lookalike="A layer that is frozen in name only, and whose statistics moved in training, is not "
    "meant.",
)
ONE_BATCH = Rule(
    "BN816",
    "one-batch",
    Severity.INFO,
    "there was only one batch, so it is not known how much batches scatter",
    "Capture more batches, at least 8 of the training's size.",
    symptom="The report has no noise, and the gap's floor is too low.",
    arithmetic="Noise and floor come from the scatter of several batches. Statistics found anew in "
    "a single batch fit it exactly.",
    certainty="Certain.",
    lookalike="Batches with one value per channel are BN817.",
)
ONE_VALUE = Rule(
    "BN817",
    "one-value-a-channel",
    Severity.WARNING,
    "a layer gets one value per channel, so the model cannot run in training mode",
    "Use batches of more than one sample (--batch-size, drop_last=True).",
    symptom='Training stops with "Expected more than 1 value per channel when training".',
    arithmetic="The variance of one value is 0/0 unbiased, and every channel would be normalised "
    "to its bias. Only evaluation was captured, in which each layer sees what the layers "
    "before it make with their stored statistics.",
    certainty="Certain: training mode was tried, and PyTorch refused it.",
    lookalike="One image with several pixels is a batch like any other.",
    seen=("pytorch/pytorch#7716",),
)
NOT_SETTLED = Rule(
    "BN818",
    "statistics-not-settled",
    Severity.INFO,
    "the new statistics had not settled, so the gap's floor is not exact",
    "Read the floor, and what the trials close, as rough numbers. With fewer batches (--batches N) "
    "the data run as one batch, and the statistics settle.",
    symptom="Two captures of the same data in other batches give different floors.",
    arithmetic="What a layer sees depends on the statistics of those before it. Where memory "
    "allows, all data run as one batch in which each layer takes its statistics from what it sees "
    "in evaluation; else layer after layer is taken, if there are not too many. One more pass "
    "checks that no statistic moves by more than a tenth of its standard error; here one did.",
    certainty="Certain.",
    lookalike="Dropout or another source of chance that stays on in evaluation (BN803) keeps them "
    "moving too.",
)
MOVED = Rule(
    "BN819",
    "weights-moved",
    Severity.WARNING,
    "weights changed during the capture, so its batches did not run through one model",
    "Capture without steps of an optimiser in between, or with a learning rate of 0.",
    symptom="Statistics and outputs of the two modes belong to different weights.",
    arithmetic="The sums of all weights' bits before and after the capture differ.",
    certainty="Certain: the bits were compared.",
    lookalike="Running statistics, which move in training mode, are not weights.",
)


def check_frozen(found: Evidence) -> list[Finding]:
    """BN815: frozen layers whose statistics do not fit."""
    off = [each for each in found.measures if each.frozen and each.blamed]
    if not off:
        return []
    worst = max(off, key=lambda each: each.error)
    names = [worst.name, *(each.name for each in off if each is not worst)]
    total = sum(each.frozen for each in found.measures)
    are = "are" if len(off) > 1 else "is"
    many = f"{len(off)} of {total} frozen layers {are}" if total > 1 else "the frozen layer is"
    said = f"{many} off, by {off_by(worst)} at most"
    return [at_layers(FROZEN, names, said)]


def check_one_batch(found: Evidence) -> list[Finding]:
    """BN816: a single batch."""
    batches = max((each.batches for each in found.measures if not each.per_sample), default=0)
    if batches != 1 or found.capture.refused_training:
        return []
    samples = found.measures[0].samples
    said = f"one batch of {samples} sample{'s' * (samples != 1)}, too few to know the noise"
    return [at_layers(ONE_BATCH, [found.measures[0].name], said)]


def check_one_value(found: Evidence) -> list[Finding]:
    """BN817: the training propagation could not run."""
    reason = found.capture.refused_training
    if not reason:
        return []
    small = [each.name for each in found.capture.norms if _one_value(each.seen)]
    said = f"the model could not run in training mode with {_counted(len(small))}"
    names = small or [each.name for each in found.capture.norms[:1]]
    return [at_layers(ONE_VALUE, names, said, detail=f"{reason.rstrip('.')}.")] if names else []


def check_settled(found: Evidence) -> list[Finding]:
    """BN818: statistics that did not come to rest."""
    if found.capture.settled or not found.capture.norms:
        return []
    rounds = found.capture.rounds or 0
    said = f"the new statistics still moved after {rounds} passes"
    return [at_layers(NOT_SETTLED, [found.capture.norms[-1].name], said, {"rounds": rounds})]


def check_moved(found: Evidence) -> list[Finding]:
    """BN819: weights that changed meanwhile."""
    if not found.capture.weights_moved:
        return []
    said = "weights changed between the first batch and the last"
    return [MOVED.finding("the model", said, {"cause": MOVED.name})]


def _one_value(seen: Mapping[Propagation, InputSums]) -> bool:
    """Whether a layer has a single value a channel in evaluation's batches."""
    record = seen.get(Propagation.EVAL)
    return record is not None and record.values <= record.batches


def _counted(layers: int) -> str:
    return f"one value per channel in {layers} layers" if layers > 1 else "one value per channel"


CHECKS = (check_frozen, check_one_batch, check_one_value, check_settled, check_moved)
