"""Layers that did not move: bit for bit, up to the rounding of a dtype, or but for the counter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.changes.pair import Files, LayerPair, agree, as_dtype, coarser, narrower
from bncli.changes.states.missing import NEUTRAL
from bncli.light import np
from bncli.model.changes import Found, Same, State
from bncli.rulebook.interface import percent
from bncli.rulebook.layers import plain_count

if TYPE_CHECKING:
    from bncli.report import Value


def find(pair: LayerPair, files: Files) -> Found | None:  # noqa: ARG001  # as every `find`
    """IDENTICAL, ROUNDED, COUNTER, or CONVENTION for another stored eps; None where it moved."""
    kinds = {*pair.same.values(), pair.before} - {None}
    if not pair.same or Same.MOVED in kinds:
        return None
    dtype = rounded_to(pair)
    if not _same_count(pair, dtype):
        a, b = pair.a.counter, pair.b.counter
        assert a is not None
        assert b is not None
        return Found(
            State.COUNTER,
            f"only the counter changed, from {plain_count(a)} to {plain_count(b)}",
            numbers={"cause": "counter"},
            hint="Nothing needs fixing unless momentum is None, where the counter is a weight.",
        )
    if (other := _other_eps(pair)) is not None:
        return other
    if kinds == {Same.SAME}:
        numbers = {"cause": "identical", **_neutral(pair)}
        return Found(State.IDENTICAL, "bit for bit", numbers=numbers)
    if pair.of(*pair.same) is Same.SAME:
        what = "the layer's bits are equal, the weights before it are rounded"
        numbers = {"cause": "before-rounded", **_neutral(pair)}
        return Found(State.ROUNDED, what, numbers=numbers)
    return Found(
        State.ROUNDED,
        f"up to the rounding of {dtype}" if dtype else "the same values in other bits",
        numbers={
            "cause": "rounded" if dtype else "same-values",
            "dtype": dtype or None,
            **_neutral(pair),
        },
    )


def _other_eps(pair: LayerPair) -> Found | None:
    """CONVENTION where both files store eps, and the outputs differ by it; else None."""
    a, b = pair.a.layer, pair.b.layer
    if a.eps_assumed or b.eps_assumed or a.var is None or b.var is None:
        return None
    with np.errstate(all="ignore"):
        scales = [np.sqrt(a.var + each.eps) for each in (a, b)]
        off = np.abs(scales[0] / scales[1] - 1)
    # The same number may be kept as float32 in one file and as text in the other; what that does
    # is within the rounding of the numbers.
    if agree(scales[1], scales[0], pair.dtype("running_var")).all():
        return None
    return Found(
        State.CONVENTION,
        f"eps is {a.eps:.4g} in the first file, {b.eps:.4g} in the second",
        f"All tensors are equal. Outputs differ by up to {percent(float(np.nanmax(off)))}.",
        numbers={"cause": "eps", "eps": a.eps, "other_eps": b.eps},
        hint=f"Give the second file's layers eps={a.eps:.4g}.",
    )


def _neutral(pair: LayerPair) -> dict[str, Value]:
    """The tensors that one file alone has, and that are 1 or 0: without them nothing changes."""
    sides = (("neutral_in_first", pair.a, pair.b), ("neutral_in_second", pair.b, pair.a))
    return {
        name: alone
        for name, side, other in sides
        if (
            alone := [
                leaf
                for leaf in NEUTRAL
                if side.vector(leaf) is not None and leaf not in other.layer.shapes
            ]
        )
    }


def rounded_to(pair: LayerPair) -> str:
    """The dtype to which the one or the other was rounded, "" where none was."""
    leaves = [leaf for leaf, same in pair.same.items() if same is Same.ROUNDED]
    for leaf in leaves:
        a, b = pair.a.layer.dtypes[leaf], pair.b.layer.dtypes[leaf]
        if a != b:
            return coarser(a, b)
    # float16 comes first, as it keeps more digits, so that it is not taken for bfloat16.
    for dtype in narrower(pair.a.layer.dtypes[leaves[0]]) if leaves else ():
        if all(_equal_in(pair, leaf, dtype) for leaf in leaves):
            return dtype
    return ""


def _equal_in(pair: LayerPair, leaf: str, dtype: str) -> bool:
    """Whether one of the two is the other, rounded to a dtype."""
    ours, theirs = pair.a.vector(leaf), pair.b.vector(leaf)
    assert ours is not None
    assert theirs is not None
    return any(
        np.array_equal(as_dtype(one, dtype), other, equal_nan=True)
        for one, other in ((ours, theirs), (theirs, ours))
    )


def _same_count(pair: LayerPair, dtype: str) -> bool:
    """Whether the counters are equal, perhaps in a dtype that rounds them, or one is missing."""
    a, b = pair.a.counter, pair.b.counter
    if a is None or b is None or a == b:
        return True
    if not dtype:
        return False
    one, two = as_dtype(np.array([a, b], np.float64), dtype)
    return bool(one == b or two == a)
