"""A table of numbers as text: rows are samples and columns channels, so the shape is (N, C).

Between the cells stands what the first row of numbers has: semicolons, tabs, commas or blanks.
Empty lines and those that begin with # are left out, and so is a first line of names.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.files.reading import current
from bncli.loaders.interface import Source, check_regular, open_source
from bncli.loaders.names import quoted
from bncli.loaders.probes import is_html
from bncli.loaders.typed import content, decoded, fault, first_fault, head_text, pieces, tensor_file
from bncli.model import TensorFile

STATISTICS = ("batch", "channel", "mean", "var", "count")
"""The columns of a table of batches' statistics, which is not a tensor."""
SUFFIXES = (".csv", ".tsv")
POINTER = "version https://git-lfs"
HEAD = 1 << 16
"""How many first bytes are looked at; one row may fill a page."""
_NAME = re.compile(r"[^\W\d]|[\"']|^\s*$")
"""What a cell of a header has: a letter, or quotation marks; one that is empty is refused."""
DELIMITERS = ";\t,"
"""In this order, so that a decimal comma is not taken for a delimiter; otherwise blanks."""


def detect(source: Source) -> bool:
    """Whether it begins with rows of numbers of one length, below names or not.

    A file that is called .csv need not, so that it is told what is wrong with its numbers.
    """
    text = head_text(source.head_of(min(HEAD, source.size - source.start)))
    if text and source.path.suffix.lower() in SUFFIXES:
        return not is_html(source) and not text.startswith(POINTER)
    lines = [line for _, line in _rows(text.split("\n"))]
    if source.size - source.start > HEAD and len(lines) > 1:
        del lines[-1]  # which goes on
    if lines and _is_header(_cells(lines[0])):
        del lines[0]
    if not lines:
        return False
    delimiter = _delimiter(lines[0])
    rows = [line.split(delimiter) for line in lines[:2]]
    if source.size - source.start > HEAD and len(lines) == 1:
        rows[0].pop()  # a cell that may go on
    return len(rows[0]) == len(rows[-1]) and all(_is_number(cell) for row in rows for cell in row)


def open_tensors(source: Source) -> TensorFile:
    """The table, read at once: its shape is known once its last row is."""
    return table(source.path, content(source))


def header(path: Path) -> list[str]:
    """The names in the first line of a file; none where numbers stand there, or if it is not text.

    Raises FileError where the file cannot be read.
    """
    check_regular(path)
    with open_source(path) as source:
        text = head_text(source.head_of(min(HEAD, source.size)))
    _, line = next(_rows(text.split("\n")), (0, ""))
    cells = _cells(line)
    return list(map(_bare, cells)) if _is_header(cells) else []


def table(path: Path, chunks: Iterable[bytes]) -> TensorFile:
    """The tensor that the bytes of a table are, float32 of shape (rows, columns).

    Raises CorruptFileError for a cell that is not a number and for rows of different lengths, and
    UnsupportedFileError for a table of batches' statistics.
    """
    rows = _rows(
        line
        for piece in pieces(path, decoded(path, chunks), "\n")
        for line in piece.removesuffix("\n").split("\n")
    )
    first = next(rows, None)
    if first is not None and _is_header(_cells(first[1])):
        _check_header(path, *first)
        first = next(rows, None)
    if first is None:
        raise CorruptFileError(path, "there are no numbers in it; write a row for each sample.")
    delimiter = _delimiter(first[1])
    top = first[1].split(delimiter)
    values = array("d")
    number_of_rows = 0
    for at, line in chain([first], rows):
        cells = line.split(delimiter)
        if len(cells) != len(top):
            raise CorruptFileError(
                path,
                f"line {at} has {_count(cells)} and line {first[0]} has {len(top)}; every row has"
                " a number for each channel.",
            )
        if "_" in line:
            raise _not_a_number(path, at, cells)
        try:
            values.extend(map(float, cells))
        except ValueError:
            raise _not_a_number(path, at, cells) from None
        number_of_rows += 1
        if number_of_rows == 2:
            _note_numbered_names(path, top, cells)
    return tensor_file(path, "csv", values, (number_of_rows, len(top)))


def _rows(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """The lines that hold something, each with its number from 1."""
    for at, line in enumerate(lines, 1):
        bare = line.lstrip()
        if bare and bare[0] != "#":
            yield at, line


def _delimiter(line: str) -> str | None:
    """What stands between the cells of a line; None for blanks."""
    return next((mark for mark in DELIMITERS if mark in line), None)


def _cells(line: str) -> list[str]:
    return line.split(_delimiter(line))


def _is_number(cell: str) -> bool:
    return not fault(cell)


def _is_header(cells: list[str]) -> bool:
    """Whether a first line has names, or begins with an empty cell, as above an index."""
    if not cells or not _bare(cells[0]):
        return True
    return not any(map(_is_number, cells)) and all(map(_NAME.search, cells))


def _bare(cell: str) -> str:
    """A name without the quotation marks that it may be written in."""
    return cell.strip().strip("\"'").strip()


def _count(cells: list[str]) -> str:
    return f"{len(cells)} cell{'s' * (len(cells) > 1)}"


def _not_a_number(path: Path, at: int, cells: list[str]) -> CorruptFileError:
    """The error for the first cell of a line that is not a number."""
    column, said = first_fault(cells)
    return CorruptFileError(path, f"line {at}, column {column + 1} {said}")


def _check_header(path: Path, at: int, line: str) -> None:
    """Raise for a first line which says that not all of the columns are channels."""
    names = list(map(_bare, _cells(line)))
    if set(STATISTICS) <= set(names):
        raise UnsupportedFileError(
            path,
            f"it is a table of batches' statistics ({', '.join(STATISTICS)}), not a tensor; give it"
            " to bncli simulate-ema as a .csv file.",
        )
    if "" in names:
        raise CorruptFileError(
            path,
            f"line {at}, column {names.index('') + 1} is empty; save the table without its index"
            " (index=False in pandas, row.names=FALSE in R); where a value is missing, write nan.",
        )


def _note_numbered_names(path: Path, top: list[str], below: list[str]) -> None:
    """Note a first row 0, 1, 2, ... above decimals: pandas calls columns without names so."""
    if [cell.strip() for cell in top] == [str(i) for i in range(len(top))] and all(
        "." in cell for cell in below
    ):
        current().notes[
            f"{path}: its first row, {quoted(','.join(top), 40)}, is read as a sample; where it is"
            " the columns' names, save the table without them (header=False in pandas)."
        ] = None
