"""What the weights in front of layers tell of which layers of two files belong together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from bncli.changes.contents import compared
from bncli.changes.correlation import cosine_of, is_weight, judged, out_first
from bncli.model.changes import Same
from bncli.state_dict.in_front import InFront

MOST = 16
"""How many weights tell whether they are of one network."""

Fronts = Mapping[str, InFront]
"""What is in front of layers, by the layers' names."""


def behind_the_same(
    crossed: Collection[tuple[str, str]], fronts: Fronts, others: Fronts
) -> list[tuple[str, str]]:
    """The layers among some pairs that stand behind the same weights, and not behind their pair's.

    Those are layers that hold each other's tensors.
    """
    found = []
    for name, other in crossed:
        near = fronts.get(name)
        if near is None or other not in others or _same(near, others[other]):
            continue
        there = [each for _, each in crossed if each in others and _same(near, others[each])]
        found += [(name, each) for each in there if len(there) == 1]
    return found


def kin(pairs: Sequence[tuple[str, str]], fronts: Fronts, others: Fronts) -> bool:
    """Whether the weights in front of some pairs of layers are of one network at two times."""
    weights = [
        (out_first(one.weight, one.axis), out_first(two.weight, two.axis))
        for name, other in pairs
        if (one := fronts.get(name)) is not None and (two := others.get(other)) is not None
    ]
    fit = [(a, b) for a, b in weights if a.shape == b.shape and is_weight(a) and is_weight(b)]
    some = fit[:: -(-len(fit) // MOST) or 1]
    found = [each for a, b in some if (each := cosine_of(a, b)) is not None]
    return bool(found) and judged(found)[1] is True


def _same(one: InFront, other: InFront) -> bool:
    return compared(one.weight, other.weight) in (Same.SAME, Same.ROUNDED)
