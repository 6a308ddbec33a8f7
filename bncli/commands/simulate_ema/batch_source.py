"""What a simulation reads: batches of values, or a file of their statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.arguments.input import Input
from bncli.commands.simulate_ema.batches import Batches, open_batches, ordered, values_of
from bncli.commands.simulate_ema.captured_batches import captured_batches, is_captured
from bncli.commands.simulate_ema.statistics_file import is_statistics, read_statistics
from bncli.dtypes import DTYPES
from bncli.errors import UsageError
from bncli.light import dataclass, np
from bncli.loaders import split_spec
from bncli.model import TensorRef
from bncli.running_stats.batch_table import BatchTable

if TYPE_CHECKING:
    from bncli.commands.simulate_ema.flags import BatchFlags
    from bncli.model import FloatArray
    from bncli.running_stats.scatter import Samples


@dataclass(frozen=True, slots=True)
class Statistics:
    """What is known of the batches: their table, and how their samples and values scatter.

    `engines` names what summed the values; see `bncli.model.ChannelStats`.
    """

    table: BatchTable
    samples: Samples | None
    kurtosis: FloatArray
    engines: tuple[str, ...] = ()


def open_source(flags: BatchFlags, state: str | None = None) -> Batches:
    """The batches, or the file of statistics, that the flags name; raises as `open_batches`.

    Where no channel axis was given, it is that of the layer `state`.
    """
    tables = [spec for spec in flags.inputs if is_captured(spec) or is_statistics(spec)]
    if tables:
        return _stored(tables, flags)
    axis, axis_source = flags.axis_of(state)
    source = open_batches(replace(flags, channel_axis=axis))
    return replace(source, given=replace(source.given, axis_source=axis_source))


def statistics_of(
    source: Batches,
    dtype: str,
    threads: int | None,
    torch_threads: int,
    *,
    distributed: bool = False,
) -> Statistics:
    """The statistics of every distinct batch, each computed once, for buffers of `dtype`.

    Where they are `distributed`, ranks other than 0 leave the command here.
    """
    from bncli.process.progress import progress
    from bncli.running_stats.collect import Collector

    given = source.given
    if source.stored is not None and not distributed:
        missing = np.full(given.num_features, np.nan)
        return Statistics(_held(source.stored, dtype), source.scatter, missing)
    collector = Collector(source.number, given.num_features, dtype, threads, torch_threads)
    if distributed:
        from bncli.commands.simulate_ema.distributed import collect

        collect(source, collector, dtype)
    else:
        itemsize = DTYPES[given.dtype].itemsize
        with progress("statistics", given.tensors[0].numel * itemsize * source.number) as advance:
            for i in range(source.number):
                x = values_of(source, i, dtype)
                collector.add(x)
                advance(x.size * itemsize)
    samples = collector.samples() if given.sample_axis is not None else None
    engines = tuple(sorted(collector.engines))
    return Statistics(collector.table(), samples, collector.kurtosis(), engines)


def _stored(specs: Sequence[str], flags: BatchFlags) -> Batches:
    """A file of statistics, or all parts of a capture."""
    spec, captured = specs[0], all(map(is_captured, specs))
    if len(flags.inputs) > (len(specs) if captured else 1):
        raise UsageError(f"{spec} holds statistics of batches: give no other file with it.")
    for flag, given in (
        ("--channel-axis", flags.channel_axis not in (None, 1)),
        ("--batch-axis", flags.batch_axis is not None),
        ("--batch-size", flags.batch_size is not None),
        ("--drop-last", flags.drop_last),
        ("--dtype", flags.dtype is not None),
        ("--generate", flags.generate is not None),
        ("--batches", flags.batches is not None),
        ("--between-std", flags.between_std is not None),
        ("--drift", flags.drift is not None),
    ):
        if given:
            raise UsageError(f"{flag}: {spec} holds statistics of batches, not values.")
    table, scatter = captured_batches(specs) if captured else (read_statistics(spec), None)
    path, _ = split_spec(spec)
    shape = (int(table.count[0]), table.num_features)
    stand_in = TensorRef("", path, shape, "float64", (shape[1], 1), None)
    number = len(table.count)
    return Batches(
        kind="statistics",
        label=spec if len(specs) == 1 else f"{spec} and {len(specs) - 1} more",
        given=Input((stand_in,), 1, "float64", None),
        batch=lambda _: stand_in,
        number=number,
        per_epoch=number,
        order=ordered(number, flags),
        read=tuple(str(split_spec(each)[0]) for each in specs),
        flags=flags,
        stored=table,
        scatter=scatter,
    )


def _held(table: BatchTable, dtype: str) -> BatchTable:
    """The statistics as buffers of `dtype` would be given them, rounded once each."""
    from bncli.pytorch_cpu.half import rounded

    if dtype == "float64":
        return table
    inner = "bfloat16" if dtype == "bfloat16" else "float32"
    with np.errstate(over="ignore", invalid="ignore"):
        mean = rounded(table.mean.astype(np.float32), inner)
        var_sum = rounded((table.var * table.count[:, np.newaxis]).astype(np.float32), inner)
    return BatchTable(table.count, table.mean, table.var, dtype, mean, var_sum)
