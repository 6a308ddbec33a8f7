"""Whether the weights of two files are those of one network at two times."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from bncli.changes.correlation import cosine_of, is_weight, judged, out_first
from bncli.changes.matching import Match
from bncli.changes.matching.spelling import bare_name
from bncli.state_dict.in_front import in_front

if TYPE_CHECKING:
    from bncli.model import TensorFile, TensorRef
    from bncli.state_dict import LayerRefs

_MOST_TENSORS = 16
"""How many weights are compared, evenly spread over the network."""


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
    found = [each for pair in pairs[::step] if (each := cosine_of(*pair)) is not None]
    if not found:
        return None, None
    return judged(found)


def _by_name(
    a: TensorFile, b: TensorFile, matches: Sequence[Match]
) -> Iterator[tuple[TensorRef, TensorRef]]:
    """The weights of the same name, below the modules that hold all matched layers."""
    layers = [(match.a, match.b) for match in matches if match.a and match.b]
    ours = _weights(a, [layer for layer, _ in layers])
    theirs = _weights(b, [layer for _, layer in layers])
    for name, ref in ours.items():
        if layers and name in theirs and theirs[name].shape == ref.shape:
            yield out_first(ref), out_first(theirs[name])


def _weights(file: TensorFile, layers: Collection[LayerRefs]) -> dict[str, TensorRef]:
    """The weights below the module that holds all of the layers, by their names in it."""
    above = _shared([bare_name(layer.name).split(".")[:-1] for layer in layers])
    cut = "".join(f"{part}." for part in above)
    return {
        name[len(cut) :]: ref
        for full, ref in file.tensors.items()
        if is_weight(ref) and (name := bare_name(full)).startswith(cut)
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
    """The weights in front of matched layers, where they have one shape, as PyTorch has them."""
    ours = in_front(a, {match.a.name: match.a for match in matches if match.a})
    theirs = in_front(b, {match.b.name: match.b for match in matches if match.b})
    for match in matches:
        if match.a and match.b and match.a.name in ours and match.b.name in theirs:
            near, other = ours[match.a.name], theirs[match.b.name]
            one, two = out_first(near.weight, near.axis), out_first(other.weight, other.axis)
            if one.shape == two.shape and is_weight(one):
                yield one, two
