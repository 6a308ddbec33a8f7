"""BN623: two files that store another eps or momentum for a layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.model.changes import State
from bncli.report import Severity
from bncli.rulebook.change_words import evidence_of
from bncli.rulebook.interface import Rule
from bncli.rulebook.layers import label

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bncli.model import BatchNormModule
    from bncli.model.changes import Comparison, LayerVersion
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
    "tensors differ, too. Or both store one and the same momentum, which weighs the old value in "
    "one framework and the new batch in the other: 0.99 in Keras is 0.01 in PyTorch.",
    certainty="Certain, since both numbers are in the files.",
    lookalike="Where all tensors are equal, another eps is BN614. Where one file alone stores eps, "
    "a line below the table says what the other's framework assumes.",
)

SAME = 1e-6
"""How far apart one number is that was stored as float32 and as text, relatively."""
SAID = frozenset({State.IDENTICAL, State.ROUNDED, State.FOLDED})
"""The states that say what another eps does, or that it does nothing."""


def settings_findings(compared: Comparison) -> list[Finding]:
    """What the two files store beside the tensors, one finding at most for each number of a layer.

    The findings are about the second file.
    """
    return [finding for layer in compared.matched for finding in _of(layer)]


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
