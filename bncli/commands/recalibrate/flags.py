"""The flags of `bncli recalibrate`, a group for each panel of its help, and what they refuse."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

from bncli.arguments import options
from bncli.arguments.completion import complete_code, complete_parts
from bncli.arguments.model import MODEL, ModelFlags
from bncli.arguments.options import option
from bncli.errors import UsageError
from bncli.light import dataclass
from bncli.model.capture import Propagation
from bncli.model.recalibration import Average, Goal

if TYPE_CHECKING:
    from bncli.live.recalibration import Wish

STATISTICS, EFFECT = "New statistics", "Effect"

MAX_ERROR = 0.01
"""The largest standard error of a mean, in standard deviations, unless the user says another."""


class Propagate(str, Enum):
    """The propagation whose inputs the new statistics are of."""

    EVAL = "eval"
    TRAINING = "training"


class MetricGoal(str, Enum):
    """Which values of the metric are better."""

    MAX = "max"
    MIN = "min"


@dataclass(frozen=True, slots=True)
class RunFlags(ModelFlags):
    """How a model is built and what runs through it; the checkpoint is the one to be copied."""

    checkpoint: Annotated[
        str | None,
        option(
            "The checkpoint whose statistics are renewed, and whose weights MODEL runs with; "
            "::PART chooses one of several dictionaries, such as state_dict_ema.",
            MODEL,
            metavar="FILE[::PART]",
            default=False,
            complete=complete_parts,
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class StatisticsFlags:
    """What the new statistics are; None where a flag was not given."""

    average: Annotated[
        Average | None,
        option(
            "population: the mean and variance of all values; batches: the unweighted average of "
            "the batches', as torch.optim.swa_utils.update_bn; ema: what training would leave.",
            STATISTICS,
            default=Average.POPULATION.value,
        ),
    ] = None
    momentum: Annotated[
        float | None,
        option(
            "The momentum of --average ema, in the meaning of --convention.",
            STATISTICS,
            metavar="NUMBER",
            default="each layer's own",
        ),
    ] = None
    propagate: Annotated[
        Propagate | None,
        option(
            "What the layers take in while they are measured: eval, where the new statistics of "
            "all layers suit each other, or training, where each layer normalises by the batch.",
            STATISTICS,
            default="eval; training for --average batches, ema and --stats",
        ),
    ] = None
    convention: Annotated[
        str | None,
        option(
            "Divide the variance as this framework does (`bncli conventions` lists the names).",
            STATISTICS,
            metavar="NAME",
            default="pytorch",
        ),
    ] = None
    layer: Annotated[
        list[str] | None,
        option(
            "Change only the layers that a pattern means, such as 'encoder.*'; may be repeated.",
            STATISTICS,
            metavar="GLOB",
            default="all that are not frozen",
        ),
    ] = None
    max_error: Annotated[
        float | None,
        option(
            "The largest standard error that a mean may have, in standard deviations of the "
            "channel; it falls with the number of samples.",
            STATISTICS,
            metavar="NUMBER",
            default=f"{MAX_ERROR:g}",
        ),
    ] = None

    def wish(self, *, stored: bool) -> Wish:
        """What is wanted; `stored` says that the numbers are from statistics files.

        Raises UsageError for flags that do not go together or make no sense.
        """
        from bncli.live.recalibration import Wish
        from bncli.running_stats.frameworks import convention

        average = self.average or Average.POPULATION
        if self.momentum is not None:
            if average is not Average.EMA:
                raise UsageError("--momentum is for --average ema; leave it out, or add that.")
            if not 0 <= self.momentum <= 1:
                raise UsageError(f"--momentum {self.momentum:g}: give a number from 0 to 1.")
        return Wish(
            convention(self.convention or "pytorch"),
            average,
            self._propagation(average, stored=stored),
            self.momentum,
            self.layer,
        )

    @property
    def most_error(self) -> float:
        """The largest standard error of a mean. Raises UsageError for what can be none."""
        most = MAX_ERROR if self.max_error is None else self.max_error
        if not most > 0:
            raise UsageError(f"--max-error {most:g}: give a number above 0, such as 0.01.")
        return most

    def _propagation(self, average: Average, *, stored: bool) -> Propagation:
        """The propagation that counts. Raises UsageError for eval where there is none."""
        if self.propagate is Propagate.EVAL and stored:
            raise UsageError(
                "--propagate eval needs MODEL: the statistics in a file are of a single eval pass "
                "through the wrong statistics, and would give wrong ones; leave it out to use the "
                "training pass."
            )
        if self.propagate is Propagate.EVAL and average is not Average.POPULATION:
            raise UsageError(
                f"--propagate eval does not go with --average {average.value}, which follows the "
                "batches of training; leave one out."
            )
        if self.propagate is Propagate.TRAINING or stored or average is not Average.POPULATION:
            return Propagation.TRAINING
        return Propagation.EVAL


@dataclass(frozen=True, slots=True)
class EffectFlags:
    """How the effect of the new statistics is measured."""

    metric: Annotated[
        str | None,
        option(
            "A function of your own, called with the model's output and the batch, that gives a "
            "number such as a loss or an accuracy; it decides whether the new statistics help.",
            EFFECT,
            metavar="FILE.py:NAME",
            default="the gap between the outputs of train() and eval() decides",
            complete=complete_code,
        ),
    ] = None
    metric_goal: Annotated[
        MetricGoal | None,
        option(
            "Whether a greater or a smaller metric is better.",
            EFFECT,
            default="outputs paired with the wrong samples tell, else nearer to training",
        ),
    ] = None
    no_check: Annotated[
        bool,
        option(
            "Do not measure whether the new statistics help, to save some passes over the data.",
            EFFECT,
            "--no-check",
        ),
    ] = False

    @property
    def goal(self) -> Goal:
        """Which value of the metric is better."""
        return Goal.TRAINING if self.metric_goal is None else Goal(self.metric_goal.value)

    def check(self, *, stored: bool) -> None:
        """Raise UsageError for a flag that does not apply; `stored`: there is no model to run."""
        given = (
            ("--metric", self.metric),
            ("--metric-goal", self.metric_goal),
            ("--no-check", self.no_check or None),
        )
        for flag, value in given:
            if stored and value is not None:
                raise UsageError(
                    f"{flag} does not apply to statistics files, with which no model runs; leave "
                    "it out, or name MODEL in place of --stats."
                )
        if self.metric_goal is not None and self.metric is None:
            raise UsageError("--metric-goal is for --metric, which is not given; leave it out.")
        if self.metric is not None and self.no_check:
            raise UsageError("--metric is for the check, which --no-check leaves out; give one.")


@dataclass(frozen=True, slots=True)
class SavedFlags:
    """What is written, and where to."""

    save_checkpoint: Annotated[
        str | None,
        option(
            "Write the checkpoint with the new statistics, all other bytes being the same, to this "
            "file; a checkpoint of several files to this folder.",
            options.OUTPUT,
            metavar="FILE",
            default="only say what would be written",
        ),
    ] = None
    force: Annotated[
        bool,
        option(
            "Replace a file that exists, and write statistics that do not help too.",
            options.OUTPUT,
            "--force",
        ),
    ] = False
    counter: Annotated[
        str | None,
        option(
            "What becomes of num_batches_tracked: keep the old number, or store the number of "
            "batches seen, or N.",
            options.OUTPUT,
            metavar="keep|batches|N",
            default="keep",
        ),
    ] = None
    no_verify: Annotated[
        bool,
        option(
            "Do not compare the new file with the old one afterwards.",
            options.OUTPUT,
            "--no-verify",
        ),
    ] = False

    def check(self, checkpoint: str | None) -> None:
        """Raise UsageError for a flag that needs another, and a counter that is not a number."""
        if self.save_checkpoint is not None and checkpoint is None:
            raise UsageError(
                "--save-checkpoint writes a copy of the checkpoint, which is not given; add "
                "--checkpoint FILE."
            )
        for flag, given in (("--force", self.force), ("--no-verify", self.no_verify)):
            if given and self.save_checkpoint is None:
                raise UsageError(
                    f"{flag} is for --save-checkpoint, which is not given; leave it out."
                )
        if self.counter is not None:
            if checkpoint is None:
                raise UsageError("--counter is for --checkpoint, which is not given; leave it out.")
            self.counted(0)

    @property
    def counts(self) -> bool:
        """Whether num_batches_tracked changes."""
        return self.counter not in (None, "keep")

    def counted(self, batches: int) -> int | None:
        """The new num_batches_tracked of a layer that saw this many batches; None for the old one.

        Raises UsageError for what --counter does not take.
        """
        if not self.counts:
            return None
        if self.counter == "batches":
            return batches
        text = str(self.counter)
        if not (text.isascii() and text.isdigit()) or int(text[:20]) >= 1 << 63:
            raise UsageError(
                f"--counter {text}: write keep, batches, or a number such as 0 or 1000."
            )
        return int(text)
