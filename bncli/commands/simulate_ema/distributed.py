"""The statistics of batches that several ranks compute, each those of every N-th batch."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING

from bncli.commands.simulate_ema.batches import values_of
from bncli.dtypes import DTYPES
from bncli.errors import RankError, UsageError
from bncli.process.progress import progress
from bncli.process.ranks import current
from bncli.running_stats.batch_shares import packed, unpacked

if TYPE_CHECKING:
    from bncli.commands.simulate_ema.batches import Batches
    from bncli.process.ranks import Ranks
    from bncli.running_stats.collect import Collector


def collect(source: Batches, collector: Collector, dtype: str) -> None:
    """Take in all batches of `source`, on rank 0; the other ranks leave the command here.

    Each batch is computed alone and all are taken in by their order, so that every number is that
    of one process. Raises UsageError where `source` holds statistics already, RankError where the
    ranks see different batches.
    """
    if source.stored is not None:
        raise UsageError(
            f"--distributed: {source.label} holds statistics of batches, so there is nothing to "
            "compute for several ranks; leave it out."
        )
    ranks, features = current(), source.given.num_features
    counts = [source.batch(i).numel // features for i in range(source.number)]
    wanted = collector.wanted(counts)
    own = range(ranks.rank, source.number, ranks.world)
    itemsize = DTYPES[source.given.dtype].itemsize
    seen = json.dumps([source.kind, source.given.dtype, features, counts]).encode()
    mark = zlib.crc32(seen).to_bytes(4, "little")
    batches = {}
    with progress("statistics", sum(counts[i] for i in own) * features * itemsize) as advance:
        for i in own:
            x = values_of(source, i, dtype)
            batches[i] = collector.measure(x, wanted=wanted[i])
            advance(x.size * itemsize)
    payloads = ranks.gather(mark + packed(batches, features))
    _check(ranks, [payload[:4] for payload in payloads])
    gathered = {}
    for payload in payloads:
        gathered.update(unpacked(payload[4:]))
    for i in range(source.number):
        collector.take(gathered[i])


def _check(ranks: Ranks, marks: list[bytes]) -> None:
    """Raise RankError where a rank sees other batches."""
    for rank, mark in enumerate(marks):
        if mark != marks[0]:
            raise RankError(
                f"{ranks.said(rank)} sees other batches than rank 0: their number, their sizes or "
                "their dtype differ; all ranks need the same files."
            )
