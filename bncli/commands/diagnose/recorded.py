"""`bncli.capture(model)`: in Python, what `bncli capture` and `bncli diagnose` do in a terminal."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from bncli.commands.diagnose.command import report_of
from bncli.commands.diagnose.source import Run
from bncli.errors import UsageError
from bncli.gate.verdict import with_verdict
from bncli.light import dataclass
from bncli.live.recording import Recording
from bncli.model.capture import Propagation
from bncli.renderers import Format, renderer
from bncli.renderers.interface import RenderContext
from bncli.report import FailOn, Report

if TYPE_CHECKING:
    from torch import nn


def capture(model: nn.Module, *, frozen: Sequence[str] = (), per_batch: bool = False) -> Recorded:
    """Take in what the BatchNorm layers of a model see while it runs inside a `with` block.

        with bncli.capture(model.train()) as stats:
            for batch in loader:
                model(batch)
        stats.save("stats.npz")
        print(stats.diagnose())

    Nothing in the model is changed, and training goes on as without it. Each pass counts as
    training or as evaluation by the mode of the layers, and a diagnosis judges those in training;
    of a model whose weights an optimiser moves meanwhile, it judges the input alone. `frozen` has
    patterns of layers that keep their statistics in training too, such as "backbone.*", and
    `per_batch` keeps the mean and variance of every batch.

    Raises UsageError for what is no model, and for a pattern that fits no layer.
    """
    return Recorded(model, frozen=frozen, per_batch=per_batch)


class Recorded(Recording):
    """What the layers of a model saw, to be saved and diagnosed."""

    def diagnose(self, *, train_batch_size: int | None = None) -> PrintedReport:
        """Why the model is good in training and bad in evaluation; `print` shows it.

        Layers are judged by what they saw in training. Repairs are not tried, since the batches are
        not kept. `train_batch_size` is as --train-batch-size. Raises UsageError where the model ran
        only in eval mode, and ModelError where a layer's input could not be taken in.
        """
        seen = self.capture
        if seen.norms and not any(Propagation.TRAINING in layer.seen for layer in seen.norms):
            raise UsageError(
                "stats.diagnose: the model ran only in eval mode. Layers are judged by what they "
                "see in train mode: inside the block, run a few batches after model.train() as "
                "well."
            )
        names = (*(layer.name for layer in seen.norms), *seen.uncalled)
        done = Run(seen, None, str(seen.source["class"]), names, "", ())
        report = report_of(done, train_batch_size=train_batch_size)
        return PrintedReport.of(with_verdict(_answered(report), report.exit_code()))


def _answered(report: Report) -> Report:
    """The report with its answer made, of all findings."""
    from dataclasses import replace

    if not callable(report.answer):
        return report
    return replace(report, answer=report.answer(report, FailOn.ERROR))


@dataclass(frozen=True, slots=True)
class PrintedReport(Report):
    """A report whose text is what people see of it."""

    @classmethod
    def of(cls, report: Report) -> PrintedReport:
        """The same report."""
        return cls(**{field.name: getattr(report, field.name) for field in fields(report)})

    def __str__(self) -> str:
        """The report as a terminal of this width shows it."""
        context = RenderContext(self.exit_code(), shutil.get_terminal_size().columns)
        return renderer(Format.TABLE)(self, context).rstrip("\n")

    def __repr__(self) -> str:
        """The same, as a notebook shows it."""
        return str(self)
