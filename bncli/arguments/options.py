"""The flags that several commands share, each said once; one alias a flag.

Input       InputArgument InputsArgument Values ChannelAxis Dtype Channel
Layer       Eps Momentum Affine TrackRunningStats Training EitherMode Weight Bias RunningMean
            RunningVar State
Comparison  Against Rtol Atol ToleranceFactor EqualNan Seed GivenSeed Device MemoryFormat
            TorchThreads
Scale       ShardText Distributed Resume AllowMissingParts
Output      SaveOutput SaveStats PerBatch Threads

The flags that every command has, which findings count and where the report goes, are in
`bncli.arguments.output`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any

import typer

from bncli.arguments.completion import (
    Completer,
    complete_against,
    complete_layers,
    complete_tensors,
)
from bncli.backends import BackendName
from bncli.dtypes import ComputeDtype

INPUT, LAYER, COMPARISON = "Input", "Layer", "Comparison"
SCALE, FINDINGS, OUTPUT = "Scale", "Findings", "Output"

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


def option(
    text: str,
    panel: str,
    *names: str,
    metavar: str | None = None,
    default: str | bool = True,
    least: float | None = None,
    most: float | None = None,
    complete: Completer | None = None,
    parse: Callable[[str], Any] | None = None,
) -> Any:
    """The option with this help, in this panel of it; `default` is what it shows as such.

    True shows the value itself. Without `names`, the flag is called as its parameter is.
    """
    return typer.Option(
        *names,
        metavar=metavar,
        help=text,
        rich_help_panel=panel,
        show_default=default,
        min=least,
        max=most,
        autocompletion=complete,
        parser=parse,
    )


def tensor_option(
    text: str, default: str | bool = False, *, panel: str = LAYER, name: str | None = None
) -> Any:
    """The option for a tensor in a file."""
    names = filter(None, [name])
    return option(
        text, panel, *names, metavar="FILE[::NAME]", default=default, complete=complete_tensors
    )


def layer_option(text: str, default: str | bool = False, *, panel: str = LAYER) -> Any:
    """The option for a checkpoint's layer."""
    return option(text, panel, metavar="CKPT::LAYER", default=default, complete=complete_layers)


def tolerance_option(kind: str, other: str, default: str = "from rounding-error bounds") -> Any:
    """The option for one of two tolerances, which are given together."""
    text = f"{kind} tolerance for all quantities; requires {other}."
    return option(text, COMPARISON, metavar="NUMBER", default=default)


def argument(metavar: str, text: str, complete: Completer = complete_tensors) -> Any:
    """The argument for tensors, or for what else the shell is to `complete`."""
    return typer.Argument(metavar=metavar, help=text, show_default=False, autocompletion=complete)


TENSOR = (
    "The input tensor: PATH, or PATH::NAME for one tensor in a file of several. A .csv file has "
    "one row per sample. Use - to read .npy data, a JSON array or CSV from standard input."
)
"""What an INPUT may be."""
InputsArgument = Annotated[
    list[str],
    argument(
        "INPUT...",
        f"{TENSOR} Several INPUTs are joined into one batch. Or statistics files, which "
        "are merged; ::LAYER chooses one of several layers.",
    ),
]
InputArgument = Annotated[
    str | None,
    argument("INPUT", TENSOR),
]
Values = Annotated[
    str | None,
    option(
        "The numbers themselves, instead of INPUT: '[[1, 2], [3, 4]]' is two samples of two "
        "channels, in float32.",
        INPUT,
        metavar="LISTS",
        default=False,
    ),
]
ChannelAxis = Annotated[
    int | None,
    option(
        "The channel axis; -1 for channels-last data.",
        INPUT,
        metavar="N",
        default="that of the --state layer, by its file or its framework, otherwise 1",
    ),
]
Dtype = Annotated[
    ComputeDtype | None,
    option(
        "Convert the input to this dtype first; required for integers and booleans.",
        INPUT,
        default="the input's",
    ),
]
Download = Annotated[
    bool,
    option(
        "Fetch each file that is named by a URL (https://..., s3://...) to this machine first, "
        "instead of reading only the parts that are needed.",
        INPUT,
        "--download",
    ),
]
NoChecksum = Annotated[
    bool,
    option(
        "Do not verify the file's checksums, so that a damaged file can be read.",
        INPUT,
        "--no-checksum",
    ),
]
"""Every command that reads files has it, without a word of its own: see `bncli.commands`."""
Channel = Annotated[
    list[str] | None,
    option(
        "Show only these channels, such as 0,3,8-11; may be repeated.",
        INPUT,
        metavar="LIST",
        default="all",
    ),
]
Training = Annotated[
    bool,
    option(
        "Normalise with the batch statistics and update the running statistics (--training), or "
        "normalise with the running statistics (--eval).",
        LAYER,
        "--training/--eval",
    ),
]
EitherMode = Annotated[
    bool | None, option("The expected mode.", LAYER, "--training/--eval", default="either")
]
State = Annotated[
    str | None,
    layer_option(
        "Take weight, bias and the running statistics from a checkpoint's layer.",
        "a fresh module's",
    ),
]
Eps = Annotated[
    float | None,
    option(
        "The number added to the variance before the square root.",
        LAYER,
        metavar="NUMBER",
        default="1e-05",
    ),
]
Momentum = Annotated[
    str | None,
    option(
        "The weight of the new batch in the running statistics; none for the cumulative average.",
        LAYER,
        metavar="NUMBER|none",
        default="0.1",
    ),
]
Affine = Annotated[
    bool | None,
    option("Scale by weight and shift by bias.", LAYER, "--affine/--no-affine", default="affine"),
]
TrackRunningStats = Annotated[bool, option("Keep running_mean and running_var.", LAYER)]
Weight = Annotated[str | None, tensor_option("The weight of each channel.", "1")]
Bias = Annotated[str | None, tensor_option("The bias of each channel.", "0")]
RunningMean = Annotated[str | None, tensor_option("The running mean before this batch.", "0")]
RunningVar = Annotated[str | None, tensor_option("The running variance before this batch.", "1")]
TORCH = BackendName.TORCH.value
"""The library that most results are compared with."""


def against_option(text: str, default: str) -> Any:
    """The option for another implementation of BatchNorm; `text` says what is done with it."""
    return option(
        f"{text}: {' or '.join(name.value for name in BackendName)}, or a torch.nn.Module class or "
        "a function of your own, as package.module:name or file.py:name, which is imported and "
        "run.",
        COMPARISON,
        metavar="|".join([*(name.value for name in BackendName), "CODE"]),
        default=default,
        complete=complete_against,
    )


Against = Annotated[
    str | None,
    against_option(
        "Compare with this implementation (`bncli diff` explains a difference)", "no comparison"
    ),
]
Rtol = Annotated[float | None, tolerance_option("Relative", "--atol")]
Atol = Annotated[float | None, tolerance_option("Absolute", "--rtol")]
ToleranceFactor = Annotated[
    float | None,
    option(
        "Multiply the tolerances that follow from the arithmetic by N, 1 or more: for hardware "
        "that computes with fewer digits than its dtype has.",
        COMPARISON,
        metavar="N",
        default="1",
    ),
]
EqualNan = Annotated[
    bool,
    option(
        "Treat NaN as equal to NaN at the same position in ACTUAL and EXPECTED. (`diff INPUT` "
        "always does.)",
        COMPARISON,
        "--equal-nan",
    ),
]
Device = Annotated[
    DeviceName | None,
    option("Where PyTorch runs.", COMPARISON, default=DeviceName.CPU.value),
]
MemoryFormat = Annotated[
    MemoryFormatName | None,
    option("The memory format of PyTorch's input.", COMPARISON, default="the input's"),
]
TorchThreads = Annotated[
    int | None,
    option(
        "Number of threads PyTorch uses; it affects the order in which rows are summed.",
        COMPARISON,
        metavar="N",
        default="PyTorch's own",
        least=1,
        most=MOST_THREADS,
    ),
]
_SEED = option(
    "Seed of the upstream gradient for the backward pass.",
    COMPARISON,
    metavar="N",
    default="0",
    least=0,
)
Seed = Annotated[int, _SEED]
GivenSeed = Annotated[int | None, _SEED]
"""The same where it matters whether the flag was given."""
ShardText = Annotated[
    str | None,
    option(
        "Read only shard K of N, K from 0 to N-1: every N-th input, in sorted order, from number "
        "K on (of capture's data, every N-th batch). `auto` takes K and N from torchrun's or a "
        "Slurm array's variables.",
        SCALE,
        "--shard",
        metavar="K/N|auto",
        default="all inputs",
    ),
]
Distributed = Annotated[
    bool,
    option(
        "Divide the inputs among the processes that torchrun started; rank 0 merges the results "
        "and makes the report.",
        SCALE,
        "--distributed",
    ),
]
Resume = Annotated[
    bool,
    option(
        "If the file to write exists, use what it holds, and read only the inputs that it lacks. "
        "It must have been made with the same flags.",
        SCALE,
        "--resume",
    ),
]
AllowMissingParts = Annotated[
    bool,
    option(
        "Merge the parts even if some are missing; report that as a warning (BN907).",
        SCALE,
        "--allow-missing-parts",
    ),
]
SaveOutput = Annotated[
    str | None,
    option(
        "Save the normalised tensor, in the input's dtype, as .npy or .pt.", OUTPUT, metavar="FILE"
    ),
]
SaveStats = Annotated[
    str | None,
    option(
        "Save the statistics, as sums that can be merged, for bncli compute, diagnose and "
        "simulate-ema.",
        OUTPUT,
        metavar="FILE.npz",
    ),
]
PerBatch = Annotated[
    bool,
    option(
        "Keep the mean and the variance of every batch too, for simulate-ema; requires "
        "--save-stats.",
        OUTPUT,
        "--per-batch",
    ),
]
Threads = Annotated[
    int | None,
    option(
        "How many threads to use. Where NumKong sums, more than 2 do not help.",
        OUTPUT,
        metavar="N",
        default="all cores, up to 6",
        least=1,
        most=MOST_THREADS,
    ),
]
