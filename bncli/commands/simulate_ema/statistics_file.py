"""Per-batch statistics from a file: CSV, or an .npz, with batch, channel, mean, var and count."""

from __future__ import annotations

import csv
import math
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.errors import CorruptFileError, FileError, TensorError
from bncli.files.reading import open_to_read
from bncli.light import dataclass, np
from bncli.loaders import open_file, split_spec
from bncli.loaders.csv import STATISTICS, header
from bncli.loaders.interface import check_regular
from bncli.model import TensorRef
from bncli.running_stats.batch_table import BatchTable
from bncli.sections.answer import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray, IntArray

NEEDED = STATISTICS
ENOUGH = 3
"""Columns of these names that make a .csv a table of statistics, though some are missing."""


@dataclass(frozen=True, slots=True)
class _Records:
    """A row each: the statistics of one channel in one batch; all arrays have shape (rows,).

    `lines` are their numbers in a .csv, None for arrays.
    """

    lines: list[int] | None
    batch: NDArray[Any]
    channel: NDArray[Any]
    mean: FloatArray
    var: FloatArray
    count: NDArray[Any]


def is_statistics(spec: str) -> bool:
    """Whether INPUT holds the statistics of batches and not values, by the names in it.

    Those are the header of a .csv, or `mean`, `var` and `count` of an .npz. Raises FileError where
    it cannot be opened.
    """
    path, name = split_spec(spec)
    if name:
        return False
    if path.suffix.lower() == ".csv":
        return len(set(NEEDED) & set(header(path))) >= ENOUGH
    if path.suffix.lower() != ".npz":
        return False
    return {"mean", "var", "count"} <= set(open_file(path).tensors)


def read_statistics(spec: str) -> BatchTable:
    """The table. The batches are in the order of their numbers, `var` is the biased variance.

    Raises FileError and TensorError, each naming the place.
    """
    path, _ = split_spec(spec)
    if path.suffix.lower() == ".csv":
        return _table(path, _from_csv(path))
    tensors = open_file(path).tensors
    arrays = {name: _numbers(tensors[name]) for name in NEEDED if name in tensors}
    if arrays["mean"].ndim == 2:
        return _wide(path, arrays)
    for name in NEEDED:
        if name not in arrays:
            raise TensorError(
                f"{path}: {name} is missing; the file needs {', '.join(NEEDED)}, or mean and "
                "var with a row for each batch and a column for each channel, and count."
            )
        if arrays[name].shape != arrays["mean"].shape or arrays[name].ndim != 1:
            raise TensorError(
                f"{path}: {name} has shape {list(arrays[name].shape)}, and mean "
                f"{list(arrays['mean'].shape)}; both need one number for each row."
            )
    return _table(path, _Records(None, **arrays))


def _numbers(tensor: TensorRef) -> NDArray[Any]:
    """A tensor's values, float64. Raises TensorError for complex ones."""
    if tensor.dtype.startswith("complex"):
        raise TensorError(f"{tensor.label}: {tensor.dtype}; statistics are real numbers.")
    return np.asarray(tensor.read(), np.float64)


def _from_csv(path: Path) -> _Records:
    """The rows of a CSV file with a header."""
    columns: dict[str, list[float]] = {name: [] for name in NEEDED}
    lines: list[int] = []
    try:
        check_regular(path)
        with TextIOWrapper(
            BufferedReader(open_to_read(path)), encoding="utf-8-sig", newline=""
        ) as file:
            reader = csv.DictReader(file)
            for name in NEEDED:
                if name not in (reader.fieldnames or ()):
                    raise CorruptFileError(
                        path, f"the column {name} is missing; the file needs {', '.join(NEEDED)}."
                    )
            for row in reader:
                lines.append(reader.line_num)
                for name in NEEDED:
                    columns[name].append(_number(path, reader.line_num, name, row[name]))
    except OSError as error:
        raise FileError(path, f"it cannot be read ({error.strerror}).") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorruptFileError(path, f"it is not CSV text ({error}).") from None
    return _Records(lines, **{name: np.array(values) for name, values in columns.items()})


def _number(path: Path, line: int, name: str, text: str | None) -> float:
    """A cell as a number; an empty mean or var, which JSON's null leaves, is NaN."""
    if not text and name in ("mean", "var"):
        return math.nan
    try:
        return float(text or "")
    except ValueError:
        raise CorruptFileError(path, f"line {line}: {name} is {text!r}, not a number.") from None


def _table(path: Path, rows: _Records) -> BatchTable:
    """Rows in any order as a table; every batch has every channel once."""
    if not len(rows.mean):
        raise TensorError(f"{path}: it has no batches.")
    for name in ("batch", "channel", "count"):
        _check_whole(path, name, getattr(rows, name), rows.lines)
    _check_not_negative(path, rows.var, rows.lines)
    batches, at = np.unique(rows.batch, return_inverse=True)
    channels = int(rows.channel.max()) + 1
    number = len(batches)
    if channels * number != len(rows.mean):
        wanted = f"{counted(number, 'batch', 'batches')} x {counted(channels, 'channel')}"
        raise TensorError(
            f"{path}: expected {counted(channels * number, 'row')} ({wanted}), found "
            f"{len(rows.mean)}; number the channels from 0, and give each channel of each batch "
            "one row."
        )
    place = at * channels + rows.channel.astype(np.int64)
    seen = np.bincount(place, minlength=channels * number)
    if (seen != 1).any():
        wrong = int(np.argmax(seen != 1))
        batch, channel = divmod(wrong, channels)
        raise TensorError(
            f"{path}: batch {batches[batch]:g} has {counted(int(seen[wrong]), 'row')} "
            f"for channel {channel}; give each channel of each batch one row."
        )
    order = np.argsort(place)
    shape = (number, channels)
    return _checked(
        path,
        rows.count[order].reshape(shape),
        rows.mean[order].reshape(shape),
        rows.var[order].reshape(shape),
        batches,
    )


def _wide(path: Path, arrays: dict[str, NDArray[Any]]) -> BatchTable:
    """mean and var of shape (batches, channels), and a count for all or for each batch."""
    mean, var, count = arrays["mean"], arrays["var"], arrays["count"]
    if var.shape != mean.shape or not mean.size:
        raise TensorError(
            f"{path}: mean has shape {list(mean.shape)} and var {list(var.shape)}; both need a "
            "row for each batch and a column for each channel."
        )
    if count.shape == (len(mean),):
        count = count[:, np.newaxis]
    if count.shape not in ((), (1,), (len(mean), 1), mean.shape):
        raise TensorError(
            f"{path}: count has shape {list(count.shape)}; it must be one number, "
            "or one for each batch."
        )
    _check_whole(path, "count", arrays["count"])
    _check_not_negative(path, var)
    return _checked(path, np.broadcast_to(count, mean.shape), mean, var, np.arange(len(mean)))


def _check_whole(
    path: Path, name: str, values: NDArray[Any], lines: list[int] | None = None
) -> None:
    """Raise TensorError unless the values are whole numbers that can count."""
    least = 1 if name == "count" else 0
    with np.errstate(invalid="ignore"):
        bad = ~((values >= least) & (values < 2**53) & (values == np.floor(values)))
    if bad.any():
        raise TensorError(
            f"{path}: {_first(name, values, bad, lines)}; it must be a whole number, {least} or "
            "more."
        )


def _check_not_negative(path: Path, var: FloatArray, lines: list[int] | None = None) -> None:
    """Raise TensorError where a variance is below 0."""
    if (var < 0).any():
        raise TensorError(
            f"{path}: {_first('var', var, var < 0, lines)}; a variance cannot be negative."
        )


def _first(name: str, values: NDArray[Any], bad: NDArray[Any], lines: list[int] | None) -> str:
    """The first of the bad values, with its line, or with its index in an array."""
    at = tuple(int(axis[0]) for axis in np.nonzero(np.atleast_1d(bad)))
    value = f"is {np.atleast_1d(values)[at]:g}"
    if lines is not None:
        return f"line {lines[at[0]]}: {name} {value}"
    return f"{name}{list(at)} {value}" if values.ndim else f"{name} {value}"


def _checked(
    path: Path, count: IntArray, mean: FloatArray, var: FloatArray, batches: NDArray[Any]
) -> BatchTable:
    """The table of these `batches`; raises TensorError if the counts of one do not agree."""
    uneven = np.flatnonzero((count != count[:, :1]).any(1))
    if len(uneven):
        raise TensorError(
            f"{path}: the channels of batch {batches[uneven[0]]:g} have different counts; all "
            "channels of a batch must have the same count."
        )
    return BatchTable(count[:, 0].astype(np.int64), mean, var)
