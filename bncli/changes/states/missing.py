"""Tensors that one of the two layers lacks, and layers of another size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.changes.pair import Files, LayerPair, Side
from bncli.model.changes import Found, Same, State
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
        if missing and set(missing) <= set(NEUTRAL) and _has_none(side):
            return _without(missing, other, where)
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
        equal = pair.statistics is Same.SAME
        return Found(
            State.DIFFERENT,
            f"not all of it could be read{'; the statistics are identical' if equal else ''}",
            " ".join(unread),
            numbers={"cause": "unread"},
            hint="Compare files that have all values of the layer.",
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


def _has_none(side: Side) -> bool:
    """Whether a file says itself which tensors its layer computes with."""
    module = side.refs.module
    return module is not None and (module.affine is False or module.convention != "pytorch")


def _without(missing: Sequence[str], other: Side, where: str) -> Found:
    """A layer that computes without a weight or a bias, by its own file's account."""
    there = "second" if where == "first" else "first"
    said = []
    for leaf in missing:
        values = other.vector(leaf)
        if values is not None and values.size:
            low, high = float(values.min()), float(values.max())
            many = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
            said.append(f"{leaf} counts as {NEUTRAL[leaf]:g} and is {many} in the {there}")
    what = ", ".join(said) or f"{examples(missing)} is in the {there} file alone"
    return Found(
        State.DIFFERENT,
        f"in the {where} file {what}",
        f"The {where} file's layer has no {' and no '.join(missing)} of its own.",
        numbers={"cause": "no-affine", "missing": list(missing), "missing_in": where},
        hint=f"Give the {where} file's layer the tensor (fix_gamma=False in MXNet, scale=True or "
        f"center=True in Keras, affine=True in PyTorch), or leave it out of the {there} file's.",
    )


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
    if leaf not in NEUTRAL:
        return True
    if values is None:  # whether it is one that does nothing is not known
        return not _has_none(side)
    return bool((values != NEUTRAL[leaf]).any())


def _sizes(side: Side) -> str:
    """The number of channels of a layer, or all that its tensors have."""
    sizes: Sequence[int] = sorted(
        {len(values) for values in side.layer.vectors.values() if values is not None}
    )
    return " and ".join(map(str, sizes))
