"""Permutations of channels, found and named in the plainest way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_BLOCKS = 4
"""An order of more blocks than this is not listed."""


@dataclass(frozen=True, slots=True)
class Permutation:
    """An order of channels: `says` what follows "the channels are", such as "shifted by 3".

    `shift` is by how many channels all moved up, None where they did not; `moved` is the number of
    channels that have another channel's values. Channel i has what channel `order[i]` had.
    """

    says: str
    moved: int
    order: NDArray[np.intp] = field(compare=False)
    shift: int | None = None
    swapped: tuple[int, int] | None = None


def permutation_of(a: NDArray[Any], b: NDArray[Any]) -> Permutation | None:
    """How the rows of `a` are permuted in `b`, both of shape (channels, columns).

    None where they are not the same rows, all in place, or where the rows that moved are of whole
    numbers but for one: zeros and ones that move may be a mask's.
    """
    order = sorting_order(a, b)
    if order is None:
        return None
    moved = ~_equal(a, b)
    if len(np.unique(a[moved & ~round_numbers(a)], axis=0)) < 2:
        return None
    count = int(moved.sum())
    if count == 2:
        one, two = np.flatnonzero(moved).tolist()
        return Permutation(f"swapped in two places, {one} and {two}", 2, order, swapped=(one, two))
    for says, named, shift in _named(a, b, order):
        if _equal(a[named], b).all():
            return Permutation(says, count, named, shift)
    return Permutation(f"permuted, {count} of {len(a)} of them moved", count, order)


def sorting_order(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.intp] | None:
    """`order` with a[order] equal to b, as rows; None where they are not the same rows.

    Of rows that occur more than once, the first goes to the first.
    """
    if a.shape != b.shape:
        return None
    ours, theirs = _sorted(a), _sorted(b)
    if not _equal(a[ours], b[theirs]).all():
        return None
    order = np.empty(len(a), np.intp)
    order[theirs] = ours
    return order


def equal_values(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether all values are equal, NaN to NaN."""
    return bool(np.array_equal(a, b, equal_nan=True))


def round_numbers(rows: NDArray[Any]) -> NDArray[np.bool_]:
    """The rows of whole numbers, such as 0 and 1, which training does not leave; a mask.

    Columns that are the same in all rows do not count.
    """
    varied = [column for column in rows.T if (column != column[0]).any()]
    if not varied:
        return np.ones(len(rows), bool)
    with np.errstate(invalid="ignore"):
        whole = [(column == np.rint(column)) | ~np.isfinite(column) for column in varied]
    result: NDArray[np.bool_] = np.logical_and.reduce(whole)
    return result


def _sorted(rows: NDArray[Any]) -> NDArray[np.intp]:
    return np.lexsort(rows.T[::-1])


def _equal(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows are equal, NaN to NaN; a mask."""
    result: NDArray[np.bool_] = ((a == b) | (np.isnan(a) & np.isnan(b))).all(axis=1)
    return result


def _named(
    a: NDArray[Any], b: NDArray[Any], order: NDArray[np.intp]
) -> Iterator[tuple[str, NDArray[np.intp], int | None]]:
    """The orders that have a name, as `order`, with the shift of those that have one.

    Where rows occur more than once, the plain order may be one of several that fit.
    """
    count = len(a)
    every = np.arange(count)
    half = count // 2
    if count % 2 == 0 and half > 1:
        halves = f"0..{half - 1} and {half}..{count - 1}"
        yield f"exchanged by halves, {halves}", np.roll(every, half), half
    # Any row of the first that equals row 0 of the second may be where a shift begins.
    for start in np.flatnonzero(_equal(a, np.broadcast_to(b[0], a.shape))).tolist():
        shift = (count - start) % count
        signed = shift if shift <= half else shift - count
        yield f"shifted by {signed}", np.roll(every, shift), signed
    yield "reversed", every[::-1], None
    for groups in range(2, count // 2 + 1):
        if count % groups:
            continue
        shuffled = every.reshape(groups, count // groups).T.ravel()
        if groups == half:
            yield "sorted, the even ones first", shuffled, None
            odd_first = np.concatenate([every[1::2], every[::2]])
            yield "sorted, the odd ones first", odd_first, None
        elif groups == 2:
            yield "interleaved from the two halves", shuffled, None
        else:
            yield f"shuffled in {groups} groups", shuffled, None
    if count % 2 == 0:
        pairs = every.reshape(-1, 2)[:, ::-1].ravel()
        yield "swapped in neighbouring pairs", pairs, None
    yield from _blocks(order)


def _blocks(order: NDArray[np.intp]) -> Iterator[tuple[str, NDArray[np.intp], None]]:
    """A few runs of channels, one behind the other in another order."""
    cuts = np.flatnonzero(np.diff(order) != 1) + 1
    if len(cuts) >= MOST_BLOCKS:
        return
    runs = [(int(run[0]), int(run[-1])) for run in np.split(order, cuts)]
    if all(first == last for first, last in runs):
        return
    said = ", ".join(str(first) if first == last else f"{first}..{last}" for first, last in runs)
    yield f"in another order, {said}", order, None
