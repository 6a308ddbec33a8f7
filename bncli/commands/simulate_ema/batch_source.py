"""What a simulation reads: batches of values, or a file of their statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from bncli.arguments.input import Input
from bncli.commands.simulate_ema.batches import (
    Batches,
    open_batches,
    ordered,
    values_of,
)
from bncli.commands.simulate_ema.statistics_file import is_statistics, read_statistics
from bncli.dtypes import DTYPES
from bncli.errors import UsageError
from bncli.loaders import split_spec
from bncli.model import TensorRef
from bncli.running_stats.batch_table import BatchTable
from bncli.values import dataclass

if TYPE_CHECKING:
    from bncli.commands.simulate_ema.flags import BatchFlags
    from bncli.model import FloatArray, IntArray
    from bncli.running_stats.scatter import Samples


@dataclass(frozen=True, slots=True)
class Statistics:
    """What is known of the batches: their table, and how their samples and values scatter."""

    table: BatchTable
    samples: Samples | None
    kurtosis: FloatArray


@dataclass(frozen=True, slots=True)
class Source:
    """Distinct batches and their order; one of `batches` and `stored` is there.

    `given` stands for a batch: its label, dtype and channels.
    """

    kind: str
    label: str
    given: Input
    number: int
    per_epoch: int
    epochs: int
    order: Callable[[], Iterator[IntArray]]
    read: tuple[str, ...]
    flags: BatchFlags
    batches: Batches | None = None
    stored: BatchTable | None = None

    @property
    def steps(self) -> int:
        """The steps of all epochs."""
        return self.per_epoch * self.epochs

    def statistics(self, dtype: str, threads: int | None, torch_threads: int) -> Statistics:
        """The statistics of every distinct batch, each computed once, for buffers of `dtype`."""
        import numpy as np

        from bncli.process.progress import progress
        from bncli.running_stats.collect import Collector

        if self.stored is not None:
            missing = np.full(self.stored.num_features, np.nan)
            return Statistics(_held(self.stored, dtype), None, missing)
        assert self.batches is not None
        features = self.given.num_features
        collector = Collector(self.number, features, dtype, threads, torch_threads)
        itemsize = DTYPES[self.given.dtype].itemsize
        size = self.given.tensors[0].numel * itemsize
        with progress("statistics", size * self.number) as advance:
            for i in range(self.number):
                x = values_of(self.batches, i, dtype)
                collector.add(x)
                advance(x.size * itemsize)
        samples = collector.samples() if self.given.sample_axis is not None else None
        return Statistics(collector.table(), samples, collector.kurtosis())


def open_source(flags: BatchFlags) -> Source:
    """The batches, or the file of statistics, that the flags name; raises as `open_batches`."""
    tables = [spec for spec in flags.inputs if is_statistics(spec)]
    if tables:
        return _stored(tables[0], flags)
    batches = open_batches(flags)
    return Source(
        kind=batches.kind,
        label=batches.label,
        given=batches.given,
        number=batches.number,
        per_epoch=batches.per_epoch,
        epochs=batches.epochs,
        order=batches.order,
        read=batches.read,
        flags=flags,
        batches=batches,
    )


def _stored(spec: str, flags: BatchFlags) -> Source:
    """A file of statistics."""
    if len(flags.inputs) > 1:
        raise UsageError(f"{spec} holds statistics of batches: name it alone.")
    for flag, given in (
        ("--channel-axis", flags.channel_axis != 1),
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
            raise UsageError(f"{flag}: {spec} holds statistics of batches, and no values.")
    table = read_statistics(spec)
    path, _ = split_spec(spec)
    shape = (int(table.count[0]), table.num_features)
    stand_in = TensorRef("", path, shape, "float64", (shape[1], 1), None)
    number = len(table.count)
    return Source(
        kind="statistics",
        label=spec,
        given=Input((stand_in,), 1, "float64", None),
        number=number,
        per_epoch=number,
        epochs=flags.epochs,
        order=ordered(number, flags),
        read=(str(path),),
        flags=flags,
        stored=table,
    )


def _held(table: BatchTable, dtype: str) -> BatchTable:
    """The statistics as buffers of `dtype` would be given them, rounded once each."""
    import numpy as np

    from bncli.pytorch_cpu.half import rounded

    if dtype == "float64":
        return table
    inner = "bfloat16" if dtype == "bfloat16" else "float32"
    with np.errstate(over="ignore", invalid="ignore"):
        mean = rounded(table.mean.astype(np.float32), inner)
        var_sum = rounded((table.var * table.count[:, np.newaxis]).astype(np.float32), inner)
    return BatchTable(table.count, table.mean, table.var, dtype, mean, var_sum)
