"""Whether the weights of two files are those of one network at two times."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from bncli.changes.matching import Match, bare_name
from bncli.dtypes import DTYPES
from bncli.light import np
from bncli.rulebook.order import median
from bncli.rulebook.pairs import sample
from bncli.state_dict.in_front import in_front

if TYPE_CHECKING:
    from bncli.model import FloatArray, TensorFile, TensorRef
    from bncli.state_dict import LayerRefs

RELATED = 4.0
"""The median of cos * sqrt(n) from which weights are related. For weights that have nothing in
common it is that of numbers which are about normal with variance 1: a single tensor exceeds 4 once
in 30,000 times, the median of several practically never."""

APART = 2.5
"""The median up to which they are not, where the cosine is small, too."""
SMALL = 0.1
"""The median cosine up to which weights are not related: what is left of those of one run is 0.4
after hundreds of epochs."""
FEWEST_VALUES = 1000
"""How many values it takes to say that weights are not related. The median cosine of n values in
several tensors varies by 1.25/sqrt(n), so that one of 0.25 is below SMALL once in 10,000 times."""
STRIKING = 8.0
"""cos * sqrt(n) of a single weight from which the networks have something in common: a part of them
may have been frozen."""

_MOST_TENSORS = 16
"""How many weights are compared, evenly spread over the network."""
_MOST_VALUES = 4096
"""How many values of each."""
_FEWEST_OF_TENSOR = 16
"""A weight with fewer values says little."""


def kinship(
    a: TensorFile, b: TensorFile, matches: Sequence[Match]
) -> tuple[float | None, bool | None]:
    """The correlation of two files' weights, and whether they are of one network at two times.

    Compared are weights with two or more axes that have the same name and shape, counted from the
    modules that hold all matched layers; where names differ, those in front of matched layers.
    The correlation is the median of their cosines, each weight less its mean over its longest axis,
    as separate networks share what kernels have in common. None where there is nothing to compare,
    and the second where the numbers do not tell. Raises FileError where a weight is damaged.
    """
    pairs = list(_by_name(a, b, matches)) or list(_in_front(a, b, matches))
    step = -(-len(pairs) // _MOST_TENSORS) or 1
    found = [each for pair in pairs[::step] if (each := _cosine(*pair)) is not None]
    if not found:
        return None, None
    cosine = median(np.array([each for each, _ in found]))
    strengths = np.array([each * np.sqrt(count) for each, count in found])
    strength = median(strengths)
    if strength > RELATED:
        return cosine, True
    enough = sum(count for _, count in found) >= FEWEST_VALUES
    apart = strength < APART and cosine < SMALL and float(strengths.max()) < STRIKING
    return cosine, False if apart and enough else None


def _by_name(
    a: TensorFile, b: TensorFile, matches: Sequence[Match]
) -> Iterator[tuple[TensorRef, TensorRef]]:
    """The weights of the same name, below the modules that hold all matched layers."""
    layers = [(match.a, match.b) for match in matches if match.a and match.b]
    ours = _weights(a, [layer for layer, _ in layers])
    theirs = _weights(b, [layer for _, layer in layers])
    for name, ref in ours.items():
        if name in theirs and theirs[name].shape == ref.shape:
            yield ref, theirs[name]


def _weights(file: TensorFile, layers: Collection[LayerRefs]) -> dict[str, TensorRef]:
    """The weights below the module that holds all of the layers, by their names in it."""
    above = _shared([bare_name(layer.name).split(".")[:-1] for layer in layers])
    cut = "".join(f"{part}." for part in above)
    return {
        name[len(cut) :]: ref
        for full, ref in file.tensors.items()
        if _is_weight(ref) and (name := bare_name(full)).startswith(cut)
    }


def _shared(names: Sequence[Sequence[str]]) -> list[str]:
    """The components that all of some names begin with."""
    shared = []
    for parts in zip(*names, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return shared


def _in_front(
    a: TensorFile, b: TensorFile, matches: Sequence[Match]
) -> Iterator[tuple[TensorRef, TensorRef]]:
    """The weights in front of matched layers, where they have one shape."""
    ours = in_front(a, {match.a.name: match.a for match in matches if match.a})
    theirs = in_front(b, {match.b.name: match.b for match in matches if match.b})
    for match in matches:
        if match.a and match.b and match.a.name in ours and match.b.name in theirs:
            pair = ours[match.a.name].weight, theirs[match.b.name].weight
            if pair[0].shape == pair[1].shape and _is_weight(pair[0]):
                yield pair


def _is_weight(ref: TensorRef) -> bool:
    kind = DTYPES[ref.dtype].kind if ref.dtype in DTYPES else ""
    return ref.ndim >= 2 and ref.numel >= _FEWEST_OF_TENSOR and kind == "float"


def _cosine(a: TensorRef, b: TensorRef) -> tuple[float, float] | None:
    """The cosine of two weights of one shape, and of how many free values; None where it has none.

    Equal values count as many as could be: chance does not make them.
    """
    ours, theirs = sample(a, _MOST_VALUES), sample(b, _MOST_VALUES)
    if ours is None or theirs is None or not (np.isfinite(ours) & np.isfinite(theirs)).all():
        return None
    first, second = _centred(ours), _centred(theirs)
    with np.errstate(all="ignore"):
        size = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
        cosine = float(np.vdot(first, second)) / size if size else float("nan")
    if not np.isfinite(cosine):
        return None
    if np.array_equal(ours, theirs):
        return 1.0, float(_MOST_VALUES)
    return cosine, ours.size * (1 - 1 / max(ours.shape))


def _centred(values: FloatArray) -> FloatArray:
    """Values less their mean over the longest axis; exactly 0 where all of them are one number."""
    axis = int(np.argmax(values.shape))
    constant = values.min(axis=axis, keepdims=True) == values.max(axis=axis, keepdims=True)
    result: FloatArray = np.where(constant, 0, values - values.mean(axis=axis, keepdims=True))
    return result
