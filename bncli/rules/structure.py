"""BN6xx: layers beside each other: shared ones, averaged copies, averaged weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from bncli.report import Finding, Severity
from bncli.rules.copies import COPY
from bncli.rules.interface import Rule
from bncli.rules.layers import Checkpoint, Summary, is_below, label

IDENTICAL = Rule(
    "BN601",
    "identical-statistics",
    Severity.INFO,
    "Layers have the same running statistics, bit for bit: one layer under several names, or a "
    "copy.",
    "Nothing, if the layer is meant to be shared.",
    symptom="A module that is used twice, or a network saved twice in one file.",
    arithmetic="running_mean and running_var of two layers are equal in every bit, and are neither "
    "the initial 0 and 1 nor one constant.",
    certainty="Certain as a fact: two layers never estimate the same bits from data of their own.",
    lookalike="An averaged copy of a live model is paired with it and judged by BN602 to BN605.",
    seen=("keras-team/keras#8794", "pytorch/pytorch#1738"),
)
COPY_INITIAL = Rule(
    "BN602",
    "copy-never-updated",
    Severity.ERROR,
    "The averaged copy has the initial running statistics 0 and 1, and the live model has real "
    "ones.",
    "Copy or average the buffers too, or run update_bn on the copy.",
    symptom="The teacher or EMA model is far worse than the live one in evaluation.",
    arithmetic="running_mean is exactly 0 and running_var exactly 1 in a layer of the copy, and "
    "the layer of the same name in the live model has other values. Averaging over parameters() "
    "leaves buffers as they were made.",
    certainty="As good as certain that evaluation of the copy is wrong.",
    lookalike="A copy that is only ever run in training mode does not read them.",
    seen=(
        "CuriousAI/mean-teacher#9",
        "facebookresearch/moco#70",
        "boschresearch/OASIS#21",
        "lucidrains/byol-pytorch#73",
    ),
)
COPY_OF_BUFFERS = Rule(
    "BN603",
    "copy-of-live-statistics",
    Severity.WARNING,
    "The averaged copy has its own weights and the live model's running statistics, bit for bit.",
    "Run update_bn on the copy, or average the running statistics along with the weights.",
    symptom="The averaged model is a little worse than expected in evaluation.",
    arithmetic="running_mean and running_var of a layer are equal in every bit to those of the "
    "live layer, while weight or bias are not: the statistics describe the activations of other "
    "weights.",
    certainty="Certain as a fact. How much it costs grows with the distance between the two sets "
    "of weights; some projects copy on purpose and are content.",
    lookalike="A copy that is equal in weight and bias too has just been made. Where statistics "
    "are frozen in training (eval mode), the copy's stay equal and are right.",
    seen=("pytorch/ignite#2590", "fadel/pytorch_ema#13", "LeeDoYup/FixMatch-pytorch#10"),
)
COPY_AVERAGED = Rule(
    "BN604",
    "copy-with-own-statistics",
    Severity.INFO,
    "The averaged copy has running statistics of its own: averaged, or estimated anew.",
    "Nothing; this is how it should be.",
    symptom="None.",
    arithmetic="running_mean and running_var of the copy differ from the live model's and are not "
    "the initial 0 and 1. Its counter may be anything: integer buffers are often left out.",
    certainty="Certain as a fact.",
    lookalike="Which of the two, averaged or estimated anew, one file does not say. A teacher that "
    "is another network has its own too.",
    seen=("huggingface/pytorch-image-models#102", "huggingface/pytorch-image-models#106"),
)
NO_UPDATE_BN = Rule(
    "BN605",
    "update-bn-not-run",
    Severity.WARNING,
    "Weights were averaged (n_averaged), and the running statistics are still the live model's.",
    "Run torch.optim.swa_utils.update_bn(loader, model) before the averaged model is used.",
    symptom="Averaged weights do worse than any of the weights they are made of.",
    arithmetic="n_averaged is above 1, weight or bias differ from the live model's in the same "
    "file, and running_mean and running_var are equal to the live ones in every bit. AveragedModel "
    "copies buffers and does not average them, unless use_buffers=True.",
    certainty="Certain that update_bn was not run after the last averaging.",
    lookalike="Without the live model in the file it cannot be told (BN606).",
    seen=(
        "Lightning-AI/pytorch-lightning#8811",
        "kristpapadopoulos/keras-stochastic-weight-averaging#4",
    ),
)
AVERAGED = Rule(
    "BN606",
    "averaged-weights",
    Severity.INFO,
    "The file holds averaged weights; whether update_bn was run, it alone cannot say.",
    "Check that update_bn was run, or inspect a file with the live model beside it.",
    symptom="None by itself.",
    arithmetic="A tensor n_averaged above 1 stands beside the layers, and there is no live model "
    "to compare with.",
    certainty="Certain that weights were averaged, and no more.",
    lookalike="With the live model in the file BN605 decides it.",
    seen=("mosaicml/composer#624",),
)

NOT_AS_MANY = Rule(
    "BN607",
    "unexpected-number-of-layers",
    Severity.ERROR,
    "The file has more or fewer BatchNorm layers than --expect-layers says.",
    "Look at which layers are there; if the network has changed, change --expect-layers.",
    symptom="A part of the network is missing from the checkpoint, or its BatchNorm was replaced.",
    arithmetic="The layers that are shown are counted, file by file.",
    certainty="Certain.",
    lookalike="A file with an averaged copy has every layer twice: name one of the two by "
    "CKPT::NAME.",
)

RULES = (
    IDENTICAL,
    COPY_INITIAL,
    COPY_OF_BUFFERS,
    COPY_AVERAGED,
    NO_UPDATE_BN,
    AVERAGED,
    NOT_AS_MANY,
)

WRAPPERS = frozenset({"module", "_orig_mod", "model", "state_dict", "online_model", "shadow"})
"""Names that wrapping puts before a model's own, and that say nothing of the model."""
LONGEST_NAME = 1000
"""Longer names are not of a network that anyone wrote."""


def unexpected_number(found: int, expected: int | None) -> list[Finding]:
    """BN607: a file's layers, counted; nothing is found where no number is expected."""
    if expected is None or found == expected:
        return []
    return [
        NOT_AS_MANY.finding(
            "layers",
            f"{found} BatchNorm layer{'s' * (found != 1)}, and {expected} "
            f"{'was' if expected == 1 else 'were'} expected.",
            {"found": found, "expected": expected, "cause": "layers-missing-or-added"},
            extent=(
                f"{expected} expected",
                ("missing", 1, expected - found)
                if found < expected
                else ("added", 1, found - expected),
            ),
        )
    ]


def check_identical(file: Checkpoint) -> list[Finding]:
    """BN601: groups of layers with the same statistics."""
    groups: dict[int | None, list[Summary]] = {}
    for layer in file.own():
        several = layer.varied or (layer.channels == 1 and not layer.untrained)
        if layer.has_statistics and not layer.initial and several:
            groups.setdefault(layer.statistics_digest, []).append(layer)
    findings = []
    for layers in groups.values():
        if len(layers) < 2:
            continue
        affine = {layer.affine_digest for layer in layers}
        same = "weight and bias too" if len(affine) == 1 else "weight or bias are not"
        names = [layer.name for layer in layers]
        others = ", ".join(names[1:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        findings.append(
            IDENTICAL.finding(
                label(layers[0].name),
                f"running_mean and running_var are those of {others}, bit for bit; {same}.",
                {
                    "layer": layers[0].name,
                    "cause": "shared-or-copied",
                    "layers": names,
                    "affine_identical": len(affine) == 1,
                },
                extent=tuple(map(label, names)),
                places=("layers with the same statistics",),
            )
        )
    return findings


def check_copies(file: Checkpoint) -> list[Finding]:
    """BN602 to BN606: averaged copies beside the live model, and without it."""
    by_name = {layer.name: layer for layer in file.layers}
    findings: list[Finding] = []
    own_statistics = []
    for name, live_name in file.twins.items():
        copy, live = by_name[name], by_name[live_name]
        if not (copy.has_statistics and live.has_statistics):
            continue
        evidence = {"layer": copy.name, "live": live.name}
        weights_differ = copy.affine_digest != live.affine_digest
        count = file.averaged_count(name)
        if copy.initial and not live.initial:
            findings.append(
                COPY_INITIAL.finding(
                    label(copy.name),
                    f"running_mean is exactly 0 and running_var exactly 1, where {live.name} has "
                    "statistics of its own: the averaging left out buffers.",
                    {**evidence, "cause": "buffers-left-out"},
                )
            )
        elif copy.initial:
            continue
        elif copy.statistics_digest == live.statistics_digest:
            if weights_differ and count is not None and count > 1:
                findings.append(
                    NO_UPDATE_BN.finding(
                        label(copy.name),
                        f"n_averaged is {count:g}, and running_mean and running_var are those of "
                        f"{live.name}, bit for bit, under other weights.",
                        {**evidence, "cause": "update-bn-not-run", "n_averaged": count},
                    )
                )
            elif weights_differ:
                findings.append(
                    COPY_OF_BUFFERS.finding(
                        label(copy.name),
                        f"running_mean and running_var are those of {live.name}, bit for bit, and "
                        "weight or bias are not.",
                        {**evidence, "cause": "buffers-copied"},
                    )
                )
        else:
            own_statistics.append(copy)
    if own_statistics:
        layers = len(own_statistics)
        live_name = label(file.twins[own_statistics[0].name])
        findings.append(
            COPY_AVERAGED.finding(
                label(own_statistics[0].name),
                f"{layers} layer{'s' * (layers > 1)} ha{'ve' if layers > 1 else 's'} statistics "
                f"other than those beside them in the live model, such as {live_name}: averaged, "
                "or estimated on their own.",
                {"layers": [layer.name for layer in own_statistics]},
                places=("averaged copies",),
            )
        )
    for root, count in file.averaged.items():
        if count > 1 and not any(is_below(name, root) for name in file.twins):
            findings.append(
                AVERAGED.finding(
                    f"{root}.n_averaged" if root else "n_averaged",
                    f"the weights are the average of {count:g}, and the file has no live model to "
                    "compare the running statistics with.",
                    {"n_averaged": count},
                )
            )
    return findings


CHECKS = (check_identical, check_copies)


def twins(layers: Sequence[Summary], averaged: Iterable[str] = ()) -> dict[str, str]:
    """For each layer of an averaged copy, the layer of the live model that it belongs to.

    A copy is known by a component of its name (ema, teacher, swa and the like) or by standing
    below one of the `averaged` prefixes. What follows that component, less what wrapping adds,
    must be the end of the live layer's name, and the number of channels the same.
    """
    roots = [tuple(root.split(".")) for root in averaged if root]
    rests: dict[str, list[tuple[str, ...]]] = {}
    live: list[tuple[tuple[str, ...], Summary]] = []
    for layer in layers:
        if len(layer.name) > LONGEST_NAME:
            continue
        parts = tuple(re.split(r"[./]", layer.name))
        rest = _rest(parts, roots)
        if rest is None:
            live.append((parts, layer))
        else:
            rests[layer.name] = rest
    if not rests:
        return {}
    wanted = {rest for several in rests.values() for rest in several}
    lengths = {len(rest) for rest in wanted}
    ends: dict[tuple[str, ...], list[tuple[int, Summary]]] = {}
    for parts, layer in live:
        for length in lengths:
            end = parts[-length:]
            if len(parts) >= length and end in wanted:
                ends.setdefault(end, []).append((len(parts), layer))
    channels = {layer.name: layer.channels for layer in layers}
    found: dict[str, str] = {}
    short: dict[str, list[str]] = {}
    for name, several in rests.items():
        fits = (
            (rest, min(same, key=lambda pair: pair[0])[1])
            for rest in several
            if (same := [p for p in ends.get(rest, ()) if p[1].channels == channels[name]])
        )
        end, partner = next(fits, ((), None))
        if partner is not None:
            found[name] = partner.name
            if len(end) == 1:
                short.setdefault(name[: -len(end[0])], []).append(name)
    # "ema.bn" may be an attention of that name: a copy has most of the network's layers.
    for names in short.values():
        if 2 * len(names) < len(live):
            for name in names:
                del found[name]
    return found


def _rest(parts: tuple[str, ...], roots: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]] | None:
    """What a copy's layer is called in the model, the longest reading first; None for no copy."""
    at = next((len(root) for root in roots if parts[: len(root)] == root), None)
    if at is None:
        marks = [index for index, part in enumerate(parts[:-1]) if COPY.search(part)]
        if not marks:
            return None
        at = marks[-1] + 1
    rest = parts[at:]
    readings = [rest]
    while len(rest) > 1 and rest[0] in WRAPPERS:
        rest = rest[1:]
        readings.append(rest)
    return readings
