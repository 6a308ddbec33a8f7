"""The flags of `bncli simulate-ema`, a group for each panel of its help."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from bncli.arguments import options
from bncli.arguments.completion import complete_tensors
from bncli.arguments.flags import AgainstFlags, InputFlags
from bncli.errors import UsageError
from bncli.values import dataclass

BATCHES, RUNNING, PLAN = "Batches", "Running statistics", "Plan"


class BufferDtype(str, Enum):
    """The dtypes that the buffers may have."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True, slots=True)
class BatchFlags(InputFlags):
    """What the batches are, and in which order they come; None where a flag was not given."""

    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="The batches: a tensor each, or one to be cut up; or a .csv or .npz of per-batch "
            "statistics (batch, channel, mean, var, count).",
            show_default=False,
            autocompletion=complete_tensors,
        ),
    ] = ()  # type: ignore[assignment]  # of which Typer makes a list
    batch_axis: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Cut INPUT along this axis into batches; the axes left are a batch's.",
            rich_help_panel=BATCHES,
            show_default=False,
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Cut INPUT into batches of N samples, as a DataLoader does.",
            rich_help_panel=BATCHES,
            show_default=False,
        ),
    ] = None
    drop_last: Annotated[
        bool,
        typer.Option(
            "--drop-last",
            help="Leave out a last batch that is short.",
            rich_help_panel=BATCHES,
        ),
    ] = False
    generate: Annotated[
        str | None,
        typer.Option(
            metavar="SHAPE",
            help="Generate normal batches of this shape, such as 32,64,28,28.",
            rich_help_panel=BATCHES,
            show_default=False,
        ),
    ] = None
    batches: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="How many batches to generate.",
            rich_help_panel=BATCHES,
            show_default="100",
        ),
    ] = None
    between_std: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="NUMBER",
            help="Standard deviation of the generated batches' means, as if sorted by class.",
            rich_help_panel=BATCHES,
            show_default="0",
        ),
    ] = None
    drift: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            help="How far the generated mean moves from batch to batch.",
            rich_help_panel=BATCHES,
            show_default="0",
        ),
    ] = None
    epochs: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Go over the batches N times.", rich_help_panel=BATCHES
        ),
    ] = 1
    shuffle: Annotated[
        bool,
        typer.Option(
            "--shuffle",
            help="Shuffle anew in every epoch: the samples with --batch-size, else the batches.",
            rich_help_panel=BATCHES,
        ),
    ] = False
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Seed of the shuffling and of generated batches.",
            rich_help_panel=BATCHES,
        ),
    ] = 0


@dataclass(frozen=True, slots=True)
class RunningFlags:
    """Whose update the running statistics follow, and where they begin."""

    convention: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Whose update (bncli conventions lists them); repeat it to see several.",
            rich_help_panel=RUNNING,
            show_default="pytorch",
        ),
    ] = None
    momentum: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER|none",
            help="As the first convention means it, and converted for the others; none for the "
            "cumulative average.",
            rich_help_panel=RUNNING,
            show_default="the convention's",
        ),
    ] = None
    buffer_dtype: Annotated[
        BufferDtype,
        typer.Option(
            help="The buffers' dtype: float64 is exact, the others are PyTorch's own arithmetic.",
            rich_help_panel=RUNNING,
        ),
    ] = BufferDtype.FLOAT32
    freeze_after: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Keep the buffers as they are after N steps, as in evaluation mode.",
            rich_help_panel=RUNNING,
            show_default="never",
        ),
    ] = None
    state: Annotated[
        str | None,
        options.layer_option(
            "Start from the buffers and the counter of a checkpoint's layer.",
            "the convention's initial values",
            panel=RUNNING,
        ),
    ] = None
    running_mean: Annotated[
        str | None, options.tensor_option("Start from this running mean.", panel=RUNNING)
    ] = None
    running_var: Annotated[
        str | None, options.tensor_option("Start from this running variance.", panel=RUNNING)
    ] = None


@dataclass(frozen=True, slots=True)
class PlanFlags:
    """What the momentum is to reach."""

    reach_steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Find the momentum at which the initial value weighs 1 % after N steps.",
            rich_help_panel=PLAN,
            show_default=False,
        ),
    ] = None
    reach_noise: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            help="Find the momentum that leaves this standard error: of running_mean in standard "
            "deviations and of running_var relative to itself, the larger one.",
            rich_help_panel=PLAN,
            show_default=False,
        ),
    ] = None

    def check(self) -> None:
        """Raise UsageError where no momentum could reach it."""
        noise = self.reach_noise
        if noise is not None and not 0 < noise < 1e300:
            raise UsageError(f"--reach-noise {noise:g}: a standard error above 0, such as 0.01.")


@dataclass(frozen=True, slots=True)
class SteppedFlags(AgainstFlags):
    """What is stepped beside bncli, and the threads of the PyTorch whose arithmetic is repeated."""

    torch_threads: Annotated[
        int,
        typer.Option(
            min=1,
            max=options.MOST_THREADS,
            metavar="N",
            help="The threads of the PyTorch that is repeated: rows are summed in shares.",
            rich_help_panel=options.COMPARISON,
        ),
    ] = 1


@dataclass(frozen=True, slots=True)
class ShownFlags:
    """How much of the course is shown."""

    every: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Show every Nth step, and the last.",
            rich_help_panel=options.OUTPUT,
            show_default="all that fit",
        ),
    ] = None
    plot: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Draw the charts into a .png or .svg file (needs matplotlib).",
            rich_help_panel=options.OUTPUT,
            show_default=False,
        ),
    ] = None
