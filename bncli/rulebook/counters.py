"""BN3xx: what num_batches_tracked says, in one layer and across all of them."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from bncli.report import Certainty, Finding, Severity
from bncli.rulebook.interface import Rule, examples
from bncli.rulebook.layers import Checkpoint, label, plain_count
from bncli.rulebook.momentum import counter_too_small
from bncli.rulebook.summaries import Summary

if TYPE_CHECKING:
    from bncli.report import Value

SOME_WITHOUT = Rule(
    "BN301",
    "counter-in-some",
    Severity.INFO,
    "num_batches_tracked is missing in some layers",
    "Check that these are the layers that you froze or converted.",
    symptom="Loading complains of missing keys; with strict=False it does not, and leaves the "
    "counters at a new model's 0.",
    arithmetic="Of the layers with statistics, some have a counter in the file and some do not.",
    certainty="Certain as a fact. The counter is used only where momentum is none.",
    lookalike="A file in which no layer has a counter was written before PyTorch 0.4.1 or "
    "converted from another framework, and is not reported.",
    seen=("pytorch/pytorch#8430", "pytorch/pytorch#12528"),
)
GROUPS = Rule(
    "BN302",
    "counter-groups",
    Severity.INFO,
    "layers have counted different numbers of batches",
    "Compare the groups with the file's history: fine-tuning, a new head, frozen layers.",
    symptom="Parts of the network were trained for longer than others.",
    arithmetic="num_batches_tracked takes several values. The difference between two of them is "
    "the length of a phase of training: where some layers are at 1562413 and others at 1905515, "
    "the latter went on for 343102 batches.",
    certainty="Certain as a fact.",
    lookalike="A group that is a multiple of another is BN303.",
)
MULTIPLE = Rule(
    "BN303",
    "counter-multiple",
    Severity.WARNING,
    "layers are updated several times a step",
    "With activation checkpointing, set momentum to 1 - (1 - m)^(1/k) in these layers; otherwise "
    "check that the layer is meant to run k times a step.",
    symptom="The statistics follow the last batches too closely, and differ from a run without "
    "activation checkpointing.",
    arithmetic="The counter is k times that of other layers, where k is a whole number from 2 to "
    "8. With k updates per batch, the effective momentum is 1 - (1 - m)^k: 0.19 for k = 2 and m = "
    "0.1. A momentum of 0.0513 would give 0.1 again.",
    certainty="Likely. The ratio is exact, but the file does not say what caused it: activation "
    "checkpointing runs the layer's forward again in the backward pass; a layer shared between "
    "inputs (siamese networks, pyramid levels, real and generated images) runs once for each.",
    lookalike="If a head was added exactly half-way (or two thirds of the way) through training, "
    "the other layers' counters are also an exact multiple of its counter. Counters below 10 are "
    "not judged, nor are those of averaged copies, which mean nothing.",
    sure=Certainty.LIKELY,
    seen=(
        "pytorch/pytorch#96136",
        "pytorch/pytorch#62471",
        "facebookresearch/fairscale#1035",
        "deepinsight/insightface#2053",
        "keras-team/keras#11927",
    ),
)
NOT_A_COUNT = Rule(
    "BN304",
    "counter-not-a-count",
    Severity.WARNING,
    "num_batches_tracked is not a count",
    "Leave integer buffers out of averages, and copy them instead.",
    symptom="The counter was averaged or aggregated along with the weights, or overwritten.",
    arithmetic="The value is negative, fractional or not finite, or the tensor does not hold "
    "exactly one value.",
    certainty="Certain that it is not a count. The number itself is used only where momentum is "
    "none, but the running statistics were probably averaged or overwritten too.",
    lookalike="A whole number in a float tensor or of shape (1,) is a habit of other frameworks, "
    "and accepted.",
    seen=("pytorch/ignite#2592", "APPFL/APPFL#86"),
    formerly=("BN207",),
)
TOO_SMALL = Rule(
    "BN305",
    "counter-too-small",
    Severity.INFO,
    "num_batches_tracked is too small for the statistics",
    "No fix is needed, unless momentum is none or something else reads the counter.",
    symptom="A counter of 0 or 1 stands beside finished statistics, as in an averaged copy, a "
    "converted file or weights from before PyTorch 0.4.1. Or bncli recalibrate wrote new "
    "statistics; with --counter batches it sets the counter too.",
    arithmetic="Starting from 1, n batches leave every variance at (1 - m)^n or more, since an "
    "update never adds less than 0. A variance below that, or statistics other than 0 and 1 at n = "
    "0, prove the counter wrong.",
    certainty="Certain if the file or --momentum gives the momentum, or if the counter is 0. If "
    "the momentum is assumed, the finding depends on it: a larger one would explain the same "
    "numbers.",
    lookalike="If no variance is below the bound, too few batches are the simpler explanation "
    "(BN105). PyTorch's InstanceNorm stores a counter and leaves it at 0. If every running_mean is "
    "exactly 0, the statistics do not come from batches.",
    less_sure=(Certainty.ASSUMED,),
)
WIPES = Rule(
    "BN306",
    "momentum-none-would-wipe",
    Severity.WARNING,
    "the first training batch would replace all statistics",
    "Set the counter to the number of batches seen, or train with a momentum.",
    symptom="Evaluation is fine until the first training step, and then depends on one batch.",
    arithmetic="With momentum none, a batch has the weight 1/n, where n is the counter after it: "
    "1/1 for the first.",
    certainty="Certain for training that goes on from this file. Evaluation is not affected.",
    lookalike="With any other momentum a counter of 0 is harmless (BN305).",
)
UNBELIEVABLE = Rule(
    "BN307",
    "unbelievable-counter",
    Severity.WARNING,
    "num_batches_tracked is larger than training can count",
    "Do not trust the layer's other tensors either; compare them with an earlier checkpoint.",
    symptom="The layer was made with empty tensors and never filled, the file is damaged, or a "
    "different kind of number has the counter's name.",
    arithmetic="The counter is above 1,000,000,000, which a hundred batches a second reach after "
    "four months. Memory that was never filled holds such numbers.",
    certainty="Certain for all practical purposes that it does not count batches.",
    lookalike="A counter that is negative, fractional or not finite is BN304.",
)

MOST_COUNTED = 10**9
"""The largest believable counter: at 20 batches a second, training takes a year and a half."""
MOST_TIMES = 8
"""The largest multiple that is reported, of a counter of FEWEST_SURE or more. Larger ones are more
likely phases of training, which share the batches of an epoch as a factor."""
FEWEST_SURE = 100
"""From this counter on, at most one count in a hundred is a multiple by accident."""
FEWEST = 10
"""From this counter on, multiples up to 4 are reported."""


def is_count(value: float | None) -> bool:
    """Whether a counter is a whole number of 0 or more."""
    return value is not None and math.isfinite(value) and value >= 0 and value == int(value)


def is_believable(value: float | None) -> bool:
    """Whether a counter is a whole number that batches may have counted."""
    return value is not None and is_count(value) and value <= MOST_COUNTED


def check_groups(file: Checkpoint) -> list[Finding]:
    """BN301 and BN302: how the counters divide the layers."""
    layers = [layer for layer in file.distinct(file.own()) if layer.has_statistics]
    counters = Counter(layer.counter for layer in layers if is_believable(layer.counter))
    without = [layer for layer in layers if not layer.has_counter]
    findings = []
    if without and len(without) < len(layers):
        names: list[str] = [layer.name for layer in without]
        findings.append(
            SOME_WITHOUT.finding(
                "num_batches_tracked",
                f"{len(without)} of {len(layers)} layers have no counter",
                {"without": names, "layers": len(layers)},
                detail=f"Without one: {examples(names)}.",
                extent=tuple(map(label, names)),
            )
        )
    if len(counters) > 1:
        groups = counters.most_common()
        findings.append(
            GROUPS.finding(
                "num_batches_tracked",
                "num_batches_tracked differs: "
                + counter_groups([layer.counter for layer in layers if layer.has_counter]),
                {"groups": [[count, number] for count, number in groups]},
            )
        )
    return findings


def check_multiples(file: Checkpoint) -> list[Finding]:
    """BN303: layers that count k batches for each one that the others count."""
    layers = [
        layer for layer in file.own() if layer.has_statistics and is_believable(layer.counter)
    ]
    groups = Counter(int(layer.counter) for layer in file.distinct(layers) if layer.counter)
    names = Counter(file.shared.get(layer.name, layer.name) for layer in layers)
    # A copy is updated as often as what it was copied from.
    findings = []
    for layer in layers:
        large = int(layer.counter or 0)
        bases = [small for small in groups if small < large and _times(large, small)]
        if not bases:
            continue
        base = max(bases, key=lambda small: (groups[small], small))
        # A layer that stands in as many places of the network runs so often by design.
        shared = names[file.shared.get(layer.name, layer.name)] == large // base
        findings.append(_multiple(layer, large, base, groups[base], shared=shared))
    return findings


def _multiple(layer: Summary, large: int, base: int, others: int, *, shared: bool) -> Finding:
    """BN303 for a counter of `large`, a multiple of the `base` of `others` layers."""
    times = large // base
    why = "Activation checkpointing runs a layer's forward pass again, or the layer is used "
    why += f"{times} times a step."
    effect = "With checkpointing, the"
    if shared:
        why, effect = f"It stands under {times} names and runs once for each.", "The"
    momentum, assumed = layer.momentum, " (assumed)" * layer.momentum_assumed
    if momentum is not None and 0 < momentum < 1:
        effective, fitting = (1 - (1 - momentum) ** power for power in (times, 1 / times))
        why += (
            f" {effect} effective momentum is {effective:.3g} instead of {momentum:g}{assumed}; "
            f"set {fitting:.4g} to restore {momentum:g}."
        )
    return _finding(
        MULTIPLE,
        layer,
        f"updated {times} times a step: num_batches_tracked is {large}, and {base} in {others} "
        f"other layer{'s' * (others > 1)}",
        "shared" if shared else "checkpointing-or-shared",
        why,
        hint="No fix is needed if the layer is meant to be shared." * shared,
        sure=MULTIPLE.sure,  # whatever the momentum
        num_batches_tracked=large,
        times=times,
        base=base,
        momentum=momentum,
        momentum_assumed=layer.momentum_assumed,
    )


def check_counter(file: Checkpoint) -> list[Finding]:
    """BN304 to BN307: what one layer's counter says beside its statistics."""
    findings = []
    for layer in file.layers:
        counter = layer.counter
        if counter is None or not layer.has_statistics:
            continue
        told = f"num_batches_tracked is {plain_count(counter)}"
        if not is_count(counter):
            findings.append(_not_a_count(layer, counter))
        elif not is_believable(counter):
            findings.append(
                _finding(
                    UNBELIEVABLE,
                    layer,
                    f"{told}, more than training can count",
                    "not-a-count-of-batches",
                    "Its memory was never filled, or it is a number of another kind.",
                    num_batches_tracked=counter,
                )
            )
        elif counter_too_small(layer) and counter == 0 and layer.momentum is None:
            findings.append(
                _finding(
                    WIPES,
                    layer,
                    f"{told} and momentum none: the first batch would replace all statistics",
                    "counter-0",
                    num_batches_tracked=counter,
                )
            )
        elif counter_too_small(layer) and layer.finite:
            findings.append(_too_small(layer, counter, file))
    return findings


def _not_a_count(layer: Summary, counter: float) -> Finding:
    """BN304 for one number."""
    # An average of counts is finite and not negative.
    averaged = math.isfinite(counter) and counter >= 0
    why = "It was averaged with the weights, or overwritten."
    if not averaged:
        why = "Averages of counts are finite and 0 or more: this was overwritten or never written."
    return _finding(
        NOT_A_COUNT,
        layer,
        f"num_batches_tracked is {counter:.9g}, not a count",
        "averaged" if averaged else "overwritten",
        why,
        hint="" if averaged else "Compare the layer's tensors with an earlier checkpoint.",
        num_batches_tracked=counter,
    )


FILE_CHECKS = (check_groups, check_multiples, check_counter)


def counter_groups(counters: list[int | float | None]) -> str:
    """Counters as groups, the largest first: "55 layers at 1700730, 18 at 138317"."""
    known = [counter for counter in counters if counter is not None]
    groups = Counter(known).most_common()
    if len(groups) > 5:
        least, most = plain_count(min(known)), plain_count(max(known))
        said = [f"{len(groups)} values from {least} to {most}"]
    else:
        said = [f"{number} at {plain_count(counter)}" for counter, number in groups]
        if groups:
            first = groups[0][1]
            said[0] = f"{first} layer{'s' * (first != 1)} at {plain_count(groups[0][0])}"
    if len(known) < len(counters):
        said.append(f"{len(counters) - len(known)} without a count")
    return ", ".join(said)


def _times(large: int, small: int) -> bool:
    """Whether the large counter is a multiple of the small one, and hardly by accident."""
    if small < FEWEST or large % small:
        return False
    times = large // small
    return times <= (MOST_TIMES if small >= FEWEST_SURE else 4)


def _finding(
    rule: Rule,
    layer: Summary,
    message: str,
    cause: str,
    detail: str = "",
    *,
    hint: str = "",
    sure: Certainty | None = None,
    **numbers: Value,
) -> Finding:
    evidence: dict[str, Value] = {"layer": layer.name, "cause": cause, **numbers}
    return rule.finding(label(layer.name), message, evidence, detail=detail, hint=hint, sure=sure)


def _too_small(layer: Summary, counter: float, file: Checkpoint) -> Finding:
    """BN305, with the causes that the file leaves."""
    told = f"num_batches_tracked is {plain_count(counter)}, but"
    message, why = f"{told} the statistics are not the initial 0 and 1", ""
    if counter != 0:
        momentum = layer.momentum or 0
        bound = (1 - momentum) ** counter
        message = f"{told} running_var is as low as {layer.least_var:.4g}"
        why = (
            f"With {layer.momentum_said}, {counter:g} "
            f"batch{'es' * (counter > 1)} leave{'s' * (counter == 1)} every variance at "
            f"{bound:.4g} or more. "
        )
    causes = {
        "averaged-copy": "an averaged copy",
        "converted": "a converted file",
        "old-weights": "old weights",
        "recalibrated": "new statistics from bncli recalibrate, which keeps the counter",
    }
    twin = file.twins.get(layer.name)
    live = next((one for one in file.layers if one.name == twin), None) if twin else None
    pair = file.pairs.get(layer.name)
    if pair is not None and pair.initial_weight is not None:
        causes = {"averaged-copy": causes["averaged-copy"]}  # which BN608 shows
    elif layer.mean_zero:
        causes = {"converted": "a converted file", "edited": "statistics that were set by hand"}
        why += "Every running_mean is exactly 0, which no batches leave. "
    elif counter == 0 and layer.module is None and not (live and live.counter):
        causes["instance-norm"] = "an InstanceNorm, which never counts"
    elif counter != 0 and layer.momentum_assumed:
        least = 1 - (layer.least_var or 0) ** (1 / counter)
        causes["other-momentum"] = f"another momentum (none, or {least:.3g} and more)"
    *others, last = causes.values()
    listed = f"{', '.join(others)}{',' * (len(others) > 1)}{' or ' * bool(others)}{last}"
    return _finding(
        TOO_SMALL,
        layer,
        message,
        "converted-or-edited" if layer.mean_zero else "copied-or-converted",
        f"{why}{'Possible causes: ' if others else 'This is '}{listed}.",
        num_batches_tracked=counter,
        least_var=layer.least_var,
        causes=list(causes),
        mean_zero=layer.mean_zero,
        momentum_assumed=layer.momentum_assumed and counter != 0,
    )
