"""Python objects as files of tensors: arrays, tensors, modules, and what holds them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from bncli.dtypes import DTYPES
from bncli.errors import TensorError, UnsupportedFileError
from bncli.given import object_of
from bncli.light import np
from bncli.loaders.objects.arrays import is_array, single
from bncli.loaders.objects.recorded import is_recorded
from bncli.loaders.objects.tree import CONTAINER, holds, is_open_file, open_tree
from bncli.model import TensorFile


def open_object(path: Path) -> TensorFile:
    """The tensors of the object that `path` names; nothing of them is copied or moved yet.

    Raises TensorError, UnsupportedFileError and CorruptFileError for one that holds none.
    """
    value = object_of(path)
    if is_array(value) or _is_numbers(value):
        return TensorFile(path, CONTAINER, {"": single(value, path)})
    if is_recorded(value):
        raise UnsupportedFileError(
            path,
            "it holds the statistics of a model's layers, not their values; give it to diagnose, "
            "compute or simulate_ema.",
        )
    if is_open_file(value):
        raise UnsupportedFileError(
            path,
            "it is an open file, of which nothing is read; give its path, or what torch.load "
            "makes of it.",
        )
    if holds(value):
        return open_tree(value, path)
    raise TensorError(
        f"{path}: it is neither an array or a tensor, nor a module or a dictionary of tensors."
    )


def _is_numbers(value: object) -> bool:
    """Whether it is a number, or nested lists of numbers."""
    for _ in range(64):
        if not isinstance(value, list | tuple):
            break
        if not value:
            return True
        value = value[0]
    return isinstance(value, int | float | complex)


def is_code(value: object) -> bool:
    """Whether an object stands for code that gives a model or batches, and for no file.

    A tuple is one batch, as a file of torch.save holds one, and a list is several.
    """
    if is_array(value) or is_recorded(value) or isinstance(value, Mapping | tuple):
        return False
    return not _is_numbers(value)


def nbytes_of(path: Path) -> int:
    """The bytes that the elements of an object's tensors take. Raises as `open_object`."""
    return sum(
        ref.numel * DTYPES[ref.dtype].itemsize
        for ref in open_object(path).tensors.values()
        if ref.storage is not None
    )


def pieces_of(path: Path, number: int, nbytes: int) -> Iterator[bytes]:
    """At most `number` pieces of each tensor, evenly spread, each of some elements of a row.

    Raises as `open_object`.
    """
    for ref in open_object(path).tensors.values():
        if ref.storage is None or not ref.numel:
            continue
        yield f"{ref.name}\0{ref.dtype}\0{ref.shape}".encode()
        stored = ref.stored().ravel() if ref.ndim < 2 else ref.stored()
        rows, most = math.prod(stored.shape[:-1]), max(1, nbytes // stored.itemsize)
        for at in sorted({(rows - 1) * n // max(1, number - 1) for n in range(number)}):
            row = stored[np.unravel_index(at, stored.shape[:-1])]
            for begin in {0, max(0, len(row) - most)} if rows == 1 else {0}:
                yield row[begin : begin + most].tobytes()
