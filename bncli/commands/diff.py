"""`bncli diff`: bncli beside PyTorch, or two stored tensors, channel by channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bncli.commands import _options as options
from bncli.completion import complete_tensors
from bncli.report import Report

if TYPE_CHECKING:
    from bncli.report import Value


def diff(
    tensors: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT | ACTUAL EXPECTED",
            help="One tensor, to be normalised here and by PyTorch; or two stored ones, or two "
            "files of them, to be compared by name.",
            show_default=False,
            autocompletion=complete_tensors,
        ),
    ],
    channel_axis: options.ChannelAxis = 1,
    dtype: options.Dtype = None,
    channel: options.Channel = None,
    given_input: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="FILE[::NAME]",
            help="What ACTUAL and EXPECTED were made from: a difference is then explained, with "
            "what the Layer flags tell.",
            rich_help_panel=options.INPUT,
            show_default=False,
            autocompletion=complete_tensors,
        ),
    ] = None,
    per_quantity: Annotated[
        bool,
        typer.Option(
            "--per-quantity",
            help="A row for each quantity and channel too.",
            rich_help_panel=options.INPUT,
        ),
    ] = False,
    training: Annotated[
        bool | None,
        typer.Option(
            "--training/--eval",
            help="One mode only.",
            rich_help_panel=options.LAYER,
            show_default="both modes",
        ),
    ] = None,
    state: options.State = None,
    eps: options.Eps = None,
    momentum: options.Momentum = None,
    affine: options.Affine = None,
    track_running_stats: options.TrackRunningStats = True,
    weight: options.Weight = None,
    bias: options.Bias = None,
    running_mean: options.RunningMean = None,
    running_var: options.RunningVar = None,
    rtol: options.Rtol = None,
    atol: options.Atol = None,
    equal_nan: options.EqualNan = False,
    seed: options.Seed = 0,
    double_backward: options.DoubleBackward = False,
    device: options.Device = options.DeviceName.CPU,
    memory_format: options.MemoryFormat = None,
    torch_threads: options.TorchThreads = None,
    threads: options.Threads = None,
) -> Report:
    """Explain a difference, channel by channel: bncli against PyTorch, or two stored tensors.

    `compute --against torch` checks once; diff explains. It says how much of its tolerance each
    channel uses, what that is in ULPs and in standard deviations, the least tolerance that would
    have passed, and in float32 whether PyTorch lost digits or something is wrong.
    """
    from bncli.commands._diff_run import RunFlags, diff_run
    from bncli.commands._diff_stored import StoredFlags, diff_stored
    from bncli.commands._known import KnownFlags
    from bncli.commands._layer import LayerFlags
    from bncli.compare import tolerance_pair
    from bncli.errors import UsageError
    from bncli.verify import Path

    tolerance = tolerance_pair(rtol, atol)
    known = KnownFlags(state, eps, weight, bias, running_mean, running_var, training)
    if len(tensors) > 2:
        raise UsageError("diff takes one INPUT, or ACTUAL and EXPECTED.")
    if len(tensors) == 2:
        _refuse(
            {
                "--dtype": dtype,
                "--per-quantity": per_quantity or None,
                "--momentum": momentum,
                "--affine": affine or None,
                "--no-affine": None if affine is not False else affine,
                "--no-track-running-stats": None if track_running_stats else False,
                "--seed": seed or None,
                "--double-backward": double_backward or None,
                "--device": None if device is options.DeviceName.CPU else device.value,
                "--memory-format": memory_format,
                "--torch-threads": torch_threads,
                "--threads": threads,
            },
            "a comparison of two stored tensors",
        )
        if given_input is None:
            known.refuse_any("a comparison of two stored tensors without --input")
        stored = StoredFlags(channel_axis, channel, tolerance, equal_nan, given_input, known)
        return diff_stored((tensors[0], tensors[1]), stored)
    if given_input is not None:
        raise UsageError("--input is for ACTUAL and EXPECTED; diff INPUT has its input.")
    layer = LayerFlags(
        training=True,
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
    path = Path(
        device=device.value,
        memory_format=memory_format.value if memory_format is not None else None,
        threads=torch_threads,
        double_backward=double_backward,
    )
    chosen = RunFlags(channel_axis, dtype, channel, tolerance, seed, path, per_quantity, threads)
    return diff_run(tensors[0], training, layer, chosen)


def _refuse(flags: dict[str, Value], what: str) -> None:
    """Raise UsageError for a flag that was given, though it has no place in `what`."""
    from bncli.errors import UsageError

    for flag, value in flags.items():
        if value is not None:
            raise UsageError(f"{flag} has no place in {what}; leave it out.")
