"""Layers of two files matched without names: by equal contents, or by their widths in order."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES
from bncli.errors import TensorError
from bncli.light import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import TensorRef
    from bncli.state_dict import LayerRefs

MOST_CELLS = 1_000_000
"""How many pairs of layers are looked at for widths in the same order; above, only two equal
sequences are matched."""

Kind = tuple[int, ...]
"""What two layers have in common that may belong together: the widths, or more."""

_TELLING = ("running_var", "running_mean", "weight")
"""Tensors by whose values a layer is known; a bias is 0 in too many."""


def contents(a: Sequence[LayerRefs], b: Sequence[LayerRefs]) -> list[tuple[str, str]]:
    """The names of layers with equal running_var, else running_mean or weight, in pairs.

    Only values that one layer of each file has count, and not those that are the same in all
    channels, as a fresh layer's are. Raises FileError where a tensor is damaged.
    """
    pairs: list[tuple[str, str]] = []
    for leaf in _TELLING:
        taken = {name for pair in pairs for name in pair[:1]}
        other_taken = {pair[1] for pair in pairs}
        ours = [layer for layer in a if layer.name not in taken]
        theirs = [layer for layer in b if layer.name not in other_taken]
        shapes = _shapes(ours, leaf) & _shapes(theirs, leaf)
        first, second = (_by_values(side, leaf, shapes) for side in (ours, theirs))
        pairs += [
            (names[0], second[key][0])
            for key, names in first.items()
            if len(names) == 1 and len(second.get(key, ())) == 1
        ]
    return pairs


def _shapes(layers: Sequence[LayerRefs], leaf: str) -> set[tuple[int, ...]]:
    refs = (getattr(layer, leaf) for layer in layers)
    return {ref.shape for ref in refs if ref is not None}


def _by_values(
    layers: Sequence[LayerRefs], leaf: str, shapes: set[tuple[int, ...]]
) -> dict[bytes, list[str]]:
    """The names of layers by the values of a tensor, which are compared as float64."""
    found: dict[bytes, list[str]] = defaultdict(list)
    for layer in layers:
        ref: TensorRef | None = getattr(layer, leaf)
        if ref is not None and ref.shape in shapes and (values := _values(ref)) is not None:
            found[values.tobytes()].append(layer.name)
    return found


def _values(ref: TensorRef) -> NDArray[Any] | None:
    """A tensor as float64, None where it is not one of numbers that differ."""
    if ref.dtype not in DTYPES or DTYPES[ref.dtype].kind != "float" or ref.numel < 2:
        return None
    try:
        values = ref.read().astype(np.float64)
    except TensorError:  # what is wrong with it is said where the layer is read
        return None
    return values if bool((values != values.flat[0]).any()) else None


def out_of_order(
    pairs: Collection[tuple[str, str]], a: Sequence[LayerRefs], b: Sequence[LayerRefs]
) -> list[tuple[str, str]]:
    """The pairs of names whose places among all pairs differ, be the files sorted by name or not.

    Of several ways to sort the layers the one that leaves fewest such pairs counts.
    """
    found: list[list[tuple[str, str]]] = []
    for ours, theirs in product(*_orders(a, b)):
        places, other_places = (
            {layer.name: at for at, layer in enumerate(each)} for each in (ours, theirs)
        )
        first = sorted(pairs, key=lambda pair: places[pair[0]])
        second = sorted(pairs, key=lambda pair: other_places[pair[1]])
        found.append([one for one, two in zip(first, second, strict=True) if one != two])
    return min(found, key=len)


def _orders(*files: Sequence[LayerRefs]) -> list[list[list[LayerRefs]]]:
    """The layers of each file in its order, and in that of the numbers in their names."""
    return [
        [list(layers), sorted(layers, key=lambda layer: _natural(layer.name))] for layers in files
    ]


def aligned(
    a: Sequence[LayerRefs],
    b: Sequence[LayerRefs],
    kinds: Mapping[str, Kind],
    others: Mapping[str, Kind],
) -> list[tuple[str, str]]:
    """The names of layers that have the same place in both sequences, in pairs.

    `kinds` and `others` say of the layers of each file, by name, what two layers that belong
    together have in common. Two equal sequences give all layers, in the files' order or, since some
    files are sorted by name, in that of the numbers in the names. Otherwise a pair is given where
    each way to match as many layers as can be matched in order has it. Empty where the sequences
    are too long for that.
    """
    for ours, theirs in product(*_orders(a, b)):
        if [kinds[one.name] for one in ours] == [others[two.name] for two in theirs]:
            return [(one.name, two.name) for one, two in zip(ours, theirs, strict=True)]
    if not a or not b or len(a) * len(b) > MOST_CELLS:
        return []
    numbers: dict[Kind, int] = {}
    sequences = [
        [numbers.setdefault(of[layer.name], len(numbers)) for layer in layers]
        for layers, of in ((a, kinds), (b, others))
    ]
    return [(a[i].name, b[j].name) for i, j in common(*sequences)]


def common(a: Sequence[int], b: Sequence[int]) -> list[tuple[int, int]]:
    """The indices that are paired in every longest common subsequence of two, in order."""
    ahead = _lengths(a, b)
    behind = _lengths(a[::-1], b[::-1])[::-1, ::-1]
    rank = ahead[:-1, :-1] + 1
    equal = np.asarray(a)[:, None] == np.asarray(b)[None, :]
    on_a_path = equal & (rank + behind[1:, 1:] == ahead[-1, -1])
    where: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for i, j in zip(*np.nonzero(on_a_path), strict=True):
        where[int(rank[i, j])].append((int(i), int(j)))
    return [where[each][0] for each in sorted(where) if len(where[each]) == 1]


def _lengths(a: Sequence[int], b: Sequence[int]) -> NDArray[np.int32]:
    """How long the longest common subsequence of the first i of `a` and j of `b` is, at [i, j]."""
    table = np.zeros((len(a) + 1, len(b) + 1), np.int32)
    others = np.asarray(b)
    for i, value in enumerate(a):
        above = table[i]
        row = np.maximum(above[1:], above[:-1] + (others == value))
        table[i + 1, 1:] = np.maximum.accumulate(row)
    return table


def _natural(name: str) -> list[tuple[str, int]]:
    """A key that sorts bn2 before bn10."""
    parts = re.findall(r"([^0-9]*)([0-9]*)", name)
    return [(text, int(number[:18]) if number else -1) for text, number in parts]
