"""`bncli compare-norms`: one tensor under BatchNorm and the norms beside it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from bncli.arguments import options
from bncli.arguments.completion import complete_tensors
from bncli.report import Report

if TYPE_CHECKING:
    from bncli.arguments.input import Input
    from bncli.commands.compare_norms.norms import Measured
    from bncli.report import Value

MOST_DIVISORS = 12
"""Numbers of groups that a refusal names."""


def compare_norms(
    input_: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="A tensor: PATH, or PATH::NAME inside a file of several; - is .npy on standard "
            "input. Samples lie on axis 0.",
            show_default=False,
            autocompletion=complete_tensors,
        ),
    ],
    channel_axis: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="The axis of the channels; -1 for channels-last data, such as sequences "
            "(N, T, D).",
            rich_help_panel=options.INPUT,
            show_default="1",
        ),
    ] = None,
    dtype: options.Dtype = None,
    channel: options.Channel = None,
    values: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="How many values of the first sample to show.",
            rich_help_panel=options.INPUT,
        ),
    ] = 8,
    groups: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="GroupNorm's number of groups.",
            rich_help_panel=options.LAYER,
            show_default="up to 32, of 2 channels or more",
        ),
    ] = None,
    normalized_shape: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="The last axes, by size, that LayerNorm and RMSNorm reduce, such as 3,28,28; with "
            "all axes each statistic spans the samples.",
            rich_help_panel=options.LAYER,
            show_default="all but the first; the channels alone if they come last",
        ),
    ] = None,
    eps: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            help="Added under the root, in every norm.",
            rich_help_panel=options.LAYER,
            show_default="1e-05; in RMSNorm 1.19e-07, or 2.22e-16 for float64",
        ),
    ] = None,
    against: options.Against = None,
    rtol: options.Rtol = None,
    atol: options.Atol = None,
) -> Report:
    """Put one tensor through BatchNorm, LayerNorm, InstanceNorm, GroupNorm and RMSNorm.

    Which axes each reduces, the shapes of its statistics and parameters, whether the batch matters
    (measured: the last sample is left out), how noisy its statistics are, and the first sample's
    result; with --against torch, every norm beside PyTorch's module.
    """
    from bncli.arguments.input import open_input, parse_channels
    from bncli.commands.compare_norms.norms import (
        cells_of_first_sample,
        first_sample_table,
        measure,
        noise_table,
        norms_table,
    )
    from bncli.errors import UsageError
    from bncli.model import BatchNormSettings
    from bncli.norms import BATCH, default_groups, describe
    from bncli.rulebook.batch import batch_findings
    from bncli.rulebook.batch_rules import OVERFLOW
    from bncli.rulebook.norms import shape_findings
    from bncli.sections.findings import agreement, closing
    from bncli.sections.tables import differences_table
    from bncli.verify.closeness import tolerance_pair

    tolerance = tolerance_pair(rtol, atol, compared=against is not None)
    given = open_input([input_], 1 if channel_axis is None else channel_axis, dtype)
    tensor = given.tensors[0]
    if given.channel_axis == 0:
        raise UsageError(
            f"--channel-axis {channel_axis}: axis 0 holds the samples; name another axis."
        )
    if eps is not None and not 0 < eps < math.inf:
        raise UsageError(f"--eps {eps:g}: eps must be a positive number.")
    shown = parse_channels(channel, given.num_features)
    chosen_groups = default_groups(given.num_features) if groups is None else groups
    _check_groups(chosen_groups, given.num_features)
    norms = describe(
        tensor.shape,
        given.channel_axis,
        groups=chosen_groups,
        normalized=_normalized(normalized_shape, given),
        eps=eps,
        rms_eps=2.0 ** (-52 if given.dtype == "float64" else -23),
    )
    measured = measure(norms, given)
    stats = measured.stats
    cells = cells_of_first_sample(given, shown, values)
    settings = BatchNormSettings(eps=norms[0].eps)
    parameter_dtype = "float64" if given.dtype == "float64" else "float32"

    findings = shape_findings(tensor.shape, axis_given=channel_axis is not None)
    findings += batch_findings(stats, settings, parameter_dtype, None)
    tables = [
        norms_table(norms, measured, cells[0]),
        first_sample_table(norms, measured, given, cells),
        noise_table(given, stats, shown),
    ]
    facts: dict[str, Value] = {
        "input": given.label,
        "shape": tensor.shape,
        "dtype": given.dtype,
        "kind": given.kind,
        "channel_axis": given.channel_axis,
        "training": True,
        "eps": settings.eps,
        "momentum": settings.momentum,
        "count": given.count,
        "num_features": given.num_features,
        "groups": chosen_groups,
        "normalized_shape": norms[1].normalized_shape,
    }
    verdict = _dependence(measured, tensor.shape[0])
    checked: dict[str, list[str]] = {}
    axis = () if given.channel_axis == 1 else (("", f"channel axis {given.channel_axis}"),)
    nothing = False
    if against is not None:
        from bncli.backends import backend
        from bncli.rulebook.comparison import comparison_findings, lost_digits_findings
        from bncli.verify.norms import compare_norms as compare

        done = compare(norms, given.pooled(), given.dtype, stats, backend(against), tolerance)
        name = f"{against.value} {done.version}"
        note = ""
        if done.missing:
            note = f"{name} has no {' and no '.join(done.missing)}: not compared."
        tables.append(differences_table(done.compared, name, note))
        overflow = any(finding.code == OVERFLOW.code for finding in findings)
        for item in done.compared:
            # Of the others, those that reduce all axes but one keep the samples'.
            counted = "channel" if item.quantity.startswith(f"{BATCH} ") else "sample"
            findings += comparison_findings([item], name, overflow=overflow, counted=counted)
        if given.dtype in ("float32", "float64") and not overflow:
            for item in done.compared:
                if item.quantity.endswith(" output"):
                    findings += lost_digits_findings(item, 1.0, name)
        checked = {"": [item.quantity for item in done.compared]}
        nothing = not done.compared
        facts |= {"backend": against.value, "backend_version": done.version}
        verdict = f"{verdict} {agreement(list(done.compared), name, findings)}"
    return Report(
        command="compare-norms",
        facts=facts,
        tables=tuple(tables),
        findings=tuple(findings),
        verdict=closing(verdict, findings=findings),
        read=(str(tensor.path),),
        about=((str(tensor.path), tensor.name), *axis),
        checked=checked,
        nothing_checked=nothing,
    )


def _dependence(measured: Measured, samples: int) -> str:
    """What leaving out the last sample showed."""
    from bncli.norms import BATCH

    if samples == 1:
        return "There is one sample, and so none to leave out."
    change = measured.changes[BATCH]
    if change is None and measured.stats.count > 2:
        return "No value of BatchNorm's output can be followed: none is a number."
    if change is None:
        return "Without the last sample, BatchNorm would not run: one value a channel is left."
    others = [value for name, value in measured.changes.items() if name != BATCH]
    most = max((value for value in others if value is not None), default=0.0)
    return (
        "Without the last sample, BatchNorm's output of the others changes by up to "
        f"{change:.3g}, and that of the other norms by {most:.3g}."
    )


def _check_groups(groups: int, channels: int) -> None:
    """Raise UsageError where so many groups do not divide the channels."""
    from bncli.errors import UsageError

    if 1 <= groups <= channels and channels % groups == 0:
        return
    divisors = [str(number) for number in range(1, channels + 1) if channels % number == 0]
    some = ", ".join(divisors[:MOST_DIVISORS]) + " and more" * (len(divisors) > MOST_DIVISORS)
    raise UsageError(f"--groups {groups}: must divide the {channels} channels; choose from {some}.")


def _normalized(text: str | None, given: Input) -> int:
    """The number of last axes that LayerNorm reduces.

    Raises UsageError where `--normalized-shape` is not the sizes of the input's last axes.
    """
    from bncli.errors import UsageError

    shape = given.tensors[0].shape
    last = len(shape) - 1
    if text is None:
        return 1 if given.channel_axis == last else last
    sizes = tuple(int(part) if part.strip().isdecimal() else -1 for part in text.split(","))
    if not len(sizes) <= len(shape) or shape[-len(sizes) :] != sizes:
        endings = [",".join(map(str, shape[start:])) for start in range(last, -1, -1)]
        raise UsageError(
            f"--normalized-shape {text}: must be the sizes of the last axes of "
            f"{list(shape)}; choose from {' or '.join(endings)}."
        )
    return len(sizes)
