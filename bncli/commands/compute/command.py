"""`bncli compute`: the statistics of a batch, the running statistics after it, and a check."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

from bncli.arguments import options
from bncli.arguments.flags import AgainstFlags, InputFlags, LayerFlags
from bncli.arguments.options import option
from bncli.arguments.shard import ScaleFlags
from bncli.files.reading import current, guard
from bncli.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bncli.arguments.input import Input
    from bncli.arguments.layer import Layer
    from bncli.backends.interface import Backend
    from bncli.commands.compute.saved import Saving
    from bncli.commands.compute.stored import Stored
    from bncli.commands.compute.sums_first import Task
    from bncli.pictures import Shown
    from bncli.report import Finding, Table, Value
    from bncli.sections.findings import ComparedSection
    from bncli.sections.judged_pass import JudgedPass
    from bncli.verify.batch_norm_pass import BatchNormPass
    from bncli.verify.closeness import GivenTolerance


def compute(
    inputs: options.InputsArgument = (),  # type: ignore[assignment]  # of which Typer makes a list
    *,
    reading: InputFlags,
    per_input: Annotated[
        bool, option("Show the statistics of each input too.", options.INPUT, "--per-input")
    ] = False,
    layer: LayerFlags,
    comparison: AgainstFlags,
    seed: options.Seed = 0,
    save_output: options.SaveOutput = None,
    save_stats: options.SaveStats = None,
    per_batch: options.PerBatch = False,
    scale: ScaleFlags,
    threads: options.Threads = None,
) -> Report:
    """Show a batch's statistics, channel by channel, and check them against PyTorch.

    Exact mean and variance, the running statistics after the batch, a summary of the normalised
    output; with --against torch, every quantity beside torch.nn.BatchNorm's, gradients included.
    """
    from bncli.arguments.input import parse_channels
    from bncli.arguments.layer import check_count, resolve_layer
    from bncli.arguments.layer_report import about_pass, subject_line, update_said
    from bncli.commands.compute.saved import Saving
    from bncli.commands.compute.stored import stored_or_none
    from bncli.loaders.patterns import expanded, natural
    from bncli.sections.answer import scope_of
    from bncli.sections.judged_pass import judged_pass

    tolerance = comparison.tolerance
    saving = Saving(save_output, save_stats, per_batch)
    specs = [file for spec in inputs for file in expanded([spec], natural)]
    task = _task(specs, scale, reading, layer, comparison, saving)
    if task is None:
        stored = stored_or_none(specs, reading, comparison, saving, training=layer.training)
    elif task.nothing:
        return _nothing(task, inputs, reading, layer)
    else:
        stored = _summed(task, inputs, scale, reading, layer)
    given = reading.open(specs, layer.state) if stored is None else stored.given
    flags = layer if stored is None or task is not None else stored.flags(layer)
    shown = parse_channels(reading.channel, given.num_features)
    run = resolve_layer(flags, given)
    if task is None or task.shard.n == 1:
        check_count(given, run)
    library = comparison.library
    saving.check(given)
    judged = stored.judged(run) if stored else judged_pass(given, run, threads, per_input=per_input)
    done, findings = judged.done, judged.findings
    labels = [tensor.label for tensor in given.tensors]
    tables = _tables(judged, labels if per_input else None, shown)
    shard = "" if task is None or scale.distributed else str(task.shard)
    saved, notes = saving.write(given, run, (reading, flags), done, stored)
    facts = _facts(given, run, done, stored, shard) | saved
    compared = None
    if library is not None:
        compared = _compared(library, judged, given, seed, tolerance)
        tables.append(compared.table)
        findings += compared.findings
        facts |= {**compared.facts, "seed": seed}
    batch = scope_of(given.num_features, given.count)
    troubled = bool(findings or current().missing)
    said = _finite_said(batch, done, troubled=troubled)
    remarks = (said if compared or troubled else "", update_said(run), *notes)
    return Report(
        command="compute",
        facts=facts,
        subject=(subject_line(given, run) if stored is None else stored.subject(run),),
        answer=_answer(judged, findings, labels if per_input else None, shown, compared),
        pictures=_pictures(given, judged, shown, findings, values=stored is None),
        remarks=tuple(filter(None, remarks)),
        scope=batch,
        judged=compared is not None,
        tables=tuple(tables),
        findings=tuple(findings),
        verdict=compared.verdict if compared else "" if troubled else said,
        read=(*(given.read if task is None else task.files), *run.read),
        checked=compared.checked if compared else {},
        about=about_pass(given, run),
    )


def _finite_said(batch: str, done: BatchNormPass, *, troubled: bool) -> str:
    """That all values of the batch are finite, alone or beside findings; "" where some are not."""
    if not troubled:
        return f"{batch}, all finite"
    return "" if (done.stats.nan + done.stats.inf).any() else "all values are finite"


def _task(
    specs: Sequence[str],
    scale: ScaleFlags,
    reading: InputFlags,
    layer: LayerFlags,
    comparison: AgainstFlags,
    saving: Saving,
) -> Task | None:
    """Which part of a larger run this call is; None where it is none. Raises as `task_of`."""
    if not scale.given:
        return None
    from bncli.commands.compute.sums_first import task_of

    return task_of(specs, scale, reading, layer, comparison, saving)


def _summed(
    task: Task, typed: Sequence[str], scale: ScaleFlags, reading: InputFlags, layer: LayerFlags
) -> Stored:
    """What a task of a larger run sums, or what all ranks of it do together."""
    if scale.distributed:
        from bncli.commands.compute.by_ranks import sums_of_ranks

        return sums_of_ranks(task, typed, reading, layer, resume=scale.resume)
    from bncli.commands.compute.sums_first import sums_first

    return sums_first(task, typed, reading, layer)


def _nothing(task: Task, typed: Sequence[str], reading: InputFlags, layer: LayerFlags) -> Report:
    """The report of a shard without inputs, with the facts of every report."""
    from bncli.arguments.layer_report import flag_facts
    from bncli.sections.tables import empty_channels_table

    unknown: dict[str, Value] = dict.fromkeys(("shape", "dtype", "kind", "engines"))
    axis = 1 if reading.channel_axis is None else reading.channel_axis
    return Report(
        command="compute",
        facts={
            "input": " ".join(typed),
            **unknown,
            "channel_axis": axis,
            **flag_facts(layer),
            "count": 0,
            "shard": str(task.shard),
        },
        tables=(empty_channels_table(),),
        verdict=task.nothing,
        nothing_checked=True,
        checked={"": []},
    )


def _facts(
    given: Input, run: Layer, done: BatchNormPass, stored: Stored | None, shard: str
) -> dict[str, Value]:
    """What the report says of the inputs and the layer; `shard` is "" where it is of all inputs."""
    from bncli.arguments.layer_report import layer_facts

    labels = [tensor.label for tensor in given.tensors]
    return {
        "input": given.label,
        "inputs": labels if len(labels) > 1 else None,
        **layer_facts(given, run, done.stats, done.after),
        **(stored.facts if stored is not None else {}),
        **({"shard": shard} if shard else {}),
    }


def _tables(judged: JudgedPass, labels: list[str] | None, shown: Sequence[int]) -> list[Table]:
    """The channels `shown` of the batch, and of each input where `labels` has their names."""
    from bncli.sections.tables import channels_table, inputs_table, output_table, spread_table

    done = judged.done
    tables = [
        channels_table(done.stats, done.norm, done.after, shown),
        output_table(done.stats, done.norm, shown),
    ]
    if judged.apart is not None:
        tables.append(spread_table(judged.apart, shown))
    if labels is not None:
        tables.append(inputs_table(labels, judged.parts, shown))
    return tables


def _answer(
    judged: JudgedPass,
    findings: list[Finding],
    labels: list[str] | None,
    shown: Sequence[int],
    compared: ComparedSection | None,
) -> tuple[Table, ...]:
    """What differs from the backend, the channels with findings and others, and each input."""
    from bncli.sections.channels import channels_answer, inputs_answer, troubles, worst_first

    done = judged.done
    trouble = troubles(findings, done.channel_axis)
    ordered = worst_first(shown, trouble)
    answer = [channels_answer(done, ordered, trouble)]
    if labels is not None:
        answer.append(inputs_answer(labels, judged.parts, ordered))
    return (*(compared.answer if compared else ()), *answer)


def _pictures(
    given: Input,
    judged: JudgedPass,
    shown: Sequence[int],
    findings: list[Finding],
    *,
    values: bool,
) -> Callable[[], tuple[Shown, ...]]:
    """What makes the pictures; `values` says that the input has them."""
    unchanged = guard(tensor.path for tensor in given.tensors) if values else None
    return partial(_drawn, given, judged, shown, unchanged, findings=tuple(findings))


def _drawn(
    given: Input,
    judged: JudgedPass,
    shown: Sequence[int],
    unchanged: Callable[[], None] | None,
    findings: tuple[Finding, ...],
) -> tuple[Shown, ...]:
    from bncli.commands.compute.pictures import pass_pictures

    return pass_pictures(given, judged, shown, unchanged, findings)


def _compared(
    library: Backend,
    judged: JudgedPass,
    given: Input,
    seed: int,
    tolerance: GivenTolerance,
) -> ComparedSection:
    """Every quantity of the pass beside the backend's; `seed` draws the upstream gradient."""
    from bncli.sections.findings import compared_with
    from bncli.verify.comparison import compare_pass

    done = judged.done
    items, run = compare_pass(done, given.pooled(), library, seed=seed, tolerance=tolerance)
    return compared_with(library, items, done, judged.findings, tolerance, run.overwritten)
