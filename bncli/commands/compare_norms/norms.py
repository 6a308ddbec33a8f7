"""What `compare-norms` measures of each norm, and the tables that show it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np
from bncli.report import Column, Table
from bncli.sections.tables import first_shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bncli.arguments.input import Input
    from bncli.model import ChannelStats
    from bncli.norms import Norm, NormStatistics
    from bncli.report import Value

NORM_COLUMNS = (
    *Column.plain("norm", "axes"),
    Column("statistics_shape", "statistics"),
    Column("affine_shape", "affine"),
    Column("depends_on_batch", "batch matters"),
    Column("change_without_one_sample", "change", ".3g"),
    Column("running_stats", "running"),
    *Column.plain("count", "mean", "var", "invstd"),
    *Column.plain("mean_noise", "var_noise", "eps", spec=".3g"),
    Column("note", "note"),
)
NOISE_COLUMNS = (
    Column("channel", "channel"),
    Column("mean_noise", "mean, values", ".3g"),
    Column("mean_noise_measured", "mean, samples", ".3g"),
    Column("var_noise", "var, values", ".3g"),
    Column("var_noise_measured", "var, samples", ".3g"),
)

ROUNDING = 1e-9
"""Outputs are of size 1: a change below this comes from rounding, and counts as 0."""

FEWEST_SAMPLES = 3
"""Two samples, left out in turn, say next to nothing about how far others would scatter."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured: the channels' statistics over the batch, and by norm those of its first
    samples (over all where one spans them), with the change that leaving out the last sample makes.

    A change is None if there is no other sample, or if PyTorch would refuse what is left.
    """

    stats: ChannelStats
    statistics: dict[str, NormStatistics]
    changes: dict[str, float | None]


def measure(norms: Sequence[Norm], given: Input) -> Measured:
    """The statistics of the whole batch, and of the batch without its last sample."""
    from bncli.moments import channel_stats
    from bncli.norms import BATCH, chunks, largest_change, norm_statistics, of_channels
    from bncli.process.progress import progress

    tensor = given.tensors[0]
    samples = tensor.shape[0]
    with progress("statistics", 2 * tensor.numel * given.itemsize) as advance:

        def batch_stats(count: int) -> ChannelStats:
            return channel_stats(
                replace(tensor, shape=(count, *tensor.shape[1:])),
                given.channel_axis,
                dtype=given.cast,
                kurtosis=count == samples,
                advance=advance,
            )

        stats = batch_stats(samples)
        whole = [norm for norm in norms if norm.spans_samples and not norm.refused]
        statistics = {norm.name: of_channels(norm, stats) for norm in (norms[0], *whole)}
        changes: dict[str, float | None] = {norm.name: None for norm in norms}
        # One value per channel would be left of one sample of (N, C).
        several = (samples - 1) * stats.count > samples
        if samples > 1 and (several or len(whole) > 1):
            rest = batch_stats(samples - 1)
            for norm in whole:
                if several or norm.name != BATCH:
                    change = largest_change(statistics[norm.name], of_channels(norm, rest))
                    changes[norm.name] = _beyond_rounding(change)
    # The others look at no other sample, so that the first few and the last show it.
    first = given.values(tensor, (next(chunks(tensor.shape)),))[: max(1, samples - 1)]
    shown = first
    if samples > 1:
        shown = np.concatenate((first, given.values(tensor, (slice(samples - 1, samples),))))
    for norm in norms:
        if norm.refused or norm.spans_samples:
            continue
        kept = norm_statistics(norm, shown)
        without = norm_statistics(norm, first)
        statistics[norm.name] = without
        if samples > 1:
            change = largest_change(_first(kept, len(first)), without)
            changes[norm.name] = _beyond_rounding(change)
    return Measured(stats, statistics, changes)


def _beyond_rounding(change: float | None) -> float | None:
    """The change, or 0 for one of rounding."""
    return 0.0 if change is not None and change < ROUNDING else change


def _first(statistics: NormStatistics, samples: int) -> NormStatistics:
    """The statistics of the first samples."""
    names = ("shift", "offset", "var", "min", "max")
    return replace(statistics, **{name: getattr(statistics, name)[:samples] for name in names})


def cells_of_first_sample(given: Input, shown: Sequence[int], values: int) -> list[tuple[int, ...]]:
    """Places in the first sample: the first values of each channel shown, as many as asked for."""
    shape = given.tensors[0].shape
    spatial = [size for axis, size in enumerate(shape) if axis not in (0, given.channel_axis)]
    each = min(max(1, values // len(shown)), math.prod(spatial))
    cells = []
    for channel in shown[:values]:
        for position in range(each):
            place = [int(i) for i in np.unravel_index(position, spatial)] if spatial else []
            place.insert(given.channel_axis - 1, channel)
            cells.append((0, *place))
    return cells


def _block(cell: tuple[int, ...]) -> tuple[slice, ...]:
    """The one place as a block."""
    return tuple(slice(i, i + 1) for i in cell)


def norms_table(norms: Sequence[Norm], measured: Measured, cell: tuple[int, ...]) -> Table:
    """A row for each norm, with the statistic that normalises the value at `cell`."""
    from bncli.norms import BATCH

    rows = []
    for norm in norms:
        own = measured.statistics.get(norm.name)
        if norm.refused:
            own = None
        count = norm.count
        rows.append(
            {
                "norm": norm.name,
                "axes": norm.axes,
                "statistics_shape": norm.statistics_shape,
                "affine_shape": norm.affine_shape,
                "depends_on_batch": norm.spans_samples,
                "change_without_one_sample": None if own is None else measured.changes[norm.name],
                "running_stats": norm.name == BATCH,
                "count": count,
                "mean": _at(own, "mean", cell) if norm.subtracts_mean else None,
                "var": _at(own, "var", cell) if norm.subtracts_mean else None,
                "invstd": _at(own, "invstd", cell),
                "mean_noise": count**-0.5 if norm.subtracts_mean else None,
                "var_noise": _normal_var_noise(norm),
                "eps": norm.eps,
                "note": norm.refused or _note(norm),
            }
        )
    place = ", ".join(map(str, cell))
    title = f"Norms, with the mean and var that normalise x[{place}]"
    note = (
        "change: how much another sample's output changes at most when the last sample is left "
        "out. mean_noise, var_noise: the standard errors of mean (in std) and of var (relative) "
        "for `count` independent normal values."
    )
    return Table("norms", title, NORM_COLUMNS, rows, note)


def _normal_var_noise(norm: Norm) -> float | None:
    """The relative standard error of the variance (or mean square) of normal values."""
    freedom = norm.count - norm.subtracts_mean
    return math.sqrt(2 / freedom) if freedom else None


def _note(norm: Norm) -> str:
    """What else is worth knowing about a norm."""
    from bncli.norms import BATCH, GROUP, INSTANCE, RMS

    if norm.name == BATCH:
        return "evaluation uses running_mean and running_var instead"
    if norm.name == INSTANCE:
        return "affine and running statistics are off by default"
    if norm.name == GROUP and norm.groups is not None:
        size = norm.affine_shape[0] // norm.groups
        text = f"{norm.groups} group{'s' * (norm.groups > 1)} of {size} channel{'s' * (size > 1)}"
        return f"{text}: one value a group, so that the output is 0" if norm.count == 1 else text
    text = f"normalized_shape {', '.join(map(str, norm.normalized_shape))}"
    if norm.spans_samples:
        text += ": each statistic spans the samples"
    return f"{text}; subtracts no mean, has no bias" if norm.name == RMS else text


def _at(statistics: NormStatistics | None, name: str, cell: tuple[int, ...]) -> float | None:
    """The statistic that belongs to one place."""
    if statistics is None:
        return None
    return float(statistics.at(getattr(statistics, name), _block(cell)).item())


def first_sample_table(
    norms: Sequence[Norm], measured: Measured, given: Input, cells: list[tuple[int, ...]]
) -> Table:
    """Some values of the first sample, and each norm's output for them."""
    columns = [Column("index", "index"), Column("x", "x", ".9g")]
    columns += [Column(norm.name, norm.name) for norm in norms]
    rows: list[dict[str, Value]] = []
    for cell in cells:
        x: NDArray[Any] = given.values(given.tensors[0], _block(cell))
        row: dict[str, Value] = {"index": cell, "x": float(x.item())}
        for norm in norms:
            row[norm.name] = None
            if not norm.refused:
                output = measured.statistics[norm.name].output(x, _block(cell))
                row[norm.name] = float(output.item())
        rows.append(row)
    title = "The first sample's output, before weight and bias"
    return Table("first_sample", title, tuple(columns), rows)


def noise_table(given: Input, stats: ChannelStats, shown: Sequence[int]) -> Table:
    """The standard errors of each channel's batch statistics, as expected and as measured."""
    from bncli.norms import samples_noise
    from bncli.process.progress import progress

    tensor = given.tensors[0]
    count = stats.count
    missing = np.full(stats.num_features, np.nan)
    columns = dict.fromkeys(("mean_noise_measured", "var_noise_measured"), missing)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if tensor.shape[0] >= FEWEST_SAMPLES:
            with progress("noise", tensor.numel * given.itemsize) as advance:

                def read(samples: slice) -> NDArray[Any]:
                    block = given.values(tensor, (samples,))
                    advance(block.size * given.itemsize)
                    return block

                mean_error, var_error = samples_noise(stats, tensor.shape, given.channel_axis, read)
            columns["mean_noise_measured"] = mean_error / np.sqrt(stats.var)
            columns["var_noise_measured"] = var_error / stats.var
        columns["mean_noise"] = np.full(stats.num_features, count**-0.5)
        excess = missing if stats.fourth is None else stats.fourth / stats.var**2 - 3
        spread = 2 / np.float64(count - 1) + excess / count
        columns["var_noise"] = np.sqrt(np.maximum(spread, 0))
    at, left_out = first_shown(shown)
    rows: list[dict[str, Value]] = [
        {
            "channel": c,
            **{
                name: float(values[c]) if np.isfinite(values[c]) else None
                for name, values in columns.items()
            },
        }
        for c in at.tolist()
    ]
    title = "How far BatchNorm's statistics scatter: standard errors, in std and in var"
    note = (
        "values: expected of `count` independent values; samples: measured by leaving out one "
        f"sample at a time, which takes {FEWEST_SAMPLES} samples or more."
    )
    return Table("noise", title, NOISE_COLUMNS, rows, note, left_out=left_out)
