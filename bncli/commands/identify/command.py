"""`bncli identify`: which normalisation made an output, or which convention an update followed."""

from __future__ import annotations

from typing import Annotated

from bncli.arguments.flags import KnownFlags, ReadingFlags
from bncli.arguments.options import argument
from bncli.commands.identify.update import Buffers
from bncli.report import Report


def identify(
    tensors: Annotated[
        list[str],
        argument(
            "INPUT... [OUTPUT]",
            "The layer's input and its output, each as PATH, or as PATH::NAME for a tensor in a "
            "file of several. Several INPUTs are joined into one batch. To identify an update of "
            "running statistics instead, leave OUTPUT out and give all four Update flags.",
        ),
    ] = (),  # type: ignore[assignment]  # of which Typer makes a list
    *,
    reading: ReadingFlags,
    layer: KnownFlags,
    buffers: Buffers,
) -> Report:
    """Tell which normalisation made OUTPUT from INPUT, or how running statistics were updated.

    Training and eval statistics, biased and unbiased variance, every usual eps and a fitted one,
    weight or bias left out, tensors swapped, channels moved, half precision: each is computed, and
    the one that leaves only rounding is named, with what else fits.
    """
    from bncli.commands.identify.output import output_report
    from bncli.commands.identify.update import update_report
    from bncli.errors import UsageError

    if buffers.specs:
        layer.refuse_any("the update of running statistics")
        return update_report(reading.open(tensors), buffers)
    if len(tensors) + (reading.values is not None) == 1:
        raise UsageError(
            "identify needs either an OUTPUT, or the running statistics before and after the "
            "batch: --running-mean-before, --running-var-before, --running-mean-after and "
            "--running-var-after."
        )
    return output_report(reading.open(tensors[:-1], layer.state), tensors[-1], layer)
