"""The bytes of a file that a tensor takes, and which other tensors take some of them, too."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES
from bncli.files.edits import Edit
from bncli.files.file_bytes import FileBytes
from bncli.light import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import TensorRef


def placed(ref: TensorRef) -> FileBytes | None:
    """Where the elements lie in the file; None where there are none, or not plain."""
    return ref.storage if isinstance(ref.storage, FileBytes) and ref.numel else None


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
    return len(np.unique(_elements(ref))) < ref.numel


def shared(
    refs: Iterable[TensorRef], targets: Mapping[str, TensorRef]
) -> Iterator[tuple[TensorRef, TensorRef]]:
    """A target and a tensor of `refs` that takes some of its bytes, without being the same one.

    Costs one search for each tensor, and for those whose views are interleaved with a target's,
    the bytes of that target.
    """
    spans: dict[Path, list[tuple[int, int, str]]] = {}
    for name, ref in targets.items():
        if where := placed(ref):
            spans.setdefault(ref.path, []).append((where.offset, where.offset + where.nbytes, name))
    searched = {}
    for path, of_file in spans.items():
        of_file.sort()
        furthest = [*accumulate((stop for _, stop, _ in of_file), max)]
        searched[path] = (of_file, [start for start, _, _ in of_file], furthest)
    for ref in refs:
        where = placed(ref)
        if where is None or ref.path not in searched:
            continue
        of_file, starts, furthest = searched[ref.path]
        at = bisect_left(starts, where.offset + where.nbytes) - 1
        while at >= 0 and furthest[at] > where.offset:
            target = targets[of_file[at][2]]
            if of_file[at][1] > where.offset and target.place != ref.place and _meet(target, ref):
                yield target, ref
            at -= 1


def _meet(one: TensorRef, other: TensorRef) -> bool:
    """Whether two tensors whose spans overlap have a byte in common."""
    here, there = placed(one), placed(other)
    assert here is not None
    assert there is not None
    if here.nbytes == one.numel * DTYPES[one.dtype].itemsize:
        bytes_ = np.arange(
            max(here.offset, there.offset),
            min(here.offset + here.nbytes, there.offset + there.nbytes),
        )
    else:
        size = DTYPES[one.dtype].itemsize
        bytes_ = (here.offset + _elements(one)[:, None] * size + np.arange(size)).reshape(-1)
    bytes_ = bytes_[(bytes_ >= there.offset) & (bytes_ < there.offset + there.nbytes)]
    rest = (bytes_ - there.offset) // DTYPES[other.dtype].itemsize
    axes = sorted(
        (step, size) for size, step in zip(other.shape, other.strides, strict=True) if size > 1
    )
    span = 1
    for step, size in axes:
        if step and step < span:  # axes that interlock: taken for all of its span
            return bool(len(rest))
        span += step * (size - 1)
    for step, size in reversed(axes):
        if step:
            rest = rest - np.minimum(rest // step, size - 1) * step
    return bool((rest == 0).any())


def _elements(ref: TensorRef) -> NDArray[np.int64]:
    """The places of the elements in the storage, in C order."""
    places: NDArray[np.int64] = np.zeros(ref.shape, np.int64)
    for axis, (size, step) in enumerate(zip(ref.shape, ref.strides, strict=True)):
        along = np.arange(size, dtype=np.int64) * (step if size > 1 else 0)
        places += along.reshape(-1, *(1,) * (ref.ndim - axis - 1))
    return places.reshape(-1)
