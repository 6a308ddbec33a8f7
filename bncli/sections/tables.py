"""The tables that commands share, built from what was computed; rows for the channels shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, overload

from bncli.light import dataclass, np
from bncli.report import MOST_ROWS, Column, Table
from bncli.sections.answer import counted, share

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from numpy.typing import NDArray

    from bncli.batchnorm import Normalization
    from bncli.model import ChannelStats, Closeness, FloatArray, IntArray, RunningStats
    from bncli.model.capture import InputSums
    from bncli.report import Value
    from bncli.running_stats.folding import Folded
    from bncli.running_stats.scatter import FRatio

    PerChannel = TypeVar("PerChannel", ChannelStats, Normalization)

CHANNEL_COLUMNS = (
    *Column.plain("channel", "mean", "var", "unbiased_var", "running_mean", "running_var"),
    Column("count", "count", foldable=True),
    *Column.plain("std", "invstd", "min", "max"),
    *Column.plain("nan", "inf", foldable=True),
)
INPUT_COLUMNS = (
    Column("input", "input"),
    *(
        column
        for column in CHANNEL_COLUMNS
        if column.key not in ("running_mean", "running_var", "invstd")
    ),
)
OUTPUT_COLUMNS = Column.plain("channel", "mean", "std", "min", "max")
SPREAD_COLUMNS = (
    *Column.plain("channel", "within_var", "between_var", "f_ratio"),
    Column("f_ratio_by_sample", "by_sample"),
)
DIFFERENCE_COLUMNS = (
    *Column.plain("quantity", "passed"),
    Column("tolerance_used", "used", ".1%"),
    Column("max_abs_diff", "max_abs", ".3g"),
    *Column.plain("index", "mismatched", "total"),
    Column("max_rel_diff", "max_rel", ".3g"),
    *Column.plain("rtol", "atol", "passing_atol", spec=".3g"),
)

NEAR = 0.9
"""The share of its tolerance from which a quantity that agrees is shown all the same."""

AT_INDEX = "index is that of the element that uses most of its tolerance; max_abs is over all."
"""What the full tables say of the place beside a largest difference."""

MOST_DIFFERENCES = 10
"""Quantities that are shown because they differ or nearly do."""


def channels_table(
    stats: ChannelStats, norm: Normalization, after: RunningStats | None, shown: Sequence[int]
) -> Table:
    """Batch statistics, invstd as used, and the running statistics after the pass."""
    at, left_out = first_shown(shown)
    layer = {
        "invstd": norm.invstd[at],
        "running_mean": None if after is None else after.running_mean[at],
        "running_var": None if after is None else after.running_var[at],
    }
    rows = _rows({**_statistics(stats, at), **layer}, at)
    return Table("channels", "Channels", CHANNEL_COLUMNS, rows, left_out=left_out)


def empty_channels_table() -> Table:
    """The table of channels where no batch was looked at."""
    return Table("channels", "Channels", CHANNEL_COLUMNS, [])


def inputs_table(labels: list[str], parts: list[ChannelStats], shown: Sequence[int]) -> Table:
    """The batch statistics of each input by itself."""
    at, left_out = first_shown(shown, len(parts))
    rows = [
        {"input": label, **row}
        for label, part in zip(labels, parts, strict=True)
        for row in _rows(_statistics(part, at), at)
    ]
    return Table("inputs", "Each input", INPUT_COLUMNS, rows, left_out=left_out)


def output_table(stats: ChannelStats, norm: Normalization, shown: Sequence[int]) -> Table:
    """The output's mean, std, min and max, channel by channel."""
    at, left_out = first_shown(shown)
    columns: dict[str, NDArray[Any] | Value] = {**output_statistics(stats, norm, at)}
    return Table(
        "output", "Normalised output", OUTPUT_COLUMNS, _rows(columns, at), left_out=left_out
    )


def output_statistics(
    stats: ChannelStats, norm: Normalization, at: IntArray
) -> dict[str, FloatArray]:
    """The output's mean, std, min and max in the channels `at`: an affine image of the input's.

    In training the mean is the bias, and std = |weight| * sqrt(var / (var + eps)).
    """
    stats, norm = of_channels(stats, at), of_channels(norm, at)
    with np.errstate(invalid="ignore", over="ignore"):
        slope = norm.weight * norm.invstd

        def image(shift: FloatArray, offset: FloatArray | float) -> FloatArray:
            return ((shift - norm.shift) + (offset - norm.offset)) * slope + norm.bias

        mean = image(stats.shift, stats.offset)
        std = np.abs(slope) * np.sqrt(stats.var)
        ends = np.stack((image(stats.min, 0.0), image(stats.max, 0.0)))
        # A finite value has no finite image where a NaN has spoilt the channel's own statistics.
        return {"mean": mean, "std": std, "min": ends.min(0), "max": ends.max(0)}


def spread_table(spread: Spread, shown: Sequence[int]) -> Table:
    """Variance within and between inputs."""
    at, left_out = first_shown(shown)
    rows = _rows(
        {
            "within_var": spread.within[at],
            "between_var": spread.between[at],
            "f_ratio": spread.f_ratio[at],
            "f_ratio_by_sample": (None if spread.by_sample is None else spread.by_sample.ratio[at]),
        },
        at,
    )
    title = "Variance within and between inputs (f_ratio is about 1 for shuffled ones)"
    return Table("spread", title, SPREAD_COLUMNS, rows, left_out=left_out)


def differences_table(compared: Sequence[Closeness], name: str, note: str = "") -> Table:
    """Each quantity beside that of the backend `name`."""
    rows = [{"quantity": item.quantity, **closeness_row(item)} for item in compared]
    note = " ".join(filter(None, (AT_INDEX, note)))
    return Table("differences", f"bncli against {name}", DIFFERENCE_COLUMNS, rows, note)


def differences_answer(
    compared: Sequence[Closeness],
    name: str,
    axis: str | Callable[[str], str] = "channel",
) -> tuple[Table, ...]:
    """The quantities that differ from the backend's or come near their tolerance, worst first.

    No table where there is none. `axis` is what an index of one number counts, or tells it of a
    quantity.
    """
    ordered = sorted(compared, key=lambda item: (item.passed, -item.used))
    near = [item for item in ordered if not item.passed or item.used > NEAR][:MOST_DIFFERENCES]
    if not near:
        return ()
    rows = [
        {
            "quantity": item.quantity,
            "difference": item.difference,
            "at": _place(item.index, axis if isinstance(axis, str) else axis(item.quantity)),
            "used": share(item.used),
            "mismatched": f"{item.mismatched} of {item.total}",
            "actual": item.actual,
            "expected": item.expected,
        }
        for item in near
    ]
    columns = (
        *Column.plain("quantity"),
        Column("difference", "difference", ".4g"),
        Column("at", "at"),
        Column("used", "tolerance used"),
        Column("mismatched", "values off", spare=1),
        Column("actual", "bncli", ".9g", spare=2),
        Column("expected", name, ".9g", spare=2),
    )
    note = _rest_of_differences(ordered[len(near) :])
    return (Table("differences", f"Against {name}", columns, rows, note),)


def _rest_of_differences(rest: Sequence[Closeness]) -> str:
    """What the quantities that are not shown have, in a line; they come the worst first."""
    if not rest:
        return ""
    number = counted(len(rest), "more quantity", "more quantities")
    if failed := sum(not item.passed for item in rest):
        which = f", {failed} of which" if failed < len(rest) else ""
        return f"{number}{which} differ{'s' * (failed == 1)} (-v lists them)"
    used = share(rest[0].used)
    if len(rest) == 1:
        return f"{number} uses {used} of its tolerance (-v lists it)"
    return f"{number} use at most {used} of their tolerances (-v lists them)"


def _place(index: tuple[int, ...], axis: str) -> str | None:
    """An index as a person reads it: "channel 1", "(0, 0, 1, 0)"; None for the only value."""
    if not index:
        return None
    return f"{axis} {index[0]}" if len(index) == 1 else f"({', '.join(map(str, index))})"


def closeness_row(item: Closeness) -> dict[str, Value]:
    """What `torch.testing.assert_close` says, and how much of the tolerance was used."""
    return {
        "passed": item.passed,
        "tolerance_used": item.used,
        "max_abs_diff": item.max_abs_diff,
        "index": item.index,
        "mismatched": item.mismatched,
        "total": item.total,
        "max_rel_diff": item.max_rel_diff,
        "rtol": item.rtol,
        "atol": item.atol,
        "passing_atol": item.passing_atol,
    }


@dataclass(frozen=True, slots=True)
class Spread:
    """The variance within the inputs and between their means, each of shape (num_features,).

    `f_ratio` compares the two as if values were independent, `by_sample` with the samples for
    them, None where they are not known.
    """

    within: FloatArray
    between: FloatArray
    f_ratio: FloatArray
    by_sample: FRatio | None


def spread(parts: list[ChannelStats], whole: ChannelStats) -> Spread:
    """Variance within the inputs, between their means, and the F ratio of the two.

    The law of total variance: var = sum(n_i * var_i)/N + sum(n_i * (mean_i - mean)**2)/N. The
    F ratio divides the two parts by their degrees of freedom, N - k and k - 1, so that it is
    about 1 where every input is a random sample of the same population.
    """
    from bncli.running_stats.scatter import f_ratio_of_parts

    within = np.zeros(whole.num_features)
    between = np.zeros(whole.num_features)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        for part in parts:
            share = part.count / whole.count
            apart = (part.shift - whole.shift) + (part.offset - whole.offset)
            within += share * part.var
            between += share * apart**2
        freedom = (whole.count - len(parts)) / (len(parts) - 1)
        f_ratio = between / within * freedom
    return Spread(within, between, f_ratio, f_ratio_of_parts(parts, whole))


def spread_of_folded(folded: Folded, whole: ChannelStats) -> Spread:
    """The same of inputs that were folded."""
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        inputs = folded.units.number
        f_ratio = folded.between / folded.within * ((whole.count - inputs) / (inputs - 1))
    return Spread(folded.within, folded.between, f_ratio, folded.f_ratio)


def spread_of_batches(sums: InputSums) -> Spread:
    """The same of the batches that sums are of, which are 2 or more."""
    from bncli.running_stats.scatter import FRatio

    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        within, between = sums.within / sums.values, sums.between / sums.values
        f_ratio = between / within * ((sums.values - sums.batches) / (sums.batches - 1))
    return Spread(within, between, f_ratio, FRatio.of_sums(sums))


def first_shown(shown: Sequence[int], rows_each: int = 1) -> tuple[IntArray, int]:
    """The channels that a table has room for, and how many rows of others it leaves out."""
    room = max(MOST_ROWS // rows_each, 1)
    return np.array(shown[:room], np.int64), max(len(shown) - room, 0) * rows_each


class Rows(Sequence[dict[str, "Value"]]):
    """Rows that are built when they are looked at, from columns of equal length.

    Arrays take a tenth of the memory of dicts. A column that is not an array has one value for
    every row.
    """

    def __init__(self, length: int, columns: dict[str, NDArray[Any] | Value]) -> None:
        self._length = length
        self._columns = columns

    def __len__(self) -> int:
        """The number of rows."""
        return self._length

    @overload
    def __getitem__(self, index: int) -> dict[str, Value]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Value]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Value] | list[dict[str, Value]]:
        """A row, or a list of some."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._length))]
        place = range(self._length)[index]
        return {
            key: values[place].item() if isinstance(values, np.ndarray) else values
            for key, values in self._columns.items()
        }


def _rows(columns: dict[str, NDArray[Any] | Value], at: IntArray) -> Rows:
    """The rows of the channels `at`, from columns of this many values."""
    return Rows(len(at), {"channel": at, **columns})


def _statistics(whole: ChannelStats, at: IntArray) -> dict[str, NDArray[Any] | Value]:
    """The batch statistics of the channels `at`, a column each."""
    stats = of_channels(whole, at)
    return {
        "count": stats.count,
        "mean": stats.mean,
        "var": stats.var,
        "unbiased_var": stats.unbiased_var,
        "std": np.sqrt(stats.var),
        "min": stats.min,
        "max": stats.max,
        "nan": stats.nan,
        "inf": stats.inf,
    }


def of_channels(value: PerChannel, at: IntArray) -> PerChannel:
    """The same value for the channels `at` alone: all of its arrays have one number a channel."""
    arrays: dict[str, Any] = {
        item.name: array[at]
        for item in fields(value)
        if isinstance(array := getattr(value, item.name), np.ndarray)
    }
    return replace(value, **arrays)
