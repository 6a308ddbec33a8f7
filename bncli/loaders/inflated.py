"""Compressed storages as they were last inflated: so much of each as its tensors use."""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES
from bncli.light import np
from bncli.loaders.deflated import Packed

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_INFLATED = 1 << 26
"""What is kept of inflated storages; of a larger one alone, all that its tensors use."""
NEAR = 1 << 16
"""Pieces of a storage with no more bytes than this between them are kept as one."""
WEIGHTS_RATIO = 16
"""Weights are never compressed as well as this; what is may cost far more time than its bytes."""


class Inflated:
    """Compressed storages of a file as they were last read: so much of each as its tensors use.

    Many tensors may share a storage, and inflating it for each could take hours.
    """

    def __init__(self) -> None:
        self.spans: dict[int, set[tuple[int, int]]] = {}
        self.kept: dict[int, list[tuple[int, bytearray]]] = {}
        self.size = 0

    def will_use(self, packed: Packed, start: int, stop: int) -> None:
        """Note that a tensor needs these bytes of the storage, at least one."""
        self.spans.setdefault(packed.offset, set()).add((start, stop))

    def cost(self, packed: Packed) -> int:
        """What one more tensor of the storage costs besides its bytes.

        A large one that packs too well may not be kept, and has to be inflated for each tensor.
        """
        again = packed.offset in self.spans and packed.size > max(
            MOST_INFLATED, WEIGHTS_RATIO * packed.packed
        )
        return packed.size // 2 if again else 0

    def read(self, packed: Packed, start: int) -> tuple[bytearray, int]:
        """The bytes that were noted around `start`, and the place of the first in the storage."""
        runs = self.kept.get(packed.offset)
        if runs is None:
            wanted = _joined(self.spans[packed.offset])
            size = sum(stop - first for first, stop in wanted)
            while self.kept and self.size + size > MOST_INFLATED:
                dropped = self.kept.pop(next(iter(self.kept)))
                self.size -= sum(len(data) for _, data in dropped)
            runs = self.kept[packed.offset] = _cut(packed, wanted)
            self.size += size
        first, data = runs[bisect_right(runs, start, key=itemgetter(0)) - 1]
        return data, first


def _joined(spans: set[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans in order, those that are near each other as one."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if joined and start <= joined[-1][1] + NEAR:
            joined[-1] = joined[-1][0], max(joined[-1][1], stop)
        else:
            joined.append((start, stop))
    return joined


def _cut(packed: Packed, wanted: list[tuple[int, int]]) -> list[tuple[int, bytearray]]:
    """The wanted bytes of a storage, each run with its place."""
    runs = [(start, bytearray()) for start, _ in wanted]
    at = here = 0
    for chunk in packed.chunks():
        while here < len(wanted) and wanted[here][0] < at + len(chunk):
            start, stop = wanted[here]
            runs[here][1].extend(chunk[max(start - at, 0) : stop - at])
            if stop > at + len(chunk):
                break
            here += 1
        at += len(chunk)
    return runs


def inflate(inflated: Inflated, packed: Packed, dtype: str, start: int, count: int) -> NDArray[Any]:
    """The elements of a compressed storage, as a flat array of the stored dtype."""
    kind = np.dtype(DTYPES[dtype].stored).newbyteorder(packed.byteorder)
    if not count:
        return np.empty(0, kind)
    data, first = inflated.read(packed, start)
    return np.frombuffer(data, kind, count, start - first)
