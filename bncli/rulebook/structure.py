"""BN601, BN607, BN610: layers that are equal, too few or too many, or one under two names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bncli.report import Finding, Severity
from bncli.rulebook.interface import Rule
from bncli.rulebook.layers import Checkpoint, Summary, label

if TYPE_CHECKING:
    from bncli.state_dict import LayerRefs

IDENTICAL = Rule(
    "BN601",
    "identical-statistics",
    Severity.INFO,
    "Layers have the same running statistics, bit for bit: one layer saved several times, or a "
    "copy.",
    "Nothing, if the layer is meant to be shared or copied.",
    symptom="A module that is used twice, or a network saved twice in one file.",
    arithmetic="running_mean and running_var of two layers are equal in every bit, and are neither "
    "the initial 0 and 1 nor one constant.",
    certainty="Certain as a fact: two layers never estimate the same bits from data of their own.",
    lookalike="An averaged copy of a live model is paired with it and judged by BN602 to BN605. "
    "Layers whose tensors are the same bytes of the file are one layer (BN610).",
    seen=("keras-team/keras#8794", "pytorch/pytorch#1738"),
)
NOT_AS_MANY = Rule(
    "BN607",
    "unexpected-number-of-layers",
    Severity.ERROR,
    "The file has more or fewer BatchNorm layers than --expect-layers says.",
    "Look at which layers are there; if the network has changed, change --expect-layers.",
    symptom="A part of the network is missing from the checkpoint, or its BatchNorm was replaced.",
    arithmetic="The layers of each file are counted, one that stands under several names (BN610) "
    "once.",
    certainty="Certain.",
    lookalike="A file with an averaged copy has every layer twice: name one of the two by "
    "CKPT::NAME.",
)

ONE_LAYER = Rule(
    "BN610",
    "one-layer-under-several-names",
    Severity.INFO,
    "One layer stands under several names: their tensors are the same bytes of the file.",
    "Nothing, if the layer is meant to be shared.",
    symptom="A module that is used in two places, or that a wrapper holds under a second name.",
    arithmetic="All tensors of the two layers have the same storage, offset, shape, strides and "
    "dtype in the file, as torch.save writes modules that share them. The layer is counted once.",
    certainty="Certain.",
    lookalike="safetensors and .npz keep no shared storage: there the two are only equal (BN601).",
    formerly=("BN601",),
    seen=("keras-team/keras#8794",),
)


def shared_layers(layers: Sequence[LayerRefs]) -> dict[str, str]:
    """For a layer whose tensors are those of an earlier one in the file, the name of the first."""
    first: dict[tuple[tuple[str, object], ...], str] = {}
    shared: dict[str, str] = {}
    for layer in layers:
        places = tuple((leaf, ref.place) for leaf, ref in layer.tensors.items())
        if not places or any(place is None for _, place in places):
            continue
        name = first.setdefault(places, layer.name)
        if name != layer.name:
            shared[layer.name] = name
    return shared


def unexpected_number(found: int, names: int, expected: int | None) -> list[Finding]:
    """BN607: a file's layers, counted; nothing is found where no number is expected.

    `names` is under how many names the layers stand, more than `found` where some are shared.
    """
    if expected is None or found == expected:
        return []
    under = f" under {names} names" if names != found else ""
    return [
        NOT_AS_MANY.finding(
            "layers",
            f"{found} BatchNorm layer{'s' * (found != 1)}{under}, and {expected} "
            f"{'was' if expected == 1 else 'were'} expected.",
            {
                "found": found,
                "names": names,
                "expected": expected,
                "cause": "layers-missing-or-added",
            },
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
    for layer in file.distinct(file.own()):
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
        findings.append(
            IDENTICAL.finding(
                label(names[0]),
                f"running_mean and running_var are those of {_others(names)}, bit for bit; {same}.",
                {
                    "layer": names[0],
                    "cause": "shared-or-copied",
                    "layers": names,
                    "affine_identical": len(affine) == 1,
                },
                extent=tuple(map(label, names)),
                places=("layers with the same statistics",),
            )
        )
    return findings


def check_shared(file: Checkpoint) -> list[Finding]:
    """BN610: layers that are one."""
    return [
        ONE_LAYER.finding(
            label(names[0]),
            f"its tensors are those of {_others(names)}, byte by byte: one layer under "
            f"{len(names)} names, counted once.",
            {"layer": names[0], "cause": "shared-storage", "layers": names},
            extent=tuple(map(label, names)),
            places=("layers with the same statistics",),
        )
        for names in _groups(file.shared)
    ]


FILE_CHECKS = (check_identical, check_shared)


def _groups(shared: Mapping[str, str]) -> list[list[str]]:
    """The names of each layer that has several, the first in front."""
    groups: dict[str, list[str]] = {}
    for name, first in shared.items():
        groups.setdefault(first, [first]).append(name)
    return list(groups.values())


def _others(names: Sequence[str]) -> str:
    """The names but the first, as a person lists them."""
    return ", ".join(map(label, names[1:4])) + (
        f" and {len(names) - 4} more" if len(names) > 4 else ""
    )
