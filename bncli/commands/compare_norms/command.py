"""`bncli compare-norms`: one tensor under BatchNorm and the norms beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from bncli.arguments import options
from bncli.arguments.flags import AgainstFlags
from bncli.arguments.options import argument
from bncli.commands.compare_norms.flags import FIRST_VALUES, NormFlags, SampledFlags
from bncli.report import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.arguments.input import Input
    from bncli.backends.interface import Backend, RunsNorms
    from bncli.commands.compare_norms.norms import Measured
    from bncli.model import ChannelStats
    from bncli.norms import Norm
    from bncli.report import Finding, Table, Value
    from bncli.sections.findings import ComparedSection
    from bncli.verify.closeness import GivenTolerance


def compare_norms(
    input_: Annotated[
        str | None,
        argument("INPUT", f"{options.TENSOR} Axis 0 holds the samples."),
    ] = None,
    *,
    reading: SampledFlags,
    norm: NormFlags,
    comparison: AgainstFlags,
) -> Report:
    """Put one tensor through BatchNorm, LayerNorm, InstanceNorm, GroupNorm and RMSNorm.

    Which axes each reduces, the shapes of its statistics and parameters, whether the batch matters
    (measured: the last sample is left out), how noisy its statistics are, and the first sample's
    result; with --against torch, every norm beside PyTorch's module.
    """
    from bncli.arguments.input import parse_channels
    from bncli.commands.compare_norms.answer import dependence, remarks, subject_line
    from bncli.commands.compare_norms.norms import measure
    from bncli.model import BatchNormSettings
    from bncli.rulebook.batch import batch_findings
    from bncli.rulebook.norms import shape_findings
    from bncli.sections.answer import scope_of
    from bncli.sections.findings import closing

    tolerance = comparison.tolerance
    given = reading.open_samples(input_)
    tensor = given.tensors[0]
    norm.check()
    shown = parse_channels(reading.channel, given.num_features)
    norms = norm.norms(given)
    library = _with_norms(comparison.library)
    measured = measure(norms, given)
    stats = measured.stats
    tables, answer = _tables(given, norms, measured, shown, reading.first_values)
    parameter_dtype = "float64" if given.dtype == "float64" else "float32"
    findings = shape_findings(tensor.shape, axis_given=reading.channel_axis is not None)
    findings += batch_findings(stats, BatchNormSettings(eps=norms[0].eps), parameter_dtype, None)
    facts = _facts(given, norms, stats)
    section = None
    if library is not None:
        section = _compared(library, norms, given, stats, tolerance, findings)
        tables.append(section.table)
        findings += section.findings
        facts |= section.facts
    axis = () if given.channel_axis == 1 else (("", f"channel axis {given.channel_axis}"),)
    changes = dependence(measured, tensor.shape[0])
    if section is None and not findings:
        changes = changes[0].upper() + changes[1:]  # a sentence by itself
    return Report(
        command="compare-norms",
        facts=facts,
        tables=tuple(tables),
        findings=tuple(findings),
        verdict=closing(section.verdict if section else "", changes),
        subject=(subject_line(given, norms),),
        answer=(*(section.answer if section else ()), *answer),
        remarks=remarks(norms, section),
        scope=scope_of(given.num_features, given.count),
        judged=section is not None,
        read=given.read,
        about=(*given.about, *axis),
        checked=section.checked if section else {},
        nothing_checked=section is not None and not section.checked[""],
    )


def _tables(
    given: Input,
    norms: Sequence[Norm],
    measured: Measured,
    shown: Sequence[int],
    first_values: int | None,
) -> tuple[list[Table], list[Table]]:
    """All tables, and those of the answer: the norms, and the first sample where it is asked for.

    `first_values` is how many values of that sample the user wants, None for the default.
    """
    from bncli.commands.compare_norms.answer import first_sample_answer, norms_answer
    from bncli.commands.compare_norms.norms import (
        cells_of_first_sample,
        first_sample_table,
        noise_table,
        norms_table,
    )

    cells = cells_of_first_sample(given, shown, first_values or FIRST_VALUES)
    own = norms_table(norms, measured, cells[0])
    first = first_sample_table(norms, measured, given, cells)
    answer = [norms_answer(own)]
    if first_values is not None:
        answer.append(first_sample_answer(first))
    return [own, first, noise_table(given, measured.stats, shown)], answer


def _facts(given: Input, norms: Sequence[Norm], stats: ChannelStats) -> dict[str, Value]:
    """What a report says of the input and of the norms' arguments."""
    from bncli.model import BatchNormSettings
    from bncli.norms import GROUP, LAYER

    by_name = {norm.name: norm for norm in norms}
    return {
        "input": given.label,
        "shape": given.tensors[0].shape,
        "dtype": given.dtype,
        "kind": given.kind,
        "channel_axis": given.channel_axis,
        "training": True,
        "eps": norms[0].eps,
        "momentum": BatchNormSettings().momentum,
        "count": given.count,
        "num_features": given.num_features,
        "groups": by_name[GROUP].groups,
        "normalized_shape": by_name[LAYER].normalized_shape,
        "engines": stats.engines or None,
    }


def _compared(
    library: RunsNorms,
    norms: Sequence[Norm],
    given: Input,
    stats: ChannelStats,
    tolerance: GivenTolerance,
    findings: list[Finding],
) -> ComparedSection:
    """Every norm beside the backend's; `findings` are the batch's own."""
    from bncli.norms import BATCH
    from bncli.rulebook.batch_rules import OVERFLOW
    from bncli.rulebook.comparison import comparison_findings, lost_digits_findings
    from bncli.sections.findings import (
        ComparedSection,
        agreement,
        backend_facts,
        full_name,
    )
    from bncli.sections.tables import differences_answer, differences_table
    from bncli.verify.norms import compare_norms as compare

    done = compare(norms, given.pooled(), given.dtype, stats, library, tolerance)
    compared = list(done.compared)
    name = full_name(library)
    note = f"{name} has no {' and no '.join(done.missing)}: not compared" if done.missing else ""
    overflow = any(finding.code == OVERFLOW.code for finding in findings)
    own = []

    def axis_of(quantity: str) -> str:
        # Of the other norms, those that reduce all axes but one keep the samples'.
        return "channel" if quantity.startswith(f"{BATCH} ") else "sample"

    for item in compared:
        counted = axis_of(item.quantity)
        own += comparison_findings([item], name, overflow=overflow, counted=counted)
    if given.dtype in ("float32", "float64") and not overflow:
        for item in compared:
            if item.quantity.endswith(" output"):
                own += lost_digits_findings(item, 1.0, name)
    return ComparedSection(
        differences_table(compared, name, note),
        own,
        backend_facts(library, tolerance),
        {"": [item.quantity for item in compared]},
        agreement(compared, name, findings, tolerance),
        differences_answer(compared, name, axis_of),
        note,
    )


def _with_norms(library: Backend | None) -> RunsNorms | None:
    """The backend, if there is one. Raises UsageError where it has BatchNorm alone."""
    from bncli.backends.interface import RunsNorms
    from bncli.errors import UsageError

    if library is not None and not isinstance(library, RunsNorms):
        raise UsageError(
            f"--against {library.name}: this backend has only BatchNorm; choose another, or leave "
            "the flag out."
        )
    return library
