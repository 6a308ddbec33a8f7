"""`bncli trace`: every step of the normalisation with its formula and numbers."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from bncli.commands import _options as options
from bncli.completion import complete_tensors
from bncli.report import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.report import Table, Value

TRACE = "Trace"

MOST_CHANNELS = 5000
"""Channels that are traced: each has up to 20 steps, and a table up to 100,000 rows."""
FEW_CHANNELS = 3
"""Channels that are traced where none are chosen."""


class Arithmetic(str, Enum):
    """What a trace computes in: exactly (to float64), or as PyTorch's CPU kernels do in float32."""

    FLOAT64 = "float64"
    FLOAT32 = "float32"


def trace(
    input: options.InputArgument,  # noqa: A002  # the name that the help shows
    channel_axis: options.ChannelAxis = 1,
    dtype: options.Dtype = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help="Trace these channels, such as 0,3,8-11; may be repeated.",
            rich_help_panel=options.INPUT,
            show_default=f"the first {FEW_CHANNELS}",
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="INDEX",
            help="Follow the element at this index, such as 0,1,1; without the channel in every "
            "channel traced, with it in that one.",
            rich_help_panel=TRACE,
            show_default="a table of all",
        ),
    ] = None,
    backward: Annotated[
        bool,
        typer.Option(
            "--backward",
            help="Trace the gradients too, and check the identities between them.",
            rich_help_panel=TRACE,
        ),
    ] = False,
    grad_output: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[::NAME]",
            help="The upstream gradient.",
            rich_help_panel=TRACE,
            show_default="normal noise from --seed",
            autocompletion=complete_tensors,
        ),
    ] = None,
    arithmetic: Annotated[
        Arithmetic,
        typer.Option(
            help="float64 is exact; float32 repeats PyTorch's own roundings beside it.",
            rich_help_panel=TRACE,
        ),
    ] = Arithmetic.FLOAT64,
    training: options.Training = True,
    state: options.State = None,
    eps: options.Eps = None,
    momentum: options.Momentum = None,
    affine: options.Affine = None,
    track_running_stats: options.TrackRunningStats = True,
    weight: options.Weight = None,
    bias: options.Bias = None,
    running_mean: options.RunningMean = None,
    running_var: options.RunningVar = None,
    against: options.Against = None,
    rtol: options.Rtol = None,
    atol: options.Atol = None,
    seed: options.Seed = 0,
    threads: options.Threads = None,
) -> Report:
    """Show every step of the normalisation with its formula and numbers, channel by channel.

    From the values that are reduced to the output and the running statistics; with --backward the
    gradients; with --eval where evaluation parts from training; with --against torch PyTorch's
    value beside each.
    """
    from bncli.batchnorm import normalization
    from bncli.commands._findings import (
        agreement,
        backend_findings,
        closing,
        pass_findings,
    )
    from bncli.commands._input import open_input, parse_channels
    from bncli.commands._layer import (
        LayerFlags,
        about_pass,
        about_spec,
        check_count,
        layer_facts,
        resolve_layer,
    )
    from bncli.commands._samples import sample_findings, samples_wanted
    from bncli.commands._tables import differences_table
    from bncli.commands._trace import Tracing
    from bncli.commands._trace_input import TorchSide, open_gradient, parse_at
    from bncli.compare import tolerance_pair
    from bncli.errors import TensorError, UsageError
    from bncli.moments import channel_stats
    from bncli.progress import progress
    from bncli.rules.batch import gradient_findings
    from bncli.running_stats import update
    from bncli.verify import BatchNormPass, compare_pass, upstream_gradient

    tolerance = tolerance_pair(rtol, atol, compared=against is not None)
    if grad_output is not None and not backward:
        raise UsageError("--grad-output is for the backward pass: add --backward.")
    float32 = arithmetic is Arithmetic.FLOAT32
    if float32 and backward:
        raise UsageError(
            "--arithmetic float32 traces the forward pass: leave out --backward, or trace the "
            "gradients in float64."
        )
    given = open_input([input], channel_axis, dtype)
    if float32 and given.dtype != "float32":
        raise TensorError(
            f"{given.label}: {given.dtype}; --arithmetic float32 traces float32 input: "
            "add --dtype float32."
        )
    (tensor,) = given.tensors
    wanted = parse_channels(channel, given.num_features)
    shown = list(wanted[:MOST_CHANNELS])
    followed = None
    named = bool(channel)
    if at is not None:
        followed, own = parse_at(at, tensor.shape, given.channel_axis)
        if own is not None:
            if channel and list(wanted) != [own]:
                raise UsageError(
                    f"--at {at}: it names channel {own}, and --channel {','.join(channel)} others; "
                    "leave one out."
                )
            wanted = shown = [own]
            named = True
    if not named:
        shown = shown[:FEW_CHANNELS]
    layer = resolve_layer(
        LayerFlags(
            training=training,
            state=state,
            eps=eps,
            momentum=momentum,
            affine=affine,
            track_running_stats=track_running_stats,
            weight=weight,
            bias=bias,
            running_mean=running_mean,
            running_var=running_var,
        ),
        given,
    )
    settings = layer.settings
    check_count(given, layer)
    read = (str(tensor.path), *layer.read)

    upstream = None
    if grad_output is not None:
        upstream, path = open_gradient(grad_output, given)
        read = (*read, path)
    elif backward or against is not None:
        upstream = upstream_gradient(tensor.shape, given.dtype, seed)

    with progress("statistics", tensor.numel * given.itemsize) as advance:
        stats = channel_stats(
            tensor,
            given.channel_axis,
            dtype=given.cast,
            sample_axis=samples_wanted(given, layer),
            threads=threads,
            advance=advance,
        )
    norm = normalization(stats, layer.running, layer.weight, layer.bias, settings)
    done = BatchNormPass(
        given.dtype,
        layer.parameter_dtype,
        given.channel_axis,
        settings,
        stats,
        norm,
        layer.weight,
        layer.bias,
        layer.running,
        update(layer.running, stats, settings) if layer.running is not None else None,
    )
    findings = pass_findings(stats, layer, norm)
    findings += sample_findings(stats, [stats], layer, None)
    if upstream is not None and grad_output is not None:
        findings += gradient_findings(upstream, given.channel_axis)
    facts: dict[str, Value] = {
        "input": given.label,
        **layer_facts(given, layer, done.after),
        "at": list(followed) if followed is not None else None,
        "arithmetic": arithmetic.value,
        "grad_output": grad_output,
    }
    if upstream is not None and grad_output is None:
        facts["seed"] = seed

    torch_side = None
    differences = []
    agreed = ""
    checked: dict[str, list[str]] = {}
    if against is not None:
        from bncli.backends import backend

        chosen_backend = backend(against)
        x = given.pooled()
        compared, run = compare_pass(
            done, x, chosen_backend, grad_output=upstream, tolerance=tolerance
        )
        name = f"{against.value} {run.version}"
        torch_side = TorchSide.of(done, x, upstream, shown, chosen_backend, run)
        differences.append(differences_table(compared, name))
        findings += backend_findings(compared, name, norm, given.dtype, findings)
        facts |= {"backend": against.value, "backend_version": run.version}
        checked = {"": [item.quantity for item in compared]}
        agreed = agreement(compared, name, findings)

    tracing = Tracing(
        given,
        done,
        shown,
        followed,
        upstream if backward else None,
        torch_side,
        float32=float32,
        chosen=named,
    )
    traced = tracing.run()
    findings.sort(key=lambda finding: -finding.severity.rank)
    return Report(
        command="trace",
        facts=facts | traced.facts,
        tables=(*_with_rest(traced.tables, shown, wanted if named else shown), *differences),
        findings=tuple(findings),
        verdict=closing(traced.verdict, agreed, findings=findings),
        read=read,
        checked=checked,
        about=(*about_pass(given, layer), *map(about_spec, filter(None, [grad_output]))),
    )


def _with_rest(
    tables: tuple[Table, ...], shown: list[int], wanted: Sequence[int]
) -> tuple[Table, ...]:
    """The tables, which have as many rows for each of the channels wanted beyond those shown."""
    more = len(wanted) - len(shown)
    if not more:
        return tables
    return tuple(
        replace(table, left_out=more * (len(table.rows) // len(shown))) for table in tables
    )
