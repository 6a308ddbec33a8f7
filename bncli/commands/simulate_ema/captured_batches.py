"""Every batch that one layer saw, from a statistics file that keeps them, or from its parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bncli.errors import FileError, MissingTensorError, UsageError
from bncli.light import np
from bncli.loaders import split_spec
from bncli.loaders.interface import is_statistics_file
from bncli.model.capture import Propagation
from bncli.running_stats.batch_table import BatchTable
from bncli.running_stats.scatter import Samples

if TYPE_CHECKING:
    from bncli.model.capture import Capture, InputSums

ORDER = (Propagation.TRAINING, Propagation.AS_TRAINED, Propagation.EVAL, Propagation.RENEWED)
"""The propagations, those first in which running statistics are updated."""


def is_captured(spec: str) -> bool:
    """Whether INPUT is a statistics file, with or without a layer's name."""
    return is_statistics_file(split_spec(spec)[0])


def captured_batches(specs: Sequence[str]) -> tuple[BatchTable, Samples | None]:
    """The batches in the order in which they came, and how their samples scatter.

    Several files are all parts of one whole, whose batches are in the order of one process. Raises
    UsageError for several files whose batches have no order, FileError as `merge_captures`, and
    MissingTensorError where a file has no single batches.
    """
    from bncli.loaders.statistics import find_layer, merge_captures, open_statistics

    pairs = [split_spec(spec) for spec in specs]
    paths = [path for path, _ in pairs]
    path, name = pairs[0]
    if any(other != name for _, other in pairs):
        raise UsageError(f"{specs[0]} and the other INPUTs name several layers; give one name.")
    captures = [open_statistics(each) for each in paths]
    capture = merge_captures(paths, captures)
    if len(captures) > 1:
        _check_order(paths, captures)
    layer = find_layer(path, capture, name)
    kept = [each for each in ORDER if (layer.name, each) in capture.per_batch]
    if not kept or not len(capture.per_batch[layer.name, kept[0]]["count"]):
        raise MissingTensorError(
            path,
            "it holds the sums over all batches and not each batch; save it again with "
            "--per-batch.",
        )
    table = capture.per_batch[layer.name, kept[0]]
    batches = BatchTable(np.asarray(table["count"], np.int64), table["mean"], table["var"])
    sums = layer.seen.get(kept[0])
    return batches, None if sums is None else _samples(sums, batches)


def _check_order(paths: Sequence[Path], captures: Sequence[Capture]) -> None:
    """Raise where it is not known in which order the batches of several files come."""
    for path, capture in zip(paths, captures, strict=True):
        if capture.part.n == 1:
            raise UsageError(
                f"{path} holds statistics of batches, whose order among those of other files is "
                "not known: give no other file with it."
            )
        if capture.left_out:
            raise FileError(
                path,
                "batches of one sample were left out of it, so the order of all batches is not "
                "known; capture the data again without them, or in one process.",
            )


def _samples(sums: InputSums, batches: BatchTable) -> Samples | None:
    """The samples, of which every one has as many values as the others; None where it is not so."""
    number = np.asarray(batches.count * (sums.samples / max(sums.values, 1)), np.float64)
    if (number < 1).any() or (number != np.round(number)).any():
        return None
    return Samples(sums.sample_squares, number)
