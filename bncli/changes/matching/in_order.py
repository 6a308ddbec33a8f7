"""Layers of two files matched by their widths, and what is in front of them, in order."""

from __future__ import annotations

from collections.abc import Sequence

from bncli.changes.matching.alignment import aligned
from bncli.changes.matching.behind import Fronts
from bncli.changes.matching.sides import Layers, width
from bncli.state_dict.in_front import in_front

FEWEST = 3
"""How many layers have to have the same names, or widths, for a part of a file to be taken for
another part, unless a file has no more layers than that."""


def in_order(
    ours: Layers, theirs: Layers, matched_before: int, *, named: bool
) -> list[tuple[str, str]]:
    """The layers left that belong together by their kinds in order, if it can be no chance.

    Their kind is the number of channels and, where it is known in both files, the shape of what is
    in front of them. Half of the smaller file's layers have to be matched in the end; and FEWEST at
    once, unless neither file has others. Where only the channels are known, two sequences that
    differ have to agree in half of the larger file.
    """
    a, b = ours.left, theirs.left
    if not a or not b:
        return []
    fronts = fronts_of(ours, theirs)
    known = all(
        2 * sum(layer.name in front for layer in layers) >= len(layers)
        for layers, front in zip((a, b), fronts, strict=True)
    )
    kinds = [
        {
            layer.name: (
                *width(layer),
                *(sorted(front[layer.name].weight.shape) if known and layer.name in front else ()),
            )
            for layer in layers
        }
        for layers, front in zip((a, b), fronts, strict=True)
    ]
    pairs = aligned(a, b, *kinds)
    sizes = len(ours.judged), len(theirs.judged)
    whole = len(pairs) == len(a) == len(b)
    if len(pairs) < FEWEST and not (whole and not named and sizes[0] == sizes[1]):
        return []
    part = min(sizes) if known or whole else max(sizes)
    if 2 * (matched_before + len(pairs)) < part:
        return []
    return pairs + _by_width(ours, theirs, pairs, fronts)


def _by_width(
    ours: Layers,
    theirs: Layers,
    pairs: Sequence[tuple[str, str]],
    fronts: tuple[Fronts, Fronts],
) -> list[tuple[str, str]]:
    """The few layers left beside some pairs whose widths agree in order, as does what is in front.

    So a layer is found of which one file alone shows what is in front of it, or that it is one.
    """
    used, other_used = ({pair[at] for pair in pairs} for at in (0, 1))
    rest = [layer for layer in ours.possible if layer.name not in used]
    other_rest = [layer for layer in theirs.possible if layer.name not in other_used]
    if 2 * min(len(rest), len(other_rest)) > len(pairs):
        return []
    widths = [{layer.name: width(layer) for layer in layers} for layers in (rest, other_rest)]
    return [
        (name, other)
        for name, other in aligned(rest, other_rest, *widths)
        if (name in ours.judged or other in theirs.judged)
        and len(
            {
                tuple(sorted(front[each].weight.shape))
                for front, each in zip(fronts, (name, other), strict=True)
                if each in front
            }
        )
        < 2
    ]


def fronts_of(ours: Layers, theirs: Layers) -> tuple[Fronts, Fronts]:
    """What is in front of the layers of both files."""
    return in_front(ours.file, ours.every), in_front(theirs.file, theirs.every)
