"""The checkpoint's own rules on the states of a running model's layers, as in a file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.light import np
from bncli.report import Severity
from bncli.rulebook import counters, running
from bncli.rulebook.checkpoint import file_findings, layer_findings
from bncli.rulebook.interface import in_prose
from bncli.rulebook.layers import Checkpoint, Layer, label
from bncli.rulebook.live.measures import BLAMED
from bncli.rulebook.summaries import summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.model.capture import Capture, WatchedLayer
    from bncli.report import Finding
    from bncli.rulebook.live.measures import LayerMeasure

EXPLAINS = ("BN1", "BN20", "BN21", "BN60", "BN7")
"""How the codes begin whose findings are causes of a gap."""

VARIES = 10.0
"""How many times the stored variance the data's is, for the stored one to be disproved."""

EXCUSES = ("BN1", "BN20", "BN21", "BN60")
"""How the codes begin whose findings explain that a layer is off by any amount. A momentum (BN7)
is part of what noise is expected."""


def state_findings(capture: Capture, found: Sequence[LayerMeasure]) -> list[Finding]:
    """What the layers' own numbers show; eps and momentum are known here.

    `found` are the measures, which say what a momentum that is too large has done.
    """
    layers = [as_stored(layer) for layer in capture.norms]
    findings = [finding for layer in layers for finding in layer_findings(layer)]
    of_file = file_findings(Checkpoint([summary(layer) for layer in layers]))
    if any(layer.frozen for layer in capture.norms):  # which stopped counting when they were
        of_file = [each for each in of_file if each.code != counters.MULTIPLE.code]
    findings += of_file
    fast = [finding for finding in findings if finding.code == running.INVERTED.code]
    return [each for each in findings if each not in fast] + _together(fast, found)


def _together(fast: list[Finding], found: Sequence[LayerMeasure]) -> list[Finding]:
    """One finding for each momentum that is too large, at all layers that have it."""
    by_claim: dict[str, list[Finding]] = {}
    for finding in fast:
        by_claim.setdefault(finding.message, []).append(finding)
    return [
        replace(
            several[0],
            detail=f"{several[0].detail} {_worst(several, found)}".strip(),
            evidence={
                **several[0].evidence,
                "layers": [each.evidence["layer"] for each in several],
            },
            places=tuple(each.subject for each in several),
            extent=tuple(each.subject for each in several),
        )
        for several in by_claim.values()
    ]


def _worst(findings: list[Finding], found: Sequence[LayerMeasure]) -> str:
    """Of these layers the one that is furthest off, in its worst channel, as a sentence."""
    names = {finding.evidence["layer"] for finding in findings}
    off = [each for each in found if each.name in names and each.error > BLAMED]
    if not off:
        return ""
    worst = max(off, key=lambda each: each.error)
    channel = worst.worst_channel
    stored = float(worst.stored_var[channel])
    seen = float(worst.var[channel])
    return (
        f"Layer {in_prose(label(worst.name))} is off most: in channel {channel} running_var is "
        f"{stored:.3g}, and the data's variance {seen:.3g}."
    )


def as_stored(layer: WatchedLayer) -> Layer:
    """A layer as a checkpoint would hold it. One that is frozen has no use of its momentum."""
    state = layer.state
    assert state is not None
    module = state.module
    tensors = {
        "running_mean": state.running_mean,
        "running_var": state.running_var,
        "weight": state.weight,
        "bias": state.bias,
    }
    shapes = {name: value.shape for name, value in tensors.items() if value is not None}
    dtype = state.dtype or "float32"
    dtypes = dict.fromkeys(shapes, dtype)
    if state.num_batches_tracked is not None:
        shapes["num_batches_tracked"], dtypes["num_batches_tracked"] = (), "int64"
    moves = module is not None and module.has_momentum and not layer.frozen
    return Layer(
        state,
        shapes,
        dtypes,
        eps=layer.eps,
        momentum=module.momentum if module is not None and moves else None,
        eps_assumed=False,
        momentum_assumed=False,
    )


def without_disproved(findings: Sequence[Finding], found: Sequence[LayerMeasure]) -> list[Finding]:
    """The findings but those of an input that hardly varied (BN4), where the data's does.

    Such a layer is off: its stored variances are wrong, and that is said by another rule.
    """
    varies = {each.name: each for each in found if each.blamed}

    def disproved(finding: Finding) -> bool:
        each = varies.get(str(finding.evidence.get("layer")))
        channels = finding.evidence.get("channels")
        if each is None or not finding.code.startswith("BN4") or not isinstance(channels, list):
            return False
        data = each.var[channels] if channels else each.var
        return bool((data > VARIES * np.maximum(each.stored_var[channels], 0)).all())

    return [finding for finding in findings if not disproved(finding)]


def is_cause(finding: Finding) -> bool:
    """Whether a finding of a checkpoint's rules is a cause of a gap."""
    return finding.code.startswith(EXPLAINS) and finding.severity is not Severity.INFO


def excused(findings: list[Finding]) -> frozenset[str]:
    """The layers that are off because of what their own numbers show."""
    return frozenset(
        str(finding.evidence["layer"])
        for finding in findings
        if finding.code.startswith(EXCUSES) and "layer" in finding.evidence
    )
