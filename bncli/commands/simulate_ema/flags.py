"""The flags of `bncli simulate-ema`, a group for each panel of its help."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from bncli.arguments import options
from bncli.arguments.flags import AgainstFlags, InputFlags
from bncli.arguments.options import argument, option
from bncli.errors import UsageError
from bncli.light import dataclass

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
        argument(
            "INPUT...",
            "The batches: one tensor per batch; or a single tensor to split with --batch-size or "
            "--batch-axis; or a .csv or .npz table of per-batch statistics (batch, channel, mean, "
            "var, count); or a statistics file saved with --per-batch, in which ::LAYER chooses "
            "one of several layers.",
        ),
    ] = ()  # type: ignore[assignment]  # of which Typer makes a list
    batch_axis: Annotated[
        int | None,
        option(
            "Split INPUT along this axis; each slice, without the axis, is a batch.",
            BATCHES,
            metavar="N",
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        option(
            "Split INPUT into batches of N samples, as a DataLoader does.",
            BATCHES,
            metavar="N",
            least=1,
        ),
    ] = None
    drop_last: Annotated[
        bool,
        option(
            "Leave out the last batch if it is smaller than the others.", BATCHES, "--drop-last"
        ),
    ] = False
    generate: Annotated[
        str | None,
        option(
            "Generate normal batches of this shape, such as 32,64,28,28.", BATCHES, metavar="SHAPE"
        ),
    ] = None
    batches: Annotated[
        int | None,
        option("Number of batches to generate.", BATCHES, metavar="N", default="100", least=1),
    ] = None
    between_std: Annotated[
        float | None,
        option(
            "Standard deviation of the means of the generated batches; above 0, it imitates data "
            "sorted by class.",
            BATCHES,
            metavar="NUMBER",
            default="0",
            least=0,
        ),
    ] = None
    drift: Annotated[
        float | None,
        option(
            "How far the generated mean moves from batch to batch.",
            BATCHES,
            metavar="NUMBER",
            default="0",
        ),
    ] = None
    epochs: Annotated[
        int, option("Go over the batches N times.", BATCHES, metavar="N", least=1)
    ] = 1
    shuffle: Annotated[
        bool,
        option(
            "Shuffle in every epoch: the samples with --batch-size, otherwise the batches.",
            BATCHES,
            "--shuffle",
        ),
    ] = False
    seed: Annotated[
        int,
        option("Seed of the shuffling and of generated batches.", BATCHES, metavar="N", least=0),
    ] = 0


@dataclass(frozen=True, slots=True)
class RunningFlags:
    """Whose update the running statistics follow, and where they begin."""

    convention: Annotated[
        list[str] | None,
        option(
            "Use this framework's update rule (`bncli conventions` lists the names); repeat to "
            "compare several.",
            RUNNING,
            metavar="NAME",
            default="that of --state, if its file says one, otherwise pytorch",
        ),
    ] = None
    momentum: Annotated[
        str | None,
        option(
            "The momentum, in the meaning of the first --convention; converted for the others. Use "
            "none for the cumulative average.",
            RUNNING,
            metavar="NUMBER|none",
            default="the convention's",
        ),
    ] = None
    buffer_dtype: Annotated[
        BufferDtype,
        option(
            "The dtype of the running statistics: float64 avoids float32's rounding, the others "
            "reproduce PyTorch's arithmetic.",
            RUNNING,
        ),
    ] = BufferDtype.FLOAT32
    freeze_after: Annotated[
        int | None,
        option(
            "Freeze the buffers after N steps, as evaluation mode does.",
            RUNNING,
            metavar="N",
            default="never",
            least=0,
        ),
    ] = None
    state: Annotated[
        str | None,
        options.layer_option(
            "Start from the running statistics of a checkpoint's layer.",
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
    """What a momentum should achieve."""

    reach_steps: Annotated[
        int | None,
        option(
            "Find the momentum that leaves 1% of the initial value after N steps.",
            PLAN,
            metavar="N",
            least=1,
        ),
    ] = None
    reach_noise: Annotated[
        float | None,
        option(
            "Find the momentum for which neither running_mean (in standard deviations of the data) "
            "nor running_var (as a fraction of its value) has a standard error above this.",
            PLAN,
            metavar="NUMBER",
        ),
    ] = None

    def check(self) -> None:
        """Raise UsageError if no momentum can achieve it."""
        noise = self.reach_noise
        if noise is not None and not 0 < noise < 1e300:
            raise UsageError(
                f"--reach-noise {noise:g}: give a standard error above 0, such as 0.01."
            )


@dataclass(frozen=True, slots=True)
class SteppedFlags(AgainstFlags):
    """The backend that takes the same steps, and the threads of the PyTorch that is repeated."""

    torch_threads: Annotated[
        int,
        option(
            "The number of threads to assume when reproducing PyTorch's float32 sums, which depend "
            "on it.",
            options.COMPARISON,
            metavar="N",
            least=1,
            most=options.MOST_THREADS,
        ),
    ] = 1


@dataclass(frozen=True, slots=True)
class ShownFlags:
    """How much of the course is shown."""

    every: Annotated[
        int | None,
        option(
            "Show every Nth step, and the last one.",
            options.OUTPUT,
            metavar="N",
            default="a few, spaced logarithmically; more with -v",
            least=1,
        ),
    ] = None
    chart: Annotated[
        bool,
        option(
            "Below the table, draw a text chart of how the running statistics develop.",
            options.OUTPUT,
            "--chart",
        ),
    ] = False
    plot: Annotated[
        str | None,
        option(
            "Draw the pictures of an HTML report in a .png or .svg file (needs matplotlib).",
            options.OUTPUT,
            metavar="FILE",
        ),
    ] = None
