"""The flags that several commands share, each said once; one alias a flag.

Input       InputArgument InputsArgument ChannelAxis Dtype Channel
Layer       Eps Momentum Affine TrackRunningStats Training EitherMode Weight Bias RunningMean
            RunningVar State
Comparison  Against Rtol Atol EqualNan Seed Device MemoryFormat TorchThreads
Output      SaveOutput Threads

The flags that every command has, which findings count and where the report goes, are in
`bncli.arguments.output`.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

import typer

from bncli.arguments.completion import complete_layers, complete_tensors
from bncli.backends import BackendName
from bncli.dtypes import ComputeDtype

INPUT, LAYER, COMPARISON = "Input", "Layer", "Comparison"
FINDINGS, OUTPUT = "Findings", "Output"

MOST_THREADS = 1024
"""Threads that a library is asked for at most: with too many for the system, PyTorch crashes."""


class DeviceName(str, Enum):
    """Where a backend runs."""

    CPU = "cpu"
    CUDA = "cuda"


class MemoryFormatName(str, Enum):
    """How a tensor lies in memory."""

    CONTIGUOUS = "contiguous"
    CHANNELS_LAST = "channels_last"


def tensor_option(
    text: str, default: str | bool = False, *, panel: str = LAYER, name: str | None = None
) -> Any:
    """The option for a tensor in a file; `default` is what the help shows as such."""
    return typer.Option(
        *filter(None, [name]),
        metavar="FILE[::NAME]",
        help=text,
        rich_help_panel=panel,
        show_default=default,
        autocompletion=complete_tensors,
    )


def layer_option(text: str, default: str | bool = False, *, panel: str = LAYER) -> Any:
    """The option for a checkpoint's layer."""
    return typer.Option(
        metavar="CKPT::LAYER",
        help=text,
        rich_help_panel=panel,
        show_default=default,
        autocompletion=complete_layers,
    )


InputsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="A tensor: PATH, or PATH::NAME inside a file of several; - is .npy on standard input. "
        "Several are shards of one population.",
        show_default=False,
        autocompletion=complete_tensors,
    ),
]
InputArgument = Annotated[
    str,
    typer.Argument(
        metavar="INPUT",
        help="A tensor: PATH, or PATH::NAME inside a file of several; - is .npy on standard input.",
        show_default=False,
        autocompletion=complete_tensors,
    ),
]
ChannelAxis = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="The axis of the channels; -1 for channels-last data.",
        rich_help_panel=INPUT,
    ),
]
Dtype = Annotated[
    ComputeDtype | None,
    typer.Option(
        help="Cast the input to this dtype first; integers and booleans need it.",
        rich_help_panel=INPUT,
        show_default="the input's",
    ),
]
NoChecksum = Annotated[
    bool,
    typer.Option(
        "--no-checksum",
        help="Read damaged values too: do not compare the checksums that archives keep.",
        rich_help_panel=INPUT,
    ),
]
"""Every command that reads files has it, without a word of its own: see `bncli.commands`."""
Channel = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LIST",
        help="Show these channels only, such as 0,3,8-11; may be repeated.",
        rich_help_panel=INPUT,
        show_default="all",
    ),
]
Training = Annotated[
    bool,
    typer.Option(
        "--training/--eval",
        help="Normalise with the batch and update the running statistics, or normalise with "
        "the stored ones.",
        rich_help_panel=LAYER,
    ),
]
EitherMode = Annotated[
    bool | None,
    typer.Option(
        "--training/--eval",
        help="The mode that is expected.",
        rich_help_panel=LAYER,
        show_default="either",
    ),
]
State = Annotated[
    str | None,
    layer_option(
        "Take weight, bias, running_mean, running_var and the counter from a checkpoint's layer.",
        "a fresh module's",
    ),
]
Eps = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        help="Added to the variance under the root.",
        rich_help_panel=LAYER,
        show_default="1e-05",
    ),
]
Momentum = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBER|none",
        help="The weight of the new batch in the running statistics; none for the cumulative "
        "average.",
        rich_help_panel=LAYER,
        show_default="0.1",
    ),
]
Affine = Annotated[
    bool | None,
    typer.Option(
        "--affine/--no-affine",
        help="Scale by weight and shift by bias.",
        rich_help_panel=LAYER,
        show_default="affine",
    ),
]
TrackRunningStats = Annotated[
    bool,
    typer.Option(help="Keep running_mean and running_var.", rich_help_panel=LAYER),
]
Weight = Annotated[str | None, tensor_option("The weight of each channel.", "1")]
Bias = Annotated[str | None, tensor_option("The bias of each channel.", "0")]
RunningMean = Annotated[str | None, tensor_option("The running mean before this batch.", "0")]
RunningVar = Annotated[str | None, tensor_option("The running variance before this batch.", "1")]
Against = Annotated[
    BackendName | None,
    typer.Option(
        help="Run this implementation on the same input and compare; `bncli diff` explains.",
        rich_help_panel=COMPARISON,
        show_default="no comparison",
    ),
]
Rtol = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        help="Relative tolerance for every quantity; goes with --atol.",
        rich_help_panel=COMPARISON,
        show_default="from the arithmetic",
    ),
]
Atol = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        help="Absolute tolerance for every quantity; goes with --rtol.",
        rich_help_panel=COMPARISON,
        show_default="from the arithmetic",
    ),
]
EqualNan = Annotated[
    bool,
    typer.Option(
        "--equal-nan",
        help="NaN in ACTUAL and EXPECTED at the same place is no mismatch. diff INPUT takes the "
        "flag without effect: there it never is one.",
        rich_help_panel=COMPARISON,
    ),
]
Device = Annotated[
    DeviceName,
    typer.Option(help="Where PyTorch runs.", rich_help_panel=COMPARISON),
]
MemoryFormat = Annotated[
    MemoryFormatName | None,
    typer.Option(
        help="The memory format of PyTorch's input.",
        rich_help_panel=COMPARISON,
        show_default="the input's",
    ),
]
TorchThreads = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MOST_THREADS,
        metavar="N",
        help="PyTorch's threads: rows are shared out to them, and summed in that order.",
        rich_help_panel=COMPARISON,
        show_default="PyTorch's own",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="N",
        help="Seed of the upstream gradient for the backward pass.",
        rich_help_panel=COMPARISON,
    ),
]
SaveOutput = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Keep the normalised tensor, in the input's dtype, as .npy or .pt.",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MOST_THREADS,
        metavar="N",
        help="bncli's own threads.",
        rich_help_panel=OUTPUT,
        show_default="all cores, up to 8",
    ),
]
