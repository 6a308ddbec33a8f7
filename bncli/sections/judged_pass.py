"""A pass of a layer over an input, and what the batch, its samples and the state show of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.light import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.arguments.input import Input
    from bncli.arguments.layer import Layer
    from bncli.model import ChannelStats
    from bncli.report import Finding
    from bncli.sections.tables import Spread
    from bncli.verify.batch_norm_pass import BatchNormPass


@dataclass(frozen=True, slots=True)
class JudgedPass:
    """A pass and its findings.

    `parts` are the statistics of each tensor, and `apart` is how far these lie from each other,
    None for one tensor.
    """

    done: BatchNormPass
    parts: list[ChannelStats]
    apart: Spread | None
    findings: list[Finding]


def judged_pass(given: Input, layer: Layer, threads: int | None) -> JudgedPass:
    """The pass of `layer` over the input, with its samples' statistics where a rule asks for them.

    Those are rules of several inputs, and of a batch beside stored statistics.
    """
    from bncli.moments import merge
    from bncli.sections.findings import pass_findings
    from bncli.sections.tables import spread
    from bncli.verify.batch_norm_pass import batch_norm_pass

    several = len(given.tensors) > 1
    axis = given.sample_axis if several or _uses_stored(layer) else None
    parts = given.statistics(sample_axis=axis, threads=threads)
    stats = merge(parts) if several else parts[0]
    done = batch_norm_pass(layer, stats, dtype=given.dtype, channel_axis=given.channel_axis)
    apart = spread(parts, stats) if several else None
    findings = pass_findings(stats, layer, done.norm)
    findings += sample_findings(stats, parts, layer, apart)
    return JudgedPass(done, parts, apart, findings)


def sample_findings(
    stats: ChannelStats, parts: Sequence[ChannelStats], layer: Layer, spread: Spread | None
) -> list[Finding]:
    """What the samples of the batch `stats`, which came as `parts`, show."""
    from bncli.rulebook.batch import inputs_findings

    findings = []
    sorted_ones = None
    if spread is not None:
        samples = spread.by_sample
        if samples is not None:
            sorted_ones = samples.beyond_chance(spread.between, stats.var, stats.mean)
        findings += inputs_findings(spread.f_ratio, samples, sorted_ones)
    if _uses_stored(layer):
        from bncli.rulebook.stored_batch import stored_batch_findings

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
