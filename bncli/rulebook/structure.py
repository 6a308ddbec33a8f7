"""BN601, BN607, BN610: equal layers, too few or too many, and one layer under several names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bncli.report import Finding, Severity
from bncli.rulebook.interface import Rule, examples, in_prose
from bncli.rulebook.layers import Checkpoint, label
from bncli.rulebook.summaries import Summary

if TYPE_CHECKING:
    from bncli.model import BatchNormModule
    from bncli.state_dict import LayerRefs

IDENTICAL = Rule(
    "BN601",
    "identical-statistics",
    Severity.INFO,
    "layers have the same running statistics, bit for bit",
    "No fix is needed if the layer is meant to be shared or copied.",
    symptom="A module is used twice, or a network was saved twice in one file.",
    arithmetic="running_mean and running_var of two layers are equal in every bit, and are neither "
    "the initial 0 and 1 nor one constant.",
    certainty="Certain as a fact: two layers never estimate the same bits from different data.",
    lookalike="An averaged copy is compared with the live model (the one being trained) by BN602 "
    "to BN605. Layers whose tensors are the same bytes of the file are one layer (BN610).",
    seen=("keras-team/keras#8794", "pytorch/pytorch#1738"),
)
NOT_AS_MANY = Rule(
    "BN607",
    "unexpected-number-of-layers",
    Severity.ERROR,
    "the number of BatchNorm layers is not the expected one",
    "Check which layers are there. If the network has changed, change --expect-layers.",
    symptom="A part of the network is missing from the checkpoint, or its BatchNorm was replaced.",
    arithmetic="The number of layers in the file is not that of --expect-layers. A layer under "
    "several names (BN610) counts once.",
    certainty="Certain.",
    lookalike="A file with an averaged copy has every layer twice: choose one of the two with "
    "CKPT::NAME.",
)

ONE_LAYER = Rule(
    "BN610",
    "one-layer-under-several-names",
    Severity.INFO,
    "several names stand for the same tensors",
    "No fix is needed if the layer is meant to be shared.",
    symptom="A module is used in two places, or a wrapper holds it under a second name.",
    arithmetic="All tensors of the two layers have the same storage, offset, shape, strides and "
    "dtype in the file, as torch.save writes modules that share them. The layer counts once; where "
    "the file stores another eps or momentum for a name, that is said.",
    certainty="Certain.",
    lookalike="safetensors and .npz do not keep shared storage: layers are only equal there "
    "(BN601).",
    formerly=("BN601",),
    seen=("keras-team/keras#8794",),
)


def shared_layers(layers: Sequence[LayerRefs]) -> dict[str, str]:
    """By layer whose tensors are those of an earlier one in the file, the name of that one."""
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
    """BN607: whether a file has as many layers as expected, if a number is expected.

    `names` is the number of names under which the layers stand, more than `found` if some are
    shared.
    """
    if expected is None or found == expected:
        return []
    under = f" under {names} names" if names != found else ""
    return [
        NOT_AS_MANY.finding(
            "layers",
            f"{found} BatchNorm layer{'s' * (found != 1)}{under}, but {expected} "
            f"{'was' if expected == 1 else 'were'} expected",
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
        same = "weight and bias are equal too." if len(affine) == 1 else "weight or bias differ."
        names = [layer.name for layer in layers]
        whose, which = _others(names)
        findings.append(
            IDENTICAL.finding(
                label(names[0]),
                f"running_mean and running_var are those of {whose}, bit for bit",
                {
                    "layer": names[0],
                    "cause": "shared-or-copied",
                    "layers": names,
                    "affine_identical": len(affine) == 1,
                },
                detail=f"{which}{'' if affine == {None} else same}".rstrip(),
                extent=tuple(map(label, names)),
                places=("layers with the same statistics",),
            )
        )
    return findings


def check_shared(file: Checkpoint) -> list[Finding]:
    """BN610: layers that are one."""
    findings = []
    modules = {layer.name: layer.module for layer in file.layers} if file.shared else {}
    for names in _groups(file.shared):
        whose, which = _others(names)
        said, hint = f"the same layer as {whose}, counted once", ""
        if apart := _settings_apart([modules.get(name) for name in names]):
            said = f"the same tensors as {whose}, but {apart}"
            hint = "Use the same arguments in each place, unless they are meant to differ."
        findings.append(
            ONE_LAYER.finding(
                label(names[0]),
                said,
                {"layer": names[0], "cause": "shared-storage", "layers": names},
                detail=which.rstrip(),
                hint=hint,
                extent=tuple(map(label, names)),
                places=("layers with the same statistics",),
            )
        )
    return findings


FILE_CHECKS = (check_identical, check_shared)


def _settings_apart(modules: Sequence[BatchNormModule | None]) -> str:
    """Which stored eps or momenta differ between layers with the same tensors: a clause."""
    said = []
    for what in ("eps", "momentum"):
        values = dict.fromkeys(getattr(module, what, None) for module in modules)
        if None not in values and len(values) > 1:
            said.append(f"{what} is {' or '.join(f'{value:g}' for value in values)}")
    return " and ".join(said)


def _groups(shared: Mapping[str, str]) -> list[list[str]]:
    """The names of each layer that has several, the first in front."""
    groups: dict[str, list[str]] = {}
    for name, first in shared.items():
        groups.setdefault(first, [first]).append(name)
    return list(groups.values())


def _others(names: Sequence[str]) -> tuple[str, str]:
    """The names but the first: a phrase for a claim, and a sentence if the claim only counts."""
    others = [label(name) for name in names[1:]]
    if len(others) == 1:
        return in_prose(others[0]), ""
    return f"{len(others)} others", f"These are {examples(others)}. "
