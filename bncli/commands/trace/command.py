"""`bncli trace`: every step of the normalisation with its formula and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bncli.arguments import options
from bncli.arguments.completion import complete_tensors
from bncli.arguments.flags import AgainstFlags, LayerFlags
from bncli.backends import backend
from bncli.commands.trace.choice import FEW_CHANNELS
from bncli.report import Report

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.arguments.input import Input
    from bncli.arguments.layer import Layer
    from bncli.backends.interface import Backend
    from bncli.commands.trace.choice import Chosen
    from bncli.commands.trace.input import BackendSide
    from bncli.model import ChannelStats
    from bncli.report import Finding, Value
    from bncli.sections.findings import ComparedSection
    from bncli.verify.batch_norm_pass import BatchNormPass

TRACE = "Trace"


class Arithmetic(str, Enum):
    """What a trace computes in: exactly (to float64), or as PyTorch's CPU kernels do in float32."""

    FLOAT64 = "float64"
    FLOAT32 = "float32"


def trace(
    input: options.InputArgument,  # noqa: A002  # the name that the help shows
    *,
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
    layer: LayerFlags,
    comparison: AgainstFlags,
    seed: options.Seed = 0,
    threads: options.Threads = None,
) -> Report:
    """Show every step of the normalisation with its formula and numbers, channel by channel.

    From the values that are reduced to the output and the running statistics; with --backward the
    gradients; with --eval where evaluation parts from training; with --against torch PyTorch's
    value beside each.
    """
    from bncli.arguments.input import open_input
    from bncli.arguments.layer import (
        about_pass,
        about_spec,
        check_count,
        layer_facts,
        resolve_layer,
    )
    from bncli.commands.trace.choice import choose
    from bncli.commands.trace.input import open_gradient
    from bncli.commands.trace.tracing import Tracing
    from bncli.errors import UsageError
    from bncli.rulebook.batch import gradient_findings
    from bncli.sections.findings import closing, pass_findings
    from bncli.sections.samples import sample_findings
    from bncli.verify.batch_norm_pass import batch_norm_pass, upstream_gradient

    tolerance = comparison.tolerance
    if grad_output is not None and not backward:
        raise UsageError("--grad-output is for the backward pass: add --backward.")
    given = open_input([input], channel_axis, dtype)
    float32 = arithmetic is Arithmetic.FLOAT32
    if float32:
        _check_float32(given, backward=backward)
    (tensor,) = given.tensors
    chosen = choose(channel, at, given)
    run = resolve_layer(layer, given)
    check_count(given, run)
    read = (str(tensor.path), *run.read)
    upstream = None
    if grad_output is not None:
        upstream, path = open_gradient(grad_output, given)
        read = (*read, path)
    elif backward or comparison.against is not None:
        upstream = upstream_gradient(tensor.shape, given.dtype, seed)

    stats = _statistics(given, run, threads)
    done = batch_norm_pass(run, stats, dtype=given.dtype, channel_axis=given.channel_axis)
    findings = pass_findings(stats, run, done.norm) + sample_findings(stats, [stats], run, None)
    if upstream is not None and grad_output is not None:
        findings += gradient_findings(upstream, given.channel_axis)
    facts: dict[str, Value] = {
        "input": given.label,
        **layer_facts(given, run, done.after),
        "at": list(chosen.followed) if chosen.followed is not None else None,
        "arithmetic": arithmetic.value,
        "grad_output": grad_output,
    }
    if upstream is not None and grad_output is None:
        facts["seed"] = seed
    compared = None
    if comparison.against is not None and upstream is not None:
        library = backend(comparison.against)
        compared = _compare(library, done, given, upstream, chosen, tolerance, findings)
        findings += compared.section.findings
        facts |= compared.section.facts
    traced = Tracing(
        given,
        done,
        chosen,
        upstream if backward else None,
        compared.side if compared else None,
        float32=float32,
    ).run()
    return Report(
        command="trace",
        facts=facts | traced.facts,
        tables=(*chosen.with_rest(traced.tables), *([compared.section.table] if compared else [])),
        findings=tuple(findings),
        verdict=closing(
            traced.verdict, compared.section.verdict if compared else "", findings=findings
        ),
        read=read,
        checked=compared.section.checked if compared else {},
        about=(*about_pass(given, run), *map(about_spec, filter(None, [grad_output]))),
    )


def _check_float32(given: Input, *, backward: bool) -> None:
    """Raise where PyTorch's float32 arithmetic is not repeated: UsageError, TensorError."""
    from bncli.errors import TensorError, UsageError

    if backward:
        raise UsageError(
            "--arithmetic float32 traces the forward pass: leave out --backward, or trace the "
            "gradients in float64."
        )
    if given.dtype != "float32":
        raise TensorError(
            f"{given.label}: {given.dtype}; --arithmetic float32 traces float32 input: "
            "add --dtype float32."
        )


def _statistics(given: Input, layer: Layer, threads: int | None) -> ChannelStats:
    """The statistics of the input, with its samples' where a rule asks for them."""
    from bncli.moments import channel_stats
    from bncli.process.progress import progress
    from bncli.sections.samples import samples_wanted

    (tensor,) = given.tensors
    with progress("statistics", tensor.numel * given.itemsize) as advance:
        return channel_stats(
            tensor,
            given.channel_axis,
            dtype=given.cast,
            sample_axis=samples_wanted(given, layer),
            threads=threads,
            advance=advance,
        )


@dataclass(frozen=True, slots=True)
class _Compared:
    """What a comparison adds to the report, and what the backend made of each step."""

    section: ComparedSection
    side: BackendSide


def _compare(
    library: Backend,
    done: BatchNormPass,
    given: Input,
    upstream: NDArray[Any],
    chosen: Chosen,
    tolerance: tuple[float, float] | None,
    findings: list[Finding],
) -> _Compared:
    """Run the backend on the same pass; `findings` are the pass's own."""
    from bncli.commands.trace.input import BackendSide
    from bncli.sections.findings import compared_with
    from bncli.verify.comparison import compare_pass

    x = given.pooled()
    items, run = compare_pass(done, x, library, grad_output=upstream, tolerance=tolerance)
    return _Compared(
        compared_with(library.name, run.version, items, done, findings),
        BackendSide.of(done, x, upstream, chosen.shown, library, run),
    )
