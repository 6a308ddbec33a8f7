"""Every batch that one layer saw, from a statistics file that keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.errors import MissingTensorError
from bncli.light import np
from bncli.loaders import split_spec
from bncli.loaders.interface import is_statistics_file
from bncli.model.capture import Propagation
from bncli.running_stats.batch_table import BatchTable
from bncli.running_stats.scatter import Samples

if TYPE_CHECKING:
    from bncli.model.capture import InputSums

ORDER = (Propagation.TRAINING, Propagation.AS_TRAINED, Propagation.EVAL, Propagation.RENEWED)
"""The propagations, those first in which running statistics are updated."""


def is_captured(spec: str) -> bool:
    """Whether INPUT is a statistics file, with or without a layer's name."""
    return is_statistics_file(split_spec(spec)[0])


def captured_batches(spec: str) -> tuple[BatchTable, Samples | None]:
    """The batches in the order in which they came, and how their samples scatter.

    Raises FileError, and MissingTensorError where the file has no single batches.
    """
    from bncli.loaders.statistics import find_layer, open_statistics

    path, name = split_spec(spec)
    capture = open_statistics(path)
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


def _samples(sums: InputSums, batches: BatchTable) -> Samples | None:
    """The samples, of which every one has as many values as the others; None where it is not so."""
    number = np.asarray(batches.count * (sums.samples / max(sums.values, 1)), np.float64)
    if (number < 1).any() or (number != np.round(number)).any():
        return None
    return Samples(sums.sample_squares, number)
