"""The bytes of a file that a tensor takes, and which other tensors take some of them, too."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES
from bncli.files.edits import Edit
from bncli.files.file_bytes import FileBytes
from bncli.files.held import HeldPath
from bncli.light import np
from bncli.paths import ShiftedPath

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import TensorRef


def placed(ref: TensorRef) -> FileBytes | None:
    """Where the elements lie in the file; None where there are none, or not plain."""
    where = ref.storage
    if not isinstance(where, FileBytes) or isinstance(where.path, HeldPath) or not ref.numel:
        return None
    if isinstance(where.path, ShiftedPath):
        path, offset = where.path.whole, where.offset + where.path.shift()
        return replace(where, path=path, offset=offset, checksum=None)
    return where


def edits_of_tensor(ref: TensorRef, where: FileBytes, stored: NDArray[Any]) -> list[Edit]:
    """The new bytes of a tensor, an edit for each run of neighbours, in the file's order.

    `stored` are its bits in native byte order. No two elements share memory.
    """
    data = stored.astype(stored.dtype.newbyteorder("<" if where.byteorder == "little" else ">"))
    offsets = _elements(ref)
    order = np.argsort(offsets, kind="stable")
    offsets, data = offsets[order], data.reshape(-1)[order]
    cuts = [0, *(np.flatnonzero(np.diff(offsets) != 1) + 1).tolist(), len(offsets)]
    size = data.dtype.itemsize
    return [
        Edit(where.offset + int(offsets[first]) * size, data[first:last].tobytes())
        for first, last in pairwise(cuts)
    ]


def repeats(ref: TensorRef) -> bool:
    """Whether two elements of the tensor are the same bytes."""
    if any(step == 0 for size, step in zip(ref.shape, ref.strides, strict=True) if size > 1):
        return True
    steps = sorted(zip(ref.strides, ref.shape, strict=True))
    reach = 1
    for step, size in steps:
        if size > 1 and step < reach:  # axes that interlock
            return len(np.unique(_elements(ref))) < ref.numel
        reach += step * (size - 1)
    return False


def shared(
    refs: Iterable[TensorRef], targets: Iterable[TensorRef]
) -> Iterator[tuple[TensorRef, TensorRef]]:
    """Targets, each with another tensor that takes some of its bytes without being the same one.

    There is at least one pair for each tensor of `refs` that takes bytes of a target, and one where
    two targets take the same. A view whose axes interlock, as no framework makes one, is taken for
    all that is between its first byte and its last.

    Costs one search for each tensor; for a view that is interleaved with targets, as a column of a
    matrix with other columns, also the bytes of these targets.
    """
    alike = {ref.place: ref for ref in targets if placed(ref)}
    groups: dict[Path, list[_Group]] = {}
    for ref in sorted(alike.values(), key=_start):
        of_file = groups.setdefault(ref.path, [])
        if of_file and _start(ref) < of_file[-1].stop:
            of_file[-1].add(ref)
        else:
            of_file.append(_Group(ref))
    for of_file in groups.values():
        for group in of_file:
            yield from group.twice()
    starts = {path: [group.start for group in of_file] for path, of_file in groups.items()}
    for ref in refs:
        where = placed(ref)
        if where is None or ref.path not in groups or ref.place in alike:
            continue
        of_file = groups[ref.path]
        at = bisect_left(starts[ref.path], where.offset + where.nbytes) - 1
        while at >= 0 and of_file[at].stop > where.offset:
            if target := of_file[at].meets(ref, where):
                yield target, ref
            at -= 1


def _start(ref: TensorRef) -> int:
    """Where the first element of a tensor begins, which has a place."""
    where = placed(ref)
    assert where is not None
    return where.offset


class _Group:
    """Targets whose spans overlap one another, from the byte `start` to `stop` of their file."""

    def __init__(self, ref: TensorRef) -> None:
        self.start = self.stop = _start(ref)
        self.targets: list[TensorRef] = []
        self.add(ref)

    def add(self, ref: TensorRef) -> None:
        """Take a further target, which begins no earlier than the last one."""
        where = placed(ref)
        assert where is not None
        self.stop = max(self.stop, where.offset + where.nbytes)
        self.targets.append(ref)

    @cached_property
    def taken(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The bytes that the targets take, in order, and which target it is."""
        each = []
        for ref in self.targets:
            size = DTYPES[ref.dtype].itemsize
            each.append((_start(ref) + _elements(ref)[:, None] * size + np.arange(size)).ravel())
        owners = np.repeat(np.arange(len(each)), [len(bytes_) for bytes_ in each])
        bytes_ = np.concatenate(each)
        order = np.argsort(bytes_, kind="stable")
        return bytes_[order], owners[order]

    def twice(self) -> Iterator[tuple[TensorRef, TensorRef]]:
        """Two targets that take the same byte, if there are such."""
        if len(self.targets) > 1:
            bytes_, owners = self.taken
            same = np.flatnonzero((bytes_[1:] == bytes_[:-1]) & (owners[1:] != owners[:-1]))
            if len(same):
                one, other = (self.targets[owners[same[0] + i]] for i in range(2))
                yield one, other

    def meets(self, ref: TensorRef, where: FileBytes) -> TensorRef | None:
        """A target that has a byte in common with a tensor; None where none has."""
        bytes_, owners = self.taken
        first, last = np.searchsorted(bytes_, (where.offset, where.offset + where.nbytes)).tolist()
        rest = (bytes_[first:last] - where.offset) // DTYPES[ref.dtype].itemsize
        axes = sorted(
            (step, size)
            for size, step in zip(ref.shape, ref.strides, strict=True)
            if size > 1 and step
        )
        reach = 1
        for step, size in axes:
            if step < reach:  # axes that interlock
                return self.targets[owners[first]] if last > first else None
            reach += step * (size - 1)
        for step, size in reversed(axes):
            rest = rest - np.minimum(rest // step, size - 1) * step
        hit = np.flatnonzero(rest == 0)
        return self.targets[owners[first + hit[0]]] if len(hit) else None


def _elements(ref: TensorRef) -> NDArray[np.int64]:
    """The places of the elements in the storage, in C order."""
    places: NDArray[np.int64] = np.zeros(ref.shape, np.int64)
    for axis, (size, step) in enumerate(zip(ref.shape, ref.strides, strict=True)):
        along = np.arange(size, dtype=np.int64) * (step if size > 1 else 0)
        places += along.reshape(-1, *(1,) * (ref.ndim - axis - 1))
    return places.reshape(-1)
