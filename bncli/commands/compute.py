"""`bncli compute`: the statistics of a batch, the running statistics after it, and a check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bncli.commands import _options as options
from bncli.report import Report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from bncli.batchnorm import Normalization
    from bncli.commands._input import Input
    from bncli.report import Value


def compute(
    inputs: options.InputsArgument,
    channel_axis: options.ChannelAxis = 1,
    dtype: options.Dtype = None,
    channel: options.Channel = None,
    per_input: Annotated[
        bool,
        typer.Option(
            "--per-input",
            help="Show the statistics of each input too.",
            rich_help_panel=options.INPUT,
        ),
    ] = False,
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
    save_output: options.SaveOutput = None,
    threads: options.Threads = None,
) -> Report:
    """Show a batch's statistics, channel by channel, and check them against PyTorch.

    Exact mean and variance, the running statistics after the batch, a summary of the normalised
    output; with --against torch, every quantity beside torch.nn.BatchNorm's, gradients included.
    """
    from bncli.batchnorm import normalization
    from bncli.commands._findings import agreement, backend_findings, closing, pass_findings
    from bncli.commands._input import open_input, parse_channels
    from bncli.commands._layer import (
        LayerFlags,
        about_pass,
        check_count,
        layer_facts,
        resolve_layer,
    )
    from bncli.commands._samples import sample_findings, samples_wanted
    from bncli.commands._tables import (
        channels_table,
        differences_table,
        inputs_table,
        output_table,
        spread,
        spread_table,
    )
    from bncli.compare import tolerance_pair
    from bncli.moments import channel_stats, merge
    from bncli.progress import progress
    from bncli.running_stats import update

    tolerance = tolerance_pair(rtol, atol, compared=against is not None)
    given = open_input(inputs, channel_axis, dtype)
    shown = parse_channels(channel, given.num_features)
    flags = LayerFlags(
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
    )
    layer = resolve_layer(flags, given)
    settings = layer.settings
    check_count(given, layer)
    read = (*(str(tensor.path) for tensor in given.tensors), *layer.read)
    if save_output is not None:
        _check_save(save_output, given)

    sample_axis = samples_wanted(given, layer)
    total = sum(tensor.numel for tensor in given.tensors)
    with progress("statistics", total * given.itemsize) as advance:
        parts = [
            channel_stats(
                tensor,
                given.channel_axis,
                dtype=given.dtype if tensor.dtype != given.dtype else None,
                sample_axis=sample_axis,
                threads=threads,
                advance=advance,
            )
            for tensor in given.tensors
        ]
    stats = merge(parts) if len(parts) > 1 else parts[0]
    norm = normalization(stats, layer.running, layer.weight, layer.bias, settings)
    after = update(layer.running, stats, settings) if layer.running is not None else None

    findings = pass_findings(stats, layer, norm)
    tables = [channels_table(stats, norm, after, shown), output_table(stats, norm, shown)]
    apart = spread(parts, stats) if len(parts) > 1 else None
    if apart is not None:
        tables.append(spread_table(apart, shown))
    findings += sample_findings(stats, parts, layer, apart)
    if per_input:
        tables.append(inputs_table([tensor.label for tensor in given.tensors], parts, shown))
    facts: dict[str, Value] = {
        "input": given.label,
        "inputs": [tensor.label for tensor in given.tensors] if len(parts) > 1 else None,
        **layer_facts(given, layer, after),
    }
    if save_output is not None:
        _save(save_output, given, norm)
        facts["saved_output"] = save_output
    verdict = ""
    checked: dict[str, list[str]] = {}
    if against is not None:
        from bncli.backends import backend
        from bncli.verify import BatchNormPass, compare_pass

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
            after,
        )
        compared, run = compare_pass(
            done, given.pooled(), backend(against), seed=seed, tolerance=tolerance
        )
        name = f"{against.value} {run.version}"
        tables.append(differences_table(compared, name))
        findings += backend_findings(compared, name, norm, given.dtype, findings)
        checked = {"": [item.quantity for item in compared]}
        facts |= {"backend": against.value, "backend_version": run.version, "seed": seed}
        verdict = agreement(compared, name, findings)
    findings.sort(key=lambda finding: -finding.severity.rank)
    return Report(
        command="compute",
        facts=facts,
        tables=tuple(tables),
        findings=tuple(findings),
        verdict=closing(verdict, findings=findings),
        read=read,
        checked=checked,
        about=about_pass(given, layer),
    )


def _check_save(path: str, given: Input) -> None:
    """Raise UsageError where the output tensor cannot be saved to `path`."""
    from bncli.errors import UsageError
    from bncli.save import check_writable, refuse_overwriting, tensor_suffix

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
    from bncli.progress import progress
    from bncli.save import save_tensor

    tensor = given.tensors[0]
    normalizer = BlockNormalizer(norm, tensor.ndim, given.channel_axis)

    def pieces() -> Iterator[NDArray[Any]]:
        with progress("output", tensor.numel * given.itemsize) as advance:
            for block in blocks(tensor.shape):
                values = given.values(tensor, block)
                yield encode(normalizer.output(values, block), given.dtype)
                advance(values.nbytes)

    save_tensor(Path(path), tensor.shape, given.dtype, pieces())
