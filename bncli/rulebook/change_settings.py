"""BN623: two files that store another eps or momentum for a layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.model.changes import STORED, State
from bncli.report import Certainty, Severity
from bncli.rulebook.change_words import evidence_of
from bncli.rulebook.interface import Rule, percent
from bncli.rulebook.layers import label

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bncli.model import BatchNormModule
    from bncli.model.changes import Comparison, Eps, LayerVersion
    from bncli.report import Finding

SETTINGS = Rule(
    "BN623",
    "other-settings",
    Severity.WARNING,
    "the files store another eps or momentum for the layer",
    "Give the layers of both files the same eps and momentum.",
    symptom="A ported network is a little worse in evaluation, or its running statistics follow "
    "the last batch once it is trained on.",
    arithmetic="Both files store eps, and the two are not the same number, while the layer's "
    "tensors differ, too. Or one file stores eps, the layer's tensors are equal, and the default "
    "of the other's framework changes an output by 0.01% or more. Or both store one and the same "
    "momentum, which weighs the old value in one framework and the new batch in the other: 0.99 in "
    "Keras is 0.01 in PyTorch.",
    certainty="Certain where both numbers are in the files. Where one file alone stores eps, it is "
    "a note, and depends on the assumption that the other has its framework's default.",
    lookalike="Where all tensors are equal, another eps in both files is BN614. Another momentum "
    "is a line below the table: it changes nothing in evaluation.",
    milder=Severity.INFO,
    less_sure=(Certainty.ASSUMED,),
)

SAME = 1e-6
"""How far apart one number is that was stored as float32 and as text, relatively."""
TOLD = 1e-4
"""A share of an output from which another eps is told: float16 keeps 5e-4, float32 6e-8."""
STILL = frozenset({State.IDENTICAL, State.ROUNDED})
"""The states of layers whose tensors are equal, so that eps alone changes their outputs."""
SAID = frozenset({State.IDENTICAL, State.ROUNDED, State.FOLDED})
"""The states that say what another eps does, or that it does nothing."""


def settings_findings(compared: Comparison) -> list[Finding]:
    """What the two files store beside the tensors, one finding at most for each number of a layer.

    The findings are about the second file.
    """
    half = dict(_half_stored(compared.matched))
    return [
        finding
        for layer in compared.matched
        for finding in (*half.get(label(layer.name), ()), *_of(layer))
    ]


def effect_of_eps(layer: LayerVersion) -> float:
    """How far the factor of a channel is off at most, relative, where the tensors are equal."""
    ends = (layer.measures.var_ratio_min, layer.measures.var_ratio_max)
    return max((abs(end**-0.5 - 1) for end in ends if end), default=0.0)


def framework(naming: str) -> str:
    """What people call the framework whose names a layer's tensors have."""
    return {"torch": "PyTorch", "mxnet": "MXNet", "onnx": "ONNX"}.get(naming, naming.capitalize())


def owner(naming: str) -> str:
    """The same as an owner: "PyTorch's", "Keras'"."""
    name = framework(naming)
    return f"{name}'{'s' * (not name.endswith('s'))}"


def _half_stored(layers: Sequence[LayerVersion]) -> Iterator[tuple[str, tuple[Finding]]]:
    """The layers whose eps one file stores, and is not the default of the other's framework."""
    apart: dict[tuple[Eps, Eps], list[LayerVersion]] = {}
    for layer in layers:
        if layer.eps is None or layer.found.state not in STILL:
            continue
        one, two = layer.eps
        half = (one.source == STORED) is not (two.source == STORED)
        if half and not math.isclose(one.value, two.value, rel_tol=SAME):
            apart.setdefault(layer.eps, []).append(layer)
    for pair, alike in apart.items():
        far = max(map(effect_of_eps, alike))
        if far >= TOLD:
            for layer in alike:
                yield label(layer.name), (_assumed(layer, pair, far, one=len(alike) == 1),)


def _assumed(layer: LayerVersion, pair: tuple[Eps, Eps], far: float, *, one: bool) -> Finding:
    """That one file stores another eps for a layer than the other's framework has as default."""
    first, second = pair
    in_second = second.source == STORED
    stored, assumed = (second, first) if in_second else (first, second)
    where, other = ("second", "first") if in_second else ("first", "second")
    which = "the layer" if one else "the layers named here"
    hint = f"Give {which} eps={stored.value:g} in the network that loads the {other} file."
    if in_second:
        hint += " If it was trained with another eps, convert it again."
    default = f"{owner(assumed.source)} default is {assumed.value:g}"
    return SETTINGS.finding(
        label(layer.name),
        f"eps is {stored.value:g} in the {where} file; the {other} stores none ({default})",
        {**evidence_of(layer), "cause": "eps-assumed", "eps": first.value}
        | {"other_eps": second.value, "eps_assumed": True},
        detail=f"With {assumed.value:g}, outputs differ by up to {percent(far)}.",
        hint=hint,
        severity=Severity.INFO,
    )


def _of(layer: LayerVersion) -> Iterator[Finding]:
    one, two = layer.modules
    if one is None or two is None:
        return
    if finding := _eps(layer, one, two):
        yield finding
    if finding := _momentum(layer, one, two):
        yield finding


def _eps(layer: LayerVersion, one: BatchNormModule, two: BatchNormModule) -> Finding | None:
    """Another eps in a layer that differs otherwise, too."""
    if one.eps is None or two.eps is None or math.isclose(one.eps, two.eps, rel_tol=SAME):
        return None
    if layer.found.state in SAID or layer.found.numbers.get("cause") == "eps":
        return None
    return SETTINGS.finding(
        label(layer.name),
        f"eps is {one.eps:.4g} in the first file, {two.eps:.4g} in the second",
        {**evidence_of(layer), "cause": "eps", "eps": one.eps, "other_eps": two.eps},
        hint=f"Give the second file's layers eps={one.eps:.4g}, unless it was trained with its "
        "own.",
    )


def _momentum(layer: LayerVersion, one: BatchNormModule, two: BatchNormModule) -> Finding | None:
    """One number as the momentum of frameworks that mean opposite things by it."""
    stated, other = _stated(one), _stated(two)
    if stated is None or other is None or one.momentum is None or two.momentum is None:
        return None
    opposite = (one.stated_momentum is None) is not (two.stated_momentum is None)
    if not opposite or not math.isclose(stated, other, rel_tol=SAME):
        return None
    if math.isclose(one.momentum, two.momentum, rel_tol=SAME):  # 0.5
        return None
    old, new = ("first", "second") if one.stated_momentum is not None else ("second", "first")
    needed = round(1 - stated, 12)
    return SETTINGS.finding(
        label(layer.name),
        f"momentum is {stated:g} in both files, which mean opposite things by it",
        {**evidence_of(layer), "cause": "momentum", "momentum": one.momentum}
        | {"other_momentum": two.momentum, "stated_momentum": stated},
        detail=f"In the {old} file it weighs the old value, in the {new} the new batch.",
        hint=f"Give the second file's layers momentum={needed:g} before they are trained on.",
    )


def _stated(module: BatchNormModule) -> float | None:
    """The momentum as the file states it."""
    if not module.has_momentum:
        return None
    return module.momentum if module.stated_momentum is None else module.stated_momentum
