"""The weights of two files that belong to no BatchNorm layer and stand before none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from bncli.changes.contents import compared
from bncli.dtypes import DTYPES
from bncli.gate.places import names_of
from bncli.model.changes import OtherWeights, Same
from bncli.process.progress import progress

if TYPE_CHECKING:
    from bncli.model import TensorFile, TensorRef


def other_weights(
    a: TensorFile, b: TensorFile, used: Collection[str], other_used: Collection[str]
) -> OtherWeights:
    """How all tensors of two files compare but those that are `used`, by names without wrappers.

    `used` and `other_used` are full names in the one and the other file. Scalars and integers
    count, too. Tensors of two shapes have moved. Raises FileError as `compared` does.
    """
    both, alone, other_alone = _paired(_left(a, used), _left(b, other_used))
    counts = dict.fromkeys(Same, 0)
    moved, unread = [], []
    with progress("other weights", sum(_nbytes(ref) for ref, _ in both)) as advance:
        for ref, other in both:
            same = compared(ref, other)
            if same is None and ref.shape == other.shape:
                unread.append(ref.name)
            elif same in {None, Same.MOVED}:
                moved.append(ref.name)
            else:
                counts[same] += 1
            advance(_nbytes(ref))
    return OtherWeights(
        same=counts[Same.SAME],
        rounded=counts[Same.ROUNDED],
        moved=tuple(moved),
        unread=tuple(unread),
        alone=tuple(alone),
        other_alone=tuple(other_alone),
    )


def _left(file: TensorFile, used: Collection[str]) -> dict[str, TensorRef]:
    """The tensors that are not used, by their names without the file's wrapper, "/" as "."."""
    bare = names_of(tuple(file.tensors)).bare
    used = frozenset(used)
    left = {bare(name): ref for name, ref in file.tensors.items() if name not in used}
    dotted = {name.replace("/", "."): ref for name, ref in left.items()}
    return dotted if len(dotted) == len(left) else left


def _paired(
    ours: Mapping[str, TensorRef], theirs: Mapping[str, TensorRef]
) -> tuple[list[tuple[TensorRef, TensorRef]], list[str], list[str]]:
    """The tensors that both files have, and the full names of those that only one has.

    What has no partner is looked for once more without any wrapper that it may have: the weights
    of one file may stand beside an optimizer's state, so that not all of its names share one.
    """
    partner = {name: name for name in ours if name in theirs}
    rest = _without_wrappers(name for name in ours if name not in partner)
    other_rest = _without_wrappers(name for name in theirs if name not in partner)
    partner |= {name: other_rest[short] for short, name in rest.items() if short in other_rest}
    taken = set(partner.values())
    return (
        [(ref, theirs[partner[name]]) for name, ref in ours.items() if name in partner],
        [ref.name for name, ref in ours.items() if name not in partner],
        [ref.name for name, ref in theirs.items() if name not in taken],
    )


def _without_wrappers(names: Iterable[str]) -> dict[str, str]:
    """Names by themselves without wrappers; only those that are then still the only ones."""
    short = {name: names_of((name,)).bare(name) for name in names}
    count = Counter(short.values())
    return {bare: name for name, bare in short.items() if count[bare] == 1}


def _nbytes(ref: TensorRef) -> int:
    return 0 if ref.storage is None else ref.numel * DTYPES[ref.dtype].itemsize
