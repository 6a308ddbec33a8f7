"""`bncli compute`: the statistics of a batch, the running statistics after it, and a check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from bncli.arguments import options
from bncli.arguments.flags import AgainstFlags, InputFlags, LayerFlags
from bncli.arguments.options import option
from bncli.report import Report

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from bncli.arguments.input import Input
    from bncli.arguments.layer import Layer
    from bncli.backends.interface import Backend
    from bncli.batchnorm import Normalization
    from bncli.report import Finding, Table, Value
    from bncli.sections.findings import ComparedSection
    from bncli.sections.judged_pass import JudgedPass
    from bncli.verify.batch_norm_pass import BatchNormPass


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
    threads: options.Threads = None,
) -> Report:
    """Show a batch's statistics, channel by channel, and check them against PyTorch.

    Exact mean and variance, the running statistics after the batch, a summary of the normalised
    output; with --against torch, every quantity beside torch.nn.BatchNorm's, gradients included.
    """
    from bncli.arguments.input import parse_channels
    from bncli.arguments.layer import about_pass, check_count, resolve_layer, subject_line
    from bncli.sections.answer import scope_of
    from bncli.sections.judged_pass import judged_pass

    tolerance = comparison.tolerance
    given = reading.open(inputs)
    shown = parse_channels(reading.channel, given.num_features)
    run = resolve_layer(layer, given)
    check_count(given, run)
    library = comparison.library
    if save_output is not None:
        _check_save(save_output, given)

    judged = judged_pass(given, run, threads)
    done, findings = judged.done, judged.findings
    labels = [tensor.label for tensor in given.tensors]
    tables = _tables(judged, labels if per_input else None, shown)
    facts = _facts(given, run, done, labels)
    if save_output is not None:
        _save(save_output, given, done.norm)
        facts["saved_output"] = save_output
    compared = None
    if library is not None:
        compared = _compared(library, judged, given, seed, tolerance)
        tables.append(compared.table)
        findings += compared.findings
        facts |= {**compared.facts, "seed": seed}
    batch = scope_of(given.num_features, given.count)
    said = f"{batch}, all finite"
    if findings:
        said = "" if (done.stats.nan + done.stats.inf).any() else "all values are finite"
    remarks = [said] if compared or findings else []
    if save_output is not None:
        remarks.append(f"output saved to {save_output}")
    return Report(
        command="compute",
        facts=facts,
        subject=(subject_line(given, run),),
        answer=_answer(judged, findings, labels if per_input else None, shown, compared),
        remarks=tuple(filter(None, remarks)),
        scope=batch,
        judged=compared is not None,
        tables=tuple(tables),
        findings=tuple(findings),
        verdict=compared.verdict if compared else "" if findings else said,
        read=(*given.read, *run.read),
        checked=compared.checked if compared else {},
        about=about_pass(given, run),
    )


def _facts(given: Input, run: Layer, done: BatchNormPass, labels: list[str]) -> dict[str, Value]:
    """What the report says of the layer and of the inputs, whose names are `labels`."""
    from bncli.arguments.layer import layer_facts

    return {
        "input": given.label,
        "inputs": labels if len(labels) > 1 else None,
        **layer_facts(given, run, done.after),
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


def _compared(
    library: Backend,
    judged: JudgedPass,
    given: Input,
    seed: int,
    tolerance: tuple[float, float] | None,
) -> ComparedSection:
    """Every quantity of the pass beside the backend's; `seed` draws the upstream gradient."""
    from bncli.sections.findings import compared_with
    from bncli.verify.comparison import compare_pass

    done = judged.done
    items, _ = compare_pass(done, given.pooled(), library, seed=seed, tolerance=tolerance)
    return compared_with(library, items, done, judged.findings, tolerance)


def _check_save(path: str, given: Input) -> None:
    """Raise UsageError where the output tensor cannot be saved to `path`."""
    from bncli.errors import UsageError
    from bncli.files.save import check_writable, refuse_overwriting, tensor_suffix

    tensor_suffix(path, given.dtype, "--save-output")
    check_writable(path)
    refuse_overwriting(path, "--save-output")
    if len(given.tensors) > 1:
        raise UsageError(f"--save-output {path}: takes one INPUT; normalise them one by one.")


def _save(path: str, given: Input, norm: Normalization) -> None:
    """Write the normalised tensor, block by block, in the input's dtype."""
    from pathlib import Path

    from bncli.batchnorm import BlockNormalizer, blocks
    from bncli.dtypes import encode
    from bncli.files.save import save_tensor
    from bncli.process.progress import progress

    tensor = given.tensors[0]
    normalizer = BlockNormalizer(norm, tensor.ndim, given.channel_axis)

    def pieces() -> Iterator[NDArray[Any]]:
        with progress("output", tensor.numel * given.itemsize) as advance:
            for block in blocks(tensor.shape):
                values = given.values(tensor, block)
                yield encode(normalizer.output(values, block), given.dtype)
                advance(values.nbytes)

    save_tensor(Path(path), tensor.shape, given.dtype, pieces())
