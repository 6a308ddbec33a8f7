"""What a batch's samples tell beside its values: whether they are sorted, and what chance is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.arguments.input import Input
    from bncli.arguments.layer import Layer
    from bncli.model import ChannelStats
    from bncli.report import Finding
    from bncli.sections.tables import Spread


def samples_wanted(given: Input, layer: Layer) -> int | None:
    """The axis whose samples a rule asks for: of several inputs, or beside stored statistics."""
    return given.sample_axis if len(given.tensors) > 1 or _uses_stored(layer) else None


def sample_findings(
    stats: ChannelStats, parts: Sequence[ChannelStats], layer: Layer, spread: Spread | None
) -> list[Finding]:
    """What the samples of the batch `stats`, which came as `parts`, show."""
    from bncli.rulebook.batch import inputs_findings
    from bncli.rulebook.stored_batch import stored_batch_findings

    findings = []
    sorted_ones = None
    if spread is not None:
        samples = spread.by_sample
        if samples is not None:
            sorted_ones = samples.beyond_chance(spread.between, stats.var, stats.mean)
        findings += inputs_findings(spread.f_ratio, samples, sorted_ones)
    if _uses_stored(layer):
        assert layer.running is not None
        findings += stored_batch_findings(
            stats, layer.running, layer.weight, layer.settings, parts, sorted_ones
        )
    return findings


def _uses_stored(layer: Layer) -> bool:
    """Whether evaluation goes by statistics that were given."""
    return (
        layer.running is not None and not layer.settings.normalizes_with_batch and not layer.fresh
    )
