"""Standard input: .npy by its magic, JSON by its first bracket, otherwise a table of numbers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import BinaryIO

from bncli.errors import CorruptFileError, FileError, UnsupportedFileError
from bncli.files.reading import remember_stream
from bncli.loaders.interface import HEAD, STANDARD_INPUT
from bncli.model import TensorFile


def open_standard_input() -> TensorFile:
    """The one tensor that is piped in; it is read into memory at once.

    Raises FileError where there is nothing to read, and for what is none of the three.
    """
    if sys.stdin is None or sys.stdin.closed:
        raise FileError(STANDARD_INPUT, "standard input is closed; pipe a tensor into it.")
    try:
        return _from_stream(sys.stdin.buffer)
    except OSError as error:  # a folder, or a terminal that is gone
        raise FileError(
            STANDARD_INPUT, f"standard input cannot be read ({error.strerror})."
        ) from error


def _from_stream(stream: BinaryIO) -> TensorFile:
    """What `open_standard_input` gives."""
    from bncli.loaders import npy

    remember_stream(stream)
    head = stream.read(len(npy.MAGIC) + 2)
    if head.startswith(npy.MAGIC):
        return npy.from_stream(stream, head)
    from bncli.loaders import csv, json
    from bncli.loaders.typed import CHUNK, head_text

    head += stream.read(HEAD - len(head))
    if not head:
        raise CorruptFileError(
            STANDARD_INPUT,
            "standard input is empty; pipe an .npy, a JSON array or CSV into it.",
        )
    text = head_text(head)
    if not text:
        raise UnsupportedFileError(
            STANDARD_INPUT,
            "standard input is neither .npy nor text; save other formats to a file and name that.",
        )

    def chunks() -> Iterator[bytes]:
        yield head
        while chunk := stream.read(CHUNK):
            yield chunk

    if text.lstrip().startswith("["):
        return json.nested_lists(STANDARD_INPUT, chunks())
    return csv.table(STANDARD_INPUT, chunks())
