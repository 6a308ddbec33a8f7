"""BN3xx: what num_batches_tracked says, in one layer and across all of them."""

from __future__ import annotations

import math
from collections import Counter

from bncli.report import Finding, Severity
from bncli.rulebook.interface import Rule, examples
from bncli.rulebook.layers import Checkpoint, Summary, label, plain_count
from bncli.rulebook.momentum import counter_too_small

SOME_WITHOUT = Rule(
    "BN301",
    "counter-in-some",
    Severity.INFO,
    "Some layers have num_batches_tracked and others have none.",
    "Check that the two groups are what you froze or converted; loading fills in 0.",
    symptom="Loading complains of missing keys, or of none at all with strict=False.",
    arithmetic="The layers with statistics are split by whether a counter is stored.",
    certainty="Certain as a fact. The counter is read only where momentum is none.",
    lookalike="A file in which no layer has a counter was written before PyTorch 0.4.1 or "
    "converted from another framework, and is not remarked.",
    seen=("pytorch/pytorch#8430", "pytorch/pytorch#12528"),
)
GROUPS = Rule(
    "BN302",
    "counter-groups",
    Severity.INFO,
    "The layers have seen different numbers of batches.",
    "Compare the groups with the file's history: a fine-tune, a new head, layers that were frozen.",
    symptom="Parts of the network were trained for longer than others.",
    arithmetic="num_batches_tracked takes several values. Differences between groups are the "
    "batches of one phase: 1562413 and 1905515 are a backbone and its 343102 batches of "
    "fine-tuning.",
    certainty="Certain as a fact.",
    lookalike="A group that is a multiple of another is BN303.",
)
MULTIPLE = Rule(
    "BN303",
    "counter-multiple",
    Severity.WARNING,
    "Layers have counted a whole multiple of the batches of others: updated several times a step.",
    "With activation checkpointing, use momentum 1 - (1 - m)^(1/k) in these layers; else check "
    "that the layer is meant to be shared.",
    symptom="Statistics that follow the last batches too closely, and differ from a run without "
    "activation checkpointing.",
    arithmetic="The counter is k times that of other layers, k a whole number from 2 to 8. k "
    "updates a batch have the effective momentum 1 - (1 - m)^k: 0.19 for k = 2 and m = 0.1, and "
    "momentum 0.0513 would give 0.1 again.",
    certainty="The ratio is exact; which of its causes holds, the file does not say: activation "
    "checkpointing runs the layer's forward again in the backward pass; a layer shared between "
    "inputs (siamese, pyramid levels, real and generated images) runs once for each.",
    lookalike="A head that joined exactly half-way through training, or after a third of it. "
    "Counters below 10 are left out, and so are averaged copies, whose counters mean nothing.",
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
    "num_batches_tracked is not one whole number of 0 or more.",
    "Leave integer buffers out of averaging: copy them instead.",
    symptom="The counter was averaged or aggregated along with the weights.",
    arithmetic="The value is negative, fractional, or not finite; or there is not one value.",
    certainty="Certain that it is no count. It matters where momentum is none, and says that the "
    "running statistics were probably averaged too.",
    lookalike="A whole number in a float tensor, or of shape (1,), is only another framework's "
    "habit.",
    seen=("pytorch/ignite#2592", "APPFL/APPFL#86"),
    formerly=("BN207",),
)
TOO_SMALL = Rule(
    "BN305",
    "counter-too-small",
    Severity.INFO,
    "The statistics were estimated from more batches than the counter says.",
    "Nothing, unless momentum is none or something else reads the counter.",
    symptom="A counter of 0 or 1 beside finished statistics: an averaged copy, a converted file, "
    "weights from before PyTorch 0.4.1.",
    arithmetic="Starting from 1, n batches leave every variance at (1 - m)^n or more, since "
    "updates add what is not negative. A variance below it, or statistics other than 0 and 1 at n "
    "= 0, prove the counter wrong.",
    certainty="A proof, for the momentum at hand; a larger momentum than the one assumed would "
    "explain it as well.",
    lookalike="Where no variance is below the bound, too few batches are the simpler reading "
    "(BN105). PyTorch's InstanceNorm stores a counter and leaves it at 0. Where every running_mean "
    "is exactly 0, no batches made the statistics.",
)
WIPES = Rule(
    "BN306",
    "momentum-none-would-wipe",
    Severity.WARNING,
    "With momentum none and a counter of 0, the first training batch replaces all statistics.",
    "Set the counter to the number of batches seen, or use a momentum in training.",
    symptom="Evaluation is fine until the first training step, and then follows one batch alone.",
    arithmetic="With momentum none a batch weighs 1/n, n the counter after it: 1/1 for the first.",
    certainty="Certain for training that goes on from this file; evaluation is not touched.",
    lookalike="With any other momentum a counter of 0 is harmless (BN305).",
)
UNBELIEVABLE = Rule(
    "BN307",
    "unbelievable-counter",
    Severity.WARNING,
    "num_batches_tracked is beyond what any training counts.",
    "Do not trust the layer's other tensors either: compare them with an earlier checkpoint.",
    symptom="A layer that was made with empty tensors and never filled, a file that was damaged, "
    "or a number of another kind under the counter's name.",
    arithmetic="The counter is above 1,000,000,000: a hundred batches a second for four months. "
    "Memory that was never filled holds such numbers.",
    certainty="As good as certain that it counts no batches.",
    lookalike="A counter that is negative, fractional or not finite is BN304.",
)

MOST_COUNTED = 10**9
"""The largest counter that is believed: 20 batches a second take a year and a half to count it."""
MOST_TIMES = 8
"""Multiples up to here are looked at, where the smaller counter is FEWEST_SURE or more. Larger ones
are rather phases of training, which share the batches of an epoch as a factor."""
FEWEST_SURE = 100
"""The counter from which one count in a hundred at most is a multiple by accident."""
FEWEST = 10
"""The counter from which a multiple up to 4 is looked at."""


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
                f"{len(without)} of {len(layers)} layers have none: {examples(names)}.",
                {"without": names, "layers": len(layers)},
                extent=tuple(map(label, names)),
            )
        )
    if len(counters) > 1:
        groups = counters.most_common()
        findings.append(
            GROUPS.finding(
                "num_batches_tracked",
                f"{counter_groups([layer.counter for layer in layers if layer.has_counter])}.",
                {"groups": [[count, number] for count, number in groups]},
            )
        )
    return findings


def check_multiples(file: Checkpoint) -> list[Finding]:
    """BN303: layers that count k batches for each of the others'."""
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
        times = large // base
        momentum = layer.momentum
        # A layer that stands in as many places of the network runs so often by design.
        shared = names[file.shared.get(layer.name, layer.name)] == times
        why = "activation checkpointing, or a layer that runs {times} times a step"
        if shared:
            why = "it stands under {times} names, and runs once for each"
        effect = ""
        if momentum is not None and 0 < momentum < 1:
            effective = 1 - (1 - momentum) ** times
            mend = 1 - (1 - momentum) ** (1 / times)
            effect = (
                f"; {'' if shared else 'if it is checkpointing, '}its effective momentum is "
                f"{effective:.3g} instead of {momentum:g}{' (assumed)' * layer.momentum_assumed}"
                f", and {mend:.4g} would mend that"
            )
        findings.append(
            _finding(
                MULTIPLE,
                layer,
                f"num_batches_tracked is {large}, {times} times the {base} of "
                f"{groups[base]} other layer{'s' * (groups[base] > 1)}: "
                f"{why.format(times=times)}{effect}.",
                "shared" if shared else "checkpointing-or-shared",
                num_batches_tracked=large,
                times=times,
                base=base,
                momentum=momentum,
                momentum_assumed=layer.momentum_assumed,
            )
        )
    return findings


def check_counter(file: Checkpoint) -> list[Finding]:
    """BN304 to BN307: what one layer's counter says beside its statistics."""
    findings = []
    for layer in file.layers:
        counter = layer.counter
        if counter is None or not layer.has_statistics:
            continue
        if not is_count(counter):
            # An average of counts is finite and not negative.
            averaged = math.isfinite(counter) and counter >= 0
            why = "it was averaged with the weights, or overwritten"
            if not averaged:
                why = "no average of counts: it was overwritten, or its memory never filled"
            findings.append(
                _finding(
                    NOT_A_COUNT,
                    layer,
                    f"num_batches_tracked is {counter:.9g}: {why}.",
                    "averaged" if averaged else "overwritten",
                    num_batches_tracked=counter,
                )
            )
        elif not is_believable(counter):
            findings.append(
                _finding(
                    UNBELIEVABLE,
                    layer,
                    f"num_batches_tracked is {plain_count(counter)}: no training counts so many "
                    "batches; memory that was never filled, or a number of another kind.",
                    "not-a-count-of-batches",
                    num_batches_tracked=counter,
                )
            )
        elif counter_too_small(layer) and counter == 0 and layer.momentum is None:
            findings.append(
                _finding(
                    WIPES,
                    layer,
                    "momentum is none and num_batches_tracked 0, and there are statistics to lose.",
                    "counter-0",
                    num_batches_tracked=counter,
                )
            )
        elif counter_too_small(layer) and layer.finite:
            findings.append(_too_small(layer, counter, file))
    return findings


FILE_CHECKS = (check_groups, check_multiples, check_counter)


def counter_groups(counters: list[int | float | None]) -> str:
    """Counters as groups, the largest first: "55 layers at 1700730, 18 at 138317"."""
    known = [counter for counter in counters if counter is not None]
    groups = Counter(known).most_common()
    if len(groups) > 5:
        said = [f"{len(groups)} values from {min(known)} to {max(known)}"]
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


def _finding(rule: Rule, layer: Summary, message: str, cause: str, **numbers: object) -> Finding:
    evidence = {"layer": layer.name, "cause": cause, **numbers}
    return rule.finding(label(layer.name), message, evidence)  # type: ignore[arg-type]  # plain values


def _too_small(layer: Summary, counter: float, file: Checkpoint) -> Finding:
    """BN305, with the causes that the file leaves."""
    why = "the statistics are other than 0 and 1"
    if counter != 0:
        why = (
            f"running_var is as low as {layer.least_var:.4g}, below "
            f"{(1 - (layer.momentum or 0)) ** counter:.4g} = (1 - momentum)^{counter:g}, with "
            f"momentum {layer.momentum:g}{' (assumed)' * layer.momentum_assumed}"
        )
    causes = {
        "averaged-copy": "an averaged copy",
        "converted": "a converted file",
        "old-weights": "old weights",
    }
    twin = file.twins.get(layer.name)
    live = next((one for one in file.layers if one.name == twin), None) if twin else None
    pair = file.pairs.get(layer.name)
    if pair is not None and pair.initial_weight is not None:
        causes = {"averaged-copy": causes["averaged-copy"]}  # which BN608 shows
    elif layer.mean_zero:
        causes = {"converted": "a converted file", "edited": "statistics that were set by hand"}
        why += ", while every running_mean is exactly 0, which no batches leave"
    elif counter == 0 and layer.class_name is None and not (live and live.counter):
        causes["instance-norm"] = "an InstanceNorm, which never counts"
    elif counter != 0 and layer.momentum_assumed:
        least = 1 - (layer.least_var or 0) ** (1 / counter)
        causes["other-momentum"] = f"another momentum, none or from {least:.3g} on"
    *others, last = causes.values()
    return _finding(
        TOO_SMALL,
        layer,
        f"num_batches_tracked is {plain_count(counter)}, and {why}: "
        f"{', '.join(others)}{',' * (len(others) > 1)}{' or ' * bool(others)}{last}.",
        "converted-or-edited" if layer.mean_zero else "copied-or-converted",
        num_batches_tracked=counter,
        least_var=layer.least_var,
        causes=list(causes),
        mean_zero=layer.mean_zero,
    )
