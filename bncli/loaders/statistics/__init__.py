"""The statistics file: what the BatchNorm layers of a model saw, or one tensor, in sums that merge.

An .npz that `numpy.load` opens. Its member `bncli.json` is the header: one strict JSON object with
the format version, where the numbers are from, and all that is not an array. Every array lies in a
column, with the channels of all layers one behind the other in the header's order:

    layer                           which layer a channel is of
    training/mean, training/var     what the layers saw in one propagation, for people;
    training/within, ...            every array of `InputSums`, and every number of it by layer
    state/weight, ...               the layers' own tensors, NaN where a layer has none
    kernel/3/sums, kernel/3/bias    the `InputKernel` of layer 3
    outputs/count, ...              `OutputSums`, one output behind the other
    per_batch/training/3/mean, ...  every batch of layer 3, where that was asked for

What a layer has not seen is NaN or 0. Reading gives every number back, bit by bit; `mean` and `var`
follow from the others and are not read.
"""

from __future__ import annotations

from bncli.loaders.interface import is_statistics_file
from bncli.loaders.statistics.file import (
    check_statistics_path,
    open_statistics,
    write_statistics,
)
from bncli.loaders.statistics.layers import find_layer, layer_names, layer_state
from bncli.loaders.statistics.merging import merge_captures, read_statistics

__all__ = [
    "check_statistics_path",
    "find_layer",
    "is_statistics_file",
    "layer_names",
    "layer_state",
    "merge_captures",
    "open_statistics",
    "read_statistics",
    "write_statistics",
]
