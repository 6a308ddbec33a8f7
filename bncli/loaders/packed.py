"""A checkpoint, or a tar archive of such, compressed by gzip, bzip2 or xz: unpacked into memory."""

from __future__ import annotations

from dataclasses import replace

from bncli.errors import FileError
from bncli.loaders import nested
from bncli.loaders.compression import SURE, compression, unpacked
from bncli.loaders.interface import Source
from bncli.loaders.registry import loader_of
from bncli.model import TensorFile


def detect(source: Source) -> bool:
    """Whether the file begins as one that is compressed so, and there is something in it."""
    how, inside = compression(source)
    return how in SURE and len(inside) >= nested.SMALLEST


def open_tensors(source: Source) -> TensorFile:
    """The tensors of the file that comes out; of a tar archive, of all checkpoints in it.

    Raises FileError for a damaged one, and what `refused` raises for another kind of file or one
    that is too large to be held in memory.
    """
    how, _ = compression(source)
    part = unpacked(source, how)
    try:
        file = _opened(part) if part is not None else None
    except FileError as error:
        problem = f"in its {how} compression, {error.problem}"
        raise type(error)(source.path, problem) from error
    if file is None:
        from bncli.loaders import refused

        refused.open_tensors(source)
    return replace(file, path=source.path, container=f"{file.container} in {how}")


def _opened(part: Source) -> TensorFile | None:
    """The tensors of what came out; None where it is no checkpoint."""
    if nested.detect(part) and part.archive is None:
        return nested.open_tensors(part)
    loader = loader_of(part, nested.INNER)
    return None if loader is None else loader.open_tensors(part)
