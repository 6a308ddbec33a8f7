"""`bncli compare-checkpoints`: what happened to each BatchNorm layer between files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from bncli.arguments import options
from bncli.arguments.completion import complete_parts
from bncli.arguments.options import argument, option
from bncli.report import Report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bncli.commands.compare_checkpoints.given import Given
    from bncli.model.changes import Comparison, LayerVersion
    from bncli.pictures import Shown
    from bncli.report import Finding, Value
    from bncli.rulebook.changes import Expected


def compare_checkpoints(
    checkpoints: Annotated[
        list[str],
        argument(
            "CKPT[::PART]...",
            "Two checkpoints, the earlier or the original one first; or more, such as one for each "
            "epoch, rank or client. Quote patterns ('epoch*.pth'); bncli expands them in their "
            "natural order. PART selects one of several networks in a file by what its names begin "
            "with, such as last.ckpt::ema.",
            complete_parts,
        ),
    ],
    target: Annotated[
        str | None,
        option(
            "Say what this file is made of: the average of the others, one of them, or a weighted "
            "sum.",
            options.INPUT,
            "--with",
            metavar="CKPT[::PART]",
            default=False,
            complete=complete_parts,
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        option(
            "Judge and show only layers whose full name, or any dotted suffix of it, matches this "
            "pattern, such as 'layer1.*'; may be repeated. For two files.",
            options.INPUT,
            metavar="GLOB",
            default="all",
        ),
    ] = None,
    weights: Annotated[
        bool,
        option(
            "Also compare weights that are not in front of a BatchNorm layer, such as the head's. "
            "For two files.",
            options.INPUT,
            "--weights",
        ),
    ] = False,
    expect: Annotated[
        list[str] | None,
        option(
            "Report an error for each layer that GLOB means and that is not KIND: frozen (equal up "
            "to rounding), identical, trained or folded. GLOB is the full name of one layer, or a "
            "pattern of full names or any dotted suffixes of them; may be repeated. For two files.",
            options.FINDINGS,
            metavar="KIND:GLOB",
            default="nothing",
        ),
    ] = None,
) -> Report:
    """Say what happened to each BatchNorm layer between two checkpoints, or among many.

    Nothing in the files is run, and torch is not needed. Layers are matched by name through
    wrappers and frameworks, otherwise by shape and order. Each pair gets one state: identical,
    trained on, statistics or weights moved alone, reset, lost, another convention or order, folded.
    """
    from bncli.commands.compare_checkpoints.expectations import parse_expected
    from bncli.commands.compare_checkpoints.given import files_given
    from bncli.commands.compare_checkpoints.many import report_on_many
    from bncli.errors import UsageError

    expected = parse_expected(expect or ())
    files, aim = files_given(checkpoints, target)
    if len(files) == 2 and aim is None:
        return _two(files[0], files[1], layer or (), expected, weights=weights)
    for flag, value in (("--layer", layer), ("--expect", expect), ("--weights", weights)):
        if value:
            there = f"; there are {len(files)} here" if aim is None else ", not for --with"
            raise UsageError(f"{flag} is for two files{there}.")
    return report_on_many(files, aim)


def _two(
    first: Given,
    second: Given,
    globs: Sequence[str],
    expected: Sequence[tuple[Expected, str]],
    *,
    weights: bool,
) -> Report:
    """The report on two files."""
    from functools import partial

    from bncli.changes.compare import compare
    from bncli.commands.compare_checkpoints import words
    from bncli.commands.compare_checkpoints.answer import called, layers_answer, severities_of
    from bncli.commands.compare_checkpoints.expectations import expectations
    from bncli.commands.compare_checkpoints.given import part_in
    from bncli.commands.compare_checkpoints.rows import layers_table
    from bncli.loaders import open_model
    from bncli.rulebook.change_findings import change_findings

    a, b = open_model(first.path), open_model(second.path)
    parts = part_in(a, first.part), part_in(b, second.part)
    compared = compare(a, b, parts, weights=weights)
    asked = expectations(expected, compared)
    shown = _chosen(compared, globs)
    told = [layer for layer in shown if words.has_partner(layer)]
    names = list(map(called, shown))
    common = told or any(layer.found.numbers.get("cause") != "alone" for layer in shown)
    found = change_findings(compared, asked) if common else []
    findings = [finding for finding in found if finding.subject in names]
    severities = severities_of(findings)
    judged = bool(told or findings)
    table = layers_table(shown)
    return Report(
        command="compare-checkpoints",
        facts=_facts(compared, told),
        tables=(table,),
        findings=tuple(findings),
        pictures=partial(_pictures, findings=findings, rows=table.rows if judged else ()),
        subject=words.subject(compared),
        answer=partial(layers_answer, layers=told),
        remarks=words.remarks(compared, severities) if judged else (),
        scope=words.scope(shown, compared),
        verdict=words.verdict(shown, severities, asked)
        if judged
        else words.nothing_in_common(compared, (a.without_layers, b.without_layers)),
        nothing_checked=not judged,
        read=(compared.path, compared.other_path),
        checked=_checked(compared, names, findings),
        partial=len(shown) < len(compared.layers),
        names=dict.fromkeys(
            (compared.path, compared.other_path), tuple(map(called, compared.layers))
        ),
    )


def _pictures(
    findings: Sequence[Finding], rows: Sequence[Mapping[str, Value]]
) -> tuple[Shown, ...]:
    """What a page shows of the layers."""
    from bncli.commands.compare_checkpoints.pictures import pictures

    return pictures(findings, rows=rows) if rows else ()


def _checked(
    compared: Comparison, names: Sequence[str], findings: Sequence[Finding]
) -> dict[str, Sequence[str]]:
    """The layers that were judged: each in the second file, but where a finding is in the first."""
    in_first = {finding.subject for finding in findings if finding.path == compared.path}
    first = [name for name in names if name in in_first]
    second = [name for name in names if name not in in_first]
    checked: dict[str, Sequence[str]] = {compared.other_path: second}
    if first:
        checked[compared.path] = [*checked.get(compared.path, ()), *first]
    return checked


def _chosen(compared: Comparison, globs: Sequence[str]) -> list[LayerVersion]:
    """The layers whose name in either file fits a glob, all without globs. Raises UsageError."""
    from bncli.arguments.checkpoints import refuse_globs
    from bncli.gate.places import matches

    if not globs or not compared.layers:
        return list(compared.layers)
    named = [
        (layer, [name for name in (layer.name, layer.other_name) if name])
        for layer in compared.layers
    ]
    chosen = [
        layer
        for layer, names in named
        if any(matches(name, glob) for glob in globs for name in names)
    ]
    if not chosen:
        refuse_globs(f"--layer {' '.join(globs)}", globs, [names[0] for _, names in named])
    return chosen


def _facts(compared: Comparison, told: Sequence[LayerVersion]) -> dict[str, Value]:
    """The files, their layers, how many were matched, and how many are in which state."""
    from bncli.commands.compare_checkpoints.answer import grouped
    from bncli.commands.compare_checkpoints.words import in_first, in_second, specs

    others = compared.others
    return {
        "files": specs(compared),
        "layers": sum(map(in_first, compared.layers)),
        "matched": len(compared.matched),
        "states": [[group.state.value, len(group.layers)] for group in grouped(told, {})],
        "other_layers": sum(map(in_second, compared.layers)),
        "correlation": compared.correlation,
        "related": compared.related,
        "weights": None
        if others is None
        else [
            ["same", others.same],
            ["rounded", others.rounded],
            ["moved", len(others.moved)],
            ["unread", len(others.unread)],
            ["first-alone", len(others.alone)],
            ["second-alone", len(others.other_alone)],
        ],
    }
