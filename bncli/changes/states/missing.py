"""Tensors that one of the two layers lacks, and layers of another size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.changes.pair import Files, LayerPair, Side
from bncli.model.changes import Found, State
from bncli.rulebook.interface import examples
from bncli.state_dict import VECTORS

if TYPE_CHECKING:
    from collections.abc import Sequence

NEUTRAL = {"weight": 1.0, "bias": 0.0}
"""What a layer without one of these computes with."""


def find(pair: LayerPair, files: Files) -> Found | None:  # noqa: ARG001  # as every `find`
    """LOST where one side lacks a tensor with values of its own, DIFFERENT where sizes differ."""
    for side, other, where in ((pair.a, pair.b, "first"), (pair.b, pair.a, "second")):
        missing = [leaf for leaf in VECTORS if _lacks(side, other, leaf)]
        if missing:
            if "running_mean" in missing and _lacks(side, other, "num_batches_tracked"):
                missing.append("num_batches_tracked")
            be = "is" if len(missing) == 1 else "are"
            return Found(
                State.LOST,
                f"{examples(missing, len(VECTORS) + 1)} {be} missing in the {where} file",
                numbers={"cause": "missing", "missing": missing, "missing_in": where},
                hint=_fix(missing, "second" if where == "first" else "first"),
            )
    unread = [*pair.a.layer.unread, *pair.b.layer.unread]
    if unread:
        return Found(
            State.DIFFERENT,
            "not all of it could be read",
            " ".join(unread),
            numbers={"cause": "unread"},
        )
    if not pair.coherent:
        sizes = [_sizes(side) for side in (pair.a, pair.b)]
        return Found(
            State.DIFFERENT,
            f"it has {sizes[0]} channels in the first file, {sizes[1]} in the second",
            numbers={"cause": "size"},
            hint="Compare files of one architecture.",
        )
    return None


def _fix(missing: Sequence[str], there: str) -> str:
    """What to do about missing tensors that the other file has."""
    what = "the missing tensor" if len(missing) == 1 else "the missing tensors"
    if {"weight", "bias"} & {*missing}:
        return f"Take {what} from the {there} file."
    return f"Take {what} from the {there} file, or re-estimate them with bncli recalibrate."


def _lacks(side: Side, other: Side, leaf: str) -> bool:
    """Whether a side has no such tensor, and the other has one that is not neutral."""
    if leaf in side.layer.shapes or leaf not in other.layer.shapes:
        return False
    if leaf == "num_batches_tracked":
        return True
    values = other.vector(leaf)
    return values is None or leaf not in NEUTRAL or bool((values != NEUTRAL[leaf]).any())


def _sizes(side: Side) -> str:
    """The number of channels of a layer, or all that its tensors have."""
    sizes: Sequence[int] = sorted(
        {len(values) for values in side.layer.vectors.values() if values is not None}
    )
    return " and ".join(map(str, sizes))
