"""`bncli identify`: which normalisation made an output, or which convention an update followed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from bncli.arguments import options
from bncli.arguments.completion import complete_layers, complete_tensors
from bncli.report import Column, Report, Table

if TYPE_CHECKING:
    from bncli.arguments.input import Input
    from bncli.report import Finding, Value
    from bncli.verify.identify.implied import Implied
    from bncli.verify.identify.output import Identification
    from bncli.verify.identify.running import UpdateIdentification

RANK = (Column("rank", "rank"), Column("explains", "explains"), Column("mode", "mode"))
HYPOTHESIS_COLUMNS = (
    *RANK,
    Column("ddof", "ddof"),
    Column("eps", "eps"),
    Column("max_abs_diff", "max_abs", ".3g"),
    Column("variant", "variant"),
    Column("channel", "channel"),
)
IMPLIED_COLUMNS = (
    Column("channel", "channel"),
    Column("scale", "scale"),
    Column("shift", "shift"),
    Column("mean", "mean"),
    Column("var", "var"),
    Column("affine", "affine"),
    Column("off", "off", ".3g"),
)
UPDATE_COLUMNS = (
    *RANK,
    Column("ddof", "ddof"),
    Column("momentum", "momentum"),
    Column("max_abs_diff", "max_abs", ".3g"),
    Column("variant", "variant"),
    Column("old_weight", "old_weight"),
    Column("channel", "channel"),
    Column("eps", "eps", foldable=True),
    Column("frameworks", "frameworks"),
)

StoredMean = Annotated[
    str | None,
    typer.Option(
        metavar="FILE[::NAME]",
        help="The running mean of evaluation; without one, eval mode is not tried.",
        rich_help_panel=options.LAYER,
        show_default=False,
        autocompletion=complete_tensors,
    ),
]
StoredVar = Annotated[
    str | None,
    typer.Option(
        metavar="FILE[::NAME]",
        help="The running variance of evaluation; goes with the mean.",
        rich_help_panel=options.LAYER,
        show_default=False,
        autocompletion=complete_tensors,
    ),
]
KnownState = Annotated[
    str | None,
    typer.Option(
        metavar="CKPT::LAYER",
        help="Take weight, bias, running_mean and running_var from a checkpoint's layer.",
        rich_help_panel=options.LAYER,
        show_default=False,
        autocompletion=complete_layers,
    ),
]
ExpectedEps = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        help="The eps that is expected.",
        rich_help_panel=options.LAYER,
        show_default="1e-05",
    ),
]
MeanBefore = Annotated[
    str | None,
    typer.Option(
        metavar="FILE[::NAME]",
        help="The running mean before the batch.",
        rich_help_panel="Update",
        show_default=False,
        autocompletion=complete_tensors,
    ),
]
VarBefore = Annotated[
    str | None,
    typer.Option(
        metavar="FILE[::NAME]",
        help="The running variance before the batch.",
        rich_help_panel="Update",
        show_default=False,
        autocompletion=complete_tensors,
    ),
]
MeanAfter = Annotated[
    str | None,
    typer.Option(
        metavar="FILE[::NAME]",
        help="The running mean after it.",
        rich_help_panel="Update",
        show_default=False,
        autocompletion=complete_tensors,
    ),
]
VarAfter = Annotated[
    str | None,
    typer.Option(
        metavar="FILE[::NAME]",
        help="The running variance after it.",
        rich_help_panel="Update",
        show_default=False,
        autocompletion=complete_tensors,
    ),
]


def identify(
    tensors: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT... [OUTPUT]",
            help="What went into the layer, PATH or PATH::NAME inside a file of several, and what "
            "came out of it. Several INPUTs are one batch. OUTPUT is left out where "
            "--running-mean-before and its like ask for the update.",
            show_default=False,
            autocompletion=complete_tensors,
        ),
    ],
    channel_axis: options.ChannelAxis = 1,
    dtype: options.Dtype = None,
    state: KnownState = None,
    eps: ExpectedEps = None,
    weight: options.Weight = None,
    bias: options.Bias = None,
    running_mean: StoredMean = None,
    running_var: StoredVar = None,
    training: options.EitherMode = None,
    running_mean_before: MeanBefore = None,
    running_var_before: VarBefore = None,
    running_mean_after: MeanAfter = None,
    running_var_after: VarAfter = None,
) -> Report:
    """Tell which normalisation made OUTPUT from INPUT, or how running statistics were updated.

    Training and eval statistics, biased and unbiased variance, every usual eps and a fitted one,
    weight or bias left out, tensors swapped, channels moved, half precision: each is computed, and
    the one that leaves only rounding is named, with what else would have fitted.
    """
    from bncli.arguments.input import open_input
    from bncli.arguments.known import KnownFlags
    from bncli.errors import UsageError
    from bncli.loaders import open_tensor
    from bncli.sections.identification import Buffers, identify_output_of, identify_update_of

    buffers = Buffers(
        running_mean_before, running_var_before, running_mean_after, running_var_after
    )
    layer = KnownFlags(state, eps, weight, bias, running_mean, running_var, training)
    if buffers.any_given:
        layer.refuse_any("the update of running statistics")
        given = open_input(tensors, channel_axis, dtype)
        update, read = identify_update_of(given, buffers)
        about = _about(
            given, running_mean_before, running_var_before, running_mean_after, running_var_after
        )
        return replace(_update_report(given, update, read), about=about)
    if len(tensors) == 1:
        raise UsageError(
            "identify needs an OUTPUT, or the running statistics before and after INPUT: "
            "--running-mean-before and the three like it."
        )
    *inputs, made = tensors
    given = open_input(inputs, channel_axis, dtype)
    found, read = identify_output_of(given, open_tensor(made), layer)
    about = _about(given, made, state, weight, bias, running_mean, running_var)
    return replace(_output_report(given, made, found, read), about=about)


def _about(given: Input, *specs: str | None) -> tuple[tuple[str, str], ...]:
    """The inputs and the other tensors that the findings are about."""
    from bncli.arguments.layer import about_spec

    inputs = ((str(tensor.path), tensor.name) for tensor in given.tensors)
    return (*inputs, *(about_spec(spec) for spec in specs if spec))


def _output_report(
    given: Input, output: str, found: Identification, read: tuple[str, ...]
) -> Report:
    """The ranking of the ways to make an output."""
    from bncli.rulebook.comparison import identification_findings

    rows: list[dict[str, Value]] = [
        {
            "rank": rank,
            "mode": item.hypothesis.mode,
            "ddof": item.hypothesis.ddof,
            "eps": item.hypothesis.eps,
            "variant": item.hypothesis.variant,
            "max_abs_diff": item.max_abs_diff,
            "explains": item.explains,
            "channel": item.channel,
        }
        for rank, item in enumerate(found.hypotheses, 1)
    ]
    findings: list[Finding] = []
    if rows:
        words = found.hypotheses[0].hypothesis.words
        findings = identification_findings(
            "OUTPUT",
            words,
            found.tried,
            explained=found.explained,
            expected=found.expected,
            kind=_kind(rows[0]) if found.confident else (),
        )
    facts: dict[str, Value] = {
        "input": given.label,
        "output": output,
        "shape": given.tensors[0].shape,
        "inputs": len(given.tensors) if len(given.tensors) > 1 else None,
        "dtype": given.dtype,
        "channel_axis": given.channel_axis,
        "tried": found.tried,
        "channels": found.channels,
        "confident": found.confident,
        "best": found.best,
    }
    report = _report(facts, HYPOTHESIS_COLUMNS, rows, findings, read)
    if found.implied is None:
        return report
    return replace(report, tables=(*report.tables, _implied_table(found.implied)))


def _implied_table(implied: Implied) -> Table:
    """What the output itself says of each channel; None for what it does not tell."""
    import math

    names = ("scale", "shift", "mean", "var", "off")
    columns = {name: getattr(implied, name).tolist() for name in names}
    rows: list[dict[str, Value]] = [
        {
            "channel": channel,
            **{
                name: values[channel] if math.isfinite(values[channel]) else None
                for name, values in columns.items()
            },
            "affine": affine,
        }
        for channel, affine in enumerate(implied.affine.tolist())
    ]
    note = (
        "output = scale * input + shift, as well as a line can; off is the most that it leaves, "
        "and affine says whether that may be rounding. mean and var would have normalised so, with "
        "the weight, bias and eps that are known, else 1, 0 and 1e-5."
    )
    return Table("implied", "What the output itself implies", IMPLIED_COLUMNS, rows, note)


def _update_report(given: Input, found: UpdateIdentification, read: tuple[str, ...]) -> Report:
    """The ranking of the ways to update running statistics."""
    from bncli.rulebook.comparison import identification_findings, nothing_updated_finding
    from bncli.verify.identify.output import BESIDE, MOST_SHOWN
    from bncli.verify.identify.updates import USUAL

    explaining = sum(item.explains for item in found.ways)
    shown = found.ways[: min(MOST_SHOWN, explaining + BESIDE)]
    rows: list[dict[str, Value]] = [
        {
            "rank": rank,
            "mode": "update",
            "ddof": item.update.ddof,
            "momentum": item.update.weight,
            "old_weight": 1 - item.update.weight,
            "eps": None,
            "variant": item.update.variant,
            "max_abs_diff": item.max_abs_diff,
            "explains": item.explains,
            "channel": item.channel,
            "frameworks": list(item.update.frameworks) if item.explains else None,
        }
        for rank, item in enumerate(shown, 1)
    ]
    findings: list[Finding] = []
    if found.nothing:
        usual = next(item for item in found.ways if item.update == USUAL)
        findings.append(
            nothing_updated_finding(usual.quantity, usual.channel, usual.max_abs_diff, USUAL.weight)
        )
    elif rows:
        findings = identification_findings(
            "the update",
            found.ways[0].update.words,
            found.tried,
            explained=found.ways[0].explains,
            expected=found.expected,
            kind=_kind(rows[0]) if found.confident else (),
        )
    facts: dict[str, Value] = {
        "input": given.label,
        "inputs": len(given.tensors) if len(given.tensors) > 1 else None,
        "shape": given.tensors[0].shape,
        "dtype": given.dtype,
        "channel_axis": given.channel_axis,
        "count": given.count,
        "tried": found.tried,
        "confident": found.confident,
        "best": found.best,
    }
    return _report(facts, UPDATE_COLUMNS, rows, findings, read)


def _kind(row: dict[str, Value]) -> tuple[str, ...]:
    """What tells a hypothesis from others, as a row has it; its eps and momentum may be fitted."""
    return tuple(f"{key} {row[key]}" for key in ("mode", "ddof", "variant"))


def _report(
    facts: dict[str, Value],
    columns: tuple[Column, ...],
    rows: list[dict[str, Value]],
    findings: list[Finding],
    read: tuple[str, ...],
) -> Report:
    explaining = sum(row["explains"] is True for row in rows)
    verdict = f"None of {facts['tried']} hypotheses explains it."
    if not rows:
        verdict = "Nothing was compared: every channel holds NaN or Inf."
    elif explaining:
        verb = "explain" if explaining > 1 else "explains"
        verdict = f"{explaining} of {facts['tried']} hypotheses {verb} it."
    return Report(
        command="identify",
        facts=facts,
        tables=(Table("hypotheses", "Hypotheses, the best first", columns, rows),),
        findings=tuple(findings),
        verdict=verdict,
        nothing_checked=not rows,
        read=read,
    )
