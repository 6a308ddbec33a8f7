"""Channels in another order, and layers that hold another layer's tensors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.changes.pair import Files, LayerPair, as_dtype, coarser
from bncli.changes.states.order.holders import Holder, holder_of, other_branch, twin_of
from bncli.changes.states.order.permutations import (
    Permutation,
    equal_values,
    permutation_of,
    round_numbers,
)
from bncli.changes.states.order.reordered import convolution_order
from bncli.light import np
from bncli.model.changes import Found, Same, State
from bncli.report import Certainty
from bncli.rulebook.interface import MOST_EVIDENCE, examples, in_prose
from bncli.rulebook.layers import HALVES, plain_count
from bncli.state_dict import VECTORS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bncli.model import FloatArray
    from bncli.report import Value

STATISTICS = ("running_mean", "running_var")
Vectors = tuple[dict[str, "FloatArray"], dict[str, "FloatArray"], dict[str, str]]
"""The vectors of the first and the second layer, and the dtypes to which they were rounded."""


OWN = "Load each layer's tensors under its own name."
"""The fix where a layer holds another's tensors."""


def find(pair: LayerPair, files: Files) -> Found | None:
    """ORDER where the second layer has the first's values in other channels, or another layer's."""
    if not pair.coherent or pair.of(*pair.same) is not Same.MOVED:
        return None
    ours, theirs, dtypes = rounded(pair)
    if not set(STATISTICS) <= set(ours):
        return None
    return _permuted(pair, ours, theirs) or _other_layer(pair, files, (ours, theirs, dtypes))


def rounded(pair: LayerPair) -> Vectors:
    """The vectors that both have, rounded to the dtype of the two that has fewer digits; and those.

    Where one of the layers went through half precision, both are rounded to that.
    """
    stored = [
        {leaf: side.layer.dtypes[leaf] for leaf in VECTORS if _in_both(pair, leaf)}
        for side in (pair.a, pair.b)
    ]
    dtypes = {leaf: coarser(dtype, stored[1][leaf]) for leaf, dtype in stored[0].items()}
    vectors: list[dict[str, FloatArray]] = []
    for side in (pair.a, pair.b):
        wide = {leaf: side.vector(leaf) for leaf in dtypes}
        vectors.append({leaf: values for leaf, values in wide.items() if values is not None})
    for half in HALVES:  # float16 keeps more digits, so that it is not taken for bfloat16
        if any(_held(each, half) for each in vectors):
            dtypes = {leaf: coarser(dtype, half) for leaf, dtype in dtypes.items()}
            break
    a, b = (
        {
            # + 0.0 makes the negative zero a positive one
            leaf: (values if own[leaf] == dtypes[leaf] else as_dtype(values, dtypes[leaf])) + 0.0
            for leaf, values in each.items()
        }
        for own, each in zip(stored, vectors, strict=True)
    )
    return a, b, dtypes


def _in_both(pair: LayerPair, leaf: str) -> bool:
    return pair.a.vector(leaf) is not None and pair.b.vector(leaf) is not None


def _held(vectors: Mapping[str, FloatArray], half: str) -> bool:
    """Whether a half-precision dtype holds all values exactly, and they are not all the same."""
    if not all(_few_digits(value) for values in vectors.values() for value in values[:4].tolist()):
        return False
    return all(
        np.array_equal(as_dtype(values, half), values, equal_nan=True)
        for values in vectors.values()
    ) and any(len(np.unique(vectors[leaf])) > 1 for leaf in STATISTICS if leaf in vectors)


def _few_digits(value: float) -> bool:
    """Whether a value has no more digits than float16 keeps, as bfloat16's have; at little cost."""
    return not math.isfinite(value) or (math.frexp(value)[0] * 2**11).is_integer()


def _permuted(
    pair: LayerPair, ours: Mapping[str, FloatArray], theirs: Mapping[str, FloatArray]
) -> Found | None:
    """One permutation of all tensors, or of some of them, the others being in place."""
    leaves = [leaf for leaf in VECTORS if leaf in ours]
    if not all(equal_values(np.sort(ours[leaf]), np.sort(theirs[leaf])) for leaf in leaves):
        return None
    whole = permutation_of(_matrix(ours, leaves), _matrix(theirs, leaves))
    if whole is not None:
        convolution = convolution_order(pair, ours, theirs, leaves)
        words = {
            "same order": "The convolution before it is in the same order.",
            "not permuted": "The convolution before it is not in that order.",
        }
        what = f"the channels are {whole.says}"
        if whole.swapped:
            what = f"channels {whole.swapped[0]} and {whole.swapped[1]} are swapped"
        return Found(
            State.ORDER,
            what,
            " ".join(filter(None, (words.get(convolution, ""), _counted(pair)))),
            numbers=_numbers("permuted", whole, leaves, convolution=convolution),
            hint=""
            if convolution == "same order"
            else "Put the channels into the order of the convolution before the layer.",
        )
    moved = [leaf for leaf in leaves if not equal_values(ours[leaf], theirs[leaf])]
    kept = [leaf for leaf in leaves if leaf not in moved]
    each = {leaf: permutation_of(_matrix(ours, [leaf]), _matrix(theirs, [leaf])) for leaf in moved}
    if None in each.values():
        return None
    together = permutation_of(_matrix(ours, moved), _matrix(theirs, moved))
    if together is None:
        orders = "; ".join(f"{leaf} {found.says}" for leaf, found in each.items() if found)
        return Found(
            State.ORDER,
            f"{examples(moved, len(VECTORS))} are in different orders",
            f"The channels of each: {orders}.",
            numbers={"cause": "permuted-apart", "tensors": moved},
        )
    if not kept:
        return None
    verb = "are" if len(moved) > 1 else "is"
    return Found(
        State.ORDER,
        f"{examples(moved, len(VECTORS))} {verb} {together.says}, the rest is not",
        f"In {examples(kept, len(VECTORS))} every channel is in its place, so that each has "
        "numbers of another.",
        numbers=_numbers("permuted-in-part", together, moved, kept=kept),
        hint=f"Put {examples(moved, len(VECTORS))} back into the order of the others.",
    )


def _numbers(
    cause: str, permutation: Permutation, tensors: list[str], **more: Value
) -> dict[str, Value]:
    return {
        "cause": cause,
        "order": permutation.says,
        "shift": permutation.shift,
        "moved": permutation.moved,
        "permutation": permutation.order[:MOST_EVIDENCE].tolist(),
        "tensors": tensors,
        **more,
    }


def _matrix(vectors: Mapping[str, FloatArray], leaves: list[str]) -> FloatArray:
    """Some vectors as the columns of a matrix, one row a channel."""
    return np.column_stack([vectors[leaf] for leaf in leaves])


def _counted(pair: LayerPair) -> str:
    a, b = pair.a.counter, pair.b.counter
    if a is None or b is None or a == b:
        return ""
    return f"The counter went from {plain_count(a)} to {plain_count(b)}."


def _other_layer(pair: LayerPair, files: Files, vectors: Vectors) -> Found | None:
    """Another layer's tensors, or its statistics under the layer's own weight and bias."""
    ours, theirs, dtypes = vectors
    holder = holder_of(pair, files, ours, theirs, dtypes) if _tells(theirs) else None
    if holder is None:
        return _twin(pair, files, vectors)
    affine = [leaf for leaf in VECTORS if leaf in theirs and leaf not in STATISTICS]
    nothing: FloatArray = np.empty(0)
    same = all(equal_values(theirs[leaf], holder.vectors.get(leaf, nothing)) for leaf in affine)
    kept = all(equal_values(theirs[leaf], ours[leaf]) for leaf in affine)
    if not (same or kept):
        return None
    return (
        _held_by(holder)
        if same
        else Found(
            State.ORDER,
            f"the statistics are those of {in_prose(holder.name)}",
            "Weight and bias are the layer's own.",
            numbers=_holding("other-statistics", holder),
            hint="Put the layer's own statistics in their place.",
        )
    )


def _twin(pair: LayerPair, files: Files, vectors: Vectors) -> Found | None:
    """The tensors of another layer of the second file, which itself moved."""
    ours, theirs, dtypes = vectors
    twin, whole = twin_of(pair, files, ours, theirs, dtypes) if _tells(theirs) else ("", False)
    if not twin:
        return None
    what = "it holds the same as" if whole else "the statistics are those of"
    return Found(
        State.ORDER,
        f"{what} {in_prose(twin)} in the second file",
        "In the first file the two layers differ, and this one's statistics are further from what "
        "they were than the other's.",
        Certainty.LIKELY,
        {"cause": "twin", "holds": twin, "branch": other_branch(pair.b.refs.name, twin)},
        OWN,
    )


def _held_by(holder: Holder) -> Found:
    """All tensors are another layer's: exchanged with it, one of a chain, or alone."""
    named = in_prose(holder.name)
    if holder.swapped:
        what = f"its tensors are exchanged with those of {named}"
        return Found(State.ORDER, what, numbers=_holding("exchanged", holder), hint=OWN)
    if holder.chain:
        where = "before" if holder.offset < 0 else "after"
        what = f"it holds what the layer {where} it had, {named}"
        detail = f"So does {in_prose(holder.chain)}: the layers are shifted by one."
        return Found(State.ORDER, what, detail, numbers=_holding("chain", holder), hint=OWN)
    detail = "The names differ in one word, as those of a network and its copy do."
    return Found(
        State.ORDER,
        f"it holds the tensors of {named}",
        detail if holder.branch else "",
        numbers=_holding("other-layer", holder),
        hint=OWN,
    )


def _holding(cause: str, holder: Holder) -> dict[str, Value]:
    return {
        "cause": cause,
        "holds": holder.name,
        "offset": holder.offset,
        "branch": holder.branch,
    }


def _tells(vectors: Mapping[str, FloatArray]) -> bool:
    """Whether the statistics differ between channels, in values that are not whole numbers."""
    rows = _matrix(vectors, list(STATISTICS))
    return len(np.unique(rows[~round_numbers(rows)], axis=0)) > 1
