"""How two stored tensors of any size compare: by checksums where files keep them, else by bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

from bncli.changes.pair import Roundings
from bncli.dtypes import DTYPES
from bncli.files.file_bytes import FileBytes
from bncli.files.reading import read_into
from bncli.light import np
from bncli.loaders.elements import covering, is_dense
from bncli.model.changes import Same

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import TensorRef

    Tile = tuple[slice, ...]

BLOCK = 1 << 17
"""Bytes of each of two files that are compared at once: both blocks stay in a processor's cache."""
TILE = 1 << 17
"""Elements of each of two tensors that are compared at once where more than bytes are."""
SAMPLE = 1 << 12
"""Elements that show whether a rounding may be all that is between two tensors."""
MOST_TURNED = 1 << 26
"""Bytes of a tensor that is compared with another whose axes have another order."""
UNDECODED = "complex32"
_PARTS = {"complex64": "float32", "complex128": "float64"}
"""The dtypes of the real and the imaginary part."""


def compared(a: TensorRef, b: TensorRef) -> Same | None:
    """How two tensors compare; None where the values of one cannot be had or the shapes differ.

    SAME is bit for bit, whatever the byte order and the layout in the files. Where both files keep
    a checksum of just the tensor's bytes, these are not read. Kernels as other frameworks lay them
    out, with the axes of the inputs and outputs behind those of the kernel, are compared axis by
    axis. Raises CorruptFileError where what is read is not what was written, and FileError where a
    file has changed.
    """
    if a.storage is None or b.storage is None:
        return None
    if a.dtype != b.dtype and UNDECODED in {a.dtype, b.dtype}:
        return None
    found = _of_one_shape(a, b) if a.shape == b.shape else None
    if found in {Same.SAME, Same.ROUNDED}:
        return found
    for order in orders(a.shape, b.shape):
        if max(_nbytes(a), _nbytes(b)) > MOST_TURNED:
            break
        found = _of_one_shape(a, turned(b, order), corner=True)
        if found is not Same.MOVED:
            return found
    return found


def _of_one_shape(a: TensorRef, b: TensorRef, *, corner: bool = False) -> Same:
    """How two tensors of one shape with values compare; with `corner` that is tried first."""
    if a.place is not None and a.place == b.place:
        return Same.SAME
    one, two = _flat(a, b)
    start = next(_tiles(one.shape, SAMPLE), ())
    if a.dtype == b.dtype:
        equal = _by_checksum(a, b)
        if equal is None and corner and not _begin_alike(one, two, start):
            equal = False
        if equal is None:
            difference = _first_difference(one, two)
            equal, start = difference is None, difference or start
        if equal:
            return Same.SAME
        if DTYPES[a.dtype].kind not in {"float", "complex"}:
            return Same.MOVED
    return Same.ROUNDED if _rounded(one, two, start) else Same.MOVED


def _rounded(a: TensorRef, b: TensorRef, start: Tile) -> bool:
    """Whether a rounding is all that is between two tensors of one shape; `start` is tried first.

    That part is not held against a checksum, for which all of the tensor would have to be read.
    """
    dtypes = [_PARTS.get(each.dtype, each.dtype) for each in (a, b)]
    roundings = Roundings(*dtypes)
    parts = dtypes != [a.dtype, b.dtype]
    for refs, tiles in (
        ([_unchecked(a), _unchecked(b)], iter([start])),
        ([a, b], _tiles(a.shape, TILE)),
    ):
        with ExitStack() as stack:
            ours, theirs = (each.block_reader(stack) for each in refs)
            for tile in tiles:
                blocks = ours(tile), theirs(tile)
                if parts:
                    blocks = _parts(blocks[0]), _parts(blocks[1])
                roundings.add(*blocks)
                if not roundings.possible:
                    return False
    return roundings.explain


# ------------------------------------------------------------------ what need not be read


def _by_checksum(a: TensorRef, b: TensorRef) -> bool | None:
    """Whether the stored checksums of two tensors of one dtype agree; None where they cannot tell.

    A checksum of 0 counts as none: some writers leave it out. That of more than the tensor, such as
    a header, shows that it is equal where both lie in equal parts of their files.
    """
    ours, theirs = a.storage, b.storage
    if not isinstance(ours, FileBytes) or not isinstance(theirs, FileBytes):
        return None
    one, two = ours.checksum, theirs.checksum
    if one is None or two is None or not one.crc or not two.crc:
        return None
    if one.castagnoli or two.castagnoli:
        return None
    if _steps(a) != _steps(b) or _byteorder(a) != _byteorder(b):
        return None
    if covering(a) is not None and covering(b) is not None:
        return one.crc == two.crc
    inside, other_inside = ours.offset - one.offset, theirs.offset - two.offset
    alike = (one.crc, one.nbytes, inside) == (two.crc, two.nbytes, other_inside)
    return True if alike else None


def _unchecked(ref: TensorRef) -> TensorRef:
    """The same tensor, of which a part can be read without all being held against a checksum."""
    if not isinstance(ref.storage, FileBytes):
        return ref
    return replace(ref, storage=replace(ref.storage, checksum=None))


def _byteorder(ref: TensorRef) -> str:
    """Either "little" or "big"; "" where there is none to speak of."""
    if not isinstance(ref.storage, FileBytes) or DTYPES[ref.dtype].itemsize == 1:
        return ""
    return ref.storage.byteorder


def _steps(ref: TensorRef) -> tuple[int, ...]:
    """The strides of the axes that are stepped along."""
    return tuple(step for size, step in zip(ref.shape, ref.strides, strict=True) if size > 1)


# ------------------------------------------------------------------ bits


def _begin_alike(a: TensorRef, b: TensorRef, start: Tile) -> bool:
    """Whether some elements of two tensors of one dtype have the same bits."""
    with ExitStack() as stack:
        ours, theirs = (_unchecked(each).stored_reader(stack) for each in (a, b))
        return _same_bits(ours(start), theirs(start))


def _first_difference(a: TensorRef, b: TensorRef) -> Tile | None:
    """Where the bits of two tensors of one dtype and shape begin to differ, some elements of it."""
    if (
        a.ndim == 1
        and a.strides == b.strides == (1,)
        and isinstance(a.storage, FileBytes)
        and isinstance(b.storage, FileBytes)
        and _byteorder(a) == _byteorder(b)
    ):
        at = _differing_byte(a.storage, b.storage, _nbytes(a))
        if at is None:
            return None
        first = at // DTYPES[a.dtype].itemsize
        return (slice(first, min(first + SAMPLE, a.numel)),)
    with ExitStack() as stack:
        ours, theirs = a.stored_reader(stack), b.stored_reader(stack)
        for tile in _tiles(a.shape, TILE):
            if not _same_bits(ours(tile), theirs(tile)):
                return tile
    return None


def _differing_byte(a: FileBytes, b: FileBytes, nbytes: int) -> int | None:
    """The first of `nbytes` bytes in which two places in files differ."""
    size = min(BLOCK, nbytes)
    ours, theirs = bytearray(size), bytearray(size)
    with a.opened() as one, b.opened() as two:
        a.check(one)
        b.check(two)
        for at in range(0, nbytes, BLOCK):
            if nbytes - at < size:
                del ours[nbytes - at :], theirs[nbytes - at :]
            read_into(one, a.path, a.offset + at, memoryview(ours))
            read_into(two, b.path, b.offset + at, memoryview(theirs))
            if ours != theirs:
                differ = np.frombuffer(ours, np.uint8) != np.frombuffer(theirs, np.uint8)
                return at + int(differ.argmax())
    return None


def _same_bits(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two arrays of one dtype have the same bits, whatever their byte orders."""
    ours, theirs = (
        np.ascontiguousarray(each.astype(each.dtype.newbyteorder("="), copy=False))
        for each in (a, b)
    )
    return ours.tobytes() == theirs.tobytes()


# ------------------------------------------------------------------ values and places


def _parts(values: NDArray[Any]) -> NDArray[Any]:
    """The real and imaginary parts of values, float64."""
    return np.ascontiguousarray(values, np.complex128).view(np.float64)


def _nbytes(ref: TensorRef) -> int:
    return ref.numel * DTYPES[ref.dtype].itemsize


def _flat(a: TensorRef, b: TensorRef) -> tuple[TensorRef, TensorRef]:
    """Two tensors of one shape as they lie, in one axis, where both lie in one order."""
    if _steps(a) == _steps(b) and is_dense(a):
        shape = (a.numel,)
        return replace(a, shape=shape, strides=(1,)), replace(b, shape=shape, strides=(1,))
    return a, b


def _tiles(shape: tuple[int, ...], most: int) -> Iterator[Tile]:
    """The places of blocks of at most so many elements; the longest sides of a block are cut.

    So a block has short runs in no order of the axes in memory.
    """
    sizes = list(shape)
    while (count := prod(sizes)) > most:
        longest = max(range(len(sizes)), key=sizes.__getitem__)
        cut = max(most * sizes[longest] // count, (sizes[longest] + 1) // 2)
        sizes[longest] = min(cut, sizes[longest] - 1)
    if 0 not in sizes:
        starts = (range(0, size, step) for size, step in zip(shape, sizes, strict=True))
        for corner in product(*starts):
            yield tuple(
                slice(at, min(at + step, size))
                for at, step, size in zip(corner, sizes, shape, strict=True)
            )


def orders(shape: tuple[int, ...], other: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The orders in which axes of `other` may be those of `shape`, in another framework's layout.

    A kernel is (out, in, ...) in PyTorch and (..., in, out) in TensorFlow and JAX, or
    (..., out, 1) where TensorFlow convolves each channel by itself.
    """
    axes = tuple(range(len(shape)))
    if len(shape) != len(other) or not 2 <= len(shape) <= 5:
        return
    orders = ((*axes[2:], 1, 0), (*axes[:-3:-1], *axes[:-2]), (*axes[2:], 0, 1))
    for order in dict.fromkeys((*orders, (*axes[-2:], *axes[:-2]))):
        if order != axes and tuple(other[axis] for axis in order) == shape:
            yield order


def turned(ref: TensorRef, order: tuple[int, ...]) -> TensorRef:
    """The tensor with its axes in another order."""
    return replace(
        ref,
        shape=tuple(ref.shape[axis] for axis in order),
        strides=tuple(ref.strides[axis] for axis in order),
    )
