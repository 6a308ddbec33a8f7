"""A pass of a layer over an input, and what the batch, its samples and the state show of it."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from bncli.light import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bncli.arguments.input import Input
    from bncli.arguments.layer import Layer
    from bncli.model import ChannelStats
    from bncli.model.samples import SampleSums
    from bncli.report import Finding
    from bncli.running_stats.folding import Folded
    from bncli.sections.tables import Spread
    from bncli.verify.batch_norm_pass import BatchNormPass


KEPT = 64
"""Inputs of which each has its statistics kept; of more, the sums are."""


@dataclass(frozen=True, slots=True)
class JudgedPass:
    """A pass and its findings.

    `parts` are the statistics of each tensor, none where these were folded, and `apart` is how far
    the tensors lie from each other, None for one tensor.
    """

    done: BatchNormPass
    parts: list[ChannelStats]
    apart: Spread | None
    findings: list[Finding]


def judged_pass(
    given: Input, layer: Layer, threads: int | None, *, per_input: bool = False
) -> JudgedPass:
    """The pass of `layer` over the input, with its samples' statistics where a rule asks for them.

    Those are rules of several inputs, and of a batch beside stored statistics. `per_input` keeps
    the statistics of each tensor, however many there are.
    """
    from bncli.moments import merge
    from bncli.sections.findings import pass_findings
    from bncli.sections.tables import spread, spread_of_folded
    from bncli.verify.batch_norm_pass import batch_norm_pass

    several = len(given.tensors) > 1
    axis = given.sample_axis if several or _uses_stored(layer) else None
    each = given.each_statistics(sample_axis=axis, threads=threads)
    parts: list[ChannelStats] = []
    inputs: Sequence[ChannelStats] | SampleSums = parts
    apart: Spread | None
    if len(given.tensors) > KEPT and not per_input:
        stats, folded = _folded(each)
        apart, inputs = spread_of_folded(folded, stats), folded.units
    else:
        parts += each
        stats = merge(parts) if several else parts[0]
        apart = spread(parts, stats) if several else None
    done = batch_norm_pass(layer, stats, dtype=given.dtype, channel_axis=given.channel_axis)
    findings = pass_findings(stats, layer, done.norm)
    findings += sample_findings(stats, inputs, layer, apart)
    return JudgedPass(done, parts, apart, findings)


def _folded(each: Iterator[ChannelStats]) -> tuple[ChannelStats, Folded]:
    """The statistics of all inputs together, and what these come to one by one."""
    from bncli.moments import merge
    from bncli.running_stats.folding import Folding

    group = list(islice(each, KEPT))
    stats, folding = merge(group), Folding(group[0])
    folding.add(group)
    while group := list(islice(each, KEPT)):
        folding.add(group)
        stats = merge([stats, *group])
    return stats, folding.result()


def sample_findings(
    stats: ChannelStats,
    parts: Sequence[ChannelStats] | SampleSums,
    layer: Layer,
    spread: Spread | None,
) -> list[Finding]:
    """What the samples of the batch `stats` show.

    It came as `parts`, or as the sums over these, each taken as one sample.
    """
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
