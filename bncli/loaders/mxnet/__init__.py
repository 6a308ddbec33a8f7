"""MXNet's .params: arrays and their names; a symbol's file beside it says what the layers are."""

from __future__ import annotations

import os

from bncli.loaders.interface import ABSENT, Source
from bncli.loaders.mxnet.arrays import MAGIC, read_arrays
from bncli.loaders.mxnet.layers import layers_of
from bncli.loaders.mxnet.symbol import read_symbol, symbol_of
from bncli.model import TensorFile


def detect(source: Source) -> bool:
    """Whether the file begins as a list of MXNet's arrays does."""
    return source.head.startswith(MAGIC)


def open_tensors(source: Source) -> TensorFile:
    """The arrays by their names, "arg:" and "aux:" included.

    eps, momentum and the use of gamma are those of PREFIX-symbol.json beside PREFIX-0000.params;
    that it is missing is said.
    """
    tensors, skipped = read_arrays(source)
    path = symbol_of(source.path)
    nodes = read_symbol(path) if os.path.lexists(path) else None
    found = layers_of(tensors, nodes)
    skipped |= found.skipped
    if found.layers and nodes is None:
        skipped[path.name] = (
            f"{ABSENT}; it would tell eps, momentum, and whether gamma is used:"
            " fix_gamma, the default, makes it 1"
        )
    return TensorFile(source.path, "mxnet", tensors, found.modules, skipped, found.layers)
