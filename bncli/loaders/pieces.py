"""Pieces of a tensor, as ranks and partitioners write them, and the tensor that they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES
from bncli.errors import CorruptFileError, FileError, TensorError
from bncli.light import dataclass, np
from bncli.model import TensorRef

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_COMPARED = 1_000_000
"""Pairs of pieces of a tensor that are looked at for an overlap."""


@dataclass(frozen=True, slots=True)
class Box:
    """The part of a tensor that a piece is: where it begins on each axis, and how long it is."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def numel(self) -> int:
        """The number of elements."""
        product = 1
        for size in self.sizes:
            product *= size
        return product

    @property
    def slices(self) -> tuple[slice, ...]:
        """The part as an index of the tensor."""
        return tuple(
            slice(offset, offset + size)
            for offset, size in zip(self.offsets, self.sizes, strict=True)
        )

    def meets(self, other: Box) -> bool:
        """Whether two parts have an element in common; none of them is empty."""
        return all(
            a < b + n and b < a + m
            for a, m, b, n in zip(self.offsets, self.sizes, other.offsets, other.sizes, strict=True)
        )


def check_tiling(shape: tuple[int, ...], boxes: Sequence[Box]) -> str:
    """What is wrong with pieces that should be the whole of a tensor, each element once; or "".

    `boxes` are sorted by their offsets.
    """
    total = Box((), shape).numel
    for box in boxes:
        if len(box.offsets) != len(shape) or len(box.sizes) != len(shape):
            return "have other axes than the tensor"
        if any(a + n > size for a, n, size in zip(box.offsets, box.sizes, shape, strict=True)):
            return "reach outside of it"
    filled = [box for box in boxes if box.numel]
    covered = sum(box.numel for box in filled)
    compared = 0
    active: list[Box] = []
    for box in filled:
        active = (
            [other for other in active if other.offsets[0] + other.sizes[0] > box.offsets[0]]
            if shape
            else active
        )
        compared += len(active) + 1
        if compared > MOST_COMPARED:
            return "are too many to tell whether they overlap"
        if any(box.meets(other) for other in active):
            return "overlap"
        active.append(box)
    if covered != total:
        return f"have {covered} of its {total} elements"
    return ""


def assembled(whole: TensorRef, pieces: Iterable[tuple[Box, TensorRef]]) -> NDArray[Any]:
    """The elements of a tensor from all of its pieces, as a flat array of the stored dtype.

    Raises CorruptFileError where a piece cannot be read, FileError without enough memory.
    """
    try:
        out = np.empty(whole.shape, DTYPES[whole.dtype].stored)
    except (MemoryError, ValueError) as error:
        raise FileError(whole.path, "there is not enough memory to read it.") from error
    for box, ref in pieces:
        out[box.slices] = _bits(ref)
    return out.reshape(-1)


def _bits(ref: TensorRef) -> NDArray[Any]:
    """The elements of a piece. What cannot be read of it makes the tensor damaged."""
    try:
        return ref.stored()
    except TensorError as error:
        raise CorruptFileError(ref.path, f"a piece of a tensor cannot be read: {error}") from error
