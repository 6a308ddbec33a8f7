"""`bncli trace`: every step of the normalisation with its formula and numbers."""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from bncli.arguments import options
from bncli.arguments.flags import AgainstFlags, LayerFlags, ReadingFlags
from bncli.arguments.options import option
from bncli.commands.trace.choice import FEW_CHANNELS
from bncli.light import dataclass
from bncli.report import Report

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.arguments.input import Input
    from bncli.arguments.layer import Layer
    from bncli.backends.interface import Backend
    from bncli.commands.trace.choice import Chosen
    from bncli.commands.trace.input import BackendSide
    from bncli.commands.trace.tables import Row
    from bncli.pictures import Shown
    from bncli.report import Finding, Value
    from bncli.sections.findings import ComparedSection
    from bncli.verify.batch_norm_pass import BatchNormPass
    from bncli.verify.closeness import GivenTolerance

TRACE = "Trace"


class Arithmetic(str, Enum):
    """What a trace computes in: exactly (to float64), or as PyTorch's CPU kernels do in float32."""

    FLOAT64 = "float64"
    FLOAT32 = "float32"


@dataclass(frozen=True, slots=True)
class TracedFlags(ReadingFlags):
    """How the input is read, and which channels of it are traced."""

    channel: Annotated[
        list[str] | None,
        option(
            "Trace only these channels, such as 0,3,8-11; may be repeated.",
            options.INPUT,
            metavar="LIST",
            default=f"the first channel, or the first {FEW_CHANNELS} with -v",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class StepFlags:
    """Which steps are traced, and in which arithmetic."""

    at: Annotated[
        str | None,
        option(
            "Follow the element at this index. An index without the channel axis (0,1,1) is "
            "followed in every traced channel; a full index (0,0,1,1) only in its own channel.",
            TRACE,
            "--at",
            metavar="INDEX",
            default="the first",
        ),
    ] = None
    backward: Annotated[
        bool,
        option(
            "Trace the gradients too, and check the identities between them.", TRACE, "--backward"
        ),
    ] = False
    grad_output: Annotated[
        str | None,
        options.tensor_option("The upstream gradient.", "normal noise from --seed", panel=TRACE),
    ] = None
    arithmetic: Annotated[
        Arithmetic,
        option(
            "float64 shows reference values; float32 reproduces PyTorch's rounding and shows the "
            "reference values next to it.",
            TRACE,
        ),
    ] = Arithmetic.FLOAT64


def trace(
    input: options.InputArgument = None,  # noqa: A002  # the name that the help shows
    *,
    reading: TracedFlags,
    steps: StepFlags,
    layer: LayerFlags,
    comparison: AgainstFlags,
    seed: options.Seed = 0,
    threads: options.Threads = None,
) -> Report:
    """Show every step of the normalisation with its formula and numbers, channel by channel.

    From the values that are reduced to the output and the running statistics; with --backward the
    gradients; with --eval where evaluation differs from training; with --against torch PyTorch's
    value beside each.
    """
    from bncli.arguments.layer import check_count, resolve_layer
    from bncli.arguments.layer_report import about_pass, subject_line
    from bncli.commands.trace.choice import choose
    from bncli.commands.trace.input import Upstream
    from bncli.commands.trace.tracing import Tracing
    from bncli.sections.answer import scope_of
    from bncli.sections.findings import closing
    from bncli.sections.judged_pass import judged_pass

    tolerance = comparison.tolerance
    given = _opened(input, reading, steps, layer.state)
    chosen = choose(reading.channel, steps.at, given)
    run = resolve_layer(layer, given)
    check_count(given, run)
    library = comparison.library
    upstream = None
    if steps.backward or library is not None:
        upstream = Upstream.of(steps.grad_output, seed, given)
    judged = judged_pass(given, run, threads)
    done, findings = judged.done, judged.findings
    facts = _facts(given, run, done, chosen, steps)
    if upstream is not None:
        findings += upstream.findings(given)
        facts |= upstream.facts
    section = side = None
    if library is not None and upstream is not None:
        section, side = _compare(library, done, given, upstream.values, chosen, tolerance, findings)
        findings += section.findings
        facts |= section.facts
    backward = upstream.values if upstream is not None and steps.backward else None
    float32 = steps.arithmetic is Arithmetic.FLOAT32
    traced = Tracing(given, done, chosen, backward, side, float32=float32).run()
    verdict = closing(traced.verdict, section.verdict if section else "")
    about = upstream.about if upstream is not None else ()
    return Report(
        command="trace",
        facts=facts | traced.facts,
        tables=(*chosen.with_rest(traced.tables), *([section.table] if section else [])),
        findings=tuple(findings),
        verdict=verdict or traced.example,
        subject=(subject_line(given, run),),
        answer=(*(section.answer if section else ()), *traced.answer),
        remarks=traced.remarks,
        pictures=partial(_drawn, traced.chain, of_batch=run.settings.normalizes_with_batch),
        scope=scope_of(given.num_features, given.count),
        judged=section is not None or backward is not None,
        read=(*given.read, *run.read, *(path for path, _ in about)),
        checked=section.checked if section else {},
        about=(*about_pass(given, run), *about),
    )


def _drawn(chain: list[Row], *, of_batch: bool) -> tuple[Shown, ...]:
    from bncli.commands.trace.pictures import chain_pictures

    return chain_pictures(chain, of_batch=of_batch)


def _opened(spec: str | None, reading: TracedFlags, steps: StepFlags, state: str | None) -> Input:
    """The input, after a check that the steps can be traced.

    Raises UsageError for flags that do not go together, TensorError for an input of another dtype
    than the arithmetic's, and FileError for files.
    """
    from bncli.errors import UsageError

    if steps.grad_output is not None and not steps.backward:
        raise UsageError("--grad-output is for the backward pass: add --backward.")
    given = reading.open([spec], state)
    if steps.arithmetic is Arithmetic.FLOAT32:
        _check_float32(given, backward=steps.backward)
    return given


def _facts(
    given: Input, run: Layer, done: BatchNormPass, chosen: Chosen, steps: StepFlags
) -> dict[str, Value]:
    """What the report says of the input, of the layer, and of which steps are traced."""
    from bncli.arguments.layer_report import layer_facts

    return {
        "input": given.label,
        **layer_facts(given, run, done.stats, done.after),
        "at": list(chosen.followed) if chosen.followed is not None else None,
        "arithmetic": steps.arithmetic.value,
        "grad_output": steps.grad_output,
    }


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


def _compare(
    library: Backend,
    done: BatchNormPass,
    given: Input,
    upstream: NDArray[Any],
    chosen: Chosen,
    tolerance: GivenTolerance,
    findings: list[Finding],
) -> tuple[ComparedSection, BackendSide]:
    """The comparison of the pass with the backend's, and the backend's value of each step.

    `findings` are the pass's own.
    """
    from bncli.commands.trace.input import BackendSide
    from bncli.sections.findings import compared_with
    from bncli.verify.comparison import compare_pass

    x = given.pooled()
    items, run = compare_pass(done, x, library, grad_output=upstream, tolerance=tolerance)
    section = compared_with(library, items, done, findings, tolerance, run.overwritten)
    return section, BackendSide.of(done, x, upstream, chosen.shown, library, run)
